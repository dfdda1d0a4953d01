//! A server that another one aggregates and that delegates authentication and authorization to it.
//!
//! The users, tokens, roles and namespaces are those of `cluster`. `extension` serves the group `shop.example.com`, which
//! `cluster` does not know.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use nave_tests::{Server, cells, eventually};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::{Caller, certificate, openssl};

const TOKENS: &str = "tok-ada,ada,1\ntok-bob,bob,2\ntok-extension,extension,3\n";
const ORDERS: &str = "/apis/shop.example.com/v1/namespaces/team/orders";
const RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: extension}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:auth-delegator'}
subjects: [{kind: User, name: extension, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: extension, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: User, name: extension, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: orders, namespace: team}
rules: [{apiGroups: [shop.example.com], resources: [orders], verbs: [get, list, watch, create, delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: orders, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: orders}
subjects:
- {kind: User, name: ada, apiGroup: rbac.authorization.k8s.io}
- {kind: User, name: carol, apiGroup: rbac.authorization.k8s.io}
- {kind: ServiceAccount, name: robot, namespace: team}
";
const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: orders.shop.example.com}
spec:
  group: shop.example.com
  scope: Namespaced
  names: {plural: orders, singular: order, kind: Order}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {item: {type: string, description: The name of the ordered item.}}
";

/// The server with the users.
async fn cluster() -> Server {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("tokens.csv"), TOKENS).unwrap();
    let tokens = format!("--token-auth-file={}", folder.path().join("tokens.csv").display());
    let flags = ["--controllers=namespace-controller", "--allow-local-backends", &tokens];
    let cluster = Server::start_in(folder, &flags).await;
    cluster.apply(RIGHTS).await;
    eventually("the extension server's rights apply", async || {
        let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
        let bearer = [("authorization", "Bearer tok-extension")];
        Caller::without_certificate(&cluster).get(map, &bearer).await == Some(200)
    })
    .await;
    cluster
}

/// Writes a kubeconfig for a user of the cluster.
fn kubeconfig(cluster: &Server, folder: &Path, token: &str) -> PathBuf {
    let ca = BASE64_STANDARD.encode(std::fs::read(cluster.folder().join("data/pki/ca.crt")).unwrap());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": cluster.url(), "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
    });
    let file = folder.join(format!("{token}.kubeconfig"));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// Starts the extension server with a certificate for the name of its service.
async fn extension(cluster: &Server, flags: &[&str]) -> Server {
    let folder: TempDir = tempdir().unwrap();
    let file = kubeconfig(cluster, folder.path(), "tok-extension").display().to_string();
    openssl(
        folder.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=shop -addext \
         subjectAltName=DNS:shop.default.svc -keyout serving.key -out serving.crt",
    );
    let serving = |end| folder.path().join(format!("serving.{end}")).display().to_string();
    let all = [
        format!("--authentication-kubeconfig={file}"),
        format!("--authorization-kubeconfig={file}"),
        format!("--tls-sni-cert-key={},{}:shop.default.svc", serving("crt"), serving("key")),
    ];
    let all: Vec<&str> = all.iter().map(String::as_str).chain(flags.iter().copied()).collect();
    let server = Server::start_in(folder, &all).await;
    server.apply(DEFINITION).await;
    server.established("orders.shop.example.com").await;
    server
}

/// Registers the extension server in the cluster.
async fn register(cluster: &Server, extension: &Server) {
    let ca = std::fs::read(extension.folder().join("serving.crt")).unwrap();
    let url = extension.url();
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    let api_service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.shop.example.com"},
        "spec": {"group": "shop.example.com", "version": "v1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "caBundle": BASE64_STANDARD.encode(ca),
            "service": {"name": "shop", "namespace": "default", "port": port}}});
    cluster.apply(&service.to_string()).await;
    cluster.apply(&api_service.to_string()).await;
    cluster.kubectl(&["wait", "--for=condition=Available", "apiservice/v1.shop.example.com"]).await;
}

fn order(name: &str) -> serde_json::Value {
    json!({"apiVersion": "shop.example.com/v1", "kind": "Order", "metadata": {"name": name},
        "spec": {"item": "tea"}})
}

