//! A tenant with all rights in one namespace can read only that namespace, and can grant only rights that it holds.

use base64::Engine;
use nave_machinery::GroupVersionResource;
use serde_json::{Value, json};

use crate::common::{Call, Cluster, check, cluster_role_in, collection, namespace, row};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Starts a cluster: `owner` is `admin` of the namespace `own` and may write roles there. `viewer` may read in `own`.
/// `own` and `other` contain the same objects.
async fn cluster() -> Cluster {
    let mut objects = vec![namespace("own"), namespace("other")];
    objects.extend(["own", "other"].into_iter().flat_map(objects_in));
    objects.push(cluster_role_in("own", "admin", "owner"));
    objects.push(cluster_role_in("own", "view", "viewer"));
    objects.push(cluster_role_in("own", "cluster-admin", "root"));
    Cluster::start(&objects).await
}

fn objects_in(namespace: &str) -> Vec<Value> {
    let metadata = |name: &str| json!({"namespace": namespace, "name": name, "labels": {"a": "b"}});
    let container = json!({"name": "c", "image": "i"});
    let pods = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
    let selector = json!({"matchLabels": {"a": "b"}});
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("default")}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("x")}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("x")}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("y")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("x")}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata("x"), "spec": {"containers": [container]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("x"), "spec": {"ports": [{"port": 80}]}}),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("x"),
            "spec": {"selector": selector, "template": pods},
        }),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata("x"), "spec": {}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata("x"),
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
        }),
    ]
}

