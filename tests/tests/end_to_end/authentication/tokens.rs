//! Tokens of the cluster: service account tokens of workloads, and bootstrap tokens of nodes.

use nave_tests::{Server, eventually};
use serde_json::json;
use tempfile::tempdir;

use super::Caller;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  serviceAccountName: robot\n  \
                   terminationGracePeriodSeconds: 0\n  containers: [{name: c, image: i}]\n";

#[tokio::test]
async fn workload_authenticates_with_mounted_token() {
    let server = Server::start().await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    server.kubectl(&["create", "role", "see-pods", "--verb=get,list", "--resource=pods"]).await;
    server
        .kubectl(&["create", "rolebinding", "see-pods", "--role=see-pods", "--serviceaccount=default:robot"])
        .await;
    server.apply(POD).await;
    let bound = ["create", "token", "robot", "--bound-object-kind=Pod", "--bound-object-name=p"];
    let token = server.kubectl(&bound).await;
    let token = token.trim();
    let (caller, bearer) = (Caller::without_certificate(&server), format!("Bearer {token}"));
    let pods = async || caller.get("/api/v1/namespaces/default/pods", &[("authorization", &bearer)]).await;
    eventually("the right is known", async || pods().await == Some(200)).await;
    let mounted = server.folder().join("serviceaccount");
    std::fs::create_dir(&mounted).unwrap();
    std::fs::write(mounted.join("token"), token).unwrap();
    std::fs::copy(server.folder().join("data/pki/ca.crt"), mounted.join("ca.crt")).unwrap();
    let url = server.url();
    let (host, port) = url.trim_start_matches("https://").rsplit_once(':').unwrap();
    let environment = [
        ("KUBERNETES_SERVICE_HOST", host),
        ("KUBERNETES_SERVICE_PORT", port),
        ("MOUNTED", mounted.to_str().unwrap()),
        ("KUBECONFIG", ""),
    ];
    assert_eq!(server.python_with(include_str!("../python/in_cluster.py"), &environment).await, "done\n");

    assert_eq!(caller.token(token).await.as_deref(), Ok("system:serviceaccount:default:robot"));
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["https://kubernetes.default.svc", "vault"]},
    });
    let path = server.folder().join("review.json");
    std::fs::write(&path, review.to_string()).unwrap();
    let answer = server.kubectl(&["create", "-o", "json", "-f", path.to_str().unwrap()]).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["status"]["audiences"], json!(["https://kubernetes.default.svc"]));
    assert_eq!(answer["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));

    // The token becomes invalid after the pod is deleted and the token cache's TTL has passed.
    server.kubectl(&["delete", "pod", "p", "--force"]).await;
    eventually("the pod's token is refused", async || caller.token(token).await == Err(401)).await;
    let account = server.kubectl(&["create", "token", "robot"]).await;
    assert!(caller.token(account.trim()).await.is_ok());
    server.kubectl(&["delete", "serviceaccount", "robot"]).await;
    eventually("the account's token is refused", async || caller.token(account.trim()).await == Err(401))
        .await;
}

#[tokio::test]
async fn token_requests_are_validated() {
    let server = Server::start_with(&["--service-account-max-token-expiration=2h"]).await;
    server.kubectl(&["create", "serviceaccount", "robot"]).await;
    server.kubectl(&["create", "serviceaccount", "other"]).await;
    server.apply(POD).await;
    let fails = async |arguments: &[&str], why: &str| {
        let all: Vec<&str> = ["create", "token"].iter().chain(arguments).copied().collect();
        let error = server.kubectl_fails(&all).await;
        assert!(error.contains(why), "{error}");
    };
    fails(&["robot", "--duration=5m"], "may not specify a duration less than 10 minutes").await;
    fails(&["none"], "serviceaccounts \"none\" not found").await;
    fails(&["robot", "--bound-object-kind=Pod", "--bound-object-name=x"], "pods \"x\" not found").await;
    fails(&["robot", "--bound-object-kind=Node", "--bound-object-name=x"], "nodes \"x\" not found").await;
    fails(&["other", "--bound-object-kind=Pod", "--bound-object-name=p"], "different serviceaccount name")
        .await;
    let uid = ["robot", "--bound-object-kind=Pod", "--bound-object-name=p", "--bound-object-uid=x"];
    fails(&uid, "the UID in the bound object reference (x) does not match").await;
    let token = server.kubectl(&["create", "token", "robot", "--duration=9h", "-o", "json"]).await;
    let token: serde_json::Value = serde_json::from_str(&token).unwrap();
    assert_eq!(token["spec"]["expirationSeconds"], 7200);
}

#[tokio::test]
async fn bootstrap_tokens_authenticate_nodes() {
    let folder = tempdir().unwrap();
    let server = Server::start_in(folder, &["--enable-bootstrap-token-auth"]).await;
    server
        .kubectl(&[
            "create",
            "secret",
            "generic",
            "bootstrap-token-abcdef",
            "-n=kube-system",
            "--type=bootstrap.kubernetes.io/token",
            "--from-literal=token-id=abcdef",
            "--from-literal=token-secret=0123456789abcdef",
            "--from-literal=usage-bootstrap-authentication=true",
            "--from-literal=auth-extra-groups=system:bootstrappers:site",
        ])
        .await;
    let caller = Caller::without_certificate(&server);
    let (name, groups) = caller.user(&[("authorization", "Bearer abcdef.0123456789abcdef")]).await.unwrap();
    assert_eq!(name, "system:bootstrap:abcdef");
    assert_eq!(groups, ["system:bootstrappers", "system:bootstrappers:site", "system:authenticated"]);
    assert_eq!(caller.token("abcdef.0123456789abcdeg").await, Err(401));
}
