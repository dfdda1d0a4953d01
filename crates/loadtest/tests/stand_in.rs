//! Runs every scenario against a fake API server, over TLS and HTTP/2.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nave_loadtest::LoadError;
use nave_loadtest::http::{Call, Target};
use nave_loadtest::process::Processes;
use nave_loadtest::scenario::{Scenario, Session, Sizes};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, Infallible>;

/// A fake API server. Answers each request without storing objects, and sends each created pod to the watchers of all
/// pods.
#[derive(Clone)]
struct StandIn {
    events: broadcast::Sender<Bytes>,
}

impl StandIn {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        let (status, body) = match *request.method() {
            Method::POST => {
                let object = request.into_body().collect().await.unwrap().to_bytes();
                if path.ends_with("/pods") {
                    let event = [b"{\"type\":\"ADDED\",\"object\":".as_slice(), &object, b"}\n"].concat();
                    // Fails if no watcher exists.
                    let _ = self.events.send(event.into());
                }
                // A webhook that is in effect sets its label.
                let text = String::from_utf8_lossy(&object);
                let labelled = text.replace(r#""labels":{"#, r#""labels":{"loadtest-injected":"yes","#);
                (201, if path.contains("dryRun=All") { full(labelled) } else { full(object) })
            }
            Method::GET if path.contains("watch=true") => (200, self.watch(path.contains("fieldSelector"))),
            Method::GET if path.contains("refused") => (403, full(r#"{"kind":"Status","code":403}"#)),
            Method::GET => {
                let more =
                    if path.contains("limit=500") && !path.contains("continue=") { "next" } else { "" };
                let metadata = format!(r#"{{"resourceVersion":"7","continue":"{more}"}}"#);
                (200, full(format!(r#"{{"kind":"PodList","metadata":{metadata},"items":[]}}"#)))
            }
            _ => (200, full("{}")),
        };
        Ok(Response::builder().status(status).body(body).unwrap())
    }

    fn watch(&self, elsewhere: bool) -> Body {
        let events = stream::unfold(self.events.subscribe(), move |mut events| async move {
            loop {
                let event = events.recv().await.ok()?;
                if !elsewhere {
                    return Some((Ok(Frame::data(event)), events));
                }
            }
        });
        BodyExt::boxed(StreamBody::new(events))
    }
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// Starts a fake server and writes a kubeconfig for it.
async fn start(folder: &TempDir) -> PathBuf {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key);
    let mut tls = tls.unwrap();
    tls.alpn_protocols = vec!["h2".into()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stand_in = StandIn { events: broadcast::Sender::new(10_000) };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
            let stand_in = stand_in.clone();
            let service = service_fn(move |request| stand_in.clone().answer(request));
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.max_concurrent_streams(100).serve_connection(stream, service));
        }
    });
    let authority = STANDARD.encode(certified.cert.pem());
    let path = folder.path().join("kubeconfig");
    let text = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],
          clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority-data: {authority}}}}}],
          users: [{{name: u, user: {{token: secret}}}}]}}"
    );
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn runs_and_counts_every_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::from_kubeconfig(&start(&folder).await).unwrap();
    let sizes = Sizes {
        pods: 400,
        few_pods: 60,
        config_maps: 50,
        watchers: 200,
        per_connection: 90,
        pod_bytes: 3_700,
        connections: 2,
        time: Duration::from_millis(200),
    };
    let processes = Processes(vec![std::process::id()]);
    let session = Session::open(target, processes, sizes).await.unwrap();
    for scenario in Scenario::ALL {
        let sample = session.run(scenario).await.unwrap();
        assert!(sample.operations > 0 && sample.bytes > 0, "{scenario:?}");
        assert_eq!(sample.operations as usize, sample.latencies.len(), "{scenario:?}");
        assert!(sample.latencies.is_sorted() && sample.cpu.is_some() && sample.rss.is_some());
        match scenario {
            Scenario::CreateConfigMaps => assert_eq!(sample.operations, 50),
            Scenario::CreatePods => {
                assert_eq!(sample.operations, 400);
                assert!((3_600..3_800).contains(&(sample.bytes / 400)), "padded to the requested size");
            }
            Scenario::WatchFanOut => assert_eq!(sample.operations, 200 * 100),
            _ => {}
        }
    }
    session.close().await.unwrap();
}

#[tokio::test]
async fn error_contains_request_and_response() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::from_kubeconfig(&start(&folder).await).unwrap();
    let error = target.pool(1).await.unwrap().call(&Call::get("/refused")).await.unwrap_err();
    assert!(matches!(error, LoadError::Refused { status: 403, .. }));
    assert_eq!(error.to_string(), r#"GET /refused: 403: {"kind":"Status","code":403}"#);
}
