//! Tests of both plugins on a cluster in memory.

use nave_authz::Metrics as AuthzMetrics;
use nave_machinery::{Object, Value};
use serde_json::json;

use crate::chain::Plugin;
use crate::metrics::Metrics;
use crate::plugins::Parts;
use crate::policies::{mutating, validating};
use crate::testing::{MemoryCluster, Request, registry};

/// A cluster with the namespace `ns`, and one of the plugins with its policies and bindings.
struct World {
    cluster: MemoryCluster,
    plugin: Plugin,
}

impl World {
    fn new(make: fn(&Parts, &Metrics) -> Plugin, policies: Vec<Value>, bindings: Vec<Value>) -> Self {
        let cluster = MemoryCluster::default();
        cluster.namespaces.put(json!({"metadata": {"name": "ns", "labels": {"team": "shop"}}}));
        let metrics = AuthzMetrics::new(&prometheus::Registry::new()).unwrap();
        let parts = cluster.parts(nave_authz::Chain::new(Vec::new(), metrics));
        let plugin = make(&parts, &Metrics::default());
        for (observation, objects) in plugin.observes.iter().zip([policies, bindings]) {
            let objects = objects.into_iter().map(|object| Object::try_from(object).unwrap());
            observation.observer.replace(objects.collect());
        }
        Self { cluster, plugin }
    }

    fn validating(policy: Value, actions: &[&str]) -> Self {
        let binding = binding(&policy, json!({"validationActions": actions}));
        Self::new(validating, vec![policy], vec![binding])
    }

    fn mutating(policies: Vec<Value>) -> Self {
        let bindings = policies.iter().map(|policy| binding(policy, json!({}))).collect();
        Self::new(mutating, policies, bindings)
    }

    /// Returns the code, the reason and the message of a refusal, and the warnings.
    async fn create(&self, object: Value) -> (Option<(u16, String, String)>, Vec<String>) {
        let mut request = request(object);
        let outcome = request.admit(&self.plugin).await.map_err(|status| {
            let reason = status.reason.map(|reason| format!("{reason:?}")).unwrap_or_default();
            (status.code, reason, status.message)
        });
        (outcome.err(), request.notes.take_warnings())
    }

    async fn mutated(&self, object: Value) -> Result<Value, String> {
        let mut request = request(object);
        request.admit(&self.plugin).await.map_err(|status| format!("{} {}", status.code, status.message))?;
        Ok(request.object)
    }
}

fn request(object: Value) -> Request<'static> {
    Request::new(registry(), "", "configmaps", object, Value::Null).by("alice", &[])
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}, "data": data})
}

/// A policy `p` for creates of config maps.
fn policy(spec: Value) -> Value {
    named_policy("p", spec)
}

fn named_policy(name: &str, mut spec: Value) -> Value {
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    spec["matchConstraints"] = json!({"resourceRules": [rule], "matchPolicy": "Equivalent"});
    json!({"metadata": {"name": name}, "spec": spec})
}

/// A binding of a policy with the same name.
fn binding(policy: &Value, mut spec: Value) -> Value {
    let name = &policy["metadata"]["name"];
    spec["policyName"] = name.clone();
    json!({"metadata": {"name": name}, "spec": spec})
}

fn refused(code: u16, reason: &str, why: &str) -> (u16, String, String) {
    let message = format!(
        "configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: {why}"
    );
    (code, reason.to_owned(), message)
}

