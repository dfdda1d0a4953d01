//! Calls of one webhook whose address is in an object of the API, with the texts and retries of client-go.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Full;
use nave_machinery::duration;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::body::LargePermit;
use crate::client::{ClientError, MAX_CALLS, Response};
use crate::connections::{Called, Connections};
use crate::metrics::{CallMetrics, HostMetrics};
use crate::users::Authorization;

/// Number of calls that a webhook can defer by `Retry-After` (client-go: `maxRetries`).
const DEFERRALS: usize = 10;
/// Maximum number of large responses of a webhook that are read and processed at a time.
const MAX_LARGE: usize = 8;
/// Maximum length of a response text in an error, in bytes (client-go: `maxUnstructuredResponseTextBytes`).
const MAX_TEXT_BYTES: usize = 2048;

/// The error of a call of a webhook. The texts are those of client-go.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No complete response was received.
    #[error("Post {url:?}: {error}")]
    Transport {
        /// The URL of the call.
        url: String,
        /// The cause.
        error: ClientError,
    },
    /// The webhook responded with an error status.
    #[error("{message}")]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// The message of a `Status` in the response, or a description of the response.
        message: String,
    },
    /// The response is empty.
    #[error("0-length response with status code: {} and content type: {content_type}", .status.as_u16())]
    Empty {
        /// The HTTP status.
        status: StatusCode,
        /// The value of the header `Content-Type`.
        content_type: String,
    },
}

impl HookError {
    /// Returns whether the time for the call is over.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Transport { error: ClientError::TimedOut(_), .. })
    }
}

/// The bounds of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Time for the whole call. The webhook sees it as the query parameter `timeout`.
    pub timeout: Duration,
    /// Maximum length of the response, in bytes.
    pub response_bytes: usize,
}

/// The answer of a webhook. While it is kept, a large one counts towards the maximum number of these.
pub struct Answer {
    /// The complete body.
    pub body: Bytes,
    _large: Option<LargePermit>,
}

/// The client of a webhook. Clones share connections.
#[derive(Clone)]
pub struct HookClient(Arc<Inner>);

struct Inner {
    connections: Arc<Connections>,
    uri: Uri,
    /// The headers of each call.
    headers: HeaderMap,
    authorization: Authorization,
    metrics: Option<CallMetrics>,
    /// The metrics of the host, from the first call on.
    host_metrics: OnceLock<HostMetrics>,
    /// The calls at a time, see [`MAX_CALLS`].
    calls: Semaphore,
    /// The large responses at a time. They cannot use up the memory, and do not delay other webhooks.
    large: Arc<Semaphore>,
    /// The path and query of the last call, with the time limit that they contain.
    target: Mutex<Option<(Duration, Uri)>>,
}

impl HookClient {
    pub(crate) fn new(
        connections: Arc<Connections>,
        uri: Uri,
        authorization: Authorization,
        metrics: Option<CallMetrics>,
    ) -> Result<Self, ClientError> {
        let host = HeaderValue::try_from(uri.authority().map_or("", |host| host.as_str()));
        let mut headers = headers();
        headers.insert(header::HOST, host.map_err(|error| ClientError::Request(error.into()))?);
        Ok(Self(Arc::new(Inner {
            connections,
            uri,
            headers,
            authorization,
            metrics,
            host_metrics: OnceLock::new(),
            calls: Semaphore::new(MAX_CALLS),
            large: Arc::new(Semaphore::new(MAX_LARGE)),
            target: Mutex::default(),
        })))
    }

    /// Posts a JSON document and returns the response. Redirects are errors. A webhook that responds with
    /// `Retry-After` and 429 or a server error is called again within the time limit. `trace_parent` is the header of
    /// the trace that the call belongs to.
    ///
    /// # Errors
    /// No response was received, or it has an error status or no body.
    pub async fn post(
        &self,
        document: Bytes,
        limits: CallLimits,
        trace_parent: Option<&str>,
    ) -> Result<Answer, HookError> {
        let (response, large) = self.0.exchange(&document, limits, trace_parent).await.map_err(|error| {
            let authority = self.0.uri.authority().map_or("", |host| host.as_str());
            HookError::Transport { url: format!("https://{authority}{}", self.0.path(limits.timeout)), error }
        })?;
        // Other successes have no body of their own (client-go).
        if !(200..=206).contains(&response.status.as_u16()) {
            let (status, message) = (response.status, error_message(&response));
            return Err(HookError::Status { status, message });
        }
        if response.body.is_empty() {
            let content_type = content_type(&response.headers).to_owned();
            return Err(HookError::Empty { status: response.status, content_type });
        }
        Ok(Answer { body: response.body, _large: large })
    }
}

