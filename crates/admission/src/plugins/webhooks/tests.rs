//! Webhooks over TLS, without a server for the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request as HttpRequest, Response};
use nave_machinery::{Object, Status, Value};
use nave_webhook::testing::HttpsServer;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Barrier;

use crate::Attributes;
use crate::chain::{Chain, Mutate, Plugin};
use crate::config::PluginConfig;
use crate::metrics::Metrics;
use crate::observe::ObjectChange;
use crate::testing::{MemoryCluster, Request, outcome, registry};

type Handler = Arc<dyn Fn(&Value) -> (u16, Vec<u8>) + Send + Sync>;

/// A webhook server whose paths have handlers, and the reviews that it received.
struct Hooks {
    server: HttpsServer,
    handlers: Arc<Mutex<BTreeMap<String, Handler>>>,
    reviews: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Hooks {
    async fn start() -> Self {
        let handlers: Arc<Mutex<BTreeMap<String, Handler>>> = Arc::default();
        let reviews: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (serving, seen) = (Arc::clone(&handlers), Arc::clone(&reviews));
        let answer = move |request: &HttpRequest<Bytes>| {
            let review: Value = serde_json::from_slice(request.body()).unwrap();
            let path = request.uri().path().to_owned();
            let handler = serving.lock().get(&path).cloned();
            seen.lock().push((path, review.clone()));
            let (status, body) = handler.map_or((404, Vec::new()), |handler| handler(&review));
            Response::builder().status(status).body(Bytes::from(body)).unwrap()
        };
        Self { server: HttpsServer::start(answer).await, handlers, reviews }
    }

    /// Serves a path with a function of the review that returns the `response`.
    fn respond(&self, path: &str, response: impl Fn(&Value) -> Value + Send + Sync + 'static) {
        self.serve(path, move |review| {
            let mut response = response(review);
            let fields = response.as_object_mut().unwrap();
            fields.entry("uid").or_insert_with(|| review["request"]["uid"].clone());
            fields.entry("allowed").or_insert(Value::Bool(true));
            (200, answer(&response))
        });
    }

    fn serve(&self, path: &str, handler: impl Fn(&Value) -> (u16, Vec<u8>) + Send + Sync + 'static) {
        self.handlers.lock().insert(path.to_owned(), Arc::new(handler));
    }

    fn calls(&self) -> Vec<String> {
        self.reviews.lock().drain(..).map(|(path, _)| path).collect()
    }

    /// A webhook for writes of pods at this path.
    fn hook(&self, path: &str, fields: Value) -> Value {
        let mut hook = json!({
            "name": format!("{}.example.com", &path[1..]),
            "clientConfig": {"url": self.server.url(path), "caBundle": BASE64_STANDARD.encode(&self.server.ca)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["*"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 10,
        });
        for (name, value) in fields.as_object().unwrap() {
            hook[name] = value.clone();
        }
        hook
    }
}

fn answer(response: &Value) -> Vec<u8> {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        .to_string()
        .into_bytes()
}

fn patch(operations: &Value) -> Value {
    json!({"patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(operations.to_string())})
}

/// Returns a plugin with these configurations, by name.
fn plugin(make: Make, configurations: &[(&str, Vec<Value>)]) -> Plugin {
    let cluster = MemoryCluster::default();
    cluster.namespaces.put(json!({"metadata": {"name": "ns"}}));
    let metrics = nave_authz::Metrics::new(&prometheus::Registry::new()).unwrap();
    let parts = cluster.parts(nave_authz::Chain::new(Vec::new(), metrics));
    let plugin = make(&parts, &PluginConfig::default(), &Metrics::default()).unwrap();
    configure(&plugin, configurations);
    plugin
}

type Make = fn(&crate::Parts, &PluginConfig, &Metrics) -> Result<Plugin, crate::ConfigError>;

fn configure(plugin: &Plugin, configurations: &[(&str, Vec<Value>)]) {
    let change = |(name, webhooks): &(&str, Vec<Value>)| ObjectChange {
        namespace: String::new(),
        name: (*name).to_owned(),
        object: Object::try_from(json!({"metadata": {"name": name}, "webhooks": webhooks})).ok(),
    };
    plugin.observes[0].observer.apply(configurations.iter().map(change).collect());
}

fn pod() -> Request<'static> {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "spec": {}});
    Request::new(registry(), "", "pods", pod, Value::Null)
}

async fn refusal(plugin: &Plugin, request: &mut Request<'_>) -> String {
    match outcome(request.admit(plugin).await) {
        Ok(()) => "admitted".to_owned(),
        Err((code, message)) => format!("{code} {message}"),
    }
}

#[tokio::test]
async fn reviews_describe_the_request() {
    let hooks = Hooks::start().await;
    hooks.respond("/a", |_| json!({"warnings": ["careful"], "auditAnnotations": {"k": "v"}}));
    let plugin = plugin(super::validating, &[("c", vec![hooks.hook("/a", json!({}))])]);
    let mut request = pod().by("jane", &["dev"]);
    request.user.extra.insert("scopes".to_owned(), vec!["x".to_owned()]);
    assert_eq!(refusal(&plugin, &mut request).await, "admitted");
    let (_, review) = hooks.reviews.lock().pop().unwrap();
    let uid = review["request"]["uid"].clone();
    assert!(uid.as_str().is_some_and(|uid| uid.len() == 36));
    let (kind, resource) = (
        json!({"group": "", "version": "v1", "kind": "Pod"}),
        json!({"group": "", "version": "v1", "resource": "pods"}),
    );
    let expected = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "p", "namespace": "ns", "operation": "CREATE", "dryRun": false,
            "userInfo": {"username": "jane", "groups": ["dev"], "extra": {"scopes": ["x"]}},
            "object": request.object, "oldObject": null,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    });
    assert_eq!(review, expected);
    assert_eq!(request.notes.take_warnings(), ["careful"]);
    assert_eq!(request.notes.take_annotations()["a.example.com/k"], "v");
}

#[tokio::test]
async fn mutating_webhooks_see_earlier_changes_in_order_of_configurations() {
    let hooks = Hooks::start().await;
    for path in ["/a", "/b", "/c"] {
        hooks.respond(path, move |review| {
            let seen = &review["request"]["object"]["metadata"]["labels"]["seen"];
            let seen = format!("{}{}", seen.as_str().unwrap_or_default(), &path[1..]);
            patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": seen}}]))
        });
    }
    let hook = |path| hooks.hook(path, json!({}));
    let plugin = plugin(super::mutating, &[("z", vec![hook("/a")]), ("b", vec![hook("/c"), hook("/b")])]);
    let mut request = pod();
    assert_eq!(refusal(&plugin, &mut request).await, "admitted");
    assert_eq!(request.object["metadata"]["labels"], json!({"seen": "cba"}));
    let mutation = r#"{"configuration":"z","mutated":true,"webhook":"a.example.com"}"#;
    let annotations = request.notes.take_annotations();
    assert_eq!(annotations["mutation.webhook.admission.k8s.io/round_0_index_2"], mutation);
}

/// A built-in plugin that counts its runs.
struct Counting(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Mutate for Counting {
    fn handles(&self, _: &Attributes<'_>) -> bool {
        true
    }

    async fn admit(&self, _: &Attributes<'_>, _: Option<&mut Object>) -> Result<(), Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn a_change_reinvokes_plugins_and_webhooks_that_request_it() {
    let label = |name: &str| patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {name: "x"}}]));
    for (answers, policies, calls, runs) in [
        // A change by the second webhook reinvokes the first, but not the second itself.
        ([None, Some("l")], ["IfNeeded", "IfNeeded"], vec!["/a", "/b", "/a"], 2),
        ([None, Some("l")], ["Never", "IfNeeded"], vec!["/a", "/b"], 2),
        ([Some("l"), None], ["IfNeeded", "IfNeeded"], vec!["/a", "/b"], 2),
        ([None, None], ["IfNeeded", "IfNeeded"], vec!["/a", "/b"], 1),
    ] {
        let hooks = Hooks::start().await;
        let mut webhooks = Vec::new();
        for ((path, label_of), policy) in ["/a", "/b"].into_iter().zip(answers).zip(policies) {
            let response = label_of.map_or(json!({}), label);
            hooks.respond(path, move |_| response.clone());
            webhooks.push(hooks.hook(path, json!({"reinvocationPolicy": policy})));
        }
        let count = Arc::new(AtomicUsize::new(0));
        let chain = Chain::new(
            vec![
                ("Counting", Plugin::mutating(Counting(Arc::clone(&count)))),
                ("MutatingAdmissionWebhook", plugin(super::mutating, &[("c", webhooks)])),
            ],
            Metrics::default(),
        );
        let request = pod();
        let mut object = Object::try_from(request.object.clone()).unwrap();
        chain.mutate(&request.attributes("p", None), Some(&mut object)).await.unwrap();
        assert_eq!(hooks.calls(), calls, "{answers:?} {policies:?}");
        assert_eq!(count.load(Ordering::Relaxed), runs, "{answers:?} {policies:?}");
    }
}

