use nave_machinery::Value;
use serde_json::json;

use super::*;
use crate::Operation;
use crate::testing::{MemoryCluster, Request, registry};

fn matcher(cluster: &MemoryCluster) -> Matcher {
    cluster.matcher(registry())
}

fn rule(groups: &str, versions: &str, resources: &[&str], operations: &[&str]) -> Value {
    json!({"apiGroups": [groups], "apiVersions": [versions], "resources": resources, "operations": operations})
}

fn webhook(rules: &[Value], fields: Value) -> Criteria {
    let mut webhook = fields;
    webhook["rules"] = json!(rules);
    Criteria::of_webhook(&webhook)
}

/// Returns what the criteria match: the matched resource, `-`, or the code of the error.
async fn matched(cluster: &MemoryCluster, criteria: &Criteria, request: &Request<'_>) -> String {
    let old = Object::try_from(request.old.clone()).ok();
    let object = Object::try_from(request.object.clone()).ok();
    let name = [&request.object, &request.old].map(nave_machinery::meta::name).concat();
    let attributes = request.attributes(&name, old.as_ref());
    let index = Index::new([criteria]);
    let matcher = matcher(cluster);
    let found = matcher.request(&attributes).matches(criteria, object.as_ref()).await;
    if matches!(found, Ok(Some(_)) | Err(_)) {
        let request = matcher.request(&attributes);
        for object in [NewObject::Changing, NewObject::Final(object.as_ref())] {
            assert_eq!(request.candidates(&index, object), [0], "the index finds what matches");
        }
        assert!(index.has_candidates(&attributes));
    }
    match found {
        Ok(None) => "-".to_owned(),
        Ok(Some(MatchedResource { resource, kind })) => {
            format!("{}/{}/{}:{}", resource.group, resource.version, resource.resource, kind.kind)
        }
        Err(status) => status.code.to_string(),
    }
}

fn pod(labels: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "labels": labels}})
}

#[tokio::test]
async fn rules_match_resources_operations_and_scopes() {
    let cluster = MemoryCluster::default();
    let pods = |operation: &str, subresource| {
        let (object, old) = match operation {
            "CREATE" => (pod(json!({})), Value::Null),
            "UPDATE" => (pod(json!({})), pod(json!({}))),
            _ => (Value::Null, pod(json!({}))),
        };
        Request::new(registry(), "", "pods", object, old).with_subresource(subresource)
    };
    let all = ["*"];
    for (rule, request, expected) in [
        (rule("", "v1", &["pods"], &["CREATE"]), pods("CREATE", ""), "/v1/pods:Pod"),
        (rule("", "v1", &["pods"], &["CREATE"]), pods("UPDATE", ""), "-"),
        (rule("", "v1", &["pods"], &["CREATE"]), pods("CREATE", "binding"), "-"),
        (rule("", "v1", &["pods/*"], &all), pods("UPDATE", "status"), "/v1/pods:Pod"),
        (rule("", "v1", &["pods/*"], &all), pods("DELETE", ""), "/v1/pods:Pod"),
        (rule("*", "*", &["*/status"], &all), pods("UPDATE", "status"), "/v1/pods:Pod"),
        (rule("*", "*", &["*/status"], &all), pods("UPDATE", ""), "-"),
        (rule("*", "*", &["*"], &all), pods("UPDATE", "status"), "-"),
        (rule("*", "*", &["*/*"], &["UPDATE"]), pods("UPDATE", "status"), "/v1/pods:Pod"),
        (rule("*", "*", &["*/*"], &["UPDATE"]), pods("DELETE", ""), "-"),
        (rule("apps", "v1", &["pods"], &all), pods("CREATE", ""), "-"),
        (rule("", "v2", &["pods"], &all), pods("CREATE", ""), "-"),
        (rule("", "v1", &["services", "pods"], &all), pods("CREATE", ""), "/v1/pods:Pod"),
    ] {
        let criteria = webhook(&[rule.clone()], json!({}));
        let found = matched(&cluster, &criteria, &request).await;
        assert_eq!(found, expected, "{rule} {} {}", request.operation, request.subresource);
    }
    let namespace = json!({"metadata": {"name": "ns"}});
    for (scope, of_pod, of_node, of_namespace) in [
        ("*", "/v1/pods:Pod", "/v1/nodes:Node", "/v1/namespaces:Namespace"),
        ("Namespaced", "/v1/pods:Pod", "-", "-"),
        ("Cluster", "-", "/v1/nodes:Node", "/v1/namespaces:Namespace"),
        ("Other", "-", "-", "-"),
    ] {
        let mut any = rule("*", "*", &["*"], &["*"]);
        any["scope"] = json!(scope);
        let criteria = webhook(&[any], json!({}));
        let node = Request::new(registry(), "", "nodes", json!({"metadata": {"name": "n"}}), Value::Null);
        let namespace = Request::new(registry(), "", "namespaces", namespace.clone(), Value::Null);
        assert_eq!(matched(&cluster, &criteria, &pods("CREATE", "")).await, of_pod, "{scope}");
        assert_eq!(matched(&cluster, &criteria, &node).await, of_node, "{scope}");
        assert_eq!(matched(&cluster, &criteria, &namespace).await, of_namespace, "{scope}");
    }
}