impl Inner {
    /// Calls until the webhook does not ask for another attempt.
    async fn exchange(
        &self,
        body: &Bytes,
        limits: CallLimits,
        trace_parent: Option<&str>,
    ) -> Result<Called, ClientError> {
        let trace_parent = trace_parent.and_then(|header| HeaderValue::try_from(header).ok());
        let authorization =
            self.authorization.value().await.map_err(|error| ClientError::Body(error.into()))?;
        let target = self.target(limits.timeout)?;
        let (end, mut deferrals) = (Instant::now() + limits.timeout, 0);
        loop {
            let mut request = Request::new(Full::new(body.clone()));
            (*request.method_mut(), *request.uri_mut()) = (Method::POST, target.clone());
            let mut headers = self.headers.clone();
            headers.extend(trace_parent.clone().map(|value| (HeaderName::from_static("traceparent"), value)));
            headers.extend(authorization.clone().map(|value| (header::AUTHORIZATION, value)));
            *request.headers_mut() = headers;
            let started = Instant::now();
            let call = self.call(request, limits.response_bytes);
            let sent = tokio::time::timeout(end.saturating_duration_since(started), call).await;
            let sent = sent.unwrap_or(Err(ClientError::TimedOut(limits.timeout)));
            if let Some(metrics) = &self.metrics {
                let metrics = self.host_metrics.get_or_init(|| metrics.of_host(&self.uri));
                let response = sent.as_ref().map(|(response, _)| response);
                metrics.posted(body.len(), response, started.elapsed());
            }
            let (response, large) = sent?;
            let left = end.saturating_duration_since(Instant::now());
            let wait = retry_after(&response).filter(|wait| deferrals < DEFERRALS && *wait < left);
            let Some(wait) = wait else { return Ok((response, large)) };
            // The calls that wait are not counted, so they must not keep responses.
            drop((response, large));
            deferrals += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn call(&self, request: Request<Full<Bytes>>, max_bytes: usize) -> Result<Called, ClientError> {
        // The semaphore is never closed.
        let _call = self.calls.acquire().await;
        self.connections.call(&self.uri, request, max_bytes, &self.large).await
    }

    /// Returns the path and query of a call. Most calls have the same time limit.
    fn target(&self, timeout: Duration) -> Result<Uri, ClientError> {
        let timeout = whole_seconds(timeout);
        let last = &mut *self.target.lock();
        if let Some((of, target)) = last
            && *of == timeout
        {
            return Ok(target.clone());
        }
        let target = Uri::try_from(self.path(timeout));
        let target = target.map_err(|error| ClientError::Request(error.into()))?;
        *last = Some((timeout, target.clone()));
        Ok(target)
    }

    fn path(&self, timeout: Duration) -> String {
        let path = match self.uri.path() {
            "" => "/",
            path => path,
        };
        format!("{path}?timeout={}", duration::write_nanos(nanos(whole_seconds(timeout))))
    }
}

/// Rounds up to seconds, as client-go shows timeouts.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name, value| headers.insert(name, HeaderValue::from_static(value));
    add(header::CONTENT_TYPE, "application/json");
    add(header::ACCEPT, "application/json, */*");
    add(header::USER_AGENT, "kube-apiserver-admission");
    headers
}

/// Returns the time after which a webhook asks to be called again.
fn retry_after(response: &Response) -> Option<Duration> {
    let status = response.status;
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = response.headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The fields of a `Status` that describe an error. The others are skipped: decoded, they would need many times the
/// memory of the response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResponseStatus<'r> {
    #[serde(borrow)]
    kind: Cow<'r, str>,
    #[serde(borrow)]
    api_version: Cow<'r, str>,
    #[serde(borrow)]
    status: Cow<'r, str>,
    #[serde(borrow)]
    message: Cow<'r, str>,
}

/// Describes a response with an error status as client-go does: by the `Status` in it, or by its code and text.
fn error_message(response: &Response) -> String {
    if let Ok(status) = serde_json::from_slice::<ResponseStatus<'_>>(&response.body)
        && (&*status.kind, &*status.api_version, &*status.status) == ("Status", "v1", "Failure")
    {
        return clip(&status.message).to_owned();
    }
    let content_type = content_type(&response.headers);
    let is_text = content_type.is_empty() || content_type.starts_with("text/");
    let text = String::from_utf8_lossy(&response.body);
    let text = if is_text { clip(text.trim()) } else { "unknown" };
    match response.status.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        406 if matches!(text, "" | "unknown") => {
            "the server was unable to respond with a content type that the client supports".to_owned()
        }
        403 | 406 | 415 => text.to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
        500..=599 => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

fn clip(text: &str) -> &str {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_status_is_found_whatever_its_other_fields_contain() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let generic = "the server has asked for the client to provide credentials";
        for (kind, details, expected) in [
            ("Status", "{}", "no \"entry\""),
            ("Status", &*deep, "no \"entry\""),
            ("Pod", "{}", generic),
            ("Status", "{", generic),
        ] {
            let body = format!(
                r#"{{"kind":"{kind}","apiVersion":"v1","status":"Failure","details":{details},"message":"no \"entry\""}}"#
            );
            let (status, headers) = (StatusCode::UNAUTHORIZED, HeaderMap::new());
            assert_eq!(error_message(&Response { status, headers, body: body.into() }), expected);
        }
    }
}
