//! The `AdmissionReview` that a webhook receives.

use bytes::Bytes;
use nave_machinery::{Map, Value};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::hook::ReviewVersion;
use crate::expressions::VersionedRequest;

/// Encodes the review of a request.
///
/// # Errors
/// The encoder's error.
pub(super) fn encode(
    version: ReviewVersion,
    uid: &str,
    request: &VersionedRequest<'_>,
) -> Result<Bytes, serde_json::Error> {
    let fields = match request.admission_request(request.resource) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let request = AdmissionRequest { uid, fields, object: request.object, old_object: request.old_object };
    let review = AdmissionReview { kind: "AdmissionReview", api_version: version.api_version(), request };
    serde_json::to_vec(&review).map(Bytes::from)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionReview<'a> {
    kind: &'static str,
    api_version: &'static str,
    request: AdmissionRequest<'a>,
}

/// The request, with objects that are not copied.
struct AdmissionRequest<'a> {
    uid: &'a str,
    fields: Map,
    object: &'a Value,
    old_object: &'a Value,
}

impl Serialize for AdmissionRequest<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            match name.as_str() {
                "uid" => map.serialize_entry(name, self.uid)?,
                "object" => map.serialize_entry(name, self.object)?,
                "oldObject" => map.serialize_entry(name, self.old_object)?,
                _ => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}
