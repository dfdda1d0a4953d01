//! Encodes objects, lists and watch events as JSON, YAML or protobuf, in any served version: in full, as tables or as
//! metadata only.
//!
//! The watch cache has the JSON of the storage version, which is copied. Other encodings are created on demand and
//! cached with the object within a budget.

mod list;
mod ordered;
mod table;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use nave_cacher::Encoding;
use nave_codec::negotiate::{Accepted, Format};
use nave_codec::{json, protobuf, yaml};
use nave_machinery::managed_fields;
use nave_machinery::{GroupVersion, Status, Value, meta};

pub(super) use self::ordered::ordered;
use super::Endpoint;
use super::response::Content;
use super::versions::{self, ServedRef};
use super::view::View;
use crate::body::ResponseBody;
use crate::kinds;
use crate::negotiation::{Encodings, IncludeObject, Negotiation, Offer};

/// Kinds of encodings that are cached with an object: JSON and protobuf of each version, and metadata only.
const JSON_OF_VERSION: u32 = 1;
const PROTOBUF_OF_VERSION: u32 = 2;
pub(super) const METADATA: u32 = 3;

/// Returns the number of an encoding: its kind, and a variant that distinguishes encodings of the same kind.
pub(super) fn encoding(kind: u32, variant: usize) -> Encoding {
    let variant = u32::try_from(variant).unwrap_or(u32::MAX);
    Encoding(kind << KIND_AT | variant.min((1 << KIND_AT) - 1))
}

/// First bit of the kind. The bits below hold the variant and suffice for the versions of any resource.
const KIND_AT: u32 = 24;

