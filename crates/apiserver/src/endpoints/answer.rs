//! What an endpoint answers, before it is bytes: [`Negotiation::encode`] makes the response.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Request, Response, header};
use nave_cacher::CachedObject;
use nave_codec::json;
use nave_codec::negotiate::{self, Accepted, Format, Transform};
use nave_machinery::{Status, Value, limits};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Endpoint, encode};
use crate::body::{Pieces, ResponseBody};
use crate::cpu_pool::LARGE;
use crate::gzip;
use crate::request_info::Query;

/// The answer to a request.
pub struct Answer {
    code: u16,
    content: Content,
    warnings: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What an answer holds.
pub(super) enum Content {
    /// A document or an object, and what it is an object of.
    Object(Option<Endpoint>, Value),
    /// A document whose fields have an order.
    Ordered(Box<dyn Document>),
    /// An object of the watch cache.
    Cached(Endpoint, Arc<CachedObject>),
    /// A list.
    List(List),
    /// Bytes of a form of their own.
    Raw(Cow<'static, str>, ResponseBody),
}

/// A document whose fields are written in the order in which its type has them.
pub(super) trait Document: Send + Sync {
    /// As compact JSON.
    fn json(&self) -> Vec<u8>;
    /// As indented JSON.
    ///
    /// # Errors
    /// 500 where it cannot be written.
    fn indented_json(&self) -> Result<Vec<u8>, Status>;
    /// As a value, for encodings whose order is their own.
    ///
    /// # Errors
    /// 500 where it cannot be written.
    fn value(&self) -> Result<Value, Status>;
}

impl<T: Serialize + Send + Sync> Document for T {
    fn json(&self) -> Vec<u8> {
        json::encode(self)
    }

    fn indented_json(&self) -> Result<Vec<u8>, Status> {
        serde_json::to_vec_pretty(self).map_err(Status::internal)
    }

    fn value(&self) -> Result<Value, Status> {
        serde_json::to_value(self).map_err(Status::internal)
    }
}

/// A page of a list.
pub struct List {
    /// What is listed.
    pub endpoint: Endpoint,
    /// The objects.
    pub objects: Vec<Arc<CachedObject>>,
    /// The revision of the page.
    pub revision: u64,
    /// The token of the next page; empty for the last one.
    pub continue_token: String,
    /// How many objects follow.
    pub remaining: Option<u64>,
}

impl Answer {
    /// A document, in the encoding the client accepts.
    pub fn document(code: u16, document: Value) -> Self {
        Self::new(code, Content::Object(None, document))
    }

    /// A document in the encoding the client accepts, its fields in the order of its type.
    pub fn ordered(code: u16, document: impl Serialize + Send + Sync + 'static) -> Self {
        Self::new(code, Content::Ordered(Box::new(document)))
    }

    /// An object of a resource, in the encoding and the form the client accepts.
    pub fn object(endpoint: &Endpoint, code: u16, object: Value) -> Self {
        Self::new(code, Content::Object(Some(endpoint.clone()), object))
    }

    /// An object of the watch cache.
    pub fn cached(endpoint: &Endpoint, object: Arc<CachedObject>) -> Self {
        Self::new(200, Content::Cached(endpoint.clone(), object))
    }

    /// A page of a list.
    pub fn list(list: List) -> Self {
        Self::new(200, Content::List(list))
    }

    /// A `Status` that is no failure.
    pub fn status(status: &Status) -> Self {
        Self::document(200, status.to_value())
    }

    /// Plain text.
    pub fn text(code: u16, text: impl Into<String>) -> Self {
        Self::bytes(code, "text/plain; charset=utf-8", text.into().into_bytes())
            .with_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    /// What is said of paths at which there is no API.
    pub fn page_not_found() -> Self {
        Self::text(404, "404 page not found\n")
    }

    /// JSON, whatever the client accepts.
    pub fn json(code: u16, document: &impl Serialize) -> Self {
        Self::bytes(code, "application/json", json::encode(document))
    }

    /// A document as indented JSON.
    ///
    /// # Errors
    /// 500 where it cannot be written.
    pub fn indented_json(code: u16, document: &(impl Serialize + Send + Sync)) -> Result<Self, Status> {
        Ok(Self::bytes(code, "application/json", document.indented_json()?))
    }

    /// Bytes of a form of their own.
    pub fn bytes(code: u16, content_type: impl Into<Cow<'static, str>>, bytes: impl Into<Bytes>) -> Self {
        Self::new(code, Content::Raw(content_type.into(), ResponseBody::Full(bytes.into())))
    }

    /// Bytes that are made as the client takes them.
    pub fn stream<T: Into<Pieces> + 'static>(
        content_type: &'static str,
        stream: impl Stream<Item = T> + Send + 'static,
    ) -> Self {
        Self::new(200, Content::Raw(content_type.into(), ResponseBody::stream(stream)))
    }

