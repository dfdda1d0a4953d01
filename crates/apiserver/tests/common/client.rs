//! Requests of one user, and their answers.

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use nave_apiserver::local::{LocalBody, LocalService};
use nave_machinery::Value;
use tower_service::Service;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    /// A request without a body; `path` may have a query.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        Self { method: method.parse().unwrap(), path: path.to_owned(), headers, body: Bytes::new() }
    }

    /// A request as a line: `GET /api/v1/pods`.
    pub(crate) fn line(line: &str) -> Self {
        let (method, path) = line.split_once(' ').unwrap_or_else(|| panic!("{line} is not METHOD PATH"));
        Self::new(method, path)
    }

    /// The same with a body: an object, or for a `PATCH` a merge patch.
    pub(crate) fn json(self, body: &Value) -> Self {
        let kind = match self.method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        self.header("content-type", kind).body(body.to_string())
    }

    /// The same with these bytes as its body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same with a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self
    }

    /// The same with a content type.
    pub(crate) fn content_type(self, value: &str) -> Self {
        self.header(CONTENT_TYPE.as_str(), value)
    }
}

/// The server as one user meets it.
#[derive(Clone)]
pub(crate) struct Client(LocalService);

impl Client {
    pub(crate) fn new(service: LocalService) -> Self {
        Self(service)
    }

    /// Sends a request without a body, written as a line, and reads the whole answer.
    pub(crate) async fn call(&self, line: &str) -> TestResponse {
        self.send(Call::line(line)).await
    }

    /// Sends a request with an object or a patch as its body.
    pub(crate) async fn call_with(&self, line: &str, body: &Value) -> TestResponse {
        self.send(Call::line(line).json(body)).await
    }

    /// Sends a request and reads the whole answer. A watch has no end: its answer holds the events that are there when
    /// it starts.
    pub(crate) async fn send(&self, call: Call) -> TestResponse {
        let (mut response, watch) = self.open(call).await;
        let mut bytes = Vec::new();
        loop {
            let frame = response.body_mut().frame();
            let frame = if watch { frame.now_or_never().flatten() } else { frame.await };
            let Some(frame) = frame else { break };
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        TestResponse { code: response.status().as_u16(), body: bytes.into() }
    }

    /// Sends a watch whose events are read one by one.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        let (response, watch) = self.open(Call::new("GET", path)).await;
        assert!(watch, "GET {path} is answered with {} and no watch", response.status());
        Events { body: response.into_body(), received: Vec::new() }
    }

    /// The response, and whether it is a watch.
    async fn open(&self, call: Call) -> (Response<LocalBody>, bool) {
        let Call { method, path, headers, body } = call;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        *request.headers_mut() = headers;
        let response = self.0.clone().call(request).await.unwrap();
        // The content type of a watch in JSON is that of an object.
        let watch =
            response.status() == StatusCode::OK && (path.contains("watch=") || path.contains("/watch/"));
        (response, watch)
    }
}

/// The events of a watch.
pub(crate) struct Events {
    body: LocalBody,
    received: Vec<u8>,
}

impl Events {
    /// The next event, with `type` and `object`; `None` at the watch's end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.received.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct TestResponse {
    pub(crate) code: u16,
    pub(crate) body: Bytes,
}

impl TestResponse {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as an object.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The message of a `Status`.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The names of a list's objects, as `NAMESPACE/NAME` where they have a namespace.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |object: &Value| {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            if namespace.is_empty() { name } else { format!("{namespace}/{name}") }
        };
        self.json()["items"].as_array().into_iter().flatten().map(name).collect()
    }

    /// The value at a JSON pointer.
    pub(crate) fn value_at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }
}
