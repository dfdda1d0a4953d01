//! Responses of endpoints: content that [`ObjectResponse::encode`] encodes for the client, or complete HTTP responses.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use nave_codec::json;
use nave_machinery::{Status, Value, meta};
use serde::Serialize;

use super::versions::ServedObject;
use super::{Endpoint, encode};
use crate::audit::Record;
use crate::body::ResponseBody;
use crate::cpu_pool::{CpuPool, LARGE};
use crate::gzip;
use crate::negotiation::{Negotiation, Offer};
use crate::raw_response;
use crate::storage::WrittenVersion;

/// The response of an endpoint.
pub enum EndpointResponse {
    /// Content to be encoded in the accepted form.
    Object(ObjectResponse),
    /// A complete response: bytes of a fixed format, or a stream.
    Http(Response<ResponseBody>),
}

/// A response whose content has not been encoded yet.
pub struct ObjectResponse {
    pub(super) code: u16,
    pub(super) content: Content,
}

impl From<ObjectResponse> for EndpointResponse {
    fn from(response: ObjectResponse) -> Self {
        Self::Object(response)
    }
}

impl From<Response<ResponseBody>> for EndpointResponse {
    fn from(response: Response<ResponseBody>) -> Self {
        Self::Http(response)
    }
}

/// The content of a response.
pub(super) enum Content {
    /// A document or object, with its endpoint if it is an object of a resource, and its approximate size in bytes.
    Object(Option<Endpoint>, Arc<Value>, usize),
    /// A document with ordered fields.
    Ordered(Box<dyn Document>),
    /// An object that was just written.
    Written(Endpoint, Arc<Value>, Arc<WrittenVersion>),
    /// An object from the watch cache.
    Cached(Endpoint, ServedObject),
    /// A list.
    List(List),
    /// A list of computed objects.
    Computed(Endpoint, Vec<Value>),
}

impl Content {
    /// Copies the content. Objects are shared.
    fn duplicate(&self) -> Result<Self, Status> {
        Ok(match self {
            Self::Object(endpoint, object, size) => Self::Object(endpoint.clone(), Arc::clone(object), *size),
            Self::Ordered(document) => Self::Object(None, Arc::new(document.value()?), 0),
            Self::Written(endpoint, object, version) => {
                Self::Written(endpoint.clone(), Arc::clone(object), Arc::clone(version))
            }
            Self::Cached(endpoint, object) => Self::Cached(endpoint.clone(), object.clone()),
            Self::List(list) => Self::List(list.clone()),
            Self::Computed(endpoint, objects) => Self::Computed(endpoint.clone(), objects.clone()),
        })
    }
}

/// A document whose fields are encoded in the order of its type.
pub(super) trait Document: Send + Sync {
    /// Encodes as compact JSON.
    fn json(&self) -> Vec<u8>;
    /// Encodes as indented JSON.
    ///
    /// # Errors
    /// 500 if the document cannot be encoded.
    fn indented_json(&self) -> Result<Vec<u8>, Status>;
    /// Converts to a value, for formats that define their own field order.
    ///
    /// # Errors
    /// 500 if the document cannot be converted.
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
#[derive(Clone)]
pub struct List {
    /// The resource.
    pub endpoint: Endpoint,
    /// The objects.
    pub objects: Vec<ServedObject>,
    /// The revision of the page.
    pub revision: u64,
    /// The continue token of the next page; empty for the last page.
    pub continue_token: String,
    /// The number of objects after this page, if known.
    pub remaining: Option<u64>,
}

impl ObjectResponse {
    /// Creates a response with a document.
    pub fn document(code: u16, document: Value) -> Self {
        let size = size_of_value(&document);
        Self::new(code, Content::Object(None, Arc::new(document), size))
    }

    /// Creates a response with a document whose fields are encoded in the order of its type.
    pub fn ordered(code: u16, document: impl Serialize + Send + Sync + 'static) -> Self {
        Self::new(code, Content::Ordered(Box::new(document)))
    }

    /// Creates a response with an object of a resource.
    pub fn object(endpoint: &Endpoint, code: u16, object: Value) -> Self {
        let size = size_of_value(&object);
        Self::new(code, Content::Object(Some(endpoint.clone()), Arc::new(object), size))
    }

    /// Creates a response with an object that was just written.
    pub fn written(endpoint: &Endpoint, code: u16, object: Value, version: WrittenVersion) -> Self {
        Self::new(code, Content::Written(endpoint.clone(), Arc::new(object), Arc::new(version)))
    }

    /// Creates a response with an object from the watch cache.
    pub fn cached(endpoint: &Endpoint, object: ServedObject) -> Self {
        Self::new(200, Content::Cached(endpoint.clone(), object))
    }

    /// Creates a response with a page of a list.
    pub fn list(list: List) -> Self {
        Self::new(200, Content::List(list))
    }

    /// Creates a response with a list of computed objects.
    pub fn computed(endpoint: &Endpoint, objects: Vec<Value>) -> Self {
        Self::new(200, Content::Computed(endpoint.clone(), objects))
    }

    /// Creates a response with a `Status` of success.
    pub fn status(status: &Status) -> Self {
        Self::document(200, status.to_value())
    }