    /// Aggregated discovery, which clients keep by its ETag.
    pub fn discovery(document: &impl Serialize, seen: Option<&HeaderValue>) -> Self {
        let bytes = json::encode(document);
        let digest = Sha256::digest(&bytes);
        let mut etag = String::with_capacity(66);
        for byte in digest {
            // Writing to a string cannot fail.
            let _ = write!(etag, "{byte:02X}");
        }
        let etag = format!("\"{etag}\"");
        let unchanged = seen.is_some_and(|seen| seen.as_bytes() == etag.as_bytes());
        let answer = if unchanged {
            Self::bytes(304, "", Bytes::new())
        } else {
            let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            Self::bytes(200, content_type, bytes)
        };
        match HeaderValue::try_from(etag) {
            Ok(etag) => answer.with_header(header::ETAG, etag),
            Err(_) => answer,
        }
    }

    /// The same answer with warnings for the client (RFC 9110's `Warning` header).
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// The same answer with another header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// How many bytes have to be encoded for the client; 0 where bytes are copied that were made before.
    pub(crate) fn size(&self, negotiation: &Negotiation) -> usize {
        match &self.content {
            // The server's own documents are small.
            Content::Raw(..) | Content::Ordered(_) => 0,
            Content::Object(_, value) => size_of_value(value),
            Content::Cached(endpoint, object) => {
                let size = object.json().len();
                if size < LARGE || encode::is_copied(endpoint, Offer::Object, negotiation) { 0 } else { size }
            }
            Content::List(list) => {
                let copied = list.objects.len() * SIZE_OF_COPY;
                let sizes = list.objects.iter().map(|object| object.json().len());
                let size = sum_up_to_large(sizes);
                if size < LARGE || encode::is_copied(&list.endpoint, Offer::List, negotiation) {
                    copied
                } else {
                    size
                }
            }
        }
    }

    fn new(code: u16, content: Content) -> Self {
        Self { code, content, warnings: Vec::new(), headers: Vec::new() }
    }
}

/// The size of a value's JSON, roughly, as far as it tells whether the value is large.
fn size_of_value(value: &Value) -> usize {
    let mut size = 0;
    let mut rest = vec![value];
    while size < LARGE
        && let Some(value) = rest.pop()
    {
        size += SIZE_OF_COPY;
        match value {
            Value::String(text) => size += text.len(),
            Value::Array(items) => {
                size += items.len();
                rest.extend(items);
            }
            Value::Object(fields) => {
                size += sum_up_to_large(fields.keys().map(String::len));
                rest.extend(fields.values());
            }
            _ => {}
        }
    }
    size
}

fn sum_up_to_large(sizes: impl Iterator<Item = usize>) -> usize {
    let mut size = 0;
    for one in sizes {
        size += one;
        if size >= LARGE {
            break;
        }
    }
    size
}

/// The cost of a pointer to bytes that are copied, as bytes of input.
const SIZE_OF_COPY: usize = 8;

/// What of an object a table's row carries (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// What the client of one request accepts.
#[derive(Clone, Debug)]
pub struct Negotiation {
    accept: Option<String>,
    gzip: bool,
    pretty: bool,
    include: IncludeObject,
}

/// The transforms an endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Documents as they are.
    Plain,
    /// One object: as a table, or its metadata.
    Object,
    /// A list: as a table, or of metadata.
    List,
    /// Aggregated discovery.
    Discovery,
}

impl Offer {
    fn has(self, transform: Option<Transform>) -> bool {
        match transform {
            None => true,
            Some(Transform::Table(_)) => matches!(self, Self::Object | Self::List),
            Some(Transform::PartialObjectMetadata(_)) => self == Self::Object,
            Some(Transform::PartialObjectMetadataList(_)) => self == Self::List,
            Some(Transform::Discovery { beta, .. }) => self == Self::Discovery && !beta,
        }
    }
}

impl Negotiation {
    /// What the client of a request accepts.
    pub fn of<B>(request: &Request<B>, query: &Query) -> Self {
        let headers = request.headers();
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // People at a terminal get it readable unless they ask otherwise, as upstream does.
        let at_terminal =
            agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla");
        let pretty = query.get("pretty").map_or(at_terminal, |_| query.flag("pretty"));
        let include = match query.get("includeObject") {
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        };
        Self { accept: accept.map(str::to_owned), gzip: gzip::is_accepted(headers), pretty, include }
    }

