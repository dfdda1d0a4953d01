//! Tests of the event recorder against a fake server that stores events.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::client::Body;
use nave_client::record::{self, EventKind, EventRecorder};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

#[derive(Clone, Default)]
struct FakeEvents(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    events: BTreeMap<String, Value>,
    /// The number of connections that fail before one succeeds.
    broken: u32,
    refuses: bool,
    asked: u32,
}

impl FakeEvents {
    fn start(&self) -> (EventRecorder, CancellationToken, JoinHandle<()>) {
        let (events, writer) = record::recorder("tester", kube::Client::new(self.clone(), "default"));
        let stop = CancellationToken::new();
        (events, stop.clone(), tokio::spawn(writer.run(stop)))
    }

    /// Returns the message and count of each event.
    fn all(&self) -> Vec<(String, i64)> {
        let state = self.0.lock();
        let message_and_count =
            |event: &Value| (event["message"].as_str().unwrap().to_owned(), event["count"].as_i64().unwrap());
        state.events.values().map(message_and_count).collect()
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Result<Response<Full<bytes::Bytes>>, io::Error> {
        let mut state = self.0.lock();
        state.asked += 1;
        if state.broken > 0 {
            state.broken -= 1;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let body: Value = serde_json::from_slice(body).unwrap();
        let status = |code: u16| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": if code == 404 { "NotFound" } else { "Forbidden" }, "message": "no"});
            Ok(Response::builder().status(code).body(status.to_string().into()).unwrap())
        };
        if state.refuses {
            return status(403);
        }
        let event = if method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            state.events.entry(name).or_insert(body)
        } else {
            let Some(event) = state.events.get_mut(path.rsplit('/').next().unwrap()) else {
                return status(404);
            };
            for (key, value) in body.as_object().unwrap() {
                event[key] = value.clone();
            }
            event
        };
        Ok(Response::new(event.to_string().into()))
    }
}

impl Service<Request<Body>> for FakeEvents {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            server.answer(&parts.method, parts.uri.path(), &body)
        })
    }
}

fn pod() -> ObjectReference {
    let text = |text: &str| Some(text.to_owned());
    ObjectReference {
        kind: text("Pod"),
        name: text("web"),
        namespace: text("ns"),
        ..ObjectReference::default()
    }
}

#[tokio::test(start_paused = true)]
async fn counts_repeated_events_and_drains_on_stop() {
    let server = FakeEvents::default();
    let (events, stop, written) = server.start();
    for message in ["up", "down", "up", "up"] {
        events.record(&pod(), EventKind::Normal, "Swing", message);
    }
    stop.cancel();
    written.await.unwrap();
    let mut all = server.all();
    all.sort();
    assert_eq!(all, [("down".to_owned(), 1), ("up".to_owned(), 3)]);
    let state = server.0.lock();
    let event = state.events.values().next().unwrap();
    assert_eq!((&event["source"]["component"], &event["reason"]), (&json!("tester"), &json!("Swing")));
    assert_eq!((&event["type"], &event["involvedObject"]["name"]), (&json!("Normal"), &json!("web")));
}

#[tokio::test(start_paused = true)]
async fn recreates_expired_events() {
    let server = FakeEvents::default();
    let (events, stop, written) = server.start();
    events.record(&pod(), EventKind::Warning, "Swing", "up");
    while server.all().is_empty() {
        tokio::task::yield_now().await;
    }
    server.0.lock().events.clear();
    events.record(&pod(), EventKind::Warning, "Swing", "up");
    stop.cancel();
    written.await.unwrap();
    assert_eq!(server.all(), [("up".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn retries_connection_failures_but_not_refusals() {
    let server = FakeEvents::default();
    let (events, _stop, _written) = server.start();
    server.0.lock().broken = 3;
    events.record(&pod(), EventKind::Normal, "Swing", "up");
    while server.all().is_empty() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(server.0.lock().asked, 4);
    server.0.lock().refuses = true;
    events.record(&pod(), EventKind::Normal, "Swing", "down");
    while server.0.lock().asked < 5 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    server.0.lock().refuses = false;
    events.record(&pod(), EventKind::Normal, "Swing", "up");
    while server.all() != [("up".to_owned(), 2)] {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(server.0.lock().asked, 6);
}
