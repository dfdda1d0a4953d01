//! Tests of webhook authorizers over mutual TLS.
#![allow(clippy::unwrap_used, reason = "in a test a step that fails is a test that fails")]

use std::sync::{Arc, Mutex};

use http::{Response, StatusCode};
use nave_authz::config::{Configuration, Parts};
use nave_authz::node::Node;
use nave_authz::{Attributes, Chain, Decision, Metrics, Verdict};
use nave_machinery::user::UserInfo;
use nave_webhook::testing::HttpsServer;
use serde_json::{Value, json};

const TRUST: &str = "certificate-authority: ca.crt, tls-server-name: webhook.test";
const SHOW: &str = "client-certificate: client.crt, client-key: client.key";

/// A webhook that allows alice, denies mallory, has no opinion about others, and fails for `broken`.
struct Hook {
    folder: tempfile::TempDir,
    _server: HttpsServer,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    async fn start() -> Self {
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = Arc::clone(&seen);
        let server = HttpsServer::start_for_clients(move |request| {
            let mut review: Value = serde_json::from_slice(request.body()).unwrap();
            log.lock().unwrap().push(review.clone());
            review["status"] = match review["spec"]["user"].as_str().unwrap() {
                "alice" => json!({"allowed": true, "reason": "known"}),
                "mallory" => json!({"allowed": false, "denied": true, "reason": "banned"}),
                "both" => json!({"allowed": true, "denied": true}),
                "broken" => json!("broken"),
                "refused" => {
                    let refusal = Response::builder().status(StatusCode::BAD_REQUEST);
                    return refusal.body(bytes::Bytes::new()).unwrap();
                }
                _ => json!({"allowed": false, "reason": "unknown"}),
            };
            Response::new(review.to_string().into())
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        server.write_kubeconfig(folder.path(), TRUST, SHOW);
        Self { folder, _server: server, seen }
    }

    /// A chain of this webhook only, with extra configuration lines.
    fn chain(&self, more: &str) -> Chain {
        let text = format!(
            "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: hook
  webhook:
    timeout: 20s
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}
{more}
",
            self.folder.path().join("kubeconfig").display()
        );
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let parts = Parts {
            rbac: Arc::default(),
            node: Arc::new(Node::new(Arc::default()).unwrap()),
            abac: None,
            metrics: metrics.clone(),
            egress: nave_webhook::Egress::Direct,
        };
        let authorizers = Configuration::parse(text.as_bytes()).unwrap().build(&parts).unwrap();
        Chain::new(authorizers, metrics)
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

const V1: &str = "    subjectAccessReviewVersion: v1\n    failurePolicy: NoOpinion";

async fn decide(chain: &Chain, name: &str, resource: &str) -> Verdict {
    let user = UserInfo { name: name.into(), groups: vec!["g".into()], ..UserInfo::default() };
    let get = Attributes { verb: "get", version: "v1", resource, name: "x", ..Attributes::for_user(&user) };
    chain.decide(&get).await
}

#[tokio::test]
async fn follows_the_webhooks_decision() {
    let hook = Hook::start().await;
    let chain = hook.chain(V1);
    assert_eq!(decide(&chain, "alice", "pods").await, Verdict::allow("known"));
    assert_eq!(decide(&chain, "mallory", "pods").await, Verdict::deny("banned"));
    assert_eq!(decide(&chain, "bob", "pods").await, Verdict::no_opinion("unknown"));
    let both = decide(&chain, "both", "pods").await;
    assert_eq!(both.decision, Decision::Deny);
    assert!(both.error.unwrap().contains("both allow and deny"));
    let sent = hook.seen.lock().unwrap()[0].clone();
    assert_eq!(sent["apiVersion"], "authorization.k8s.io/v1");
    let resource_attributes = json!({"verb": "get", "version": "v1", "resource": "pods", "name": "x"});
    assert_eq!(
        sent["spec"],
        json!({"user": "alice", "groups": ["g"], "resourceAttributes": resource_attributes})
    );
}

#[tokio::test]
async fn sends_v1beta1_reviews() {
    let hook = Hook::start().await;
    let chain = hook.chain("    subjectAccessReviewVersion: v1beta1\n    failurePolicy: Deny");
    assert_eq!(decide(&chain, "alice", "pods").await.decision, Decision::Allow);
    let sent = hook.seen.lock().unwrap()[0].clone();
    assert_eq!(
        (&sent["apiVersion"], &sent["spec"]["group"]),
        (&json!("authorization.k8s.io/v1beta1"), &json!(["g"]))
    );
}

#[tokio::test]
async fn answers_are_cached() {
    let hook = Hook::start().await;
    let chain = hook.chain(V1);
    for _ in 0..3 {
        assert_eq!(decide(&chain, "alice", "pods").await.decision, Decision::Allow);
        assert_eq!(decide(&chain, "bob", "pods").await.decision, Decision::NoOpinion);
    }
    assert_eq!(hook.calls(), 2);
    decide(&chain, "alice", "secrets").await;
    assert_eq!(hook.calls(), 3);
    let forgetful = hook.chain(&format!("{V1}\n    cacheAuthorizedRequests: false"));
    for _ in 0..3 {
        decide(&forgetful, "alice", "pods").await;
        decide(&forgetful, "bob", "pods").await;
    }
    assert_eq!(hook.calls(), 3 + 3 + 1);
    // The webhook is called for each request that is too long for the cache.
    let long = "x".repeat(10_000);
    decide(&chain, "alice", &long).await;
    decide(&chain, "alice", &long).await;
    assert_eq!(hook.calls(), 7 + 2);
}

#[tokio::test]
async fn failure_policy_applies_to_failed_calls() {
    let hook = Hook::start().await;
    for (policy, decision) in [("NoOpinion", Decision::NoOpinion), ("Deny", Decision::Deny)] {
        let chain = hook.chain(&format!("    subjectAccessReviewVersion: v1\n    failurePolicy: {policy}"));
        for name in ["broken", "refused"] {
            let verdict = decide(&chain, name, "pods").await;
            assert_eq!(verdict.decision, decision, "{policy} {name}");
            assert!(verdict.error.is_some());
        }
        // A failure is not cached.
        let calls = hook.calls();
        decide(&chain, "broken", "pods").await;
        assert_eq!(hook.calls(), calls + 1);
        let user = UserInfo { name: "broken".into(), ..UserInfo::default() };
        assert_eq!(chain.authorize(&Attributes::for_user(&user)).await.unwrap_err().code, 500);
    }
}

#[tokio::test]
async fn match_conditions_limit_calls() {
    let hook = Hook::start().await;
    let conditions = "    matchConditionSubjectAccessReviewVersion: v1
    matchConditions:
    - expression: has(request.resourceAttributes)
    - expression: request.resourceAttributes.resource == 'pods'";
    let chain = hook.chain(&format!("{V1}\n{conditions}"));
    assert_eq!(decide(&chain, "alice", "secrets").await, Verdict::no_opinion(""));
    let user = UserInfo { name: "alice".into(), ..UserInfo::default() };
    let path = Attributes { verb: "get", path: "/x", ..Attributes::for_user(&user) };
    // The first condition is false, so the second, which fails to evaluate, is irrelevant.
    assert_eq!(chain.decide(&path).await, Verdict::no_opinion(""));
    assert_eq!(hook.calls(), 0);
    assert_eq!(decide(&chain, "alice", "pods").await.decision, Decision::Allow);
    assert_eq!(hook.calls(), 1);
}

#[tokio::test]
async fn system_masters_are_allowed_without_a_call() {
    let hook = Hook::start().await;
    let chain = hook.chain(V1);
    let user =
        UserInfo { name: "mallory".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
    assert_eq!(chain.authorize(&Attributes::for_user(&user)).await, Ok(()));
    assert_eq!(hook.calls(), 0);
}