#[tokio::test]
async fn failures_follow_the_failure_policy() {
    let hooks = Hooks::start().await;
    let allowed = |uid: &Value| json!({"uid": uid, "allowed": true});
    let of = move |review: &Value| allowed(&review["request"]["uid"]);
    hooks.serve("/status500", |_| (500, b"oops".to_vec()));
    hooks.serve("/status404", |_| (404, b"gone".to_vec()));
    hooks.serve("/status302", |_| (302, Vec::new()));
    hooks.serve("/text", |_| (200, b"fine".to_vec()));
    hooks.serve("/empty", |_| (200, Vec::new()));
    hooks.serve("/absent", |_| {
        (200, br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_vec())
    });
    hooks.serve("/uid", move |_| (200, answer(&allowed(&json!("other")))));
    hooks.serve("/notype", move |review| (200, json!({"response": of(review)}).to_string().into_bytes()));
    hooks.serve("/kind", |_| (200, br#"{"apiVersion":"admission.k8s.io/v1","kind":"Verdict"}"#.to_vec()));
    hooks.respond("/wrongtype", |_| json!({"allowed": "yes"}));
    hooks.respond("/base64", |_| json!({"patchType": "JSONPatch", "patch": "***"}));
    hooks.respond("/patch", |_| patch(&json!([])));
    // 10 MB, more than an answer may have.
    hooks.respond("/huge", |_| json!({"warnings": ["x".repeat(10_000_000)]}));
    hooks.serve("/deep", |_| (200, [b"[".repeat(100_000), b"]".repeat(100_000)].concat()));
    for (path, why) in [
        ("/status500", "failed to call webhook: "),
        ("/status404", "failed to call webhook: the server could not find the requested resource"),
        ("/status302", "failed to call webhook: "),
        ("/text", "failed to call webhook: "),
        ("/empty", "failed to call webhook: "),
        ("/absent", "received invalid webhook response: webhook response was absent"),
        ("/uid", "received invalid webhook response: expected response.uid=\""),
        (
            "/notype",
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
        ),
        ("/kind", "failed to call webhook: "),
        ("/wrongtype", "failed to call webhook: "),
        ("/base64", "failed to call webhook: "),
        ("/patch", "received invalid webhook response: validating webhook may not return response.patch"),
        ("/huge", "failed to call webhook: "),
        ("/deep", "failed to call webhook: "),
    ] {
        for (policy, make) in [("Fail", super::validating as Make), ("Ignore", super::validating)] {
            let hook = hooks.hook(path, json!({"failurePolicy": policy}));
            let plugin = plugin(make, &[("c", vec![hook])]);
            let mut request = pod();
            let found = refusal(&plugin, &mut request).await;
            let start = format!(
                "500 Internal error occurred: failed calling webhook \"{}.example.com\": {why}",
                &path[1..]
            );
            let open = "failed-open.validating.webhook.admission.k8s.io/round_0_index_0";
            let is_open = request.notes.take_annotations().contains_key(open);
            if policy == "Fail" {
                assert!(found.starts_with(&start), "{path}: {found}");
                assert!(found.len() < 1000, "{path}: {}", found.len());
            } else {
                assert_eq!(found, "admitted", "{path}");
            }
            assert_eq!(is_open, policy == "Ignore", "{path}");
        }
    }
}

#[tokio::test]
async fn an_unreachable_or_silent_webhook_fails() {
    let silent = HttpsServer::start_async(|_| std::future::pending::<Option<Response<Bytes>>>()).await;
    let hooks = Hooks::start().await;
    let ca = BASE64_STANDARD.encode(&silent.ca);
    for (config, why) in [
        (json!({"url": silent.url("/x"), "caBundle": ca}), "/x?timeout=1s\": context deadline exceeded"),
        // The authority of another server.
        (json!({"url": hooks.server.url("/x"), "caBundle": ca}), "failed to call webhook: Post \"https://"),
        (
            json!({"service": {"name": "s", "namespace": "ns"}}),
            "failed to call webhook: Post \"https://s.ns.svc:443",
        ),
        (json!({}), "could not get REST client: "),
    ] {
        let fields = json!({"clientConfig": config, "timeoutSeconds": 1});
        let plugin = plugin(super::validating, &[("c", vec![hooks.hook("/x", fields)])]);
        let found = refusal(&plugin, &mut pod()).await;
        assert!(found.contains(why), "{config}: {found}");
    }
    assert!(hooks.calls().is_empty());
}

#[tokio::test]
async fn refusals_have_the_status_of_the_webhook() {
    let hooks = Hooks::start().await;
    let plugin = plugin(super::validating, &[("c", vec![hooks.hook("/a", json!({}))])]);
    let denied = "admission webhook \"a.example.com\" denied the request";
    for (status, code, reason, message) in [
        (Value::Null, 400, Value::Null, format!("{denied} without explanation")),
        (json!({"message": "no"}), 400, Value::Null, format!("{denied}: no")),
        (json!({"reason": "Conflict", "code": 409}), 409, json!("Conflict"), format!("{denied}: Conflict")),
        (json!({"reason": "Odd", "code": 777}), 777, json!("Odd"), format!("{denied}: Odd")),
        (
            json!({"status": "Success", "code": 201}),
            400,
            Value::Null,
            format!("{denied} without explanation"),
        ),
        (json!({"code": -5}), 400, Value::Null, format!("{denied} without explanation")),
    ] {
        let response = json!({"allowed": false, "status": status});
        hooks.respond("/a", move |_| response.clone());
        let refused = pod().admit(&plugin).await.unwrap_err();
        let shown = refused.to_value();
        assert_eq!(
            (refused.code, &shown["reason"], refused.message.as_str()),
            (code, &reason, message.as_str())
        );
    }
    hooks.respond("/a", |_| json!({"allowed": false, "status": {"details": {"causes": [{"field": "f"}]}}}));
    let refused = pod().admit(&plugin).await.unwrap_err();
    assert_eq!(refused.details.unwrap().causes[0].field, "f");
}

#[tokio::test]
async fn unusable_patches_are_refused() {
    let hooks = Hooks::start().await;
    let deep = (0..200).fold(json!(1), |value, _| json!({"a": value}));
    let many = json!(vec![json!({"op": "add", "path": "/spec/x", "value": 1}); 20_000]);
    let copies = json!(vec![json!({"op": "copy", "from": "/spec", "path": "/spec/x"}); 150]);
    for (operations, answer) in [
        (json!([{"op": "test", "path": "/kind", "value": "x"}]), "500 Internal error occurred: "),
        (json!([{"op": "remove", "path": "/none"}]), "500 Internal error occurred: "),
        (json!([{"op": "zap", "path": "/kind"}]), "500 Internal error occurred: "),
        (json!([{"op": "add", "path": "/spec/deep", "value": deep}]), "500 Internal error occurred: "),
        (many, "500 Internal error occurred: "),
        (copies, "500 Internal error occurred: "),
        (
            json!({"a": 1}),
            "500 Internal error occurred: failed calling webhook \"a.example.com\": received undecodable patch",
        ),
        (
            json!("x"),
            "500 Internal error occurred: failed calling webhook \"a.example.com\": received undecodable patch",
        ),
        (Value::Null, "admitted"),
        (json!([]), "admitted"),
    ] {
        let response = patch(&operations);
        hooks.respond("/a", move |_| response.clone());
        let plugin = plugin(super::mutating, &[("c", vec![hooks.hook("/a", json!({}))])]);
        let found = refusal(&plugin, &mut pod()).await;
        assert!(found.starts_with(answer), "{found}");
    }
    let response = patch(&json!([{"op": "remove", "path": "/kind"}]));
    hooks.respond("/a", move |_| response.clone());
    let plugin = plugin(super::mutating, &[("c", vec![hooks.hook("/a", json!({}))])]);
    let mut deletion = Request::new(registry(), "", "pods", Value::Null, pod().object);
    let found = refusal(&plugin, &mut deletion).await;
    assert!(found.ends_with("attempted to modify the object, which is not supported for this operation"));
}

#[tokio::test]
async fn invalid_managed_fields_of_a_webhook_are_restored() {
    let hooks = Hooks::start().await;
    hooks.respond("/a", |_| {
        patch(&json!([{"op": "replace", "path": "/metadata/managedFields/0/operation", "value": "X"}]))
    });
    let plugin = plugin(super::mutating, &[("c", vec![hooks.hook("/a", json!({}))])]);
    let mut request = pod();
    let entry = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {}}});
    request.object["metadata"]["managedFields"] = json!([entry]);
    assert_eq!(refusal(&plugin, &mut request).await, "admitted");
    assert_eq!(request.object["metadata"]["managedFields"], json!([entry]));
    let warnings = request.notes.take_warnings();
    assert!(warnings[0].starts_with(".metadata.managedFields was in an invalid state after admission"));
}

