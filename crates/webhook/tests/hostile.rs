//! Webhooks that respond as no well-meaning server does.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::Response;
use nave_webhook::testing::HttpsServer;
use nave_webhook::{CallLimits, ClientConfig, ClientManager, HookClient, Routing, ServiceResolver, Services};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

const LIMITS: CallLimits = CallLimits { timeout: Duration::from_mins(1), response_bytes: 100_000 };
const LARGE: CallLimits = CallLimits { response_bytes: 2 << 20, ..LIMITS };

struct NoServices;

impl Services for NoServices {
    fn service(&self, _: &str, _: &str) -> Option<Arc<Value>> {
        None
    }

    fn endpoint_slices(&self, _: &str, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

fn manager() -> ClientManager {
    ClientManager::new(ServiceResolver::new(Arc::new(NoServices), Routing::ClusterIp, None))
}

fn client(clients: &ClientManager, server: &HttpsServer, path: &str) -> HookClient {
    let config = json!({"url": server.url(path), "caBundle": BASE64_STANDARD.encode(&server.ca)});
    clients.client(&ClientConfig::from_json(&config).unwrap()).unwrap()
}

async fn call(client: &HookClient) -> Result<String, String> {
    let answer = client.post(Bytes::from_static(b"{}"), LIMITS, None).await;
    let answer = answer.map(|answer| String::from_utf8(answer.body.to_vec()).unwrap());
    answer.map_err(|error| error.to_string())
}

/// Reads a request with the body `{}`; returns its path, or `None` at the end of the connection.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n{}") {
        text.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(text).unwrap();
    Some(text.split(' ').nth(1)?.split('?').next()?.to_owned())
}

/// A server that sends `start` and then `rest` again and again.
async fn endless(start: &'static str, rest: &'static str) -> HttpsServer {
    HttpsServer::start_raw(move |mut stream| async move {
        request(&mut stream).await;
        let rest = rest.repeat(16 * 1024 / rest.len());
        let mut sent = stream.write_all(start.as_bytes()).await;
        while sent.is_ok() {
            sent = stream.write_all(rest.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn endless_responses_end_at_the_limit_and_not_at_the_timeout() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const CHUNKED_END: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    let too_long = "the response is longer than 100000 bytes";
    for (name, start, rest, why) in [
        ("interim responses", "", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", too_long),
        ("continue", "", "HTTP/1.1 100 Continue\r\n\r\n", too_long),
        ("body", "HTTP/1.1 200 OK\r\n\r\n", "xxxx", too_long),
        ("chunks of one byte", CHUNKED, "1\r\nx\r\n", too_long),
        ("headers", OK, "a: b\r\n", "message head is too large"),
        ("one header", "HTTP/1.1 200 OK\r\na: ", "xxxx", "message head is too large"),
        ("length of a chunk", CHUNKED, "0000", too_long),
        (
            "extension of a chunk",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;",
            "xxxx",
            "cannot read the response",
        ),
        ("trailers", CHUNKED_END, "a: b\r\n", "cannot read the response"),
    ] {
        let server = endless(start, rest).await;
        let error = call(&client(&manager(), &server, "/")).await.unwrap_err();
        assert!(error.contains(why), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_body_in_tiny_chunks_is_read() {
    let server = HttpsServer::start_raw(|mut stream| async move {
        while request(&mut stream).await.is_some() {
            let chunks = "1\r\nx\r\n".repeat(10_000);
            let response =
                format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\na: b\r\n\r\n");
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    })
    .await;
    let hook = client(&manager(), &server, "/");
    for _ in 0..2 {
        assert_eq!(call(&hook).await.unwrap(), "x".repeat(10_000));
    }
}

#[tokio::test]
async fn connections_are_shared_by_the_webhooks_of_a_server_and_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = HttpsServer::start_raw(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some(path) = request(&mut stream).await {
                let length = path.len();
                let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}");
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let clients = manager();
    for path in ["/a", "/b", "/a", "/b"] {
        assert_eq!(call(&client(&clients, &server, path)).await.unwrap(), path);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let other = HttpsServer::start(|_| Response::new(Bytes::from_static(b"other"))).await;
    let config = json!({"url": server.url("/a"), "caBundle": BASE64_STANDARD.encode(&other.ca)});
    let untrusting = clients.client(&ClientConfig::from_json(&config).unwrap()).unwrap();
    assert!(call(&untrusting).await.is_err(), "other authorities have connections of their own");
}

#[tokio::test]
async fn a_connection_is_not_used_after_an_unusual_response() {
    for (name, response) in [
        (
            "a second response",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        ),
        ("more than the length", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokevil"),
        ("close", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"),
        ("an old protocol", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
    ] {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let server = HttpsServer::start_raw(move |mut stream| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                while request(&mut stream).await.is_some() {
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            }
        })
        .await;
        let hook = client(&manager(), &server, "/");
        for _ in 0..3 {
            assert_eq!(call(&hook).await.unwrap(), "ok", "{name}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3, "{name}");
    }
}

#[tokio::test]
async fn a_broken_response_fails_one_call() {
    for (response, why) in [
        ("", "EOF"),
        ("HTTP/1.1 200 OK\r\ncontent-len", "EOF"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", "cannot read the response"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok", "cannot read the response"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "the status code 101",
        ),
        ("SSH-2.0\r\n\r\n", "invalid HTTP"),
    ] {
        let calls = AtomicUsize::new(0);
        let server = HttpsServer::start_raw(move |mut stream| {
            let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                request(&mut stream).await;
                let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(if is_first { response } else { whole }.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let hook = client(&manager(), &server, "/");
        let error = call(&hook).await.unwrap_err();
        assert!(error.contains(why), "{response:?}: {error}");
        assert_eq!(call(&hook).await.unwrap(), "ok", "{response:?}");
    }
}

#[tokio::test]
async fn few_large_responses_are_kept_at_a_time() {
    let server = HttpsServer::start(|_| Response::new(Bytes::from(vec![b' '; 1 << 20]))).await;
    let other = HttpsServer::start(|_| Response::new(Bytes::from(vec![b' '; 1 << 20]))).await;
    let clients = manager();
    let hook = client(&clients, &server, "/");
    let post = async || hook.post(Bytes::from_static(b"{}"), LARGE, None).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..8 {
        kept.push(post().await);
    }
    let short = CallLimits { timeout: Duration::from_millis(100), ..LARGE };
    let late = hook.post(Bytes::from_static(b"{}"), short, None).await.err().unwrap();
    assert!(late.is_timeout());
    let another = client(&clients, &other, "/").post(Bytes::from_static(b"{}"), LARGE, None).await;
    assert!(another.is_ok(), "another webhook");
    kept.pop();
    post().await;
}

#[tokio::test]
async fn a_large_response_that_waits_outlives_its_connection() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let server = HttpsServer::start_raw(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            request(&mut stream).await;
            // A little more than what is read without a permit, so that the connection can end before the rest is read.
            let body = " ".repeat((256 << 10) + 20_000);
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
            // The client ends the connection too.
            let _ = stream.read_u8().await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let hook = client(&manager(), &server, "/");
    let post = async || hook.post(Bytes::from_static(b"{}"), LARGE, None).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..8 {
        kept.push(post().await);
    }
    let release = async {
        while ended.load(Ordering::SeqCst) < 9 {
            tokio::task::yield_now().await;
        }
        kept.pop();
    };
    let (late, ()) = tokio::join!(post(), release);
    assert_eq!(late.body.len(), (256 << 10) + 20_000);
}

#[tokio::test]
async fn a_webhook_that_defers_a_call_beyond_its_end_has_responded() {
    for seconds in ["61", "4294967296", "18446744073709551615", "18446744073709551616", "-1"] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let server = HttpsServer::start(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let response = Response::builder().status(429).header("retry-after", seconds);
            response.body(Bytes::from_static(b"later")).unwrap()
        })
        .await;
        let error = call(&client(&manager(), &server, "/")).await.unwrap_err();
        assert!(error.contains("too many requests"), "{seconds}: {error}");
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{seconds}");
    }
}
