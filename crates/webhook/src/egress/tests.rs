use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::*;
use crate::backend::BackendConnection;
use crate::testing::HttpsServer;
use crate::testing::konnectivity::{Behaviour, KonnectivityProxy};
use crate::{BackendDialer, BackendTls, Client};

const HEAD: &str = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n";

#[test]
fn reads_all_forms_and_refuses_others() {
    let connection = |inner: &str| format!("egressSelections: [{{name: cluster, connection: {{{inner}}}}}]");
    let connect =
        |transport: &str| connection(&format!("proxyProtocol: HTTPConnect, transport: {{{transport}}}"));
    for (rest, error) in [
        (String::new(), ""),
        (connection("proxyProtocol: Direct"), ""),
        (connect("uds: {udsName: /run/proxy.sock}"), ""),
        (connect("tcp: {url: \"http://127.0.0.1:8131\"}"), ""),
        ("egressSelections: [{name: Etcd, connection: {proxyProtocol: Direct}}]".into(), ""),
        ("egressSelections: [{name: master, connection: {proxyProtocol: Direct}}]".into(), "\"master\" is not"),
        (
            "egressSelections: [{name: etcd, connection: {proxyProtocol: Direct}}, {name: ETCD, connection: {proxyProtocol: Direct}}]".into(),
            "\"etcd\" occurs twice",
        ),
        (connection("proxyProtocol: Direct, transport: {}"), "has no transport"),
        (connection("proxyProtocol: HTTPConnect"), "either tcp or uds"),
        (connect(""), "either tcp or uds"),
        (connect("uds: {udsName: a}, tcp: {url: \"http://a\"}"), "either tcp or uds"),
        (connect("uds: {udsName: \"\"}"), "udsName"),
        (connect("tcp: {url: \"https://a\"}"), "needs a tlsConfig"),
        (connect("tcp: {url: \"http://a\", tlsConfig: {}}"), "has no tlsConfig"),
        (connect("tcp: {url: \"socks5://a\"}"), "must begin with"),
        (connect("tcp: {url: \"\"}"), "URL"),
        (connect("tcp: {url: \"https://a\", tlsConfig: {clientCert: /no/such.crt, clientKey: /no/such.key}}"), "/no/such.crt"),
        (connection("proxyProtocol: GRPC, transport: {uds: {udsName: a}}"), ""),
        (connection("proxyProtocol: GRPC, transport: {uds: {udsName: \"\"}}"), "udsName is required"),
        (connection("proxyProtocol: GRPC, transport: {tcp: {url: \"http://a\"}}"), "GRPC needs uds"),
        (connection("proxyProtocol: GRPC"), "GRPC needs uds"),
        (connection("proxyProtocol: x"), "unknown proxyProtocol"),
        ("selections: []".into(), "unknown field"),
    ] {
        match EgressSelector::parse(&format!("{HEAD}{rest}")) {
            Ok(_) => assert_eq!(error, "", "{rest}"),
            Err(found) => {
                assert!(!error.is_empty() && found.to_string().contains(error), "{rest}: {found}");
            }
        }
    }
    assert!(matches!(EgressSelector::parse("apiVersion: v1\nkind: Pod"), Err(EgressError::Kind(..))));
}

/// Serves a client of a proxy: connects to the destination, or sends `lie` instead.
async fn serve<S: BackendConnection>(client: S, lie: Option<&'static [u8]>) {
    let mut client = BufReader::new(client);
    let mut line = String::new();
    client.read_line(&mut line).await.unwrap();
    let destination = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim() != "" {
        line.clear();
        client.read_line(&mut line).await.unwrap();
    }
    if let Some(lie) = lie {
        // The client may have given up.
        let _ = client.write_all(lie).await;
        // The connection stays open.
        return std::future::pending().await;
    }
    let mut destination = TcpStream::connect(destination).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut destination).await;
}

/// Starts a proxy and returns its address.
async fn proxy(lie: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, lie));
        }
    });
    address
}

fn through(address: SocketAddr) -> Egress {
    Egress::Proxy(Arc::new(ConnectProxy::at_host("127.0.0.1".to_owned(), address.port(), None).unwrap()))
}

/// Starts a server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = client.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    address
}