    /// Returns the number of bytes to encode; 0 if existing bytes are copied.
    pub(crate) fn size(&self, negotiation: &Negotiation) -> usize {
        match &self.content {
            // These are documents of the server, which are small.
            Content::Ordered(_) | Content::Computed(..) => 0,
            Content::Object(_, _, size) => *size,
            Content::Written(_, _, version) => version.size(),
            Content::Cached(endpoint, object) => {
                let size = object.cached.json_len();
                if size < LARGE || encode::is_copied(endpoint, Offer::Object, negotiation) { 0 } else { size }
            }
            Content::List(list) => {
                // Copying the pointer to encoded bytes costs about as much as encoding one byte.
                let copied = list.objects.len();
                let sizes = list.objects.iter().map(|object| object.cached.json_len());
                let size = sum_up_to_large(sizes);
                if size < LARGE || encode::is_copied(&list.endpoint, Offer::List, negotiation) {
                    copied
                } else {
                    size
                }
            }
        }
    }

    /// Encodes the content in a form that the client accepts.
    ///
    /// # Errors
    /// 406 if the client accepts no available form, 500 if the content cannot be encoded.
    pub fn encode(self, negotiation: &Negotiation) -> Result<Response<ResponseBody>, Status> {
        let (content_type, body) = encode::content(self.content, negotiation)?;
        let body = if negotiation.gzip() { gzip::compressed(body) } else { Err(body) };
        let is_compressed = body.is_ok();
        let code = StatusCode::from_u16(self.code).map_err(Status::internal)?;
        let mut response =
            raw_response::with_body(code, content_type, body.unwrap_or_else(std::convert::identity));
        if is_compressed {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        Ok(response)
    }

    /// Encodes the content on a thread for its size, and records for audit its status, if it is one, and its object, if
    /// the policy wants it.
    ///
    /// # Errors
    /// See [`Self::encode`].
    pub(crate) async fn encode_recorded(
        self,
        record: &Record,
        negotiation: &Negotiation,
        cpu: &CpuPool,
    ) -> Result<Response<ResponseBody>, Status> {
        if let Content::Object(None, document, _) = &self.content
            && (meta::kind(document), meta::api_version(document)) == ("Status", "v1")
        {
            record.response_status(document);
        }
        let size = self.size(negotiation);
        if !record.has_response_object() {
            return cpu.run(size, async { self.encode(negotiation) }).await;
        }
        let copy = Self { code: self.code, content: self.content.duplicate()? };
        let response = cpu.run(size, async { self.encode(negotiation) }).await?;
        let json = if let Some(json) = compact_json(&response, negotiation) {
            json
        } else {
            let as_json = negotiation.as_json();
            let encoded = cpu.run(copy.size(&as_json), async { copy.encode(&as_json) }).await?;
            encoded.into_body().collect().await.map_err(Status::internal)?.to_bytes()
        };
        record.response_object(json);
        Ok(response)
    }

    fn new(code: u16, content: Content) -> Self {
        Self { code, content }
    }
}

/// Returns the body of a response if it is compact JSON in one piece.
fn compact_json(response: &Response<ResponseBody>, negotiation: &Negotiation) -> Option<Bytes> {
    let headers = response.headers();
    let is_json = headers.get(header::CONTENT_TYPE).is_some_and(|it| it.as_bytes() == b"application/json")
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !negotiation.pretty();
    match response.body() {
        ResponseBody::Full(body) if is_json => Some(body.clone()),
        _ => None,
    }
}

/// Encodes a failure in the accepted format, or as JSON if the client accepts no available format.
pub(crate) fn encode_failure(status: &Status, negotiation: &Negotiation) -> Response<ResponseBody> {
    let content = ObjectResponse::document(status.code, status.to_value());
    let mut response = content.encode(negotiation).unwrap_or_else(|_| {
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let document = status.to_value();
        let document = encode::ordered(&document);
        let text = serde_json::to_vec_pretty(&document).unwrap_or_else(|_| json::encode(&document));
        raw_response::bytes(code, "application/json", text)
    });
    let retry_after = status.details.as_ref().map(|details| details.retry_after_seconds);
    if let Some(seconds) = retry_after.filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Returns the approximate size of a value's JSON, accurate enough to tell whether the value is large. Values are
/// nested at most [`limits::MAX_DOCUMENT_DEPTH`](nave_machinery::limits::MAX_DOCUMENT_DEPTH) levels deep.
fn size_of_value(value: &Value) -> usize {
    SIZE_OF_NODE
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => sum_up_to_large(items.iter().map(size_of_value)),
            Value::Object(fields) => {
                sum_up_to_large(fields.iter().map(|(name, value)| name.len() + size_of_value(value)))
            }
            _ => 0,
        }
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

/// The cost of a value in addition to its text, in bytes.
const SIZE_OF_NODE: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request_info::Query;

    #[test]
    fn failures_are_encoded_for_clients_that_accept_no_available_form() {
        let headers = [(header::ACCEPT, HeaderValue::from_static("image/png"))].into_iter().collect();
        let negotiation = Negotiation::new(&headers, &Query::default());
        let response = encode_failure(&Status::too_many_requests("later", 3), &negotiation);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    }

    #[test]
    fn sizes_distinguish_large_and_small_values() {
        let long = "x".repeat(LARGE);
        for (value, is_large) in [
            (json!({"a": ["b", 1, null]}), false),
            (json!({"data": {"k": long}}), true),
            (json!({long.as_str(): 1}), true),
            (json!(vec![0; LARGE]), true),
            (json!(vec![json!({}); 10]), false),
        ] {
            let size = ObjectResponse::document(200, value).size(&Negotiation::default());
            assert_eq!(size >= LARGE, is_large, "{size}");
        }
        assert_eq!(ObjectResponse::ordered(200, [0; 1]).size(&Negotiation::default()), 0);
    }
}