#[tokio::test]
async fn equivalent_resources_match_other_versions_and_groups() {
    let cluster = MemoryCluster::default();
    let object = json!({"metadata": {"name": "x"}});
    for (requested, rule, policy, expected) in [
        (("autoscaling", "horizontalpodautoscalers"), ("autoscaling", "v1"), "Equivalent", "autoscaling/v1"),
        (("autoscaling", "horizontalpodautoscalers"), ("autoscaling", "v1"), "Exact", "-"),
        (("autoscaling", "horizontalpodautoscalers"), ("autoscaling", "v3"), "Equivalent", "-"),
        (("", "events"), ("events.k8s.io", "v1"), "Equivalent", "events.k8s.io/v1"),
        (("events.k8s.io", "events"), ("", "v1"), "Equivalent", "/v1"),
        (("", "events"), ("events.k8s.io", "v1"), "Exact", "-"),
        (("", "pods"), ("events.k8s.io", "v1"), "Equivalent", "-"),
    ] {
        let request = Request::new(registry(), requested.0, requested.1, object.clone(), Value::Null);
        for resources in [requested.1, "*"] {
            let rules = [self::rule(rule.0, rule.1, &[resources], &["CREATE"])];
            let criteria = webhook(&rules, json!({"matchPolicy": policy}));
            let found = matched(&cluster, &criteria, &request).await;
            let found = found.rsplit_once('/').map_or(found.as_str(), |(group_version, _)| group_version);
            assert_eq!(found, expected, "{requested:?} {rule:?} {policy} {resources}");
        }
    }
    // The kind of a subresource is the same in all versions.
    let scale = json!({"metadata": {"name": "d"}});
    let request =
        Request::new(registry(), "apps", "deployments", scale.clone(), scale).with_subresource("scale");
    let criteria = webhook(&[rule("apps", "v1", &["deployments/scale"], &["UPDATE"])], json!({}));
    assert!(matched(&cluster, &criteria, &request).await.starts_with("apps/v1/deployments:"));
}

#[tokio::test]
async fn object_selectors_match_the_new_or_the_old_object() {
    let cluster = MemoryCluster::default();
    let criteria = webhook(
        &[rule("", "v1", &["pods"], &["*"])],
        json!({"objectSelector": {"matchLabels": {"guard": "on"}}}),
    );
    let (on, off) = (pod(json!({"guard": "on"})), pod(json!({"guard": "off"})));
    for (object, old, matches) in [
        (on.clone(), Value::Null, true),
        (off.clone(), Value::Null, false),
        (on.clone(), off.clone(), true),
        (off.clone(), on.clone(), true),
        (off.clone(), off.clone(), false),
        (Value::Null, on.clone(), true),
        (Value::Null, off.clone(), false),
    ] {
        let request = Request::new(registry(), "", "pods", object.clone(), old.clone());
        let found = matched(&cluster, &criteria, &request).await;
        assert_eq!(found != "-", matches, "{object} {old}");
    }
}

