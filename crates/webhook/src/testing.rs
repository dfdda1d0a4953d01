//! An HTTPS server for tests with its own port and certificates.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed step fails the test")]

pub mod konnectivity;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// An HTTPS server whose responses come from a function. Dropping it stops the server.
pub struct HttpsServer {
    /// The local address.
    pub address: SocketAddr,
    /// The CA of the server and client certificates (PEM).
    pub ca: String,
    /// Certificate and key of a client (PEM).
    pub client: (String, String),
    task: JoinHandle<()>,
}

type Ca = CertifiedIssuer<'static, KeyPair>;

impl HttpsServer {
    /// Starts a server that accepts all clients.
    pub async fn start(answer: impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self::start_for(false, always(answer)).await
    }

    /// Starts a server that accepts all clients and responds asynchronously. It closes the connection instead of
    /// responding if the function returns `None`.
    pub async fn start_async<A>(answer: impl Fn(Request<Bytes>) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Option<Response<Bytes>>> + Send + 'static,
    {
        Self::start_for(false, answer).await
    }

    /// Starts a server that gives its connections to a function, for responses that no HTTP server sends.
    pub async fn start_raw<A>(serve: impl Fn(TlsStream<TcpStream>) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        Self::raw(credentials(false), serve).await
    }

    async fn raw<A>(
        (tls, ca, client): (TlsAcceptor, String, (String, String)),
        serve: impl Fn(TlsStream<TcpStream>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        let serve = Arc::new(serve);
        Self::listen(ca, client, move |stream| {
            let (tls, serve) = (tls.clone(), Arc::clone(&serve));
            async move {
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream).await;
                }
            }
        })
        .await
    }

    /// As [`Self::start_raw`], for connections of HTTP/2.
    pub async fn start_raw_http2<A>(serve: impl Fn(TlsStream<TcpStream>) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        let (tls, ca, client) = credentials(false);
        let mut config = ServerConfig::clone(tls.config());
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::raw((TlsAcceptor::from(Arc::new(config)), ca, client), serve).await
    }

    /// Starts a server that requires a client certificate signed by its CA.
    pub async fn start_for_clients(
        answer: impl Fn(&Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self::start_for(true, always(answer)).await
    }

    async fn start_for<A>(
        clients_only: bool,
        answer: impl Fn(Request<Bytes>) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = Option<Response<Bytes>>> + Send + 'static,
    {
        let (tls, ca, client) = credentials(clients_only);
        let answer = Arc::new(answer);
        Self::listen(ca, client, move |stream| respond(stream, tls.clone(), Arc::clone(&answer))).await
    }

    async fn listen<A>(
        ca: String,
        client: (String, String),
        serve: impl Fn(TcpStream) -> A + Send + Sync + 'static,
    ) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, ca, client, task }
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Writes `ca.crt`, `client.crt`, `client.key` and a `kubeconfig` for this server to a folder. Adds `cluster` and
    /// `user` to the kubeconfig (one line of YAML each).
    pub fn write_kubeconfig(&self, folder: &Path, cluster: &str, user: &str) -> std::path::PathBuf {
        let server = self.url("/hook");
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: '{server}', {cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
        );
        for (name, text) in [
            ("ca.crt", &self.ca),
            ("client.crt", &self.client.0),
            ("client.key", &self.client.1),
            ("kubeconfig", &kubeconfig),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        folder.join("kubeconfig")
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
    let names = ["127.0.0.1", "localhost", "webhook.test", "hook.default.svc"].map(str::to_owned);
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

/// Makes a function of a request asynchronous.
fn always(
    answer: impl Fn(&Request<Bytes>) -> Response<Bytes>,
) -> impl Fn(Request<Bytes>) -> std::future::Ready<Option<Response<Bytes>>> {
    move |request| std::future::ready(Some(answer(&request)))
}

async fn respond<A>(
    stream: TcpStream,
    tls: TlsAcceptor,
    answer: Arc<impl Fn(Request<Bytes>) -> A + Send + Sync + 'static>,
) where
    A: Future<Output = Option<Response<Bytes>>> + Send + 'static,
{
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let answered = answer(Request::from_parts(parts, body)).await;
            answered.map(|response| response.map(Full::new)).ok_or("closed")
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Returns the TLS of a server, its CA (PEM), and certificate and key of a client (PEM).
fn credentials(clients_only: bool) -> (TlsAcceptor, String, (String, String)) {
    let ca = ca();
    let (certificate, key) = leaf(&ca, ExtendedKeyUsagePurpose::ServerAuth);
    let (client, client_key) = leaf(&ca, ExtendedKeyUsagePurpose::ClientAuth);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if clients_only {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca.pem(), (client.pem(), client_key.serialize_pem()))
}
