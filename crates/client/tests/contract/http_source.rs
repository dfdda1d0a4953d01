//! Tests the requests of `HttpListerWatcher`, and the parsing of responses that are split into chunks at any point.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::Body;
use nave_client::{
    HttpListerWatcher, ListOptions, ListWatchError, ListerWatcher, Scope, WatchEvent, WatchOptions,
    WatchStart,
};
use nave_machinery::GroupVersionResource;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower_service::Service;

/// A fake server that returns a fixed response and records requests.
#[derive(Clone)]
struct Answering {
    code: u16,
    headers: Vec<(&'static str, String)>,
    chunks: Vec<Bytes>,
    /// True if the response stays open after its chunks.
    is_endless: bool,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    fn new(code: u16, chunks: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        let chunks = chunks.into_iter().map(Into::into).collect();
        Self { code, headers: Vec::new(), chunks, is_endless: false, asked: Arc::default() }
    }

    fn source(&self, scope: &Scope) -> HttpListerWatcher {
        let pods = GroupVersionResource::new("", "v1", "pods");
        HttpListerWatcher::new(kube::Client::new(self.clone(), "default"), &pods, scope)
    }

    async fn watch(&self) -> Vec<Result<WatchEvent, ListWatchError>> {
        let start = WatchStart::After("5".into());
        let options = WatchOptions { start, timeout: Duration::from_mins(5) };
        match self.source(&Scope::default()).watch(&options).await {
            Ok(events) => events.collect().await,
            Err(error) => vec![Err(error)],
        }
    }
}

impl Service<Request<Body>> for Answering {
    type Response = Response<UnsyncBoxBody<Bytes, Infallible>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let accept = request.headers()["accept"].to_str().unwrap().to_owned();
        self.asked.lock().push(format!("{} {accept}", request.uri()));
        let frames = stream::iter(self.chunks.clone()).map(|chunk| Ok(Frame::data(chunk)));
        let body = if self.is_endless {
            UnsyncBoxBody::new(StreamBody::new(frames.chain(stream::pending())))
        } else {
            UnsyncBoxBody::new(StreamBody::new(frames))
        };
        let mut answer = Response::builder().status(self.code);
        for (name, value) in &self.headers {
            answer = answer.header(*name, value);
        }
        ready(Ok(answer.body(body).unwrap()))
    }
}

fn pod(name: &str, version: u32) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns", "uid": name,
        "resourceVersion": version.to_string()}, "spec": {"note": "a \"{[\\\n"}})
}