#[tokio::test]
async fn extension_server_has_the_users_and_rights_of_the_cluster() {
    let cluster = cluster().await;
    let extension = extension(&cluster, &[]).await;
    register(&cluster, &extension).await;
    let folder = tempdir().unwrap();
    let files = ["tok-ada", "tok-bob"].map(|token| kubeconfig(&cluster, folder.path(), token));
    let [ada, bob] = files.each_ref().map(|file| [("KUBECONFIG", file.to_str().unwrap())]);

    // Through the cluster, with kubectl.
    let created = cluster.kubectl_with(&["create", "-f", "-"], &order("one").to_string(), &ada).await;
    assert!(created.status.success(), "{}", created.stderr);
    let got = cluster.kubectl_with(&["get", "orders"], "", &ada).await;
    assert_eq!(cells(&got.stdout)[1][0], "one", "{}", got.stderr);
    let refused = cluster.kubectl_with(&["get", "orders"], "", &bob).await;
    assert!(refused.stderr.contains(r#"User "bob" cannot list resource "orders""#), "{}", refused.stderr);
    eventually("the schema is known", async || {
        let explained = cluster.kubectl_with(&["explain", "orders.spec.item"], "", &[]).await;
        explained.stdout.contains("The name of the ordered item.")
    })
    .await;

    // Directly, with tokens that only the cluster knows.
    let caller = Caller::without_certificate(&extension);
    let bearer = |token: &str| format!("Bearer {token}");
    let get = async |token: &str, path: &str| caller.get(path, &[("authorization", &bearer(token))]).await;
    assert_eq!(caller.token("tok-ada").await.as_deref(), Ok("ada"));
    assert_eq!(get("tok-ada", ORDERS).await, Some(200));
    assert_eq!(get("tok-bob", ORDERS).await, Some(403));
    assert_eq!(get("tok-eve", ORDERS).await, Some(401));
    assert_eq!(caller.get(ORDERS, &[]).await, Some(403), "anonymous");
    for path in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(caller.get(path, &[]).await, Some(200), "{path}");
    }
    assert_eq!(caller.get("/metrics", &[]).await, Some(403));

    // A service account of the cluster, and one of the same name of the extension server, which is not a user.
    cluster.kubectl(&["create", "serviceaccount", "robot", "-n", "team"]).await;
    let token = cluster.kubectl(&["create", "token", "robot", "-n", "team"]).await;
    assert_eq!(caller.token(token.trim()).await.as_deref(), Ok("system:serviceaccount:team:robot"));
    assert_eq!(get(token.trim(), ORDERS).await, Some(200));
    extension.kubectl(&["create", "namespace", "team"]).await;
    extension.kubectl(&["create", "serviceaccount", "robot", "-n", "team"]).await;
    let own = extension.kubectl(&["create", "token", "robot", "-n", "team"]).await;
    assert_eq!(caller.token(own.trim()).await, Err(401));

    // A client certificate of the cluster, directly.
    let pki = cluster.folder().join("data/pki");
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(pki.join(file), folder.path().join(file)).unwrap();
    }
    certificate(folder.path(), "ca", "carol", "/CN=carol", "clientAuth", 30);
    let carol = Caller::with_certificate(&extension, folder.path(), "carol");
    assert_eq!(carol.get(ORDERS, &[]).await, Some(200));
    assert_eq!(carol.get("/api/v1/secrets", &[]).await, Some(403));
    // The headers of a front proxy from somebody else name nobody.
    let (status, answer) = carol
        .create(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &[("x-remote-user", "root"), ("x-remote-group", "system:masters")],
            &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
        )
        .await;
    assert_eq!((status, answer["status"]["userInfo"]["username"].as_str()), (201, Some("carol")));

    // Objects go with their namespace, which is the cluster's.
    cluster.kubectl(&["delete", "namespace", "team", "--wait=false"]).await;
    eventually("the orders go", async || {
        extension.kubectl(&["get", "orders", "-A", "--no-headers"]).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn settings_of_the_cluster_are_followed() {
    let cluster = cluster().await;
    let extension = extension(&cluster, &[]).await;
    let folder = tempdir().unwrap();
    super::authority(folder.path(), "next");
    certificate(folder.path(), "next", "carol", "/CN=carol", "clientAuth", 30);
    let carol = Caller::with_certificate(&extension, folder.path(), "carol");
    assert_eq!(carol.get(ORDERS, &[]).await, Some(401));
    // The cluster keeps the entries of other servers of its store.
    let pem = std::fs::read_to_string(folder.path().join("next.crt")).unwrap();
    let patch = json!({"data": {"client-ca-file": pem}}).to_string();
    let map = ["configmap", "extension-apiserver-authentication", "-n", "kube-system"];
    cluster.kubectl(&[&["patch"][..], &map, &["--type=merge", "-p", &patch]].concat()).await;
    eventually("the new CA is trusted", async || carol.get(ORDERS, &[]).await == Some(200)).await;
}

#[tokio::test]
async fn extension_server_without_its_cluster_refuses_requests_and_recovers() {
    let mut cluster = cluster().await;
    // Nothing is cached.
    let ttls = [
        "--authentication-token-webhook-cache-ttl=0s",
        "--authorization-webhook-cache-authorized-ttl=0s",
        "--authorization-webhook-cache-unauthorized-ttl=0s",
    ];
    let extension = extension(&cluster, &ttls).await;
    let caller = Caller::without_certificate(&extension);
    let ada = async || caller.get(ORDERS, &[("authorization", "Bearer tok-ada")]).await;
    assert_eq!(ada().await, Some(200));
    cluster.kill9();
    assert_eq!(ada().await, Some(401));
    assert_eq!(caller.get("/readyz", &[]).await, Some(200), "the server itself is well");
    assert_eq!(caller.get(ORDERS, &[]).await, Some(500), "nobody decides");
    // The administrator of the extension server needs no cluster.
    extension.kubectl(&["get", "orders", "-A"]).await;
    let port = caller_port(&extension);
    cluster.restart().await;
    // The cluster has another port now, and the extension server follows its kubeconfig.
    kubeconfig(&cluster, extension.folder(), "tok-extension");
    eventually("the user is known again", async || ada().await == Some(200)).await;
    assert_eq!(caller_port(&extension), port, "the server did not restart");
}

fn caller_port(server: &Server) -> (u32, String) {
    (server.pid(), server.url())
}

#[tokio::test]
async fn missing_settings_prevent_the_start_unless_tolerated() {
    let mut cluster = cluster().await;
    let binding = ["rolebinding", "extension", "-n", "kube-system"];
    cluster.kubectl(&[&["delete"][..], &binding].concat()).await;
    let folder = tempdir().unwrap();
    let file = kubeconfig(&cluster, folder.path(), "tok-extension");
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    eventually("the right is lost", async || {
        let bearer = [("authorization", "Bearer tok-extension")];
        Caller::without_certificate(&cluster).get(map, &bearer).await == Some(403)
    })
    .await;
    let data = folder.path().join("data");
    let refused = std::process::Command::new(nave_tests::server_binary())
        .args(["--secure-port=0", "--data-dir", data.to_str().unwrap()])
        .arg(format!("--authentication-kubeconfig={}", file.display()))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && stderr.contains("--authentication-kubeconfig: "), "{stderr}");
    assert!(stderr.contains("--authentication-tolerate-lookup-failure"), "{stderr}");

    let extension = extension(&cluster, &["--authentication-tolerate-lookup-failure"]).await;
    let caller = Caller::without_certificate(&extension);
    assert_eq!(caller.token("tok-ada").await.as_deref(), Ok("ada"), "tokens need no settings");
    // The settings apply when they can be read.
    cluster.apply(RIGHTS).await;
    let pki = cluster.folder().join("data/pki");
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(pki.join(file), folder.path().join(file)).unwrap();
    }
    certificate(folder.path(), "ca", "carol", "/CN=carol", "clientAuth", 30);
    let carol = Caller::with_certificate(&extension, folder.path(), "carol");
    eventually("the CA is known", async || carol.get(ORDERS, &[]).await == Some(200)).await;
    cluster.kill9();
}