/// A content type and a body.
type Encoded = (Cow<'static, str>, ResponseBody);

/// Encodes content in the accepted format and form.
pub(super) fn content(content: Content, negotiation: &Negotiation) -> Result<Encoded, Status> {
    match content {
        Content::Object(None, document, size) => {
            let accepted = negotiation.choose(Offer::Plain, Encodings::All)?;
            document_bytes(&document, size, accepted.format, negotiation.pretty())
        }
        Content::Ordered(document) => {
            let accepted = negotiation.choose(Offer::Plain, Encodings::All)?;
            let mut bytes = match accepted.format {
                Format::Json if negotiation.pretty() => document.indented_json()?,
                Format::Json => document.json(),
                Format::Yaml | Format::Protobuf => {
                    return document_bytes(&document.value()?, 0, accepted.format, false);
                }
            };
            bytes.push(b'\n');
            Ok((Format::Json.media_type().into(), bytes.into()))
        }
        Content::Object(Some(endpoint), object, size) => served(&endpoint, &object, size, negotiation),
        Content::Written(endpoint, object, version) => {
            if is_copied(&endpoint, Offer::Object, negotiation)
                && let Some(json) = version.json()
            {
                return Ok(json_line(&json));
            }
            let mut object = Arc::unwrap_or_clone(object);
            managed_fields::expand(&mut object);
            served(&endpoint, &object, version.size(), negotiation)
        }
        Content::Cached(endpoint, object) => cached(&endpoint, object.as_served(), negotiation),
        Content::List(list) => list::encode(list, negotiation),
        Content::Computed(endpoint, objects) => list::computed(&endpoint, objects, negotiation),
    }
}

/// Returns the encodings of the resource's objects.
pub(super) fn encodings(endpoint: &Endpoint) -> Encodings {
    let has_messages = endpoint.version().type_id().is_some();
    if has_messages { Encodings::All } else { Encodings::MetadataAsProtobuf }
}

/// Returns whether the response is a copy of bytes in the watch cache.
pub(super) fn is_copied(endpoint: &Endpoint, offer: Offer, negotiation: &Negotiation) -> bool {
    let accepted = negotiation.choose(offer, encodings(endpoint));
    let is_json = accepted.is_ok_and(|it| it.transform.is_none() && it.format == Format::Json);
    is_json && !negotiation.pretty() && endpoint.is_storage_version()
}

/// Encodes a document. `size` is its approximate length in bytes, or 0 if unknown.
pub(super) fn document_bytes(
    document: &Value,
    size: usize,
    format: Format,
    pretty: bool,
) -> Result<Encoded, Status> {
    let bytes = match format {
        Format::Json if pretty => {
            let mut bytes = serde_json::to_vec_pretty(&ordered(document)).map_err(Status::internal)?;
            bytes.push(b'\n');
            bytes
        }
        Format::Json => {
            // Reserve twice the protobuf's size, the approximate maximum size of the JSON.
            let mut bytes = Vec::with_capacity(2 * size + 256);
            json::encode_into(&ordered(document), &mut bytes);
            bytes.push(b'\n');
            bytes
        }
        Format::Yaml => yaml::encode(document),
        Format::Protobuf => wrapped(document)?,
    };
    Ok((format.media_type().into(), bytes.into()))
}

/// Encodes a document as protobuf with the envelope.
pub(super) fn wrapped(document: &Value) -> Result<Vec<u8>, Status> {
    let (api_version, kind) = (meta::api_version(document), meta::kind(document));
    let gvk = GroupVersion::parse(api_version).unwrap_or_default().with_kind(kind);
    let type_id = kinds::type_of(&gvk).ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
    let mut raw = Vec::with_capacity(1024);
    protobuf::encode_document(nave_schema::builtin(), type_id, document, &mut raw)
        .map_err(Status::internal)?;
    Ok(protobuf::envelope::wrap(api_version, kind, &raw))
}

/// Encodes an object in the endpoint's version, in the accepted format and form.
fn served(
    endpoint: &Endpoint,
    object: &Value,
    size: usize,
    negotiation: &Negotiation,
) -> Result<Encoded, Status> {
    // A scale is of a built-in type, also if the object is not.
    let encodings = if is_scale(object) { Encodings::All } else { encodings(endpoint) };
    let accepted = negotiation.choose(Offer::Object, encodings)?;
    match accepted.transform {
        None => document_bytes(object, size, accepted.format, negotiation.pretty()),
        Some(transform) => {
            let json = table::object(endpoint, object, transform, negotiation.include(), true)?;
            in_format(json, accepted.format, negotiation)
        }
    }
}

/// Returns whether an object is an `autoscaling/v1` `Scale`.
fn is_scale(object: &Value) -> bool {
    meta::kind(object) == "Scale" && meta::api_version(object) == "autoscaling/v1"
}

/// Returns JSON as a body that ends with a line feed.
fn json_line(json: &Bytes) -> Encoded {
    let mut bytes = Vec::with_capacity(json.len() + 1);
    bytes.extend_from_slice(json);
    bytes.push(b'\n');
    (Format::Json.media_type().into(), bytes.into())
}

/// Returns indented JSON as a body that ends with a line feed.
fn indented_line(json: &[u8]) -> Encoded {
    let mut bytes = json::indented(json);
    bytes.push(b'\n');
    (Format::Json.media_type().into(), bytes.into())
}

fn cached(endpoint: &Endpoint, object: ServedRef<'_>, negotiation: &Negotiation) -> Result<Encoded, Status> {
    let accepted = negotiation.choose(Offer::Object, encodings(endpoint))?;
    match (accepted.transform, accepted.format) {
        (None, Format::Json) if !negotiation.pretty() => Ok(json_line(&object_json(endpoint, object)?)),
        (None, Format::Json) => Ok(indented_line(&object_json(endpoint, object)?)),
        (None, Format::Protobuf) => {
            let gvk = endpoint.gvk();
            let message = object_protobuf(endpoint, object)?;
            let bytes = protobuf::envelope::wrap(&gvk.group_version().to_string(), &gvk.kind, &message);
            Ok((Format::Protobuf.media_type().into(), bytes.into()))
        }
        (None, format) => {
            let bytes = object_json(endpoint, object)?;
            document_bytes(&parse(&bytes)?, bytes.len(), format, negotiation.pretty())
        }
        (Some(transform), format) => {
            let json = table::cached(endpoint, object, transform, negotiation.include(), true)?;
            in_format(json, format, negotiation)
        }
    }
}

/// Returns an object's JSON in the endpoint's version.
pub(super) fn object_json(endpoint: &Endpoint, object: ServedRef<'_>) -> Result<Bytes, Status> {
    if let Some(converted) = object.converted {
        return Ok(converted.clone());
    }
    let object = object.cached;
    if endpoint.is_storage_version() {
        return Ok(object.json());
    }
    object.encoding(json_slot(endpoint), |object| {
        let value = parse(&object.json())?;
        if endpoint.def.is_custom() {
            return Ok(json::encode(&versions::read_without_webhook(endpoint, value)?).into());
        }
        Ok(with_type_first(endpoint, View::Object.to_served(endpoint, value)?).into())
    })
}

/// Encodes an object of a built-in kind with its kind and version first, as stored objects have them, so that lists can
/// leave them out.
fn with_type_first(endpoint: &Endpoint, mut object: Value) -> Vec<u8> {
    let (Some(mut head), Some(fields)) = (type_meta(endpoint), object.as_object_mut()) else {
        return json::encode(&object);
    };
    fields.remove("kind");
    fields.remove("apiVersion");
    if fields.is_empty() {
        head.pop();
    }
    head.extend(json::encode(&object).iter().skip(1));
    head
}

/// Returns the start of a built-in object's JSON, its kind and version, which list items omit; `None` for custom
/// objects, whose list items include them.
fn type_meta(endpoint: &Endpoint) -> Option<Vec<u8>> {
    endpoint.version().type_id()?;
    let gvk = endpoint.gvk();
    Some(format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", gvk.kind, gvk.group_version()).into_bytes())
}

/// Returns an object's protobuf message in the endpoint's version, without the envelope.
pub(super) fn object_protobuf(endpoint: &Endpoint, object: ServedRef<'_>) -> Result<Bytes, Status> {
    let type_id =
        endpoint.version().type_id().ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
    object.cached.encoding(protobuf_slot(endpoint), |_| {
        let value = parse(&object_json(endpoint, object)?)?;
        let mut message = Vec::with_capacity(1024);
        protobuf::encode(nave_schema::builtin(), type_id, &value, &mut message).map_err(Status::internal)?;
        Ok(message.into())
    })
}

/// Returns the slot of an encoding in the endpoint's version. Two groups may serve the same stored objects (events), so
/// the slot also depends on whether the endpoint's group is the stored one.
fn slot(endpoint: &Endpoint, kind: u32) -> Encoding {
    let foreign =
        endpoint.def.storage.as_ref().is_some_and(|storage| storage.version.group != endpoint.def.group);
    encoding(kind, endpoint.version * 2 + usize::from(foreign))
}

/// Returns the slot of full JSON frames in the endpoint's version.
pub(super) fn json_frame_slot(endpoint: &Endpoint) -> Encoding {
    if endpoint.is_storage_version() { Encoding::JSON } else { json_slot(endpoint) }
}

fn json_slot(endpoint: &Endpoint) -> Encoding {
    slot(endpoint, JSON_OF_VERSION)
}

pub(super) fn protobuf_slot(endpoint: &Endpoint) -> Encoding {
    slot(endpoint, PROTOBUF_OF_VERSION)
}

/// Encodes the object of a watch event in the accepted format and form.
pub(super) fn event_object(
    endpoint: &Endpoint,
    object: ServedRef<'_>,
    accepted: Accepted,
    first: bool,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    let json = match accepted.transform {
        Some(transform) => table::cached(endpoint, object, transform, include, first)?,
        None => object_json(endpoint, object)?.into(),
    };
    event_bytes(json, accepted.format)
}

/// Encodes the object of a bookmark in the form of the other objects of the watch.
pub(super) fn bookmark_object(
    endpoint: &Endpoint,
    object: &Value,
    accepted: Accepted,
    first: bool,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    let json = match accepted.transform {
        Some(transform) => table::object(endpoint, object, transform, include, first)?,
        None => json::encode(object),
    };
    event_bytes(json, accepted.format)
}

fn event_bytes(json: Vec<u8>, format: Format) -> Result<Vec<u8>, Status> {
    match format {
        Format::Protobuf => wrapped(&parse(&json)?),
        _ => Ok(json),
    }
}

/// Converts a JSON document to the accepted format.
fn in_format(mut json: Vec<u8>, format: Format, negotiation: &Negotiation) -> Result<Encoded, Status> {
    match format {
        Format::Json if negotiation.pretty() => Ok(indented_line(&json)),
        Format::Json => {
            json.push(b'\n');
            Ok((Format::Json.media_type().into(), json.into()))
        }
        Format::Yaml | Format::Protobuf => document_bytes(&parse(&json)?, json.len(), format, false),
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Value, Status> {
    json::parse_own(bytes).map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;
    use serde_json::json;

    use super::*;

    #[test]
    fn converted_objects_begin_with_their_kind() {
        let registry = Registry::builtin(nave_schema::builtin());
        let events = GroupVersionResource::new("events.k8s.io", "v1", "events");
        let def = Arc::clone(registry.lookup(&events).unwrap());
        let endpoint = Endpoint { def, version: 0, storage: None, watched: Arc::default(), allocator: None };
        let event = json!({"apiVersion": "other", "action": "a", "kind": "Event", "metadata": {"name": "a"}});
        let head = r#"{"kind":"Event","apiVersion":"events.k8s.io/v1","#;
        let written = String::from_utf8(with_type_first(&endpoint, event)).unwrap();
        assert_eq!(written, format!(r#"{head}"action":"a","metadata":{{"name":"a"}}}}"#));
        let alone = String::from_utf8(with_type_first(&endpoint, json!({"kind": "Event"}))).unwrap();
        assert_eq!(alone, format!("{}}}", head.trim_end_matches(',')));
    }
}
