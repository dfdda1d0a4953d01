//! Webhook calls over TLS to a local server.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nave_machinery::backoff::Backoff;
use nave_webhook::testing::HttpsServer;
use nave_webhook::{CallError, ClientError, FileError, Webhook};
use serde_json::json;
use tokio::sync::Notify;

const QUICK: Backoff =
    Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(1), factor: 1.0, jitter: 0.0 };

/// A webhook that responds with 503 a number of times, then echoes the request. Records the credentials.
struct Echo {
    folder: tempfile::TempDir,
    server: HttpsServer,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    async fn start(failures: usize) -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&seen);
        let server = HttpsServer::start_for_clients(move |request| {
            let authorization = request.headers().get("authorization");
            let mut log = log.lock().unwrap();
            log.push(authorization.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default());
            let mut response = Response::new(request.body().clone());
            if log.len() <= failures {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), " from-file\n").unwrap();
        Self { folder, server: server.await, seen }
    }

    fn webhook(&self, cluster: &str, user: &str) -> Result<Webhook, FileError> {
        let path = self.server.write_kubeconfig(self.folder.path(), cluster, user);
        Ok(Webhook::from_file(&path, Duration::from_mins(1))?.with_backoff(QUICK).with_attempts(3))
    }
}

const TRUST: &str = "certificate-authority: ca.crt, tls-server-name: webhook.test";
const SHOW: &str = "client-certificate: client.crt, client-key: client.key";

#[tokio::test]
async fn calls_get_another_connection_if_the_server_no_longer_answers_on_theirs() {
    let connections = Arc::new(AtomicUsize::new(0));
    let silent = Arc::new(Notify::new());
    let (counted, silenced) = (Arc::clone(&connections), Arc::clone(&silent));
    let server = HttpsServer::start_raw_http2(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let silenced = Arc::clone(&silenced);
        async move {
            let service = service_fn(async |_| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
            });
            let connection = http2::Builder::new(TokioExecutor::new());
            let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = &mut connection => {}
                () = silenced.notified() => std::future::pending().await,
            }
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = server.write_kubeconfig(folder.path(), TRUST, "username: a, password: b");
    let webhook = Webhook::from_file(&path, Duration::from_secs(10)).unwrap().with_attempts(1);
    let call = async || webhook.call(&json!({})).await.is_ok();
    assert!(call().await && call().await);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    silent.notify_one();
    // No byte arrives now, so that the time of the calls and the pings passes at once.
    tokio::time::pause();
    for _ in 0..6 {
        call().await;
    }
    tokio::time::resume();
    assert!(call().await);
    assert!(connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn calls_with_the_configured_credentials() {
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
async fn rejects_untrusted_servers() {
    let echo = Echo::start(0).await;
    for (cluster, user) in [
        ("certificate-authority: ca.crt, tls-server-name: other.test", SHOW),
        ("certificate-authority: client.crt", SHOW),
        ("tls-server-name: webhook.test", SHOW),
        (TRUST, ""),
    ] {
        let error = echo.webhook(cluster, user).unwrap().call(&json!({})).await.unwrap_err();
        assert!(matches!(error, CallError::Client(ClientError::Connection(_))), "{cluster}: {error}");
    }
    assert!(echo.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn insecure_skip_tls_verify_accepts_any_server() {
    let echo = Echo::start(0).await;
    let webhook = echo.webhook("insecure-skip-tls-verify: true", SHOW).unwrap();
    assert_eq!(webhook.call(&json!({})).await.unwrap(), json!({}));
}

#[tokio::test]
async fn reloads_a_changed_file() {
    let (before, after) = (Echo::start(0).await, Echo::start(0).await);
    let webhook = before.webhook(TRUST, SHOW).unwrap();
    webhook.call(&json!({})).await.unwrap();
    // An invalid kubeconfig has no effect.
    let file = before.folder.path().join("kubeconfig");
    let bad_at = file.with_extension("bad");
    std::fs::write(&bad_at, "current-context: none").unwrap();
    std::fs::rename(&bad_at, &file).unwrap();
    webhook.call(&json!({})).await.unwrap();
    // A different server with a certificate from a different CA.
    after.server.write_kubeconfig(before.folder.path(), TRUST, SHOW);
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while after.seen.lock().unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the file is not reloaded");
        let _ = webhook.call(&json!({})).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(webhook.call(&json!({"a": 1})).await.unwrap(), json!({"a": 1}));
}

#[tokio::test]
async fn retries_transient_failures_up_to_the_limit() {
    let echo = Echo::start(2).await;
    assert_eq!(echo.webhook(TRUST, SHOW).unwrap().call(&json!({})).await.unwrap(), json!({}));
    assert_eq!(echo.seen.lock().unwrap().len(), 3);
    let down = Echo::start(usize::MAX).await;
    let error = down.webhook(TRUST, SHOW).unwrap().call(&json!({})).await.unwrap_err();
    assert!(matches!(error, CallError::Status(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(down.seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn rejects_invalid_kubeconfigs() {
    let echo = Echo::start(0).await;
    for (cluster, user, why) in [
        (
            "insecure-skip-tls-verify: true, certificate-authority: ca.crt",
            "",
            "with the insecure flag is not allowed",
        ),
        ("certificate-authority: absent", "", "absent"),
        ("certificate-authority: token", "", "certificate-authority has no certificate"),
        (TRUST, "client-certificate: client.crt", "client-key is missing"),
        (TRUST, "exec: {command: x}", "exec or auth-provider is not supported"),
    ] {
        let error = echo.webhook(cluster, user).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_gets_a_bounded_number_of_calls() {
    const CALLS: usize = 100;
    let (arrived, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let server = HttpsServer::start_async(move |request| {
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        arrived.send(answer).unwrap();
        async move {
            let _ = answered.await;
            Some(Response::new(request.into_body()))
        }
    });
    let server = server.await;
    let folder = tempfile::tempdir().unwrap();
    let path = server.write_kubeconfig(folder.path(), TRUST, "token: t");
    let webhook = Arc::new(Webhook::from_file(&path, Duration::from_mins(1)).unwrap());
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..=CALLS {
        let webhook = Arc::clone(&webhook);
        all.spawn(async move { webhook.call(&json!({})).await.unwrap() });
    }
    let mut waiting = Vec::new();
    for _ in 0..CALLS {
        waiting.push(calls.recv().await.unwrap());
    }
    assert!(calls.try_recv().is_err(), "the last call waits");
    waiting.clear();
    drop(calls.recv().await.unwrap());
    assert_eq!(all.join_all().await.len(), CALLS + 1);
}
