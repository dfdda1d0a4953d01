//! [`HttpListerWatcher`]: lists and watches an API server over HTTP with [`kube::Client`].

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use nave_machinery::{GroupVersionResource, Value, scan};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::list_watch::Scope;
use crate::{
    ListOptions, ListWatchError, ListerWatcher, Object, Page, WatchEvent, WatchOptions, WatchStart,
    WatchStream,
};

/// Lists and watches a resource over HTTP in JSON.
///
/// The bytes of each object in a response are copied once, into the [`Object`]; they are not deserialized.
#[derive(Clone)]
pub struct HttpListerWatcher {
    client: kube::Client,
    path: String,
    selectors: String,
    metadata_only: bool,
}

impl HttpListerWatcher {
    /// Lists and watches the objects of a resource in `scope`.
    pub fn new(client: kube::Client, resource: &GroupVersionResource, scope: &Scope) -> Self {
        let mut selectors = String::new();
        for (name, selector) in [("labelSelector", &scope.labels), ("fieldSelector", &scope.fields)] {
            if !selector.is_empty() {
                let _ = write!(selectors, "&{name}={}", escaped(selector));
            }
        }
        Self { client, path: path(resource, &scope.namespace), selectors, metadata_only: scope.metadata_only }
    }

    async fn get(&self, query: &str, what: &str) -> Result<Response<Body>, ListWatchError> {
        let accept = if self.metadata_only {
            format!("application/json;as=PartialObjectMetadata{what};g=meta.k8s.io;v=v1")
        } else {
            "application/json".to_owned()
        };
        let request = Request::get(format!("{}?{query}{}", self.path, self.selectors))
            .header(header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|error| ListWatchError::Invalid(error.to_string()))?;
        let answer = self.client.send(request).await.map_err(connection)?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }
}

#[async_trait]
impl ListerWatcher for HttpListerWatcher {
    async fn list(&self, options: &ListOptions) -> Result<Page, ListWatchError> {
        let mut query = format!("resourceVersion={}", escaped(&options.resource_version));
        if options.limit > 0 {
            let _ = write!(query, "&limit={}", options.limit);
        }
        if !options.continue_token.is_empty() {
            let _ = write!(query, "&continue={}", escaped(&options.continue_token));
        }
        let answer = self.get(&query, "List").await?;
        let body = answer.into_body().collect().await.map_err(connection)?.to_bytes();
        page(&body)
    }

    async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, ListWatchError> {
        let mut query = match &options.start {
            WatchStart::After(version) => format!("watch=true&resourceVersion={}", escaped(version)),
            WatchStart::InitialEvents(version) => format!(
                "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={}",
                escaped(version)
            ),
        };
        let _ = write!(query, "&allowWatchBookmarks=true&timeoutSeconds={}", options.timeout.as_secs());
        let answer = self.get(&query, "").await?;
        let lines = Lines { body: answer.into_body(), read: BytesMut::new(), searched: 0 };
        let overdue = tokio::time::Instant::now() + options.timeout + GRACE;
        Ok(stream::unfold(Some(lines), move |lines| async move {
            let mut lines = lines?;
            match tokio::time::timeout_at(overdue, lines.next()).await {
                Ok(Ok(None)) => None,
                Ok(Ok(Some(line))) => {
                    let event = event(&line);
                    let lines = event.is_ok().then_some(lines);
                    Some((event, lines))
                }
                Ok(Err(error)) => Some((Err(error), None)),
                Err(_) => {
                    Some((Err(ListWatchError::Connection("the watch exceeded its timeout".into())), None))
                }
            }
        })
        .boxed())
    }
}

