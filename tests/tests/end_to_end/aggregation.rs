//! Aggregated servers, driven by kubectl.

use nave_tests::extension::{ECHO, ExtensionServer, METRICS, METRICS_API_SERVICE, Mode};
use nave_tests::{Server, cells, eventually};
use serde_json::Value;

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";

/// Returns the status, reason and message of the condition `Available`.
async fn availability(server: &Server) -> [String; 3] {
    let json = server.kubectl(&["get", "apiservice", METRICS_API_SERVICE, "-o", "json"]).await;
    let object: Value = serde_json::from_str(&json).unwrap();
    let condition = &object["status"]["conditions"][0];
    ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned())
}

async fn becomes(server: &Server, reason: &str) {
    eventually(reason, async || availability(server).await[1] == reason).await;
}

/// Makes the server check the APIService at once.
async fn touch(server: &Server, value: &str) {
    let label = format!("touched={value}");
    server.kubectl(&["label", "apiservice", METRICS_API_SERVICE, "--overwrite", &label]).await;
}

#[tokio::test]
async fn kubectl_top_and_explain_use_the_aggregated_server() {
    let server = Server::start_with(&["--controllers=none", "--allow-local-backends"]).await;
    let extension = ExtensionServer::start(&server).await;
    extension.register(&server).await;
    becomes(&server, "Passed").await;
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}"#;
    server.apply(node).await;
    let status = r#"{"status": {"allocatable": {"cpu": "1", "memory": "1Gi"}}}"#;
    server.kubectl(&["patch", "node", "n1", "--subresource=status", "--type=merge", "-p", status]).await;
    let top = server.kubectl(&["top", "nodes"]).await;
    assert_eq!(cells(&top)[1], ["n1", "250m", "25%", "512Mi", "50%"], "{top}");
    let top = server.kubectl(&["top", "pods"]).await;
    assert_eq!(cells(&top)[1], ["p1", "10m", "20Mi"], "{top}");

    let resources = server.kubectl(&["api-resources", "--api-group=metrics.k8s.io", "--no-headers"]).await;
    assert!(resources.contains("NodeMetrics") && resources.contains("PodMetrics"), "{resources}");
    eventually("the schema is listed", async || {
        server.kubectl(&["get", "--raw", "/openapi/v3"]).await.contains("apis/metrics.k8s.io/v1beta1?hash=0A")
    })
    .await;
    let explained = server.kubectl(&["explain", "nodes.usage", "--api-version=metrics.k8s.io/v1beta1"]).await;
    assert!(explained.contains("The usage of a node in the window."), "{explained}");
    let index = server.kubectl(&["get", "--raw", "/openapi/v3"]).await;
    assert!(!index.contains("hash=0B"), "a server describes its own version only");

    // The user of the request, and no other, reaches the server.
    extension.requests();
    let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: metrics}
rules: [{apiGroups: [metrics.k8s.io], resources: [nodes], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metrics}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metrics}
subjects: [{kind: Group, name: team, apiGroup: rbac.authorization.k8s.io}]
";
    server.apply(role).await;
    let as_ada = ["get", "--raw", NODES, "--as=ada", "--as-group=team"];
    eventually("the role applies", async || server.kubectl_with(&as_ada, "", &[]).await.status.success())
        .await;
    let forbidden = server.kubectl_fails(&["get", "--raw", NODES, "--as=bob"]).await;
    assert!(forbidden.contains("forbidden"), "{forbidden}");
    assert_eq!(extension.requests(), [format!("{NODES} ada team,system:authenticated")]);

    // A watch is a stream.
    let mut watch = server.kubectl_running(&["get", "--raw", &format!("{NODES}?watch=true")]);
    for number in 1..4 {
        assert!(watch.line().await.contains(&format!("\"n{number}\"")));
    }
}

#[tokio::test]
async fn a_server_that_goes_is_reported_and_comes_back() {
    let mut server =
        Server::start_with(&["--controllers=namespace-controller", "--allow-local-backends"]).await;
    let extension = ExtensionServer::start(&server).await;
    extension.register(&server).await;
    becomes(&server, "Passed").await;
    eventually("it is discovered", async || {
        server.kubectl(&["api-resources", "--no-headers"]).await.contains("NodeMetrics")
    })
    .await;
    let port = extension.address.port();
    extension.kill().await;
    // Requests fail at once, before and after the next check.
    let failed = server.kubectl_fails(&["get", "--raw", NODES]).await;
    assert!(failed.contains("the server is currently unable to handle the request"), "{failed}");
    touch(&server, "1").await;
    becomes(&server, "FailedDiscoveryCheck").await;
    let [status, _, message] = availability(&server).await;
    assert!(status == "False" && message.ends_with("connect: connection refused"), "{message}");
    let failed = server.kubectl_fails(&["get", "--raw", NODES]).await;
    assert!(failed.contains("the server is currently unable to handle the request"), "{failed}");

    // A namespace says why it waits, and loses its other content.
    server.kubectl(&["create", "namespace", "waiting"]).await;
    server.kubectl(&["create", "configmap", "m", "-n", "waiting"]).await;
    server.kubectl(&["delete", "namespace", "waiting", "--wait=false"]).await;
    let condition = "jsonpath={.status.conditions[?(@.type=='NamespaceDeletionDiscoveryFailure')].message}";
    eventually("the namespace says why it waits", async || {
        let found = server.kubectl(&["get", "namespace", "waiting", "-o", condition]).await;
        found.contains("metrics.k8s.io/v1beta1")
    })
    .await;
    eventually("the other content goes", async || {
        server
            .kubectl(&["get", "configmaps", "-n", "waiting", "--no-headers", "--ignore-not-found"])
            .await
            .is_empty()
    })
    .await;

    // The server knows nothing after a restart, so the version is stale without resources.
    server.kill9();
    server.restart().await;
    becomes(&server, "FailedDiscoveryCheck").await;
    let extension = ExtensionServer::start_on(&server, port, "metrics-server.kube-system.svc").await;
    touch(&server, "2").await;
    becomes(&server, "Passed").await;
    eventually("requests work", async || {
        server.kubectl_with(&["get", "--raw", NODES], "", &[]).await.status.success()
    })
    .await;
    eventually("the namespace goes", async || {
        server.kubectl(&["get", "namespace", "waiting", "--ignore-not-found"]).await.is_empty()
    })
    .await;
    // The service goes, and the APIService goes.
    server.kubectl(&["delete", "service", "metrics-server", "-n", "kube-system"]).await;
    becomes(&server, "ServiceNotFound").await;
    extension.register(&server).await;
    becomes(&server, "Passed").await;
    server.kubectl(&["delete", "apiservice", METRICS_API_SERVICE]).await;
    eventually("the version goes", async || {
        !server.kubectl(&["get", "--raw", "/apis"]).await.contains("metrics.k8s.io")
    })
    .await;
    server.kubectl_fails(&["get", "--raw", METRICS]).await;
}

