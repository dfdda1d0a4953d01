//! Responses that are not negotiated API objects: text, documents and streams.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use nave_codec::json;
use nave_machinery::Status;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::aggregated_discovery::Document;
use crate::body::{Pieces, ResponseBody};

/// Returns a plain text response.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    let mut response = bytes(code, "text/plain; charset=utf-8", text.into().into_bytes());
    forbid_sniffing(&mut response);
    response
}

/// Tells browsers to believe the content type of a response.
pub(crate) fn forbid_sniffing(response: &mut Response<ResponseBody>) {
    set_header(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
}

/// Returns the 404 for paths outside the API.
pub(crate) fn page_not_found() -> Response<ResponseBody> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Returns a document as compact JSON.
pub(crate) fn json(document: &impl Serialize) -> Response<ResponseBody> {
    bytes(StatusCode::OK, "application/json", json::encode(document))
}

/// Returns a document as indented JSON.
///
/// # Errors
/// 500 if the document cannot be encoded.
pub(crate) fn indented_json(document: &impl Serialize) -> Result<Response<ResponseBody>, Status> {
    let text = serde_json::to_vec_pretty(document).map_err(Status::internal)?;
    Ok(bytes(StatusCode::OK, "application/json", text))
}

/// Returns a response with these bytes; an empty content type is omitted.
pub(crate) fn bytes(
    code: StatusCode,
    content_type: impl Into<Cow<'static, str>>,
    bytes: impl Into<Bytes>,
) -> Response<ResponseBody> {
    with_body(code, content_type.into(), ResponseBody::Full(bytes.into()))
}

/// Returns a response whose bytes are produced while the client reads them.
pub(crate) fn stream<T: Into<Pieces> + 'static>(
    content_type: &'static str,
    stream: impl Stream<Item = T> + Send + 'static,
) -> Response<ResponseBody> {
    with_body(StatusCode::OK, content_type.into(), ResponseBody::stream(stream))
}

/// Returns a document of aggregated discovery, or 304 if the client already has it.
pub(crate) fn aggregated_discovery(
    document: &Document,
    seen: Option<&HeaderValue>,
) -> Response<ResponseBody> {
    let mut response = if seen == Some(&document.etag) {
        bytes(StatusCode::NOT_MODIFIED, "", Bytes::new())
    } else {
        let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        bytes(StatusCode::OK, content_type, document.json.clone())
    };
    response.headers_mut().insert(header::ETAG, document.etag.clone());
    response
}

/// Returns the ETag of a document: a hash of its bytes.
pub(crate) fn etag(document: &[u8]) -> HeaderValue {
    let mut etag = String::with_capacity(66);
    etag.push('"');
    for byte in Sha256::digest(document) {
        // Writing to a string cannot fail.
        let _ = write!(etag, "{byte:02X}");
    }
    etag.push('"');
    HeaderValue::try_from(etag).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Sets or replaces a header; ignores an invalid value.
pub(crate) fn set_header(response: &mut Response<ResponseBody>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Builds a response with the headers common to all responses.
pub(super) fn with_body(
    code: StatusCode,
    content_type: Cow<'static, str>,
    body: ResponseBody,
) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    let content_type = match content_type {
        Cow::Borrowed("") => None,
        Cow::Borrowed(text) => Some(HeaderValue::from_static(text)),
        Cow::Owned(text) => HeaderValue::try_from(text).ok(),
    };
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_not_sent_again_for_its_etag() {
        let document = |json: &'static str| Document { json: json.into(), etag: etag(json.as_bytes()) };
        let first = aggregated_discovery(&document("1"), None);
        let tag = first.headers()[header::ETAG].clone();
        let again = aggregated_discovery(&document("1"), Some(&tag));
        assert_eq!((first.status().as_u16(), again.status().as_u16()), (200, 304));
        assert_eq!((again.headers().get(header::CONTENT_TYPE), &again.headers()[header::ETAG]), (None, &tag));
        assert_eq!(aggregated_discovery(&document("2"), Some(&tag)).status(), 200);
    }

    #[test]
    fn responses_are_not_cacheable_by_default() {
        let mut response = page_not_found();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache, private");
        set_header(&mut response, header::CACHE_CONTROL, "public");
        set_header(&mut response, header::ETAG, "a\nb");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public");
        assert!(!response.headers().contains_key(header::ETAG));
    }
}