#[tokio::test]
async fn a_client_cannot_evade_webhooks_with_managed_fields_that_are_no_json() {
    let hooks = Hooks::start().await;
    hooks.respond("/a", |_| json!({"allowed": false, "status": {"code": 403, "message": "no"}}));
    let hook = hooks.hook("/a", json!({"failurePolicy": "Ignore"}));
    for make in [super::mutating as Make, super::validating] {
        let plugin = plugin(make, &[("c", vec![hook.clone()])]);
        let mut request = pod();
        let entries = json!([{"fieldsV1": "{"}, {"fieldsV1": "{}"}]);
        request.object["metadata"]["managedFields"] = entries.clone();
        let denial = "403 admission webhook \"a.example.com\" denied the request: no";
        assert_eq!(refusal(&plugin, &mut request).await, denial);
        let (_, review) = hooks.reviews.lock().pop().unwrap();
        assert_eq!(review["request"]["object"]["metadata"]["managedFields"], entries);
    }
}

#[tokio::test]
async fn dry_runs_call_only_webhooks_without_side_effects() {
    let hooks = Hooks::start().await;
    hooks.respond("/a", |_| json!({}));
    for (effects, expected) in [
        (json!("None"), "admitted"),
        (json!("NoneOnDryRun"), "admitted"),
        (json!("Some"), "400 admission webhook \"a.example.com\" does not support dry run"),
        (json!("Unknown"), "400 admission webhook \"a.example.com\" does not support dry run"),
        (
            Value::Null,
            "500 Internal error occurred: failed calling webhook \"a.example.com\": Webhook SideEffects is nil",
        ),
    ] {
        let hook = hooks.hook("/a", json!({"sideEffects": effects}));
        for make in [super::mutating as Make, super::validating] {
            let plugin = plugin(make, &[("c", vec![hook.clone()])]);
            let mut request = pod();
            request.options.dry_run = true;
            assert_eq!(refusal(&plugin, &mut request).await, expected, "{effects}");
            let calls = usize::from(expected == "admitted");
            assert_eq!(hooks.calls().len(), calls, "{effects}");
            assert_eq!(refusal(&plugin, &mut pod()).await, "admitted", "{effects}");
            hooks.calls();
        }
    }
}