#[tokio::test]
async fn refusals_have_the_message_and_reason_of_the_first_failed_validation() {
    let deny = |validations: Value| World::validating(policy(json!({"validations": validations})), &["Deny"]);
    let failed = "object.data.a == 'b'";
    for (validations, code, reason, why) in [
        (json!([{"expression": failed}]), 422, "Invalid", "failed expression: object.data.a == 'b'"),
        (json!([{"expression": failed, "message": " m "}]), 422, "Invalid", "m"),
        (
            json!([{"expression": failed, "message": "m", "messageExpression": "'is ' + object.data.a"}]),
            422,
            "Invalid",
            "is x",
        ),
        // A message that fails, is empty or has several lines is replaced by the fixed one.
        (
            json!([{"expression": failed, "message": "m", "messageExpression": "object.z"}]),
            422,
            "Invalid",
            "m",
        ),
        (json!([{"expression": failed, "message": "m", "messageExpression": "' '"}]), 422, "Invalid", "m"),
        (
            json!([{"expression": failed, "message": "m", "messageExpression": "'a\\nb'"}]),
            422,
            "Invalid",
            "m",
        ),
        // Messages cannot use the authorizer.
        (
            json!([{"expression": failed, "message": "m", "messageExpression": "authorizer.path('/').check('get').reason()"}]),
            422,
            "Invalid",
            "m",
        ),
        (json!([{"expression": failed, "message": "m", "reason": "Forbidden"}]), 403, "Forbidden", "m"),
        (
            json!([{"expression": "true"}, {"expression": failed, "message": "m", "reason": "RequestEntityTooLarge"}]),
            413,
            "RequestEntityTooLarge",
            "m",
        ),
        (
            json!([{"expression": "object.data.z == 'b'"}, {"expression": "false", "message": "later"}]),
            422,
            "Invalid",
            "expression 'object.data.z == 'b'' resulted in error: no such key: z",
        ),
    ] {
        let world = deny(validations.clone());
        let (refusal, _) = world.create(config_map(json!({"a": "x"}))).await;
        assert_eq!(refusal, Some(refused(code, reason, why)), "{validations}");
        assert_eq!(deny(json!([{"expression": failed}])).create(config_map(json!({"a": "b"}))).await.0, None);
    }
}

#[tokio::test]
async fn actions_warn_and_annotate_without_refusing() {
    let spec = json!({"validations": [{"expression": "true"}, {"expression": "false", "message": "no"}]});
    let world = World::validating(policy(spec), &["Warn", "Audit"]);
    let mut request = request(config_map(json!({})));
    assert!(request.admit(&world.plugin).await.is_ok());
    assert_eq!(
        request.notes.take_warnings(),
        ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': no"]
    );
    let annotation = r#"[{"message":"no","policy":"p","binding":"p","expressionIndex":1,"validationActions":["Warn","Audit"]}]"#;
    let annotations = request.notes.take_annotations();
    assert_eq!(annotations["validation.policy.admission.k8s.io/validation_failure"], annotation);
}

#[tokio::test]
async fn failing_audit_annotations_deny_whatever_the_action_is() {
    let spec = |value: &str, failure: &str| json!({"failurePolicy": failure, "auditAnnotations": [{"key": "k", "valueExpression": value}]});
    let world = |value, failure| World::validating(policy(spec(value, failure)), &["Audit"]);
    let why = "expression 'object.data.z' resulted in error: no such key: z";
    let failing = "object.data.z";
    // A dynamic value is no string, so an annotation converts it.
    let failing = format!("string({failing})");
    let why = why.replace("object.data.z'", "string(object.data.z)'");
    let (refusal, _) = world(&failing, "Fail").create(config_map(json!({}))).await;
    assert_eq!(refusal, Some(refused(422, "Invalid", &why)));
    assert_eq!(world(&failing, "Ignore").create(config_map(json!({}))).await.0, None);
    let annotated = world("' v '", "Fail");
    let mut request = request(config_map(json!({})));
    assert!(request.admit(&annotated.plugin).await.is_ok());
    assert_eq!(request.notes.take_annotations()["p/k"], "v");
}