#[tokio::test]
async fn a_server_that_misbehaves_costs_nothing_else() {
    let flags = ["--controllers=none", "--allow-local-backends", "--request-timeout=2s"];
    let server = Server::start_with(&flags).await;
    // The certificate has another name.
    let other = ExtensionServer::start_on(&server, 0, "other.kube-system.svc").await;
    other.register(&server).await;
    becomes(&server, "FailedDiscoveryCheck").await;
    let message = availability(&server).await[2].clone();
    assert!(message.contains("x509: certificate is valid for"), "{message}");
    assert!(other.requests().is_empty());
    drop(other);

    let extension = ExtensionServer::start(&server).await;
    extension.register(&server).await;
    becomes(&server, "Passed").await;
    extension.set_mode(Mode::Redirecting);
    let failed = server.kubectl_fails(&["get", "--raw", NODES]).await;
    assert!(failed.contains("the backend attempted to redirect this request"), "{failed}");
    extension.set_mode(Mode::Silent);
    let failed = server.kubectl_fails(&["get", "--raw", NODES]).await;
    assert!(failed.to_lowercase().contains("time"), "{failed}");
    assert!(server.kubectl(&["get", "namespaces"]).await.contains("default"));
    extension.set_mode(Mode::Posing);
    let verbose = server.kubectl_with(&["get", "--raw", NODES, "-v=8"], "", &[]).await.stderr.to_lowercase();
    assert!(!verbose.contains("strict-transport-security: max-age=0"), "{verbose}");
    extension.set_mode(Mode::Failing);
    touch(&server, "1").await;
    becomes(&server, "FailedDiscoveryCheck").await;
    // Other groups stay complete.
    let resources = server.kubectl(&["get", "--raw", "/apis/apps/v1"]).await;
    assert!(resources.contains("deployments"), "{resources}");
}

#[tokio::test]
async fn addresses_of_this_machine_are_refused_by_default() {
    let server = Server::start_with(&["--controllers=none"]).await;
    let extension = ExtensionServer::start(&server).await;
    extension.register(&server).await;
    becomes(&server, "FailedDiscoveryCheck").await;
    let message = availability(&server).await[2].clone();
    assert!(message.ends_with("address not allowed"), "{message}");
}

#[tokio::test]
async fn upgraded_connections_carry_bytes_both_ways() {
    let server = Server::start_with(&["--controllers=none", "--allow-local-backends"]).await;
    let extension = ExtensionServer::start(&server).await;
    extension.register(&server).await;
    becomes(&server, "Passed").await;
    let script = format!(
        r#"
import os, socket, ssl, urllib.parse
from kubernetes import config, client
config.load_kube_config()
settings = client.Configuration.get_default_copy()
url = urllib.parse.urlsplit(settings.host)
context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
if settings.cert_file:
    context.load_cert_chain(settings.cert_file, settings.key_file)
def upgrade(headers, early=b""):
    raw = socket.create_connection((url.hostname, url.port))
    stream = context.wrap_socket(raw, server_hostname=url.hostname)
    lines = ["GET {ECHO} HTTP/1.1", "Host: a", *headers, "", ""]
    stream.sendall("\r\n".join(lines).encode() + early)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = stream.recv(1)
        if not piece: break
        head += piece
    return stream, head.decode().lower()
for protocol in ["websocket", "SPDY/3.1"]:
    early = os.urandom(10)
    stream, head = upgrade(["Connection: Upgrade", "Upgrade: " + protocol], early)
    assert head.startswith("http/1.1 101 ") and "upgrade: " + protocol.lower() in head, head
    sent = early + os.urandom(300_000)
    stream.sendall(sent[10:])
    received = b""
    while len(received) < len(sent): received += stream.recv(1 << 16)
    assert received == sent
    stream.close()
# A body would be taken for bytes of the protocol by one server and for a request by the other.
for smuggled in ["Content-Length: 10", "Transfer-Encoding: chunked"]:
    stream, head = upgrade(["Connection: Upgrade", "Upgrade: x", smuggled])
    assert head.startswith("http/1.1 400 "), head
    stream.close()
print("done")
"#
    );
    assert_eq!(server.python(&script).await, "done\n");
    assert!(extension.requests().iter().any(|request| request.starts_with(ECHO)));
}
