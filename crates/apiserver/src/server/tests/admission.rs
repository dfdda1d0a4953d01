//! The writes that admission plugins see, with their options and users.

use async_trait::async_trait;
use nave_admission::{Attributes, Validate};
use nave_machinery::Object;
use parking_lot::Mutex;

use super::*;

/// An admitted write.
#[derive(Clone, Debug, PartialEq)]
struct Admitted {
    user: String,
    /// The operation, the resource with its subresource, and the name.
    what: String,
    options: Value,
}

/// Records all writes.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Admitted>>>);

#[async_trait]
impl Validate for Recorder {
    fn handles(&self, _: &Attributes<'_>) -> bool {
        true
    }

    async fn validate(&self, attributes: &Attributes<'_>, _: Option<&Object>) -> Result<(), Status> {
        let slash = if attributes.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", attributes.def.resource, attributes.subresource);
        self.0.lock().push(Admitted {
            user: attributes.user.name.clone(),
            what: format!("{} {resource} {}", attributes.operation, attributes.name),
            options: attributes.options_object(),
        });
        Ok(())
    }
}

impl Recorder {
    /// Returns the writes since the last call. A retried write is admitted twice but returned once.
    fn take(&self) -> Vec<Admitted> {
        let mut writes = std::mem::take(&mut *self.0.lock());
        writes.dedup();
        writes
    }

    /// Returns the writes since the last call, without their options.
    fn take_short(&self) -> Vec<String> {
        self.take().into_iter().map(|write| format!("{} by {}", write.what, write.user)).collect()
    }
}

async fn start() -> (Fixture, Recorder) {
    let recorder = Recorder::default();
    let plugin = Plugin::validating(recorder.clone());
    let given = vec![("ValidatingAdmissionWebhook", plugin)];
    let fixture = Fixture::start_with(InflightLimits::default(), LONG, given).await;
    (fixture, recorder)
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const ANONYMOUS: &str = "system:anonymous";

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// Returns the default service account of pods.
fn account() -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}})
}

impl Fixture {
    /// Sends a request that must succeed.
    async fn succeed(&self, method: Method, uri: &str, body: &Value) -> Value {
        let (code, answer) = self.send(method.clone(), uri, body).await;
        assert!((200..300).contains(&code), "{method} {uri}: {answer}");
        answer
    }
}

#[tokio::test]
async fn sees_the_options_of_each_request() {
    let (it, recorder) = start().await;
    // The server's own user creates the bootstrap objects.
    let bootstrap = recorder.take();
    assert!(bootstrap.iter().all(|write| write.user == "system:apiserver"));
    for what in ["CREATE namespaces default", "CREATE services kubernetes", "CREATE clusterroles admin"] {
        assert!(bootstrap.iter().any(|write| write.what == what), "{what}");
    }
    let options = |kind: &str, more: Value| {
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options
    };
    let query = "fieldManager=m&fieldValidation=Strict";
    let given = json!({"fieldManager": "m", "fieldValidation": "Strict"});
    let mut dry = given.clone();
    dry["dryRun"] = json!(["All"]);
    let one = format!("{MAPS}/a");
    let delete = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background",
        "preconditions": {"resourceVersion": "x"}});
    let cases = [
        (Method::POST, format!("{MAPS}?{query}"), map("a", 1), "CREATE", "CreateOptions", given.clone()),
        (Method::POST, format!("{MAPS}?{query}&dryRun=All"), map("b", 1), "CREATE", "CreateOptions", dry),
        (Method::PUT, format!("{one}?{query}"), map("a", 2), "UPDATE", "UpdateOptions", given.clone()),
        (Method::PATCH, format!("{one}?{query}"), json!({"data": {}}), "UPDATE", "UpdateOptions", given),
        (
            Method::DELETE,
            one,
            json!({"propagationPolicy": "Orphan"}),
            "DELETE",
            "DeleteOptions",
            json!({"propagationPolicy": "Orphan"}),
        ),
    ];
    for (method, uri, body, operation, kind, wanted) in cases {
        it.succeed(method, &uri, &body).await;
        let admitted = recorder.take();
        assert_eq!(admitted.len(), 1, "{admitted:?}");
        assert!(admitted[0].what.starts_with(operation), "{admitted:?}");
        assert_eq!(admitted[0].options, options(kind, wanted), "{uri}");
    }
    // A failed precondition rejects the deletion before validating plugins run.
    it.succeed(Method::POST, MAPS, &map("c", 1)).await;
    recorder.take();
    assert_eq!(it.send(Method::DELETE, &format!("{MAPS}/c"), &delete).await.0, 409);
    assert_eq!(recorder.take(), []);
}

