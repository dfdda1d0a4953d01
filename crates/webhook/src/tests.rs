//! Against a server of the test's own, over TLS on a port of its own.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const QUICK: Backoff = Backoff { first: Duration::from_millis(1), factor: 1.0, jitter: 0.0, attempts: 3 };

/// A webhook that fails `failures` times with 503 and then sends back what it is sent, and the credentials it saw.
struct Echo {
    folder: tempfile::TempDir,
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn leaf(ca: &Ca, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

impl Echo {
    async fn start(failures: usize) -> Self {
        let (ca, folder) = (ca(), tempfile::tempdir().unwrap());
        let (certificate, key) = leaf(&ca, "webhook.test", ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = leaf(&ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
        for (name, text) in [
            ("ca.crt", ca.pem()),
            ("client.crt", client.pem()),
            ("client.key", client_key.serialize_pem()),
            ("token", " from-file\n".to_owned()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), failures, seen.clone()));
        Self { folder, port, seen }
    }

    fn webhook(&self, cluster: &str, user: &str) -> Result<Webhook, FileError> {
        let server = format!("https://127.0.0.1:{}/hook", self.port);
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: '{server}', {cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
        );
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, text).unwrap();
        Ok(Webhook::from_file(&path, Duration::from_mins(1))?.with_backoff(QUICK))
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, failures: usize, seen: Arc<Mutex<Vec<String>>>) {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (tls, seen, count) = (tls.clone(), seen.clone(), count.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let authorization = request.headers().get("authorization").cloned();
                let text = authorization.map(|value| value.to_str().unwrap().to_owned());
                seen.lock().unwrap().push(text.unwrap_or_default());
                let failed = count.fetch_add(1, Ordering::SeqCst) < failures;
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut response = http::Response::new(Full::new(body));
                    if failed {
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

const TRUST: &str = "certificate-authority: ca.crt, tls-server-name: webhook.test";
const SHOW: &str = "client-certificate: client.crt, client-key: client.key";

#[tokio::test]
async fn a_webhook_is_called_as_the_file_says() {
    let echo = Echo::start(0).await;
    for (more, header) in [
        ("", ""),
        (", token: abc", "Bearer abc"),
        (", tokenFile: token", "Bearer from-file"),
        (", username: a, password: b", "Basic YTpi"),
    ] {
        let webhook = echo.webhook(TRUST, &format!("{SHOW}{more}")).unwrap();
        assert_eq!(webhook.call(&json!({"a": 1})).await.unwrap(), json!({"a": 1}));
        assert_eq!(echo.seen.lock().unwrap().last().unwrap(), header);
        assert!(!format!("{webhook:?}").contains("abc"));
    }
}

#[tokio::test]
async fn what_is_not_trusted_is_not_called() {
    let echo = Echo::start(0).await;
    for (cluster, user) in [
        ("certificate-authority: ca.crt", SHOW),
        ("certificate-authority: client.crt, tls-server-name: webhook.test", SHOW),
        ("tls-server-name: webhook.test", SHOW),
        (TRUST, ""),
    ] {
        let error = echo.webhook(cluster, user).unwrap().call(&json!({})).await.unwrap_err();
        assert!(matches!(error, CallError::Client(ClientError::Connection(_))), "{cluster}: {error}");
    }
    assert!(echo.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn transient_failures_are_tried_again_within_bounds() {
    let echo = Echo::start(2).await;
    assert_eq!(echo.webhook(TRUST, SHOW).unwrap().call(&json!({})).await.unwrap(), json!({}));
    assert_eq!(echo.seen.lock().unwrap().len(), 3);
    let down = Echo::start(usize::MAX).await;
    let error = down.webhook(TRUST, SHOW).unwrap().call(&json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Status(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(down.seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_file_that_describes_no_webhook_is_an_error() {
    let echo = Echo::start(0).await;
    for (cluster, user, why) in [
        ("insecure-skip-tls-verify: true", "", "insecure-skip-tls-verify is not supported"),
        ("certificate-authority: absent", "", "absent"),
        ("certificate-authority: token", "", "certificate-authority has no certificate"),
        (TRUST, "client-certificate: client.crt", "client-key is missing"),
        (TRUST, "exec: {command: x}", "exec or auth-provider is not supported"),
    ] {
        let error = echo.webhook(cluster, user).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