#[tokio::test]
async fn configurations_and_policies_call_no_webhooks() {
    let hooks = Hooks::start().await;
    let any = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}]);
    let plugin = plugin(super::validating, &[("c", vec![hooks.hook("/none", json!({"rules": any}))])]);
    for resource in [
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ] {
        let object = json!({"metadata": {"name": "x"}});
        let mut request = Request::new(registry(), super::GROUP, resource, object, Value::Null);
        assert_eq!(refusal(&plugin, &mut request).await, "admitted", "{resource}");
    }
    assert!(hooks.calls().is_empty());
    assert!(refusal(&plugin, &mut pod()).await.starts_with("500"));
}

#[tokio::test]
async fn match_conditions_keep_requests_from_a_webhook() {
    let hooks = Hooks::start().await;
    hooks.respond("/a", |_| json!({}));
    for (expression, policy, expected, is_called) in [
        ("object.metadata.name == 'p'", "Fail", "admitted", true),
        ("object.metadata.name == 'q'", "Fail", "admitted", false),
        ("request.userInfo.username == 'jane'", "Fail", "admitted", true),
        ("object.spec.missing == 1", "Ignore", "admitted", false),
        ("object.spec.missing == 1", "Fail", "403 ", false),
    ] {
        let conditions = json!([{"name": "c", "expression": expression}]);
        let hook = hooks.hook("/a", json!({"matchConditions": conditions, "failurePolicy": policy}));
        let plugin = plugin(super::mutating, &[("c", vec![hook])]);
        let found = refusal(&plugin, &mut pod().by("jane", &[])).await;
        assert!(found.starts_with(expected), "{expression}: {found}");
        assert_eq!(hooks.calls().len(), usize::from(is_called), "{expression}");
    }
}

