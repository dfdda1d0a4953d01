//! A real server on a free port, with clients that are correct, anonymous, untrusted, silent or hostile.

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nave_authn::{Authenticator, ClientCertificates, Credentials};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::body::ResponseBody;

mod floods;
mod limits;

type Ca = CertifiedIssuer<'static, KeyPair>;
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn new_ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(ca: &Ca, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// Answers with the properties of the connection. `/slow` reports its start and waits for permission; `/endless` never
/// ends, and reports when it is dropped.
#[derive(Clone, Default)]
struct Echo {
    client_ca: Option<CertificateDer<'static>>,
    begun: Arc<Notify>,
    leave: Arc<Notify>,
    given_up: Arc<Notify>,
}

/// Notifies when it is dropped.
struct Held(Arc<Notify>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Handler for Echo {
    type Body = ResponseBody;

    fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Served<Self::Body>> + Send + 'static + use<> {
        let Self { client_ca, begun, leave, given_up } = self.clone();
        async move {
            if request.uri().path() == "/slow" {
                begun.notify_one();
                leave.notified().await;
            }
            if request.uri().path() == "/endless" {
                let soon = Instant::now() + Duration::from_millis(50);
                let body = ResponseBody::stream(stream::repeat(Bytes::from(vec![b'x'; 64 << 10])));
                let response = Response::new(body.keeping(Held(given_up)));
                return Served { response, deadline: Some(soon), upgrade: None };
            }
            let credentials = Credentials {
                peer: connection.client_certificate.as_ref(),
                headers: request.headers(),
                path: request.uri().path(),
            };
            let ca = nave_authn::ClientCa::new(vec![client_ca.unwrap()]).unwrap();
            let user = match ClientCertificates::new(Arc::new(ca)).authenticate(&credentials).await {
                Ok(None) => "anonymous".to_owned(),
                Ok(Some(found)) => {
                    connection.mark_authenticated();
                    found.user.name.clone()
                }
                Err(error) => format!("refused: {error}"),
            };
            let text = format!("{:?} {user}", connection.protocol);
            Served { response: Response::new(text.into_bytes().into()), deadline: None, upgrade: None }
        }
    }
}

struct World {
    server_ca: Ca,
    client_ca: Ca,
    certificate: Arc<ServingCertificate>,
    tls: Tls,
    address: SocketAddr,
    running: Running,
    echo: Echo,
}

fn start(limits: Limits) -> World {
    let (server_ca, client_ca) = (new_ca("servers"), new_ca("clients"));
    let (chain, key) = issue(&server_ca, "first", ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = Arc::new(ServingCertificate::new(chain, key).unwrap());
    let tls = Tls::new(certificate.clone(), Some(&[client_ca.der().clone()])).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server =
        Server::bind(&[any], tls.clone(), limits, ServingMetrics::new(&Registry::new()).unwrap()).unwrap();
    let address = server.local_addresses().unwrap()[0];
    let echo = Echo { client_ca: Some(client_ca.der().clone()), ..Echo::default() };
    let running = server.start(echo.clone());
    World { server_ca, client_ca, certificate, tls, address, running, echo }
}

impl World {
    async fn connect(&self, protocol: &[u8], identity: Option<Identity>) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.handshake(stream, protocol, identity).await.unwrap()
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        protocol: &[u8],
        identity: Option<Identity>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server_ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn http2(&self, identity: Option<Identity>) -> http2::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.connect(b"h2", identity).await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn http1(&self) -> http1::SendRequest<Empty<Bytes>> {
        let stream = TokioIo::new(self.connect(b"http/1.1", None).await);
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn client(&self, name: &str) -> Identity {
        issue(&self.client_ca, name, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).header("host", "localhost").body(Empty::new()).unwrap()
}

async fn text(response: hyper::Result<Response<Incoming>>) -> String {
    let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn both_protocols_are_served_with_and_without_a_client_certificate() {
    let world = start(Limits::default());
    assert_eq!(text(world.http1().await.send_request(get("/")).await).await, "Http1 anonymous");
    assert_eq!(text(world.http2(None).await.send_request(get("/")).await).await, "Http2 anonymous");
    let alice = text(world.http2(Some(world.client("alice"))).await.send_request(get("/")).await).await;
    assert_eq!(alice, "Http2 alice");
}

#[tokio::test]
async fn an_untrusted_certificate_reaches_the_handler_as_refused() {
    let world = start(Limits::default());
    let stranger = issue(&new_ca("others"), "mallory", ExtendedKeyUsagePurpose::ClientAuth);
    // A CA with the right name but another key: a certificate's name proves nothing.
    let forger = issue(&new_ca("clients"), "mallory", ExtendedKeyUsagePurpose::ClientAuth);
    let server = issue(&world.client_ca, "mallory", ExtendedKeyUsagePurpose::ServerAuth);
    for identity in [stranger, forger, server] {
        let answer = text(world.http2(Some(identity)).await.send_request(get("/")).await).await;
        assert!(answer.starts_with("Http2 refused: "), "{answer}");
    }
}

#[tokio::test]
async fn replaced_client_cas_apply_to_later_handshakes() {
    let world = start(Limits::default());
    let before = world.tls.config.load_full();
    world.tls.set_client_cas(&[new_ca("others").der().clone()]).unwrap();
    assert!(!Arc::ptr_eq(&before, &world.tls.config.load_full()));
    let nonsense = CertificateDer::from(b"nonsense".to_vec());
    assert!(matches!(world.tls.set_client_cas(&[nonsense]), Err(TlsError::ClientCa(_))));
    assert_eq!(
        text(world.http2(Some(world.client("alice"))).await.send_request(get("/")).await).await,
        "Http2 alice"
    );
}

#[tokio::test]
async fn a_replaced_certificate_applies_to_later_handshakes() {
    let world = start(Limits::default());
    let before = world.connect(b"h2", None).await;
    let (chain, key) = issue(&world.server_ca, "second", ExtendedKeyUsagePurpose::ServerAuth);
    let (_, other_key) = issue(&world.server_ca, "third", ExtendedKeyUsagePurpose::ServerAuth);
    world.certificate.replace(chain.clone(), key).unwrap();
    assert!(matches!(world.certificate.replace(chain.clone(), other_key), Err(TlsError::Certificate(_))));
    let after = world.connect(b"h2", None).await;
    assert_ne!(before.get_ref().1.peer_certificates().unwrap(), chain);
    assert_eq!(after.get_ref().1.peer_certificates().unwrap(), chain);
}

#[tokio::test]
async fn shutdown_completes_requests_in_flight_and_accepts_no_new_ones() {
    let world = start(Limits::default());
    let mut client = world.http2(None).await;
    let slow = tokio::spawn(client.send_request(get("/slow")));
    world.echo.begun.notified().await;
    let running = world.running.clone();
    let shutdown = tokio::spawn(async move { running.shutdown(Duration::from_mins(10)).await });
    world.running.closing.cancelled().await;
    while TcpStream::connect(world.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    world.echo.leave.notify_one();
    assert_eq!(text(slow.await.unwrap()).await, "Http2 anonymous");
    assert_eq!(shutdown.await.unwrap(), Drained::Completely);
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn shutdown_cuts_requests_that_outlast_its_deadline() {
    let world = start(Limits::default());
    let mut client = world.http2(None).await;
    let slow = tokio::spawn(client.send_request(get("/slow")));
    world.echo.begun.notified().await;
    assert_eq!(world.running.shutdown(Duration::ZERO).await, Drained::Cut { connections: 1 });
    assert!(slow.await.unwrap().is_err());
}

#[tokio::test]
async fn a_response_that_is_not_read_in_time_is_cut_off() {
    let world = start(Limits::default());
    let (mut http1, mut http2) = (world.http1().await, world.http2(None).await);
    let cut = async |response: Response<Incoming>| {
        world.echo.given_up.notified().await;
        assert!(response.into_body().collect().await.is_err(), "what is cut does not look complete");
    };
    // Sequentially, because two drops at once would be one notification.
    cut(http1.send_request(get("/endless")).await.unwrap()).await;
    cut(http2.send_request(get("/endless")).await.unwrap()).await;
    // On HTTP/2, only the stream has ended.
    assert_eq!(text(http2.send_request(get("/")).await).await, "Http2 anonymous");
}

#[tokio::test]
async fn disconnects_a_client_without_a_handshake() {
    let world = start(Limits { handshake: Duration::from_millis(10), ..Limits::default() });
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn tells_a_client_of_plain_http_to_use_https() {
    let world = start(Limits::default());
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The connection may be reset after the answer, because the server does not read the request.
    let _ = plain.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 400 ") && answer.contains("HTTP request to an HTTPS server"),
        "{answer}"
    );
}
