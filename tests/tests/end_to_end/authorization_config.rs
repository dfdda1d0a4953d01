//! `--authorization-config`: webhooks in the chain, and reloads of changed files.

use std::path::Path;

use http::Response;
use nave_tests::{Server, eventually};
use nave_webhook::testing::HttpsServer;
use serde_json::{Value, json};
use tempfile::tempdir;

/// Starts a webhook that allows every request of one user.
async fn webhook(user: &'static str) -> HttpsServer {
    HttpsServer::start(move |request| {
        let mut review: Value = serde_json::from_slice(request.body()).unwrap();
        let allowed = review["spec"]["user"] == user;
        review["status"] = json!({"allowed": allowed, "reason": format!("only {user} may")});
        Response::new(review.to_string().into())
    })
    .await
}

/// Writes a configuration with RBAC and a webhook with a match condition.
fn configure(file: &Path, kubeconfig: &Path, condition: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- {{type: Node, name: node}}
- {{type: RBAC, name: rbac}}
- type: Webhook
  name: theirs
  webhook:
    timeout: 3s
    authorizedTTL: 1ms
    unauthorizedTTL: 1ms
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: NoOpinion
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}
    matchConditions: [{{expression: {condition:?}}}]
",
        kubeconfig.display()
    );
    std::fs::write(file, text).unwrap();
}

async fn may(server: &Server, user: &str, namespace: &str) -> bool {
    let user = format!("--as={user}");
    let question = ["auth", "can-i", "list", "secrets", &user, "-n", namespace];
    server.kubectl_with(&question, "", &[]).await.status.success()
}

/// Returns the number of reloads with this status.
async fn reloads(server: &Server, status: &str) -> Option<u64> {
    let name = "apiserver_authorization_config_controller_automatic_reloads_total{";
    let label = format!("status=\"{status}\"");
    let metrics = server.kubectl(&["get", "--raw", "/metrics"]).await;
    let line = metrics.lines().find(|line| line.starts_with(name) && line.contains(&label))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn reloads_authorization_config() {
    let folder = tempdir().unwrap();
    let path = folder.path().to_owned();
    let (carl, dora) = (webhook("carl").await, webhook("dora").await);
    let kubeconfig = carl.write_kubeconfig(&path, "certificate-authority: ca.crt", "");
    let file = path.join("authorization.yaml");
    configure(&file, &kubeconfig, "request.resourceAttributes.namespace != 'kube-system'");
    let server = Server::start_in(folder, &[&format!("--authorization-config={}", file.display())]).await;
    assert!(may(&server, "carl", "default").await);
    assert!(!may(&server, "carl", "kube-system").await, "the match condition excludes this");
    assert!(!may(&server, "dora", "default").await);
    assert_eq!(reloads(&server, "success").await, None);

    configure(&file, &kubeconfig, "request.resourceAttributes.namespace == 'kube-system'");
    eventually("the other condition holds", async || may(&server, "carl", "kube-system").await).await;
    assert!(!may(&server, "carl", "default").await);
    assert_eq!(reloads(&server, "success").await, Some(1));

    // An unknown name fails when the file is loaded and has no effect.
    configure(&file, &kubeconfig, "request.resource.namespace == 'default'");
    eventually("the mistake is counted", async || reloads(&server, "failure").await == Some(1)).await;
    assert!(may(&server, "carl", "kube-system").await);
    let why = "authorizers[2].matchConditions[0].expression: Invalid value";
    assert!(server.log().contains(why) && server.log().contains("undefined field 'resource'"));

    // The webhook moves to a different server with a different CA.
    dora.write_kubeconfig(&path, "insecure-skip-tls-verify: true", "");
    eventually("the other webhook is asked", async || may(&server, "dora", "kube-system").await).await;
    assert!(!may(&server, "carl", "kube-system").await);
}

#[tokio::test]
async fn rejects_invalid_config_at_start() {
    let folder = tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, "").unwrap();
    let file = folder.path().join("authorization.yaml");
    for (condition, why) in [
        ("request.user", "must evaluate to bool but got string"),
        ("requests.user == ''", "undeclared reference to 'requests' (in container '')"),
        ("request.user.startsWith(1)", "found no matching overload for 'startsWith'"),
    ] {
        configure(&file, &kubeconfig, condition);
        let data = folder.path().join("data");
        let ran = tokio::process::Command::new(nave_tests::server_binary())
            .args(["serve", "--secure-port=0", "--data-dir"])
            .arg(&data)
            .arg(format!("--authorization-config={}", file.display()))
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && said.contains(why), "{condition}: {said}");
    }
}