#[tokio::test]
async fn namespace_selectors_match_the_labels_of_the_namespace() {
    let cluster = MemoryCluster::default();
    cluster.namespaces.put_uncached(json!({"metadata": {"name": "ns", "labels": {"tier": "gold"}}}));
    let selecting = |tier: &str| {
        webhook(
            &[rule("*", "*", &["*"], &["*"])],
            json!({"namespaceSelector": {"matchLabels": {"tier": tier}}}),
        )
    };
    let pods = Request::new(registry(), "", "pods", pod(json!({})), Value::Null);
    // The watch cache does not have the namespace yet.
    assert_eq!(matched(&cluster, &selecting("gold"), &pods).await, "/v1/pods:Pod");
    assert_eq!(matched(&cluster, &selecting("tin"), &pods).await, "-");
    let namespace = |tier: &str| json!({"metadata": {"name": "ns", "labels": {"tier": tier}}});
    for (object, old, tier, matches) in [
        (namespace("tin"), Value::Null, "tin", true),
        (namespace("tin"), namespace("gold"), "tin", true),
        (namespace("tin"), namespace("gold"), "gold", false),
        (Value::Null, namespace("tin"), "gold", true),
        (Value::Null, namespace("tin"), "tin", false),
    ] {
        let request = Request::new(registry(), "", "namespaces", object.clone(), old.clone());
        let found = matched(&cluster, &selecting(tier), &request).await;
        assert_eq!(found != "-", matches, "{object} {old} {tier}");
    }
    let node = Request::new(registry(), "", "nodes", json!({"metadata": {"name": "n"}}), Value::Null);
    assert_eq!(matched(&cluster, &selecting("tin"), &node).await, "/v1/nodes:Node", "cluster-scoped");
    let mut stray = Request::new(registry(), "", "pods", pod(json!({})), Value::Null);
    stray.namespace = "missing";
    assert_eq!(matched(&cluster, &selecting("gold"), &stray).await, "404");
    // Rules that do not match hide the error.
    let mut criteria = selecting("gold");
    criteria.rules.clear();
    assert_eq!(matched(&cluster, &criteria, &stray).await, "-");
}

#[tokio::test]
async fn match_resources_exclude_and_name() {
    let cluster = MemoryCluster::default();
    let request = Request::new(registry(), "", "pods", pod(json!({})), Value::Null);
    let named = |name: &str| {
        let mut rule = rule("", "v1", &["pods"], &["*"]);
        rule["resourceNames"] = json!([name]);
        rule
    };
    let all = rule("*", "*", &["*"], &["*"]);
    for (resources, matches) in [
        (json!({}), true),
        (json!({"resourceRules": [named("p")]}), true),
        (json!({"resourceRules": [named("q")]}), false),
        (json!({"resourceRules": [all], "excludeResourceRules": [named("p")]}), false),
        (json!({"resourceRules": [all], "excludeResourceRules": [named("q")]}), true),
        (json!({"excludeResourceRules": [all]}), false),
    ] {
        let criteria = Criteria::of_match_resources(&resources);
        assert_eq!(matched(&cluster, &criteria, &request).await != "-", matches, "{resources}");
    }
}

