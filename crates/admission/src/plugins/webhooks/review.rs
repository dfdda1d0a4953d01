//! The `AdmissionReview` that a webhook receives.

use bytes::Bytes;
use nave_codec::json;

use super::hook::ReviewVersion;
use crate::expressions::VersionedRequest;

/// Size in bytes for which a review has room at first: a pod and its surroundings.
const USUAL_BYTES: usize = 6 * 1024;

/// Encodes the review of a request.
pub(super) fn encode(version: ReviewVersion, uid: &str, request: &VersionedRequest<'_>) -> Bytes {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    out.extend_from_slice(b"{\"kind\":\"AdmissionReview\",\"apiVersion\":");
    json::encode_text_into(version.api_version(), &mut out);
    out.extend_from_slice(b",\"request\":");
    json::encode_into(&request.fields(uid, request.resource), &mut out);
    // The objects follow instead of the closing bracket. They are not built as parts of one value.
    out.pop();
    out.extend_from_slice(b",\"object\":");
    json::encode_object_into(request.object.packed(), &mut out);
    out.extend_from_slice(b",\"oldObject\":");
    json::encode_object_into(request.old_object.packed(), &mut out);
    out.extend_from_slice(b"}}");
    Bytes::from(out)
}