#[tokio::test]
async fn a_binding_is_admitted_and_its_change_of_the_pod_is_not() {
    let (it, recorder) = start().await;
    it.succeed(Method::POST, ACCOUNTS, &account()).await;
    it.succeed(Method::POST, PODS, &pod("p")).await;
    recorder.take();
    let binding = |name: &str, more: Value| {
        let mut binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
        binding["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        binding
    };
    let uri = format!("{PODS}/p/binding");
    it.succeed(Method::POST, &format!("{uri}?dryRun=All"), &binding("p", json!({}))).await;
    assert_eq!(it.get(&format!("{PODS}/p"), &[]).await.1["spec"].get("nodeName"), None);
    let (code, status) = it.send(Method::POST, &uri, &binding("p", json!({"uid": "other"}))).await;
    let message = status["message"].as_str().unwrap();
    assert!(code == 409 && message.contains("on pods \"p\": StorageError: invalid object"), "{status}");
    let (code, status) = it.send(Method::POST, &uri, &json!({"metadata": {"name": "p"}, "target": {}})).await;
    assert_eq!((code, &status["message"]), (500, &json!("target.name: Required value")));
    let (code, status) = it.send(Method::POST, &uri, &binding("q", json!({}))).await;
    assert_eq!(
        (code, &status["message"]),
        (400, &json!("name in URL does not match name in Binding object"))
    );
    recorder.take();
    it.succeed(Method::POST, &uri, &binding("p", json!({"labels": {"app": "b"}}))).await;
    assert_eq!(recorder.take_short(), ["CREATE pods/binding p by system:anonymous"]);
    let bound = it.get(&format!("{PODS}/p"), &[]).await.1;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["labels"]["app"]), (&json!("n"), &json!("b")));
    assert_eq!(bound["metadata"]["generation"], json!(1));
    let (code, status) = it.send(Method::POST, &uri, &binding("p", json!({}))).await;
    assert_eq!((code, &status["details"]["kind"]), (409, &json!("pods/binding")));
    assert_eq!(it.send(Method::POST, &format!("{PODS}/q/binding"), &binding("q", json!({}))).await.0, 404);
}

#[tokio::test]
async fn an_eviction_is_admitted_and_the_server_updates_the_budget() {
    let (it, recorder) = start().await;
    it.succeed(Method::POST, ACCOUNTS, &account()).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}});
    it.succeed(Method::POST, budgets, &budget).await;
    let allow = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    it.succeed(Method::PATCH, &format!("{budgets}/b/status"), &allow).await;
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for name in ["p", "q", "pending"] {
        it.succeed(Method::POST, PODS, &pod(name)).await;
        let bound = json!({"metadata": {"name": name}, "target": {"name": "n"}});
        it.succeed(Method::POST, &format!("{PODS}/{name}/binding"), &bound).await;
    }
    for name in ["p", "q"] {
        it.succeed(Method::PATCH, &format!("{PODS}/{name}/status"), &running).await;
    }
    recorder.take();
    let evict = async |name: &str, options: Value| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
        it.send(Method::POST, &format!("{PODS}/{name}/eviction"), &eviction).await
    };
    // A dry run changes nothing.
    assert_eq!(evict("p", json!({"dryRun": ["All"]})).await.0, 201);
    let status = it.get(&format!("{budgets}/b"), &[]).await.1["status"].clone();
    assert_eq!(status["disruptionsAllowed"], json!(1));
    recorder.take();
    assert_eq!(evict("p", json!({"preconditions": {"uid": "other"}})).await.0, 409);
    let eviction = format!("CREATE pods/eviction p by {ANONYMOUS}");
    let budget = "UPDATE poddisruptionbudgets/status b by system:apiserver".to_owned();
    assert_eq!(recorder.take_short(), [eviction, budget]);
    let (code, status) = evict("q", json!({})).await;
    assert_eq!((code, &status["details"]["causes"][0]["reason"]), (429, &json!("DisruptionBudget")));
    assert_eq!(it.get(&format!("{PODS}/q"), &[]).await.1["metadata"].get("deletionTimestamp"), None);
    // A pod that is not running yet is evicted whatever the budget, and gets the condition. Older clients send v1beta1.
    let old = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "pending"}});
    it.succeed(Method::POST, &format!("{PODS}/pending/eviction"), &old).await;
    let pending = it.get(&format!("{PODS}/pending"), &[]).await.1;
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(pending["status"]["conditions"][1]["type"], json!("DisruptionTarget"));
}

#[tokio::test]
async fn writes_of_plugins_are_admitted_as_the_servers() {
    let (it, recorder) = start().await;
    it.succeed(Method::POST, ACCOUNTS, &account()).await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"pods": "2"});
    it.succeed(Method::POST, quotas, &json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let status = json!({"status": {"hard": hard, "used": {"pods": "0"}}});
    it.succeed(Method::PATCH, &format!("{quotas}/q/status"), &status).await;
    recorder.take();
    it.succeed(Method::POST, PODS, &pod("a")).await;
    let admitted = recorder.take_short();
    let update = "UPDATE resourcequotas/status q by system:apiserver".to_owned();
    assert!(admitted.contains(&update), "{admitted:?}");
    let quota = it.get(&format!("{quotas}/q"), &[]).await.1;
    assert_eq!(quota["status"]["used"], json!({"pods": "1"}));
    // A dry run is admitted but not charged to the quota.
    it.succeed(Method::POST, &format!("{PODS}?dryRun=All"), &pod("b")).await;
    assert!(!recorder.take_short().contains(&update));
}
