//! Calls of webhooks that objects of the API configure, over TLS to a local server.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Response, StatusCode};
use nave_webhook::testing::HttpsServer;
use nave_webhook::{CallLimits, ClientConfig, ClientManager, HookClient, Routing, ServiceResolver, Services};
use serde_json::{Value, json};

const LIMITS: CallLimits = CallLimits { timeout: Duration::from_secs(30), response_bytes: 1000 };

/// A cluster with the service `hook` in `default`, whose cluster IP is the local host.
#[derive(Default)]
struct Cluster {
    port: AtomicU16,
}

impl Services for Cluster {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let port = self.port.load(Ordering::SeqCst);
        let spec = json!({"type": "ClusterIP", "clusterIP": "127.0.0.1", "ports": [{"port": port}]});
        (port != 0 && (namespace, name) == ("default", "hook")).then(|| Arc::new(json!({"spec": spec})))
    }

    fn endpoint_slices(&self, _: &str, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

fn manager(cluster: &Arc<Cluster>) -> ClientManager {
    let services = Arc::clone(cluster) as Arc<dyn Services>;
    ClientManager::new(ServiceResolver::new(services, Routing::ClusterIp, None))
}

fn client(url: &str, ca: &str) -> HookClient {
    let config = json!({"url": url, "caBundle": BASE64_STANDARD.encode(ca)});
    manager(&Arc::default()).client(&ClientConfig::from_json(&config).unwrap()).unwrap()
}

async fn call(client: &HookClient) -> Result<String, String> {
    let response = client.post(Bytes::from_static(b"{}"), LIMITS, None).await;
    response.map(|answer| String::from_utf8(answer.body.to_vec()).unwrap()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn posts_json_with_the_timeout_in_the_query() {
    let server = HttpsServer::start(|request| {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let shown = format!(
            "{} {} {} {}",
            request.method(),
            request.uri(),
            header("content-type"),
            String::from_utf8_lossy(request.body())
        );
        Response::new(Bytes::from(shown))
    })
    .await;
    let hook = client(&server.url("/a/b"), &server.ca);
    assert_eq!(call(&hook).await.unwrap(), "POST /a/b?timeout=30s application/json {}");
    let hook = client(&server.url(""), &server.ca);
    assert_eq!(call(&hook).await.unwrap(), "POST /?timeout=30s application/json {}");
}

#[tokio::test]
async fn calls_a_service_by_its_name_and_resolves_it_for_each_connection() {
    let one = HttpsServer::start(|_| Response::new(Bytes::from_static(b"one"))).await;
    let cluster = Arc::new(Cluster::default());
    let clients = manager(&cluster);
    let port = one.address.port();
    let service = json!({"namespace": "default", "name": "hook", "path": "/p", "port": port});
    let config = json!({"service": service, "caBundle": BASE64_STANDARD.encode(&one.ca)});
    let config = ClientConfig::from_json(&config).unwrap();
    let missing = call(&clients.client(&config).unwrap()).await.unwrap_err();
    let url = format!("https://hook.default.svc:{port}/p?timeout=30s");
    assert_eq!(missing, format!("Post {url:?}: service \"hook\" not found"));
    cluster.port.store(port, Ordering::SeqCst);
    assert_eq!(call(&clients.client(&config).unwrap()).await.unwrap(), "one");
}

#[tokio::test]
async fn errors_name_the_cause_as_go_does() {
    let server = HttpsServer::start(|_| Response::new(Bytes::from_static(b"{}"))).await;
    let other = HttpsServer::start(|_| Response::new(Bytes::new())).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let post = |url: &str, why: &str| format!("Post \"{url}?timeout=30s\": {why}");
    for (url, ca, why) in [
        (
            server.url("/x"),
            &other.ca,
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned(),
        ),
        (
            format!("https://127.0.0.1:{}/x", closed.port()),
            &server.ca,
            format!("dial tcp {closed}: connect: connection refused"),
        ),
    ] {
        assert_eq!(call(&client(&url, ca)).await.unwrap_err(), post(&url, &why));
    }
    // The certificate does not contain this name of the local host.
    let url = format!("https://[::ffff:127.0.0.1]:{}/x", server.address.port());
    let error = call(&client(&url, &server.ca)).await.unwrap_err();
    assert!(error.contains("x509: certificate is valid for ") && error.contains(", not "), "{error}");
    let empty = call(&client(&other.url("/"), &other.ca)).await.unwrap_err();
    assert_eq!(empty, "0-length response with status code: 200 and content type: ");
}

#[tokio::test]
async fn describes_responses_with_error_status() {
    let answer: Arc<Mutex<(u16, &str, &str)>> = Arc::new(Mutex::new((200, "", "")));
    let given = Arc::clone(&answer);
    let server = HttpsServer::start(move |_| {
        let (status, kind, body) = *given.lock().unwrap();
        let response = Response::builder().status(status).header("content-type", kind);
        response.header("location", "/elsewhere").body(Bytes::from_static(body.as_bytes())).unwrap()
    })
    .await;
    let hook = client(&server.url("/"), &server.ca);
    for (status, kind, body, expected) in [
        (
            500,
            "application/json",
            "{}",
            r#"an error on the server ("unknown") has prevented the request from succeeding"#,
        ),
        (
            500,
            "text/plain",
            " broken\n",
            r#"an error on the server ("broken") has prevented the request from succeeding"#,
        ),
        (404, "text/plain", "x", "the server could not find the requested resource"),
        (
            302,
            "text/plain",
            "x",
            "the server responded with the status code 302 but did not return more information",
        ),
        (
            403,
            "application/json",
            r#"{"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": "go away"}"#,
            "go away",
        ),
    ] {
        *answer.lock().unwrap() = (status, kind, body);
        assert_eq!(call(&hook).await.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn response_and_time_are_bounded() {
    let server = HttpsServer::start_async(|request| async move {
        match request.uri().path() {
            "/large" => Some(Response::new(Bytes::from(vec![b' '; LIMITS.response_bytes + 1]))),
            "/closed" => None,
            _ => std::future::pending().await,
        }
    })
    .await;
    let at = |path: &str| client(&server.url(path), &server.ca);
    let error = call(&at("/large")).await.unwrap_err();
    assert!(error.ends_with("the response is longer than 1000 bytes"), "{error}");
    let error = call(&at("/closed")).await.unwrap_err();
    assert!(error.ends_with("/closed?timeout=30s\": EOF"), "{error}");
    let limits = CallLimits { timeout: Duration::from_millis(200), ..LIMITS };
    let error = at("/slow").post(Bytes::new(), limits, None).await.err().unwrap();
    assert!(error.is_timeout() && error.to_string().contains("?timeout=1s"), "{error}");
}

#[tokio::test]
async fn calls_again_when_the_webhook_asks_for_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let server = HttpsServer::start(move |_| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        let status = if first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        let response = Response::builder().status(status).header("retry-after", "0");
        response.body(Bytes::from_static(b"ok")).unwrap()
    })
    .await;
    assert_eq!(call(&client(&server.url("/"), &server.ca)).await.unwrap(), "ok");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn changed_bundle_applies_to_the_next_call() {
    let server = HttpsServer::start(|_| Response::new(Bytes::from_static(b"ok"))).await;
    let other = HttpsServer::start(|_| Response::new(Bytes::new())).await;
    let clients = manager(&Arc::default());
    let config = |ca: &str| {
        let config = json!({"url": server.url("/"), "caBundle": BASE64_STANDARD.encode(ca)});
        ClientConfig::from_json(&config).unwrap()
    };
    for (ca, trusted) in [(&server.ca, true), (&other.ca, false), (&server.ca, true)] {
        assert_eq!(call(&clients.client(&config(ca)).unwrap()).await.is_ok(), trusted);
    }
}

#[test]
fn rejects_unusable_configurations() {
    let clients = manager(&Arc::default());
    for (config, why) in [
        (json!({}), "must have either service or URL"),
        (json!({"url": "http://a.example"}), "Unparsable URL"),
        (json!({"url": "https://a b"}), "Unparsable URL"),
        (json!({"url": "https://a.example", "caBundle": "bm8="}), "unable to parse bytes as PEM block"),
        (json!({"url": "https://a.example", "caBundle": "*"}), "unable to parse bytes as PEM block"),
    ] {
        let error = match ClientConfig::from_json(&config) {
            Ok(config) => clients.client(&config).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        assert!(error.as_ref().is_some_and(|error| error.contains(why)), "{config}: {error:?}");
    }
    // White space is no bundle, as upstream.
    let blank = json!({"url": "https://a.example", "caBundle": "ICA="});
    assert!(ClientConfig::from_json(&blank).unwrap().ca_bundle.is_empty());
}
