//! Tunnels through konnectivity proxies that stall.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::time::Duration;

use nave_webhook::testing::konnectivity::{Behaviour, KonnectivityProxy};
use nave_webhook::{AddressPolicy, Egress, EgressSelector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// Returns the way through a proxy at a socket.
fn through(folder: &Path, socket: &Path) -> Egress {
    let file = folder.join("egress.yaml");
    let transport = format!("{{uds: {{udsName: {}}}}}", socket.display());
    let connection = format!("{{proxyProtocol: GRPC, transport: {transport}}}");
    let document = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n\
         egressSelections: [{{name: cluster, connection: {connection}}}]\n"
    );
    std::fs::write(&file, document).unwrap();
    EgressSelector::from_file(&file).unwrap().cluster
}

#[tokio::test(start_paused = true)]
async fn the_tunnel_of_a_client_that_has_left_ends_although_the_proxy_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let proxy = KonnectivityProxy::start(&socket, Behaviour::StopsReading);
    let egress = through(folder.path(), &socket);
    let destination = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = destination.local_addr().unwrap().port();
    let mut stream =
        egress.connect("127.0.0.1", port, AddressPolicy::Unicast, Duration::from_mins(1)).await.unwrap();
    // Fills all buffers on the way.
    let piece = vec![0; 64 << 10];
    while tokio::time::timeout(Duration::from_secs(1), stream.write_all(&piece)).await.is_ok() {}
    assert_eq!(proxy.log().connections, 1);
    drop(stream);
    tokio::time::timeout(Duration::from_mins(1), async {
        while proxy.log().connections > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_keeps_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("proxy.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let egress = through(folder.path(), &socket);
    let patience = Duration::from_millis(200);
    let refused = egress.connect("192.0.2.1", 1, AddressPolicy::Remote, patience).await.unwrap_err();
    assert!(refused.to_string().contains("i/o timeout"), "{refused}");
    let (mut proxy, _) = listener.accept().await.unwrap();
    // Ends with the connection.
    let mut received = Vec::new();
    let _ = proxy.read_to_end(&mut received).await;
    assert!(received.starts_with(b"PRI * HTTP/2.0"));
}