#[test]
fn candidates_are_in_order_and_unique() {
    let any = webhook(&[rule("*", "*", &["*"], &["*"])], json!({}));
    let creates = webhook(
        &[rule("", "v1", &["pods", "pods/status"], &["CREATE"]), rule("*", "v1", &["pods"], &["CREATE"])],
        json!({}),
    );
    let others = webhook(&[rule("apps", "v1", &["*"], &["*"])], json!({}));
    let index = Index::new([&others, &creates, &any, &others, &creates]);
    let request = Request::new(registry(), "", "pods", pod(json!({})), Value::Null);
    assert_eq!(index.candidates(&request.attributes("p", None), |_, _| None), [1, 2, 4]);
    let mut deletion = Request::new(registry(), "", "pods", Value::Null, pod(json!({})));
    deletion.operation = Operation::Delete;
    assert_eq!(index.candidates(&deletion.attributes("p", None), |_, _| None), [2]);
    assert!(!index.is_empty() && Index::default().is_empty());
}

#[tokio::test]
async fn required_labels_leave_out_criteria_that_cannot_match() {
    let cluster = MemoryCluster::default();
    cluster.namespaces.put(json!({"metadata": {"name": "ns", "labels": {"tier": "gold"}}}));
    let rules = [rule("*", "*", &["*"], &["*"])];
    let requiring = |fields| webhook(&rules, fields);
    let (gold, tin) = (json!({"matchLabels": {"tier": "gold"}}), json!({"matchLabels": {"tier": "tin"}}));
    let metals = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["tin", "gold"]}]});
    let not_gold = json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["gold"]}]});
    let criteria = [
        requiring(json!({"namespaceSelector": gold})),
        requiring(json!({"namespaceSelector": tin})),
        requiring(json!({"namespaceSelector": metals})),
        requiring(json!({"namespaceSelector": not_gold})),
        requiring(json!({"objectSelector": gold})),
        requiring(json!({"objectSelector": tin})),
        requiring(json!({"namespaceSelector": gold, "objectSelector": tin})),
        requiring(json!({})),
    ];
    let index = Index::new(&criteria);
    let pods = |object: Value, old: Value| Request::new(registry(), "", "pods", object, old);
    let namespace = json!({"metadata": {"name": "ns", "labels": {"tier": "tin"}}});
    let node = Request::new(registry(), "", "nodes", json!({"metadata": {"name": "n"}}), Value::Null);
    let mut stray = pods(pod(json!({"tier": "gold"})), Value::Null);
    stray.namespace = "missing";
    let all_namespaces = [0, 1, 2, 3, 6, 7];
    for (request, changing, last) in [
        (pods(pod(json!({})), Value::Null), &[0, 2, 3, 4, 5, 6, 7][..], &[0, 2, 3, 6, 7][..]),
        (pods(pod(json!({"tier": "tin"})), Value::Null), &[0, 2, 3, 4, 5, 6, 7], &[0, 2, 3, 5, 6, 7]),
        (pods(pod(json!({})), pod(json!({"tier": "gold"}))), &[0, 2, 3, 4, 5, 6, 7], &[0, 2, 3, 4, 6, 7]),
        (node, &[0, 1, 2, 3, 4, 5, 6, 7], &all_namespaces),
        // The labels of a written namespace are those of the object.
        (
            Request::new(registry(), "", "namespaces", namespace, Value::Null),
            &[0, 1, 2, 3, 4, 5, 6, 7],
            &[0, 1, 2, 3, 5, 6, 7],
        ),
        (stray, &[0, 1, 2, 3, 4, 5, 6, 7], &[0, 1, 2, 3, 4, 6, 7]),
    ] {
        let [object, old] = [&request.object, &request.old].map(|it| Object::try_from(it.clone()).ok());
        let attributes = request.attributes("x", old.as_ref());
        let matcher = matcher(&cluster);
        let matcher = matcher.request(&attributes);
        assert_eq!(matcher.candidates(&index, NewObject::Changing), changing, "{}", request.object);
        let object = NewObject::Final(object.as_ref());
        assert_eq!(matcher.candidates(&index, object), last, "{}", request.object);
    }
}