/// Lists and watches of any form contain only objects of the namespace in their path.
#[tokio::test]
async fn lists_and_watches_have_objects_of_the_own_namespace_only() {
    let cluster = cluster().await;
    let forged = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(json!({"v": "meta.k8s.io/v1", "rv": -1, "start": "../other/x\u{0}"}).to_string());
    let queries = [
        String::new(),
        "?watch=1".to_owned(),
        "?watch=1&fieldSelector=metadata.namespace%3Dother".to_owned(),
        "?fieldSelector=metadata.namespace%3Dother".to_owned(),
        "?fieldSelector=metadata.namespace!%3Down".to_owned(),
        "?labelSelector=a%3Db".to_owned(),
        "?namespace=other".to_owned(),
        "?resourceVersion=0".to_owned(),
        "?limit=1".to_owned(),
        format!("?continue={forged}"),
        format!("?limit=500&continue={forged}"),
    ];
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for who in ["root", "owner", "viewer"] {
        let client = cluster.named(who);
        for def in cluster.storages.registry().all().filter(|def| def.namespaced) {
            for version in &def.versions {
                let gvr = GroupVersionResource::new(&def.group, &version.name, &def.resource);
                let own = collection(&gvr, "own");
                let watch = own.replacen("/namespaces/", "/watch/namespaces/", 1);
                let lines = queries.iter().map(|query| format!("GET {own}{query}"));
                for line in lines.chain([format!("GET {watch}"), format!("GET {watch}/x")]) {
                    let text = client.call(&line).await.text();
                    seen += usize::from(text.contains(r#""namespace":"own""#));
                    if text.contains(r#""namespace":"other""#) {
                        wrong.push(format!("{who}: {line}: {text}"));
                    }
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} answers hold objects");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A continue token of one namespace cannot be used in another one.
#[tokio::test]
async fn a_continue_token_is_useless_in_another_namespace() {
    let cluster = cluster().await;
    let page = cluster.admin().call("GET /api/v1/namespaces/other/configmaps?limit=1").await;
    let token = page.value_at("/metadata/continue").as_str().unwrap().to_owned();
    let all = cluster.admin().call("GET /api/v1/configmaps?limit=5").await;
    let of_all = all.value_at("/metadata/continue").as_str().unwrap().to_owned();
    for token in [token, of_all] {
        let line = format!("GET /api/v1/namespaces/own/configmaps?continue={token}");
        let answer = cluster.user("owner").call(&line).await;
        assert!(!answer.text().contains(r#""namespace":"other""#), "{}", answer.text());
    }
}

#[tokio::test]
async fn rights_that_are_not_held_cannot_be_granted() {
    let cluster = cluster().await;
    let role = |rules: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "r"}, "rules": rules,
        })
    };
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| {
        role(json!([{"apiGroups": groups, "resources": resources, "verbs": verbs}]))
    };
    let binding = |kind: &str, name: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "owner"}],
        })
    };
    let roles = format!("POST {RBAC}/namespaces/own/roles");
    let bindings = format!("POST {RBAC}/namespaces/own/rolebindings");
    let many = |word: &str| (0..60).map(|number| format!("{word}{number}")).collect::<Vec<_>>();
    let wide = role(json!([{
        "apiGroups": many("g"), "resources": many("r"), "verbs": many("v"), "resourceNames": many("n"),
    }]));
    check(
        &cluster,
        &[
            row("owner", &roles, rule(&["*"], &["*"], &["*"]), 403),
            row("owner", &roles, rule(&[""], &["*"], &["get"]), 403),
            row("owner", &roles, rule(&[""], &["nodes"], &["get"]), 403)
                .containing(r#"Resources:[\"nodes\"]"#),
            row("owner", &roles, rule(&[""], &["pods", "nodes"], &["get", "list"]), 403),
            // 13 million combinations in less than 2 KB.
            row("owner", &roles, wide.clone(), 403).containing("more"),
            row("root", &format!("{roles}?dryRun=All"), wide, 201),
            row("owner", &bindings, binding("ClusterRole", "cluster-admin"), 403),
            row("owner", &bindings, binding("ClusterRole", "system:node"), 403),
            row("owner", &bindings, binding("Role", "x"), 201),
            row("owner", &format!("POST {RBAC}/namespaces/other/rolebindings"), binding("Role", "x"), 403),
            row("owner", &format!("POST {RBAC}/clusterrolebindings"), binding("ClusterRole", "view"), 403),
            row("owner", &roles, rule(&[""], &["pods"], &["get", "list"]), 201),
            row(
                "owner",
                &format!("PATCH {RBAC}/namespaces/own/roles/r"),
                json!({"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]}),
                403,
            ),
            row("owner", &format!("PUT {RBAC}/namespaces/own/roles/r"), rule(&["*"], &["*"], &["*"]), 403),
            row("viewer", &roles, rule(&[""], &["pods"], &["get"]), 403),
        ],
    )
    .await;
}

/// The error for a role with a large product of rules is small.
#[tokio::test]
async fn a_refused_role_is_answered_with_a_bounded_message() {
    let cluster = cluster().await;
    let many = |word: &str| (0..200).map(|number| format!("{word}{number}")).collect::<Vec<_>>();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
        "rules": [{"apiGroups": many("g"), "resources": many("r"), "verbs": many("v"), "resourceNames": many("n")}],
    });
    let line = format!("POST {RBAC}/namespaces/own/roles");
    let answer = cluster.user("owner").call_with(&line, &role).await;
    assert_eq!(answer.code, 403);
    assert!(answer.body.len() < 256 << 10, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn impersonation_needs_the_right() {
    let cluster = cluster().await;
    let secrets = "GET /api/v1/namespaces/other/secrets";
    let none = Value::Null;
    check(
        &cluster,
        &[
            row("owner", secrets, none.clone(), 403).header("impersonate-user", "admin"),
            row("owner", secrets, none.clone(), 403)
                .header("impersonate-user", "owner")
                .header("impersonate-group", "system:masters"),
            row("owner", secrets, none.clone(), 403)
                .header("impersonate-user", "system:serviceaccount:other:x"),
            row("owner", secrets, none.clone(), 403).header("x-remote-group", "system:masters"),
            row("viewer", "GET /api/v1/namespaces/own/secrets", none.clone(), 403)
                .header("impersonate-user", "owner"),
            row("anonymous", secrets, none.clone(), 403).header("impersonate-user", "admin"),
            row("admin", secrets, none.clone(), 403).header("impersonate-user", "owner"),
            row("admin", secrets, none, 200),
        ],
    )
    .await;
}

/// The paths that users without rights and anonymous users can read.
#[tokio::test]
async fn users_without_rights_read_health_and_version() {
    let cluster = cluster().await;
    for (who, open) in [
        ("anonymous", &["/healthz", "/livez", "/readyz", "/version", "/version/", "/console/"][..]),
        ("nobody", &["/healthz", "/version", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v3"][..]),
    ] {
        let client = cluster.named(who);
        for path in open {
            assert_eq!(client.call(&format!("GET {path}")).await.code, 200, "{who} {path}");
        }
        for path in [
            "/metrics",
            "/metrics/",
            "//metrics",
            "/debug/api_cache",
            "/console/stream",
            "/console//stream",
            "/console/%73tream",
            "/console/style.css/../stream",
            "/version/../metrics",
            "/version/%2e%2e/metrics",
            "/healthz/../metrics",
            "//debug/api_cache",
            "/.well-known/openid-configuration",
            "/openid/v1/jwks",
            "/api/v1/pods",
            "/api/v1/namespaces/other/pods",
        ] {
            let answer = client.send(Call::new("GET", path)).await;
            assert!(matches!(answer.code, 403 | 404), "{who} {path}: {}", answer.code);
        }
    }
}

/// A review of a user's rules copies the rules, so only some of a large number are listed.
#[tokio::test]
async fn a_review_of_own_rules_is_bounded() {
    let mut objects = vec![namespace("own")];
    for number in 0..8 {
        let name = format!("r{number}");
        let words: Vec<String> = (0..30_000).map(|word| format!("{name}-{word:010}")).collect();
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"namespace": "own", "name": name},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": words}],
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"namespace": "own", "name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "owner"}],
        }));
    }
    let cluster = Cluster::start(&objects).await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "own"},
    });
    let line = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = cluster.user("owner").call_with(line, &review).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.value_at("/status/incomplete"), json!(true));
    assert!(answer.body.len() < 4 << 20, "{} bytes", answer.body.len());
    // The roles that are not listed still apply.
    let last = "GET /api/v1/namespaces/own/pods/r7-0000029999";
    check(&cluster, &[row("owner", last, Value::Null, 404)]).await;
}