#[tokio::test]
async fn lists_page_by_page() {
    let list = json!({"kind": "PodList", "items": [pod("a", 1), pod("b", 2)], "apiVersion": "v1",
        "metadata": {"resourceVersion": "9", "continue": "next/=", "remainingItemCount": 3}});
    let server = Answering::new(200, [list.to_string()]);
    let scope = Scope {
        namespace: "ns".into(),
        labels: "app in (a,b),!x".into(),
        fields: "spec.nodeName=n 1".into(),
        metadata_only: true,
    };
    let source = server.source(&scope);
    let options = ListOptions { resource_version: "0".into(), limit: 500, continue_token: String::new() };
    let page = source.list(&options).await.unwrap();
    let keys: Vec<_> = page.items.iter().map(|object| format!("{object:?}")).collect();
    assert_eq!(keys, ["ns/a@1", "ns/b@2"]);
    assert_eq!((page.resource_version.as_str(), page.continue_token.as_str()), ("9", "next/="));
    let options =
        ListOptions { limit: 0, resource_version: String::new(), continue_token: page.continue_token };
    source.list(&options).await.unwrap();
    let (path, tail) = (
        "/api/v1/namespaces/ns/pods?resourceVersion=",
        "&labelSelector=app%20in%20%28a%2Cb%29%2C%21x&fieldSelector=spec.nodeName%3Dn%201 \
         application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    );
    let expected = [format!("{path}0&limit=500{tail}"), format!("{path}&continue=next%2F%3D{tail}")];
    assert_eq!(*server.asked.lock(), expected);
}

#[tokio::test]
async fn accepts_null_items() {
    let server = Answering::new(200, [r#"{"metadata":{"resourceVersion":"9"},"items":null}"#]);
    let page = server.source(&Scope::default()).list(&ListOptions::default()).await.unwrap();
    assert!(page.items.is_empty() && page.resource_version == "9");
}

#[tokio::test]
async fn rejects_invalid_lists() {
    for body in ["", "[]", "<html>", r#"{"items":[{}]}"#, r#"{"items":[{"metadata":{}}"#, r#"{"items":[7]}"#]
    {
        let server = Answering::new(200, [body]);
        assert!(server.source(&Scope::default()).list(&ListOptions::default()).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn requests_bookmarks_and_timeout() {
    let server = Answering::new(200, [""]);
    assert!(server.watch().await.is_empty());
    let start = WatchStart::InitialEvents(String::new());
    let options = WatchOptions { start, timeout: Duration::from_secs(7) };
    let scope = Scope { metadata_only: true, ..Scope::default() };
    assert_eq!(server.source(&scope).watch(&options).await.unwrap().count().await, 0);
    let tail = "&allowWatchBookmarks=true&timeoutSeconds=";
    let expected = [
        format!("/api/v1/pods?watch=true&resourceVersion=5{tail}300 application/json"),
        format!(
            "/api/v1/pods?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={tail}7 \
             application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        ),
    ];
    assert_eq!(*server.asked.lock(), expected);
}

/// Returns one event of each type, in the format of a server.
fn frames() -> String {
    let bookmark = |annotations: Value| json!({"kind": "Pod", "metadata": {"resourceVersion": "8", "annotations": annotations}});
    [
        json!({"type": "ADDED", "object": pod("a", 6)}),
        json!({"type": "MODIFIED", "object": pod("a", 7)}),
        json!({"type": "BOOKMARK", "object": bookmark(json!(null))}),
        json!({"type": "BOOKMARK", "object": bookmark(json!({"k8s.io/initial-events-end": "true"}))}),
        json!({"type": "DELETED", "object": pod("a", 9)}),
        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}),
    ]
    .iter()
    .fold(String::new(), |text, event| text + &event.to_string() + "\n")
}

fn lines(events: &[Result<WatchEvent, ListWatchError>]) -> Vec<String> {
    let line = |event: &Result<WatchEvent, ListWatchError>| match event {
        Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
            format!("bookmark {resource_version} {initial_events_end}")
        }
        Ok(event) => format!("{event:?}"),
        Err(error) => error.to_string(),
    };
    events.iter().map(line).collect()
}

const READ: [&str; 6] = [
    "Added(ns/a@6)",
    "Modified(ns/a@7)",
    "bookmark 8 false",
    "bookmark 8 true",
    "Deleted(ns/a@9)",
    "expired: too old",
];

proptest! {
    #[test]
    fn parses_events_in_any_chunking(cuts in proptest::collection::vec(0..900_usize, 0..12)) {
        let text = frames();
        let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < text.len()).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let chunks = cuts.windows(2).map(|pair| Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]]));
        let server = Answering::new(200, chunks);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert_eq!(lines(&runtime.block_on(server.watch())), READ);
    }
}

#[tokio::test]
async fn truncated_or_invalid_event_is_an_error() {
    for tail in
        [r#"{"type":"ADDED","object":{"metadata""#, "{}\n", "<html>\n", "{\"type\":\"X\",\"object\":{}}\n"]
    {
        let mut text = frames();
        text.truncate(text.find('\n').unwrap() + 1);
        let events = Answering::new(200, [text + tail]).watch().await;
        assert_eq!(events.len(), 2, "{tail}");
        assert!(events[0].is_ok() && events[1].is_err(), "{tail}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ends_watches_that_exceed_their_timeout() {
    let mut server = Answering::new(200, [frames().lines().next().unwrap().to_owned() + "\n"]);
    server.is_endless = true;
    let start = tokio::time::Instant::now();
    let events = server.watch().await;
    assert!(matches!(&events[..], [Ok(_), Err(ListWatchError::Connection(_))]), "{events:?}");
    assert_eq!(start.elapsed().as_secs(), 330);
}

#[tokio::test]
async fn classifies_error_responses() {
    let status = |code: u16, reason: &str, details: Value| {
        json!({"kind": "Status", "code": code, "reason": reason, "message": "why", "details": details})
            .to_string()
    };
    let too_large = json!({"causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1});
    let mut busy = Answering::new(429, ["too many requests"]);
    busy.headers.push(("retry-after", "3".to_owned()));
    for (server, expected) in [
        (Answering::new(410, [status(410, "Expired", Value::Null)]), "expired: why"),
        (Answering::new(422, [status(422, "Invalid", Value::Null)]), "invalid: why"),
        (Answering::new(504, [status(504, "Timeout", too_large)]), "too large resource version: why"),
        (Answering::new(500, [status(500, "InternalError", Value::Null)]), "500 InternalError: why"),
        (Answering::new(404, ["404 page not found"]), "404 : "),
        (busy.clone(), "too many requests: "),
    ] {
        let error = server.source(&Scope::default()).list(&ListOptions::default()).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(lines(&server.watch().await), [expected]);
    }
    let error = busy.source(&Scope::default()).list(&ListOptions::default()).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
}