async fn echoes(egress: &Egress, port: u16) {
    let patience = Duration::from_secs(30);
    let mut stream = egress.connect("127.0.0.1", port, AddressPolicy::Unicast, patience).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

fn tunnel(folder: &Path, behaviour: Behaviour) -> (KonnectivityProxy, Egress) {
    let socket = folder.join(format!("{behaviour:?}.sock"));
    let proxy = KonnectivityProxy::start(&socket, behaviour);
    (proxy, Egress::Tunnel(Arc::new(GrpcProxy::at_socket(socket))))
}

#[tokio::test]
async fn bytes_pass_through_tunnels_until_they_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let port = echo().await.port();
    for behaviour in [Behaviour::Honest, Behaviour::MixesConnections] {
        let (proxy, egress) = tunnel(folder.path(), behaviour);
        let patience = Duration::from_secs(30);
        let mut stream = egress.connect("127.0.0.1", port, AddressPolicy::Unicast, patience).await.unwrap();
        // More than all buffers on the way.
        let sent: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[2]).collect();
        let (mut reads, mut writes) = tokio::io::split(&mut stream);
        let mut received = vec![0; sent.len()];
        let (written, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(received == sent);
        assert_eq!(proxy.log().dialled, [format!("127.0.0.1:{port}")]);
        // The proxy confirms the end.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut received).await.unwrap(), 0);
        let others = proxy.log().closed.iter().filter(|id| **id == 8).count();
        assert_eq!(others > 0, behaviour == Behaviour::MixesConnections);
        assert_eq!(proxy.log().closed.iter().filter(|id| **id == 7).count(), 1);
    }
}

#[tokio::test]
async fn the_end_of_a_destination_ends_its_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        client.write_all(b"bye").await.unwrap();
    });
    let (_proxy, egress) = tunnel(folder.path(), Behaviour::Honest);
    let patience = Duration::from_secs(30);
    let mut stream = egress.connect("127.0.0.1", port, AddressPolicy::Unicast, patience).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "bye");
}

#[tokio::test]
async fn the_error_of_a_proxy_is_shortened() {
    let folder = tempfile::tempdir().unwrap();
    let (_proxy, egress) = tunnel(folder.path(), Behaviour::RefusesAtLength);
    let refused = egress.connect("127.0.0.1", 1, AddressPolicy::Unicast, Duration::from_secs(30)).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("no no") && error.len() < 2048, "{}", error.len());
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (behaviour, patience, error) in [
        (Behaviour::Refuses, 30_000, "connection refused"),
        (Behaviour::ClosesDial, 30_000, "dial closed"),
        (Behaviour::HangsUp, 30_000, "closed the stream"),
        (Behaviour::AnswersOthers, 200, "i/o timeout"),
    ] {
        let (_proxy, egress) = tunnel(folder.path(), behaviour);
        let patience = Duration::from_millis(patience);
        let refused = egress.connect("127.0.0.1", 1, AddressPolicy::Unicast, patience).await;
        let found = refused.unwrap_err().to_string();
        assert!(found.contains(error), "{behaviour:?}: {found}");
    }
    let egress = Egress::Tunnel(Arc::new(GrpcProxy::at_socket(folder.path().join("none"))));
    let refused = egress.connect("127.0.0.1", 1, AddressPolicy::Unicast, Duration::from_secs(30)).await;
    assert!(refused.unwrap_err().to_string().contains("dial unix"));
}

#[tokio::test]
async fn bytes_pass_through_a_proxy() {
    let port = echo().await.port();
    echoes(&Egress::Direct, port).await;
    echoes(&through(proxy(None).await), port).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, None));
        }
    });
    echoes(&Egress::Proxy(Arc::new(ConnectProxy::at_socket(path))), port).await;
    let missing = Egress::Proxy(Arc::new(ConnectProxy::at_socket(folder.path().join("none"))));
    let refused = missing.connect("192.0.2.1", 1, AddressPolicy::Remote, Duration::from_secs(5)).await;
    assert!(refused.unwrap_err().to_string().contains("none: dial unix"));
}

