//! The default objects of new namespaces, and the deletion of namespaces with their contents.

use nave_loadtest::http::Call;
use nave_tests::{Server, eventually};
use tokio::task::JoinSet;

/// Returns whether kubectl finds an object.
async fn exists(server: &Server, arguments: &[&str]) -> bool {
    let arguments = [&["get", "--ignore-not-found", "-o", "name"], arguments].concat();
    !server.kubectl(&arguments).await.is_empty()
}

#[tokio::test]
async fn namespace_gets_service_account_and_root_ca() {
    let server = Server::start().await;
    server.kubectl(&["create", "namespace", "shop"]).await;
    let account = ["serviceaccount", "default", "-n", "shop"];
    let map = ["configmap", "kube-root-ca.crt", "-n", "shop"];
    eventually("the account", async || exists(&server, &account).await).await;
    eventually("the certificate", async || exists(&server, &map).await).await;
    let certificate = async || {
        let path = r"jsonpath={.data.ca\.crt}";
        server.kubectl(&["get", "configmap", "kube-root-ca.crt", "-n", "shop", "-o", path]).await
    };
    let published = certificate().await;
    assert!(published.starts_with("-----BEGIN CERTIFICATE-----"), "{published}");

    let wrong = r#"{"data":{"ca.crt":"wrong","more":"x"}}"#;
    server.kubectl(&["patch", "configmap", "kube-root-ca.crt", "-n", "shop", "-p", wrong]).await;
    eventually("the certificate as it was", async || certificate().await == published).await;
    let uid = async || {
        let arguments = ["get", "serviceaccount", "default", "-n", "shop", "--ignore-not-found"];
        server.kubectl(&[&arguments[..], &["-o", "jsonpath={.metadata.uid}"]].concat()).await
    };
    let first = uid().await;
    server.kubectl(&["delete", "serviceaccount", "default", "-n", "shop"]).await;
    eventually("another account", async || ![first.as_str(), ""].contains(&uid().await.as_str())).await;
}

#[tokio::test]
async fn namespace_deletion_removes_a_thousand_objects() {
    let mut server = Server::start().await;
    server.kubectl(&["create", "namespace", "full"]).await;
    let pool = server.target().pool(4).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..20 {
        let pool = pool.clone();
        writers.spawn(async move {
            for number in 0..50 {
                let (kind, plural) = [("ConfigMap", "configmaps"), ("Secret", "secrets")][number % 2];
                let body = format!(
                    r#"{{"apiVersion":"v1","kind":"{kind}","metadata":{{"name":"n-{writer}-{number}"}}}}"#
                );
                let path = format!("/api/v1/namespaces/full/{plural}");
                pool.call(&Call::post(path, body)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    server.kubectl(&["delete", "namespace", "full"]).await;
    assert!(!exists(&server, &["namespace", "full"]).await);

    // The server is killed during the deletion. The restarted server continues the deletion.
    server.kubectl(&["create", "namespace", "held"]).await;
    server.apply(HELD).await;
    server.kubectl(&["delete", "namespace", "held", "--wait=false"]).await;
    let condition = async |kind: &str| {
        let path = format!("jsonpath={{.status.conditions[?(@.type==\"{kind}\")].message}}");
        server.kubectl(&["get", "namespace", "held", "--ignore-not-found", "-o", &path]).await
    };
    let finalizers =
        "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    eventually("the condition", async || condition("NamespaceFinalizersRemaining").await == finalizers).await;
    let remaining = condition("NamespaceContentRemaining").await;
    assert_eq!(remaining, "Some resources are remaining: configmaps. has 1 resource instances");
    server.kill9();
    server.restart().await;
    assert!(exists(&server, &["namespace", "held"]).await);
    let release = r#"{"metadata":{"finalizers":null}}"#;
    server.kubectl(&["patch", "configmap", "held", "-n", "held", "--type=merge", "-p", release]).await;
    server.kubectl(&["wait", "--for=delete", "namespace/held", "--timeout=110s"]).await;
}

const HELD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: held, finalizers: [example.com/hold]}
";