#[tokio::test]
async fn parameters_are_collected_before_match_conditions() {
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "never", "expression": "false"}],
        "validations": [{"expression": "params.data.max == '1'", "message": "params"}],
    });
    let reference = |reference: Value| json!({"paramRef": reference, "validationActions": ["Deny"]});
    let world = |spec: &Value, param: Value| {
        let policy = policy(spec.clone());
        let binding = binding(&policy, reference(param));
        World::new(validating, vec![policy], vec![binding])
    };
    let missing = json!({"name": "gone", "parameterNotFoundAction": "Deny"});
    let (refusal, _) = world(&spec, missing).create(config_map(json!({}))).await;
    let why =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(refusal, Some(refused(422, "Invalid", why)));
    let allowed = json!({"name": "gone", "parameterNotFoundAction": "Allow"});
    assert_eq!(world(&spec, allowed).create(config_map(json!({}))).await.0, None);

    let mut matching = spec.clone();
    matching["matchConditions"] = json!([]);
    let selected =
        world(&matching, json!({"selector": {"matchLabels": {"a": "b"}}, "parameterNotFoundAction": "Deny"}));
    let param = |name: &str, max: &str| {
        selected.cluster.pods.put(json!({"metadata": {"name": name, "namespace": "ns", "labels": {"a": "b"}}, "data": {"max": max}}));
    };
    param("one", "1");
    assert_eq!(selected.create(config_map(json!({}))).await.0, None);
    param("two", "2");
    assert_eq!(selected.create(config_map(json!({}))).await.0, Some(refused(422, "Invalid", "params")));

    let mut unknown = matching.clone();
    unknown["paramKind"] = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
    let (refusal, _) = world(&unknown, json!({"name": "a"})).create(config_map(json!({}))).await;
    let message = refusal.unwrap().2;
    assert!(message.ends_with("ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Thing'"), "{message}");
}

#[tokio::test]
async fn the_namespace_is_null_in_match_conditions_only() {
    let team = "namespaceObject.metadata.labels.team == 'web'";
    let spec = json!({"validations": [{"expression": team, "message": "team"}]});
    let world = World::validating(policy(spec), &["Deny"]);
    assert_eq!(world.create(config_map(json!({}))).await.0, Some(refused(422, "Invalid", "team")));
    let spec = json!({"matchConditions": [{"name": "n", "expression": team}], "validations": [{"expression": "false"}]});
    let (refusal, _) = World::validating(policy(spec), &["Deny"]).create(config_map(json!({}))).await;
    let message = refusal.unwrap().2;
    assert!(message.contains(&format!("expression '{team}' resulted in error: no such key")), "{message}");
}

#[tokio::test]
async fn policies_without_bindings_and_policies_about_policies_do_nothing() {
    let spec = json!({"validations": [{"expression": "false"}]});
    let world = World::new(validating, vec![policy(spec.clone())], Vec::new());
    assert_eq!(world.create(config_map(json!({}))).await.0, None);
    let mut everything = policy(spec);
    let rule = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]});
    everything["spec"]["matchConstraints"]["resourceRules"] = json!([rule]);
    let world = World::validating(everything, &["Deny"]);
    let group = "admissionregistration.k8s.io";
    for (resource, expected) in [
        ("validatingadmissionpolicybindings", true),
        ("mutatingadmissionpolicies", true),
        ("validatingwebhookconfigurations", false),
    ] {
        let deletion =
            Request::new(registry(), group, resource, Value::Null, json!({"metadata": {"name": "x"}}));
        let admitted = deletion.validate(world.plugin.validate.as_ref().unwrap().as_ref()).await.is_ok();
        assert_eq!(admitted, expected, "{resource}");
    }
}

#[tokio::test]
async fn mutations_are_applied_in_order() {
    let world = World::mutating(vec![policy(json!({
        "variables": [{"name": "team", "expression": "namespaceObject.metadata.labels.team"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'team': variables.team}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a/b'), value: object.metadata.labels.team + '!'}]"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'test', path: '/data/x', value: 'other'}, JSONPatch{op: 'remove', path: '/data/x'}]"}},
        ],
    }))]);
    let object = world.mutated(config_map(json!({"x": "y"}))).await.unwrap();
    assert_eq!(object["metadata"]["labels"], json!({"team": "shop"}));
    // A failed test leaves the object as it is.
    assert_eq!(object["data"], json!({"x": "y", "a/b": "shop!"}));
}

