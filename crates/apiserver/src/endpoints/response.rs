//! The answers of endpoints: content that is encoded for the client by [`Negotiation::encode`], or a whole response.

use std::sync::Arc;

use http::Response;
use nave_cacher::CachedObject;
use nave_codec::json;
use nave_machinery::{Status, Value};
use serde::Serialize;

use super::negotiation::{Negotiation, Offer};
use super::{Endpoint, encode};
use crate::body::ResponseBody;
use crate::cpu_pool::LARGE;
use crate::storage::WrittenVersion;

/// The outcome of an endpoint.
pub enum EndpointResponse {
    /// Content, to be encoded as the client accepts it.
    Object(ObjectResponse),
    /// A whole response: bytes in a form of their own, or a stream.
    Http(Response<ResponseBody>),
}

/// Content in answer to a request.
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

/// The content of an answer.
pub(super) enum Content {
    /// A document or an object, what it is an object of, and its size, roughly, in bytes.
    Object(Option<Endpoint>, Value, usize),
    /// A document whose fields have an order.
    Ordered(Box<dyn Document>),
    /// An object as it was just written.
    Written(Endpoint, Value, WrittenVersion),
    /// An object of the watch cache.
    Cached(Endpoint, Arc<CachedObject>),
    /// A list.
    List(List),
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

impl ObjectResponse {
    /// A document, in the encoding the client accepts.
    pub fn document(code: u16, document: Value) -> Self {
        let size = size_of_value(&document);
        Self::new(code, Content::Object(None, document, size))
    }

    /// A document in the encoding the client accepts, its fields in the order of its type.
    pub fn ordered(code: u16, document: impl Serialize + Send + Sync + 'static) -> Self {
        Self::new(code, Content::Ordered(Box::new(document)))
    }

    /// An object of a resource, in the encoding and the form the client accepts.
    pub fn object(endpoint: &Endpoint, code: u16, object: Value) -> Self {
        let size = size_of_value(&object);
        Self::new(code, Content::Object(Some(endpoint.clone()), object, size))
    }

    /// An object that was just written, in the encoding and the form the client accepts.
    pub fn written(endpoint: &Endpoint, code: u16, object: Value, version: WrittenVersion) -> Self {
        Self::new(code, Content::Written(endpoint.clone(), object, version))
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

    /// How many bytes have to be encoded for the client; 0 where bytes are copied that were made before.
    pub(crate) fn size(&self, negotiation: &Negotiation) -> usize {
        match &self.content {
            // The server's own documents are small.
            Content::Ordered(_) => 0,
            Content::Object(_, _, size) => *size,
            Content::Written(_, _, version) => version.size(),
            Content::Cached(endpoint, object) => {
                let size = object.json().len();
                if size < LARGE || encode::is_copied(endpoint, Offer::Object, negotiation) { 0 } else { size }
            }
            Content::List(list) => {
                // A pointer to encoded bytes costs about as much as a byte of input.
                let copied = list.objects.len();
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
        Self { code, content }
    }
}

/// The size of a value's JSON, roughly, as far as it tells whether the value is large. Values nest no deeper than
/// [`limits::MAX_DOCUMENT_DEPTH`](nave_machinery::limits::MAX_DOCUMENT_DEPTH).
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

/// The cost of a value beside its text, as bytes of input.
const SIZE_OF_NODE: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_tell_large_values_from_small_ones() {
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