#[tokio::test]
async fn the_destination_is_verified_through_a_proxy() {
    let server = HttpsServer::start(|_| http::Response::new(bytes::Bytes::from_static(b"yes"))).await;
    let egress = through(proxy(None).await);
    let uri = format!("https://127.0.0.1:{}/", server.address.port()).parse().unwrap();
    let tls = |ca: &str| {
        let roots = CertificateDer::pem_slice_iter(ca.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        Tls { roots: Roots::Custom(roots), ..Tls::default() }
    };
    let get = async |ca: &str| {
        let client = Client::with_egress(tls(ca), Duration::from_secs(30), egress.clone()).unwrap();
        client.get(&uri).await.map(|response| response.body)
    };
    assert_eq!(get(&server.ca).await.unwrap(), "yes");
    let other = HttpsServer::start(|_| http::Response::new(bytes::Bytes::new())).await;
    assert!(get(&other.ca).await.unwrap_err().to_string().contains("unknown authority"));
    let dialer = BackendDialer {
        policy: AddressPolicy::Unicast,
        timeout: Duration::from_secs(30),
        egress: egress.clone(),
    };
    let tls = BackendTls::new(tls(&server.ca)).unwrap();
    assert!(dialer.connect("127.0.0.1", server.address.port(), Some(&tls)).await.is_ok());
}

#[tokio::test]
async fn the_proxy_itself_is_verified() {
    // An HTTPS server of another CA stands for the proxy.
    let [one, other] = [
        HttpsServer::start(|_| http::Response::new(bytes::Bytes::new())).await,
        HttpsServer::start(|_| http::Response::new(bytes::Bytes::new())).await,
    ];
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.crt", &other.ca);
    write("client.crt", &one.client.0);
    write("client.key", &one.client.1);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let document = format!(
        "{HEAD}egressSelections: [{{name: controlplane, connection: {{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: \"https://127.0.0.1:{}\", tlsConfig: {{caBundle: {}, clientCert: {}, clientKey: {}}}}}}}}}}}]",
        one.address.port(),
        at("ca.crt"),
        at("client.crt"),
        at("client.key"),
    );
    let selector = EgressSelector::parse(&document).unwrap();
    assert!(matches!(selector.cluster, Egress::Direct));
    let dial = selector.control_plane.connect("192.0.2.1", 1, AddressPolicy::Remote, Duration::from_secs(30));
    assert!(dial.await.unwrap_err().to_string().contains("unknown authority"));
}

#[tokio::test]
async fn a_lying_proxy_is_an_error_in_time() {
    let endless: &'static [u8] = Box::leak(vec![b'a'; 1 << 20].into_boxed_slice());
    for (lie, error) in [
        (&b"HTTP/1.1 403 Forbidden\r\n\r\n"[..], "code 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nextra", "unexpected 5 bytes"),
        (endless, "longer than"),
        (b"", "i/o timeout"),
        (b"HTTP/1.1 200 OK\r\n", "i/o timeout"),
    ] {
        let egress = through(proxy(Some(lie)).await);
        let dial = egress.connect("192.0.2.1", 443, AddressPolicy::Remote, Duration::from_millis(500));
        let found = dial.await.unwrap_err().to_string();
        assert!(found.starts_with("proxy 127.0.0.1:") && found.contains(error), "{found}");
    }
}

#[tokio::test]
async fn the_policy_applies_to_what_a_proxy_dials() {
    // No proxy is there: a refusal comes before it is dialled.
    let egress = Egress::Proxy(Arc::new(ConnectProxy::at_socket("/no/such/proxy".into())));
    for (host, policy, is_refused) in [
        ("127.0.0.1", AddressPolicy::Remote, true),
        ("::1", AddressPolicy::Remote, true),
        ("::ffff:169.254.169.254", AddressPolicy::Remote, true),
        ("localhost", AddressPolicy::Remote, true),
        ("a.LocalHost.", AddressPolicy::Remote, true),
        ("127.1", AddressPolicy::Unicast, true),
        ("0x7f.0X1", AddressPolicy::Remote, true),
        ("2130706433", AddressPolicy::Remote, true),
        ("ip6-localhost", AddressPolicy::Remote, true),
        ("localhost.localdomain", AddressPolicy::Remote, true),
        ("::1%lo", AddressPolicy::Remote, true),
        ("[::1%lo]", AddressPolicy::Remote, true),
        ("[fe80::1%25eth0]", AddressPolicy::Remote, true),
        ("127.0.0.1:80", AddressPolicy::Remote, true),
        ("127.0.0.1#a", AddressPolicy::Remote, true),
        ("127.0.0.1/a.example", AddressPolicy::Remote, true),
        ("user@a.example", AddressPolicy::Remote, true),
        ("a.example\n", AddressPolicy::Unicast, true),
        ("\u{ff4c}ocalhost", AddressPolicy::Remote, true),
        ("", AddressPolicy::Unicast, true),
        ("_a.node-1.example.", AddressPolicy::Remote, false),
        ("localhost", AddressPolicy::Unicast, false),
        ("127.0.0.1", AddressPolicy::Unicast, false),
        ("192.0.2.1", AddressPolicy::Remote, false),
        ("node-1.example", AddressPolicy::Remote, false),
        ("node0x1", AddressPolicy::Remote, false),
    ] {
        let error = egress.connect(host, 10250, policy, Duration::from_secs(5)).await.unwrap_err();
        let found = matches!(error, ConnectError::Refused(_) | ConnectError::RefusedName(_));
        assert_eq!(found, is_refused, "{host}: {error}");
    }
}
