//! A kubectl watch while another kubectl writes.

use nave_tests::Server;

#[tokio::test]
async fn kubectl_watch_prints_changes() {
    let server = Server::start().await;
    server.kubectl(&["create", "configmap", "first"]).await;
    let watch = [
        "get",
        "configmaps",
        "-w",
        "--no-headers",
        "--output-watch-events",
        "--field-selector",
        "metadata.name!=kube-root-ca.crt",
    ];
    let mut watching = server.kubectl_running(&watch);
    let mut next = async || {
        let line = watching.line().await;
        line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(next().await, "ADDED first 0");
    server.kubectl(&["create", "configmap", "second", "--from-literal=a=1"]).await;
    assert_eq!(next().await, "ADDED second 1");
    server.kubectl(&["patch", "configmap", "second", "-p", r#"{"data":{"b":"2"}}"#]).await;
    assert_eq!(next().await, "MODIFIED second 2");
    server.kubectl(&["delete", "configmap", "first"]).await;
    assert_eq!(next().await, "DELETED first 0");
}

#[tokio::test]
async fn selector_turns_changes_into_adds_and_deletions() {
    let server = Server::start().await;
    server.kubectl(&["create", "configmap", "moving"]).await;
    let watch = ["get", "configmaps", "-w", "-l", "here=yes", "--output-watch-events", "--no-headers"];
    let mut watching = server.kubectl_running(&watch);
    server.kubectl(&["label", "configmap", "moving", "here=yes"]).await;
    assert!(watching.line().await.starts_with("ADDED"));
    server.kubectl(&["annotate", "configmap", "moving", "a=b"]).await;
    assert!(watching.line().await.starts_with("MODIFIED"));
    server.kubectl(&["label", "configmap", "moving", "here-"]).await;
    assert!(watching.line().await.starts_with("DELETED"));
}