#[tokio::test]
async fn failed_mutations_are_403_with_the_reason_invalid() {
    let mutate = |expression: &str, failure: &str| {
        let mutation =
            json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
        World::mutating(vec![policy(json!({"failurePolicy": failure, "mutations": [mutation]}))])
    };
    let error = |why: &str| Err(format!("403 policy 'p' with binding 'p' denied request: {why}"));
    let untyped = "error applying patch: failed to convert patch object to typed object: ";
    for (expression, why) in [
        ("Object{data: {'b': 2}}".to_owned(), None),
        ("Object{bogus: 1}".to_owned(), Some(format!("{untyped}.bogus: field not declared in schema"))),
        ("Object{immutable: null}".to_owned(), Some(format!("{untyped}.immutable: unexpected null"))),
        (
            "Object{metadata: Object.wrong{}}".to_owned(),
            Some("type mismatch: unexpected type name \"Object.wrong\", expected \"Object.metadata\", which matches field name path from root Object type".to_owned()),
        ),
        (
            "object.z == 1 ? Object{} : Object{}".to_owned(),
            Some("expression 'object.z == 1 ? Object{} : Object{}' resulted in error: no such key: z".to_owned()),
        ),
        ("'x'".to_owned(), Some("must evaluate to Object but got string".to_owned())),
    ] {
        let outcome = mutate(&expression, "Fail").mutated(config_map(json!({}))).await;
        match why {
            Some(why) => assert_eq!(outcome, error(&why)),
            None => assert!(outcome.unwrap_err().contains(".data.b: expected string"), "{expression}"),
        }
        assert_eq!(mutate(&expression, "Ignore").mutated(config_map(json!({}))).await, Ok(config_map(json!({}))));
    }
}

#[tokio::test]
async fn invalid_managed_fields_of_a_mutation_are_restored() {
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {}}});
    let mut object = config_map(json!({"a": "x"}));
    object["metadata"]["managedFields"] = json!([entry]);
    for (expression, restored) in [
        (r#"[JSONPatch{op: "add", path: "/metadata/managedFields", value: [{"manager": "x"}]}]"#, true),
        (r#"[JSONPatch{op: "replace", path: "/metadata/managedFields/0/operation", value: "X"}]"#, true),
        (r#"[JSONPatch{op: "remove", path: "/metadata/managedFields"}]"#, false),
    ] {
        let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
        let world = World::mutating(vec![policy(json!({"mutations": [mutation]}))]);
        let mut request = request(object.clone());
        request.admit(&world.plugin).await.unwrap();
        let expected = if restored { json!([entry]) } else { Value::Null };
        assert_eq!(request.object["metadata"]["managedFields"], expected, "{expression}");
        let warnings = request.notes.take_warnings();
        let has_warning = warnings.iter().any(|it| it.contains("in an invalid state after admission"));
        assert_eq!(has_warning, restored, "{warnings:?}");
    }
}

#[tokio::test]
async fn policies_that_allow_it_run_again_after_a_later_change() {
    let count = "[JSONPatch{op: 'add', path: '/data/runs', value: object.data.?runs.orValue('') + 'x'}]";
    let counting = |name: &str, again: &str| {
        let mutation =
            json!({"patchType": "JSONPatch", "jsonPatch": {"expression": count.replace("runs", name)}});
        named_policy(name, json!({"reinvocationPolicy": again, "mutations": [mutation]}))
    };
    let world = World::mutating(vec![counting("a", "IfNeeded"), counting("b", "Never")]);
    let parts = vec![("MutatingAdmissionPolicy", world.plugin.clone())];
    let chain = crate::Chain::new(parts, Metrics::default());
    let request = request(config_map(json!({})));
    let attributes = request.attributes("c", None);
    let mut object = Object::try_from(request.object.clone()).unwrap();
    chain.mutate(&attributes, Some(&mut object)).await.unwrap();
    assert_eq!(object.value_at(&["data"]), Some(&json!({"a": "xx", "b": "x"})));
}

#[tokio::test]
async fn expensive_policies_end_at_their_budget() {
    let list = "[0,1,2,3,4,5,6,7,8,9]";
    let loops = format!(
        "{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, {list}.all(e, {list}.all(f, {list}.all(g, a + b + c + d + e + f + g >= 0)))))))"
    );
    let world = World::validating(policy(json!({"validations": [{"expression": loops}]})), &["Deny"]);
    let (refusal, _) = world.create(config_map(json!({}))).await;
    assert!(refusal.unwrap().2.ends_with("operation cancelled: actual cost limit exceeded"));
    let many: Vec<Value> = (0..12).map(|_| json!({"expression": format!("{loops} || true")})).collect();
    let world = World::validating(policy(json!({"validations": many})), &["Deny"]);
    let (refusal, _) = world.create(config_map(json!({}))).await;
    let why = "validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(refusal, Some(refused(422, "Invalid", why)));
}