#[tokio::test]
async fn validating_webhooks_are_called_in_parallel() {
    // Each call waits for the other, so calls one after another would never end.
    let barrier = Arc::new(Barrier::new(2));
    let server = HttpsServer::start_async(move |request: HttpRequest<Bytes>| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            let review: Value = serde_json::from_slice(request.body()).ok()?;
            let response = json!({"uid": review["request"]["uid"], "allowed": true});
            Some(Response::new(Bytes::from(answer(&response))))
        }
    })
    .await;
    let hooks = Hooks::start().await;
    let client = json!({"url": server.url("/x"), "caBundle": BASE64_STANDARD.encode(&server.ca)});
    let hook = hooks.hook("/x", json!({"clientConfig": client}));
    let plugin = plugin(super::validating, &[("c", vec![hook.clone(), hook])]);
    let mut request = pod();
    let admitted = tokio::time::timeout(Duration::from_mins(1), refusal(&plugin, &mut request)).await;
    assert_eq!(admitted.unwrap(), "admitted");
}

#[tokio::test]
async fn many_requests_are_admitted_concurrently() {
    let hooks = Hooks::start().await;
    hooks.respond("/a", |review| {
        let name = review["request"]["name"].clone();
        patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {"of": name}}]))
    });
    let plugin = plugin(super::mutating, &[("c", vec![hooks.hook("/a", json!({}))])]);
    let requests = (0..64).map(|number| {
        let plugin = plugin.clone();
        async move {
            let mut request = pod();
            request.object["metadata"]["name"] = json!(format!("p{number}"));
            assert_eq!(refusal(&plugin, &mut request).await, "admitted");
            assert_eq!(request.object["metadata"]["labels"]["of"], request.object["metadata"]["name"]);
        }
    });
    join_all(requests).await;
}

#[tokio::test]
async fn a_changed_ca_bundle_applies_to_the_next_call() {
    let (hooks, other) = (Hooks::start().await, Hooks::start().await);
    hooks.respond("/a", |_| json!({}));
    let wrong = json!({"url": hooks.server.url("/a"), "caBundle": BASE64_STANDARD.encode(&other.server.ca)});
    let plugin = plugin(super::validating, &[("c", vec![hooks.hook("/a", json!({"clientConfig": wrong}))])]);
    assert!(refusal(&plugin, &mut pod()).await.starts_with("500"));
    configure(&plugin, &[("c", vec![hooks.hook("/a", json!({}))])]);
    assert_eq!(refusal(&plugin, &mut pod()).await, "admitted");
}
