//! The `AdmissionReview` that a webhook receives.

use bytes::Bytes;
use nave_codec::json;
use nave_machinery::{Map, Value};

use super::hook::ReviewVersion;
use crate::expressions::VersionedRequest;

/// Size in bytes for which a review has room at first: a pod and its surroundings.
const USUAL_BYTES: usize = 6 * 1024;

/// Encodes the review of a request.
pub(super) fn encode(version: ReviewVersion, uid: &str, request: &VersionedRequest<'_>) -> Bytes {
    let fields = match request.admission_request(request.resource) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let mut out = Vec::with_capacity(USUAL_BYTES);
    out.extend_from_slice(b"{\"kind\":\"AdmissionReview\",\"apiVersion\":");
    json::encode_into(version.api_version(), &mut out);
    out.extend_from_slice(b",\"request\":{");
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::encode_into(name, &mut out);
        out.push(b':');
        match name.as_str() {
            "uid" => json::encode_into(uid, &mut out),
            "object" => json::encode_object_into(request.object.packed(), &mut out),
            "oldObject" => json::encode_object_into(request.old_object.packed(), &mut out),
            _ => json::encode_into(value, &mut out),
        }
    }
    out.extend_from_slice(b"}}");
    Bytes::from(out)
}
