//! A pair of admission webhooks for pods: a mutating one that injects a label, and a validating one that allows.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use nave_webhook::testing::HttpsServer;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::LoadError;

/// The paths of the configurations, with their names.
pub(crate) const CONFIGURATIONS: [(&str, &str); 2] = [
    ("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
];
/// The name of both configurations.
pub(crate) const NAME: &str = "loadtest";
/// The label that the mutating webhook sets.
pub(crate) const LABEL: &str = "loadtest-injected";

/// A server of both webhooks with threads of its own, so that it does not delay the load.
pub(crate) struct WebhookPair {
    server: HttpsServer,
    runtime: Option<Runtime>,
}

impl WebhookPair {
    /// Starts the server.
    ///
    /// # Errors
    /// Its threads cannot be started.
    pub(crate) async fn start() -> Result<Self, LoadError> {
        let failed = |error: std::io::Error| LoadError::Unexpected(error.to_string());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
        let started = runtime.spawn(HttpsServer::start(answer)).await;
        let server = started.map_err(|error| LoadError::Unexpected(error.to_string()))?;
        Ok(Self { server, runtime: Some(runtime) })
    }

    /// Returns the configuration of a kind, for pods of a namespace.
    pub(crate) fn configuration(&self, kind: &str, namespace: &str) -> Bytes {
        let path = if kind.starts_with("Mutating") { MUTATE } else { VALIDATE };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": NAME},
            "webhooks": [{
                "name": "pods.loadtest.example.com",
                "clientConfig": {
                    "url": self.server.url(path), "caBundle": BASE64_STANDARD.encode(&self.server.ca),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                    "operations": ["CREATE"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
            }],
        });
        Bytes::from(configuration.to_string())
    }
}

impl Drop for WebhookPair {
    fn drop(&mut self) {
        // A runtime cannot wait for its threads within another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

const MUTATE: &str = "/mutate";
const VALIDATE: &str = "/validate";

fn answer(request: &Request<Bytes>) -> Response<Bytes> {
    let review: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    if request.uri().path() == MUTATE {
        let patch = format!(r#"[{{"op":"add","path":"/metadata/labels/{LABEL}","value":"yes"}}]"#);
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(patch).into();
    }
    let answer =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Response::new(Bytes::from(answer.to_string()))
}