/// Splits a response body into lines.
struct Lines {
    body: Body,
    read: BytesMut,
    /// The length of the prefix that contains no line end.
    searched: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, ListWatchError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read[self.searched..]) {
                let line = self.read.split_to(self.searched + end).freeze();
                self.read.advance(1);
                self.searched = 0;
                if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.read.len();
            if self.searched > MAX_LINE {
                return Err(ListWatchError::Malformed(format!("an event is longer than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                None if self.read.is_empty() => return Ok(None),
                None => return Err(ListWatchError::Connection("the watch ended within an event".into())),
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(connection(error)),
            }
        }
    }
}

/// Parses one line of a watch.
fn event(line: &[u8]) -> Result<WatchEvent, ListWatchError> {
    let malformed = || ListWatchError::Malformed("invalid watch event".into());
    let kind = scan::member(line, "type").ok_or_else(malformed)?;
    let object = &line[scan::member(line, "object").ok_or_else(malformed)?];
    let object_of = |json: &[u8]| Ok::<_, ListWatchError>(Object::from_json(Bytes::copy_from_slice(json))?);
    match &line[kind] {
        br#""ADDED""# => Ok(WatchEvent::Added(object_of(object)?)),
        br#""MODIFIED""# => Ok(WatchEvent::Modified(object_of(object)?)),
        br#""DELETED""# => Ok(WatchEvent::Deleted(object_of(object)?)),
        br#""BOOKMARK""# => {
            let object = object_of(object)?;
            let end = object.annotation(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            Ok(WatchEvent::Bookmark {
                resource_version: object.resource_version().to_owned(),
                initial_events_end: end,
            })
        }
        br#""ERROR""# => Err(status_error(&serde_json::from_slice(object).unwrap_or_default(), None)),
        _ => Err(malformed()),
    }
}

/// Parses the response to a list.
fn page(body: &[u8]) -> Result<Page, ListWatchError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Metadata {
        resource_version: String,
        #[serde(rename = "continue")]
        continue_token: String,
    }
    let malformed = || ListWatchError::Malformed("invalid list".into());
    let (mut metadata, mut items) = (Metadata::default(), Vec::new());
    let mut members = scan::members(body);
    for (key, value) in members.by_ref() {
        match &body[key] {
            b"metadata" => metadata = serde_json::from_slice(&body[value]).map_err(|_| malformed())?,
            b"items" if &body[value.clone()] != b"null" => {
                let list = &body[value];
                let mut elements = scan::elements(list);
                for element in elements.by_ref() {
                    items.push(Object::from_json(Bytes::copy_from_slice(&list[element]))?);
                }
                elements.is_complete().then_some(()).ok_or_else(malformed)?;
            }
            _ => {}
        }
    }
    members.is_complete().then_some(()).ok_or_else(malformed)?;
    let Metadata { resource_version, continue_token } = metadata;
    Ok(Page { items, resource_version, continue_token })
}

async fn refusal(answer: Response<Body>) -> ListWatchError {
    let code = answer.status();
    let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(answer.into_body(), MAX_STATUS).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut status: Status = serde_json::from_slice(&body).unwrap_or_default();
    if status.code == 0 {
        status.code = code.as_u16();
    }
    status_error(&status, after.map(Duration::from_secs))
}

/// The relevant fields of a `Status`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    code: u16,
    reason: Option<String>,
    message: Option<String>,
    details: Option<Value>,
}

fn status_error(status: &Status, header: Option<Duration>) -> ListWatchError {
    let (reason, message) =
        (status.reason.clone().unwrap_or_default(), status.message.clone().unwrap_or_default());
    let details = status.details.as_ref().unwrap_or(&Value::Null);
    let seconds = details["retryAfterSeconds"].as_u64().filter(|seconds| *seconds > 0);
    let retry_after = seconds.map(Duration::from_secs).or(header);
    let causes = details["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let too_large = causes.iter().any(|cause| cause["reason"] == "ResourceVersionTooLarge");
    match StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR) {
        StatusCode::GONE => ListWatchError::Expired(message),
        _ if too_large || message.contains("Too large resource version") => {
            ListWatchError::TooLargeResourceVersion(message)
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => ListWatchError::Invalid(message),
        StatusCode::TOO_MANY_REQUESTS => ListWatchError::TooManyRequests { message, retry_after },
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => {
            ListWatchError::TooManyRequests { message, retry_after }
        }
        code => ListWatchError::Status { code: code.as_u16(), reason, message },
    }
}

fn connection(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ListWatchError {
    ListWatchError::Connection(error.into())
}

fn path(resource: &GroupVersionResource, namespace: &str) -> String {
    let GroupVersionResource { group, version, resource } = resource;
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    match namespace {
        "" => format!("{root}/{resource}"),
        _ => format!("{root}/namespaces/{}/{resource}", escaped(namespace)),
    }
}

/// Percent-encodes a path segment or a query value.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// All characters except the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The maximum length of an event line, in bytes. Stored objects are shorter than this.
const MAX_LINE: usize = 64 << 20;

/// The maximum number of bytes to read from an error response.
const MAX_STATUS: usize = 64 << 10;

/// The time after the requested timeout within which the server must end a watch.
const GRACE: Duration = Duration::from_secs(30);
