//! Requests of a user and their responses.

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
    /// Creates a request without a body; `path` may include a query.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        Self { method: method.parse().unwrap(), path: path.to_owned(), headers, body: Bytes::new() }
    }

    /// Parses a request from a line: `GET /api/v1/pods`.
    pub(crate) fn line(line: &str) -> Self {
        let (method, path) = line.split_once(' ').unwrap_or_else(|| panic!("{line} is not METHOD PATH"));
        Self::new(method, path)
    }

    /// Sets the body: a merge patch for `PATCH`, otherwise an object.
    pub(crate) fn json(self, body: &Value) -> Self {
        let kind = match self.method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        self.header("content-type", kind).body(body.to_string())
    }

    /// Sets the bytes of the body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self
    }

    /// Sets the content type.
    pub(crate) fn content_type(self, value: &str) -> Self {
        self.header(CONTENT_TYPE.as_str(), value)
    }
}

/// A client that sends requests as one user.
#[derive(Clone)]
pub(crate) struct Client(LocalService);

impl Client {
    pub(crate) fn new(service: LocalService) -> Self {
        Self(service)
    }

    /// Sends a request without a body, given as a line, and reads the whole response.
    pub(crate) async fn call(&self, line: &str) -> TestResponse {
        self.send(Call::line(line)).await
    }

    /// Sends a request, given as a line, with an object or a patch as its body.
    pub(crate) async fn call_with(&self, line: &str, body: &Value) -> TestResponse {
        self.send(Call::line(line).json(body)).await
    }

    /// Sends a request and reads the whole response. A watch never ends, so its response contains the events that exist
    /// at the start.
    pub(crate) async fn send(&self, call: Call) -> TestResponse {
        let (mut response, watch) = self.open(call).await;
        let mut bytes = Vec::new();
        loop {
            let frame = response.body_mut().frame();
            let frame = if watch { frame.now_or_never().flatten() } else { frame.await };
            let Some(frame) = frame else { break };
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default());
        }
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings.map(|value| value.to_str().unwrap().to_owned()).collect();
        TestResponse { code: response.status().as_u16(), body: bytes.into(), warnings }
    }

    /// Starts a watch to read its events one by one.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        let (response, watch) = self.open(Call::new("GET", path)).await;
        assert!(watch, "GET {path} is answered with {} and no watch", response.status());
        Events { body: response.into_body(), received: Vec::new() }
    }

    /// Returns the response, and whether the request is a watch.
    async fn open(&self, call: Call) -> (Response<LocalBody>, bool) {
        let Call { method, path, headers, body } = call;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        *request.headers_mut() = headers;
        let response = self.0.clone().call(request).await.unwrap();
        // The content type of a JSON watch is the same as that of an object.
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
    /// Returns the next event, an object with `type` and `object`; `None` at the end of the watch.
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

/// The response to a request.
#[derive(Clone, Debug)]
pub(crate) struct TestResponse {
    pub(crate) code: u16,
    pub(crate) body: Bytes,
    /// The `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

impl TestResponse {
    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as an object.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the message of a `Status`.
    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns the names of a list's objects, as `NAMESPACE/NAME` if they are namespaced.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |object: &Value| {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            if namespace.is_empty() { name } else { format!("{namespace}/{name}") }
        };
        self.json()["items"].as_array().into_iter().flatten().map(name).collect()
    }

    /// Returns the value at a JSON pointer.
    pub(crate) fn value_at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }
}