    /// The encoding and form of an answer.
    ///
    /// # Errors
    /// 406 where nothing the client accepts is on offer.
    pub fn choose(&self, offer: Offer, formats: &[Format]) -> Result<Accepted, Status> {
        negotiate::accept(self.accept.as_deref(), formats, |accepted| offer.has(accepted.transform))
            .ok_or_else(|| {
                let media_types: Vec<&str> = formats.iter().map(|format| format.media_type()).collect();
                Status::not_acceptable(&media_types)
            })
    }

    /// Whether documents are written with line breaks.
    pub fn pretty(&self) -> bool {
        self.pretty
    }

    /// What of an object a table's row carries.
    pub fn include(&self) -> IncludeObject {
        self.include
    }

    /// The response of an answer.
    ///
    /// # Errors
    /// 406 where nothing the client accepts is on offer, 500 where the answer cannot be encoded.
    pub fn encode(&self, answer: Answer) -> Result<Response<ResponseBody>, Status> {
        let Answer { code, content, warnings, headers } = answer;
        // Objects and lists; the events of a watch must not be kept back.
        let compressible = self.gzip && !matches!(content, Content::Raw(..));
        let (content_type, body) = encode::content(content, self)?;
        let body = if compressible { gzip::compressed(body) } else { Err(body) };
        let is_compressed = body.is_ok();
        let mut response = Response::new(body.unwrap_or_else(std::convert::identity));
        *response.status_mut() = http::StatusCode::from_u16(code).map_err(Status::internal)?;
        let map = response.headers_mut();
        if !content_type.is_empty() {
            map.insert(
                header::CONTENT_TYPE,
                HeaderValue::try_from(&*content_type).map_err(Status::internal)?,
            );
        }
        if is_compressed {
            map.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            map.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        map.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        for warning in shortened(warnings) {
            if let Ok(value) = HeaderValue::try_from(format!("299 - {}", quoted(&warning))) {
                map.append(header::WARNING, value);
            }
        }
        for (name, value) in headers {
            map.insert(name, value);
        }
        Ok(response)
    }

    /// The response of a failure: in the encoding the client accepts, or in JSON where it accepts none of ours.
    pub fn encode_status(&self, status: &Status) -> Response<ResponseBody> {
        let mut answer = Answer::document(status.code, status.to_value());
        if let Some(seconds) =
            status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0)
        {
            answer = answer.with_header(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        self.encode(answer).unwrap_or_else(|_| {
            let mut response = Response::new(json::encode(&status.to_value()).into());
            *response.status_mut() = http::StatusCode::from_u16(status.code).unwrap_or_default();
            let content_type = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        })
    }
}

/// Warnings that fit into the head of a response: where they are too long together, each is cut, and those that are too
/// many are left out (upstream: `warning.recorder`).
fn shortened(warnings: Vec<String>) -> impl Iterator<Item = String> {
    let all: usize = warnings.iter().map(String::len).sum();
    let longest = if all > MAX_WARNINGS_BYTES { MAX_WARNING_BYTES } else { MAX_WARNINGS_BYTES };
    let mut written = 0;
    warnings.into_iter().map(move |warning| limits::clip(warning, longest)).take_while(move |warning| {
        written += warning.len();
        written <= MAX_WARNINGS_BYTES
    })
}

/// The longest warnings of one response, together.
const MAX_WARNINGS_BYTES: usize = 4 * 1024;

/// How much of each is shown where all are longer.
const MAX_WARNING_BYTES: usize = 256;

/// A warning's text as a quoted string of HTTP.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => vec![' '],
            c => vec![c],
        })
        .collect();
    format!("\"{escaped}\"")
}
