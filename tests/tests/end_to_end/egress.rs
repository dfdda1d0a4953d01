//! Connections to kubelets and to etcd through a proxy (HTTPConnect and GRPC), over a Unix domain socket and over TCP.

use std::path::Path;
use std::sync::Arc;

use nave_store::contract::{EtcdProcess, installed_etcd};
use nave_tests::kubelet::StandInKubelet;
use nave_tests::{Server, eventually};
use nave_webhook::testing::konnectivity::{Behaviour, KonnectivityProxy};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// The destinations that a proxy has connected to.
type Dialled = Arc<Mutex<Vec<String>>>;

/// Serves a client of a proxy.
async fn serve(client: impl AsyncRead + AsyncWrite + Unpin, dialled: Dialled) {
    let mut client = BufReader::new(client);
    let mut line = String::new();
    if client.read_line(&mut line).await.is_err() {
        return;
    }
    let Some(destination) = line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        return;
    };
    let destination = destination.to_owned();
    while !line.trim().is_empty() {
        line.clear();
        if client.read_line(&mut line).await.is_err() {
            return;
        }
    }
    let answer = match TcpStream::connect(&destination).await {
        Ok(mut connected) => {
            dialled.lock().push(destination);
            if client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
                // One side has gone.
                let _ = copy_bidirectional(&mut client, &mut connected).await;
            }
            return;
        }
        Err(_) => b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    };
    // The client may have gone.
    let _ = client.write_all(answer).await;
}

fn configuration(name: &str, transport: &str) -> String {
    let head = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n";
    format!("{head}- name: {name}\n  connection: {{proxyProtocol: HTTPConnect, transport: {transport}}}\n")
}

fn write(folder: &Path, text: &str) -> String {
    let file = folder.join("egress.yaml");
    std::fs::write(&file, text).unwrap();
    format!("--egress-selector-config-file={}", file.display())
}

#[tokio::test]
async fn kubelets_are_reached_through_a_socket() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("proxy.sock");
    let dialled = Dialled::default();
    let listener = UnixListener::bind(&socket).unwrap();
    let seen = Arc::clone(&dialled);
    let proxy = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, Arc::clone(&seen)));
        }
    });
    let flag = write(
        folder.path(),
        &configuration("cluster", &format!("{{uds: {{udsName: {}}}}}", socket.display())),
    );
    let flags =
        ["--controllers=none", "--disable-admission-plugins=ServiceAccount", "--allow-local-backends", &flag];
    let server = Server::start_with(&flags).await;
    let kubelet = StandInKubelet::start(&server, true).await;
    kubelet.run_pod(&server, "p").await;
    let ran = server.kubectl(&["exec", "p", "--", "echo", "through"]).await;
    assert_eq!(ran, "through\n");
    assert!(dialled.lock().iter().all(|it| it.starts_with("127.0.0.1:")) && !dialled.lock().is_empty());
    // Without the proxy, there is no other way.
    proxy.abort();
    std::fs::remove_file(&socket).unwrap();
    let error = server.kubectl_fails(&["exec", "p", "--", "echo", "directly"]).await;
    assert!(error.contains("proxy.sock"), "{error}");
}

#[tokio::test]
async fn kubelets_are_reached_through_konnectivity() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("konnectivity.sock");
    let proxy = KonnectivityProxy::start(&socket, Behaviour::Honest);
    let configuration = configuration("cluster", &format!("{{uds: {{udsName: {}}}}}", socket.display()));
    let flag = write(folder.path(), &configuration.replace("HTTPConnect", "GRPC"));
    let flags =
        ["--controllers=none", "--disable-admission-plugins=ServiceAccount", "--allow-local-backends", &flag];
    let server = Server::start_with(&flags).await;
    let kubelet = StandInKubelet::start(&server, true).await;
    kubelet.run_pod(&server, "p").await;
    assert_eq!(server.kubectl(&["exec", "p", "--", "echo", "through"]).await, "through\n");
    let dialled = proxy.log().dialled;
    assert!(dialled.iter().all(|it| it.starts_with("127.0.0.1:")) && !dialled.is_empty());
}

#[tokio::test]
async fn etcd_is_reached_through_a_proxy() {
    let folder = TempDir::new().unwrap();
    let etcd = EtcdProcess::start(&installed_etcd("3.5"));
    let dialled = Dialled::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::clone(&dialled);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, Arc::clone(&seen)));
        }
    });
    let flag = write(
        folder.path(),
        &configuration("etcd", &format!("{{tcp: {{url: \"http://127.0.0.1:{port}\"}}}}")),
    );
    let servers = format!("--etcd-servers={}", etcd.url());
    let server = Server::start_with(&["--controllers=none", &servers, &flag]).await;
    server.kubectl(&["create", "configmap", "a"]).await;
    let url = etcd.url();
    let address = url.trim_start_matches("http://");
    eventually("etcd was dialled", async || dialled.lock().iter().any(|it| it == address)).await;
}
