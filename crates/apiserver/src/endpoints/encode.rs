//! Objects, lists and watch events as bytes: JSON, YAML or protobuf, of any served version, as they are, as a table
//! or as metadata alone.
//!
//! JSON of the storage version is what the watch cache holds and is copied; everything else is made on first demand
//! and kept beside the object while there is room.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use nave_cacher::{CachedObject, Encoding};
use nave_codec::negotiate::{Accepted, Format, MetaVersion, Transform};
use nave_codec::table::{self, Column, ListMeta, MetadataListWriter, RowObject, TableWriter};
use nave_codec::{json, protobuf, yaml};
use nave_machinery::{GroupVersion, Status, Value, meta, time};
use nave_resources::table as columns;
use serde_json::json;

use super::answer::{Content, List};
use super::negotiation::{IncludeObject, Negotiation, Offer};
use super::{Endpoint, view};
use crate::body::ResponseBody;
use crate::descriptions;
use crate::kinds;

/// How much of a list is put together before it is handed to the connection.
const CHUNK: usize = 128 * 1024;

/// The encodings kept beside an object: JSON and protobuf of each version, and the metadata alone.
const JSON_OF_VERSION: u8 = 1;
const PROTOBUF_OF_VERSION: u8 = 64;

/// A content type and a body.
type Encoded = (Cow<'static, str>, ResponseBody);

/// Encodes an answer's content as the client accepts it.
pub(super) fn content(content: Content, negotiation: &Negotiation) -> Result<Encoded, Status> {
    match content {
        Content::Object(None, document) => {
            let accepted = negotiation.choose(Offer::Plain, &Format::ALL)?;
            document_bytes(&document, accepted.format, negotiation.pretty())
        }
        Content::Ordered(document) => {
            let accepted = negotiation.choose(Offer::Plain, &Format::ALL)?;
            let mut bytes = match accepted.format {
                Format::Json if negotiation.pretty() => document.indented_json()?,
                Format::Json => document.json(),
                Format::Yaml | Format::Protobuf => {
                    return document_bytes(&document.value()?, accepted.format, false);
                }
            };
            bytes.push(b'\n');
            Ok((Format::Json.media_type().into(), bytes.into()))
        }
        Content::Object(Some(endpoint), object) => {
            let accepted = negotiation.choose(Offer::Object, formats(&endpoint))?;
            match accepted.transform {
                None => document_bytes(&object, accepted.format, negotiation.pretty()),
                Some(transform) => {
                    let bytes = json::encode(&object);
                    let rows = [Row { object: &object, bytes: &bytes }];
                    transformed(&endpoint, &rows, transform, accepted.format, negotiation)
                }
            }
        }
        Content::Cached(endpoint, object) => cached(&endpoint, &object, negotiation),
        Content::List(list) => self::list(list, negotiation),
    }
}

/// The formats a resource's objects can be written in.
pub(super) fn formats(endpoint: &Endpoint) -> &'static [Format] {
    if endpoint.version().type_id.is_some() { &Format::ALL } else { &[Format::Json, Format::Yaml] }
}

/// Whether an answer is copied from bytes that the watch cache holds.
pub(super) fn is_copied(endpoint: &Endpoint, offer: Offer, negotiation: &Negotiation) -> bool {
    let accepted = negotiation.choose(offer, formats(endpoint));
    let is_json = accepted.is_ok_and(|it| it.transform.is_none() && it.format == Format::Json);
    is_json && !negotiation.pretty() && endpoint.is_storage_version()
}

/// A document in one of the formats.
pub(super) fn document_bytes(document: &Value, format: Format, pretty: bool) -> Result<Encoded, Status> {
    let bytes = match format {
        Format::Json if pretty => {
            let mut bytes = serde_json::to_vec_pretty(document).map_err(Status::internal)?;
            bytes.push(b'\n');
            bytes
        }
        Format::Json => {
            let mut bytes = json::encode(document);
            bytes.push(b'\n');
            bytes
        }
        Format::Yaml => yaml::encode(document),
        Format::Protobuf => wrapped(document)?,
    };
    Ok((format.media_type().into(), bytes.into()))
}

/// A document as protobuf in its envelope.
pub(super) fn wrapped(document: &Value) -> Result<Vec<u8>, Status> {
    let (api_version, kind) = (meta::api_version(document), meta::kind(document));
    let gvk = GroupVersion::parse(api_version).unwrap_or_default().with_kind(kind);
    let type_id = kinds::type_of(&gvk).ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
    let mut raw = Vec::with_capacity(1024);
    protobuf::encode_document(nave_schema::builtin(), type_id, document, &mut raw)
        .map_err(Status::internal)?;
    Ok(protobuf::envelope::wrap(api_version, kind, &raw))
}

fn cached(
    endpoint: &Endpoint,
    object: &Arc<CachedObject>,
    negotiation: &Negotiation,
) -> Result<Encoded, Status> {
    let accepted = negotiation.choose(Offer::Object, formats(endpoint))?;
    match (accepted.transform, accepted.format) {
        (None, Format::Json) if !negotiation.pretty() => {
            let mut bytes = Vec::from(object_json(endpoint, object)?);
            bytes.push(b'\n');
            Ok((Format::Json.media_type().into(), bytes.into()))
        }
        (None, Format::Protobuf) => {
            let gvk = endpoint.gvk();
            let message = object_protobuf(endpoint, object)?;
            let bytes = protobuf::envelope::wrap(&gvk.group_version().to_string(), &gvk.kind, &message);
            Ok((Format::Protobuf.media_type().into(), bytes.into()))
        }
        (None, format) => {
            let bytes = object_json(endpoint, object)?;
            document_bytes(&parse(&bytes)?, format, negotiation.pretty())
        }
        (Some(transform), format) => {
            let (object, bytes) = (parse(object.json())?, object_json(endpoint, object)?);
            transformed(endpoint, &[Row { object: &object, bytes: &bytes }], transform, format, negotiation)
        }
    }
}

/// An object's JSON in the endpoint's version.
pub(super) fn object_json(endpoint: &Endpoint, object: &CachedObject) -> Result<Bytes, Status> {
    if endpoint.is_storage_version() {
        return Ok(object.json().clone());
    }
    object.encoding(json_slot(endpoint), |object| {
        let value = view::from_stored(endpoint, parse(object.json())?)?;
        Ok(json::encode(&value).into())
    })
}

/// An object's protobuf message in the endpoint's version, without the envelope.
pub(super) fn object_protobuf(endpoint: &Endpoint, object: &CachedObject) -> Result<Bytes, Status> {
    let type_id = endpoint.version().type_id.ok_or_else(|| Status::not_acceptable(&["application/json"]))?;
    object.encoding(protobuf_slot(endpoint), |object| {
        let value = parse(&object_json(endpoint, object)?)?;
        let mut message = Vec::with_capacity(1024);
        protobuf::encode(nave_schema::builtin(), type_id, &value, &mut message).map_err(Status::internal)?;
        Ok(message.into())
    })
}

/// Two groups may serve the same stored objects (events): the slot tells them apart by whether the group is the
/// stored one.
fn slot(endpoint: &Endpoint, base: u8) -> Encoding {
    let foreign =
        endpoint.def.storage.as_ref().is_some_and(|storage| storage.version.group != endpoint.def.group);
    Encoding(base + u8::try_from(endpoint.version).unwrap_or(0) * 2 + u8::from(foreign))
}

/// The slot of the plain JSON frames of the endpoint's version.
pub(super) fn json_frame_slot(endpoint: &Endpoint) -> Encoding {
    if endpoint.is_storage_version() { Encoding::JSON } else { json_slot(endpoint) }
}

fn json_slot(endpoint: &Endpoint) -> Encoding {
    slot(endpoint, JSON_OF_VERSION)
}

pub(super) fn protobuf_slot(endpoint: &Endpoint) -> Encoding {
    slot(endpoint, PROTOBUF_OF_VERSION)
}

fn list(list: List, negotiation: &Negotiation) -> Result<Encoded, Status> {
    let accepted = negotiation.choose(Offer::List, formats(&list.endpoint))?;
    match (accepted.transform, accepted.format) {
        (None, Format::Json) if !negotiation.pretty() => list_json(list),
        (None, Format::Protobuf) => list_protobuf(&list),
        (None, format) => {
            let bytes = list_value(&list)?;
            document_bytes(&bytes, format, negotiation.pretty())
        }
        (Some(transform), format) => list_transformed(&list, transform, format, negotiation),
    }
}

/// The list's head, up to its first item.
fn list_head(list: &List) -> Vec<u8> {
    let revision = list.revision.to_string();
    let mut head = b"{\"kind\":".to_vec();
    json::encode_into(&list.endpoint.def.list_kind, &mut head);
    head.extend_from_slice(b",\"apiVersion\":");
    json::encode_into(&list.endpoint.gvk().group_version().to_string(), &mut head);
    head.extend_from_slice(b",\"metadata\":");
    json::encode_into(&list_meta(list, &revision), &mut head);
    head.extend_from_slice(b",\"items\":[");
    head
}

fn list_meta<'a>(list: &'a List, revision: &'a str) -> ListMeta<'a> {
    ListMeta {
        resource_version: revision,
        continue_token: &list.continue_token,
        remaining_item_count: list.remaining.and_then(|remaining| i64::try_from(remaining).ok()),
    }
}

/// A list in JSON: the items' bytes are copied into chunks as the client takes them.
fn list_json(list: List) -> Result<Encoded, Status> {
    let head = list_head(&list);
    let List { endpoint, objects, .. } = list;
    // What has to be converted is converted before the answer begins, so that a failure can still be told.
    let items = objects.iter().map(|object| object_json(&endpoint, object)).collect::<Result<Vec<_>, _>>()?;
    let type_meta = type_meta(&endpoint);
    let mut first = true;
    let body = chunked(head, items, b"]}\n", move |out, item| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        put_item(out, item, type_meta.as_deref());
    });
    Ok((Format::Json.media_type().into(), body))
}

/// A body of a head, items and a tail: in full where it is small, else put together in chunks as the client takes
/// them.
fn chunked(
    head: Vec<u8>,
    items: Vec<Bytes>,
    tail: &'static [u8],
    mut put: impl FnMut(&mut Vec<u8>, &[u8]) + Send + 'static,
) -> ResponseBody {
    let mut items = items.into_iter();
    let mut next = Some(head);
    let mut chunks = std::iter::from_fn(move || {
        let mut out = next.take()?;
        let rest: usize = items.as_slice().iter().take(CHUNK / 256).map(|item| item.len() + 8).sum();
        out.reserve(rest.min(CHUNK) + 4096);
        while out.len() < CHUNK {
            let Some(item) = items.next() else {
                out.extend_from_slice(tail);
                return Some(Bytes::from(out));
            };
            put(&mut out, &item);
        }
        next = Some(Vec::new());
        Some(Bytes::from(out))
    });
    let first = chunks.next().unwrap_or_default();
    if first.len() < CHUNK {
        return first.into();
    }
    ResponseBody::stream(stream::iter(std::iter::once(first).chain(chunks)))
}

/// How the JSON of a built-in kind begins: with its kind, which the items of a list do not repeat. `None` for custom
/// kinds, whose items do.
fn type_meta(endpoint: &Endpoint) -> Option<Vec<u8>> {
    endpoint.version().type_id?;
    let gvk = endpoint.gvk();
    Some(format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", gvk.kind, gvk.group_version()).into_bytes())
}

fn put_item(out: &mut Vec<u8>, item: &[u8], type_meta: Option<&[u8]>) {
    match type_meta.and_then(|head| item.strip_prefix(head)) {
        Some(rest) => {
            out.push(b'{');
            out.extend_from_slice(rest);
        }
        None => out.extend_from_slice(item),
    }
}

fn list_value(list: &List) -> Result<Value, Status> {
    let type_meta = type_meta(&list.endpoint);
    let item = |object: &Arc<CachedObject>| {
        let mut bytes = Vec::new();
        put_item(&mut bytes, &object_json(&list.endpoint, object)?, type_meta.as_deref());
        parse(&bytes)
    };
    let items = list.objects.iter().map(item).collect::<Result<_, _>>()?;
    let mut head = list_head(list);
    head.extend_from_slice(b"]}");
    let mut value = parse(&head)?;
    value["items"] = Value::Array(items);
    Ok(value)
}

fn list_protobuf(list: &List) -> Result<Encoded, Status> {
    let items = list
        .objects
        .iter()
        .map(|object| object_protobuf(&list.endpoint, object))
        .collect::<Result<Vec<_>, _>>()?;
    let remaining = list.remaining.and_then(|remaining| i64::try_from(remaining).ok());
    let meta = protobuf::envelope::list_meta(&list.revision.to_string(), &list.continue_token, remaining);
    let version = list.endpoint.gvk().group_version().to_string();
    let kind = &list.endpoint.def.list_kind;
    let head = protobuf::envelope::list_head(&version, kind, &meta, items.iter().map(Bytes::len));
    let body = chunked(head, items, protobuf::envelope::LIST_TAIL, |out, item| {
        protobuf::envelope::put_list_item(item, out);
    });
    Ok((Format::Protobuf.media_type().into(), body))
}

/// An object as a table's row needs it: to make cells of, in the storage version, and its bytes.
struct Row<'a> {
    object: &'a Value,
    bytes: &'a [u8],
}

fn list_transformed(
    list: &List,
    transform: Transform,
    format: Format,
    negotiation: &Negotiation,
) -> Result<Encoded, Status> {
    let revision = list.revision.to_string();
    let meta = list_meta(list, &revision);
    let json = match transform {
        Transform::Table(version) => {
            let mut writer = TableWriter::new(version, &meta, Some(&column_definitions(&list.endpoint)));
            for object in &list.objects {
                let bytes = object_json(&list.endpoint, object)?;
                put_row(
                    &mut writer,
                    &list.endpoint,
                    &Row { object: &parse(object.json())?, bytes: &bytes },
                    negotiation,
                );
            }
            writer.finish()
        }
        Transform::PartialObjectMetadataList(version) => {
            let mut writer = MetadataListWriter::new(version, &meta);
            for object in &list.objects {
                writer.item(object.json());
            }
            writer.finish()
        }
        _ => return Err(Status::not_acceptable(&["application/json"])),
    };
    in_format(json, format, negotiation)
}

fn transformed(
    endpoint: &Endpoint,
    rows: &[Row<'_>],
    transform: Transform,
    format: Format,
    negotiation: &Negotiation,
) -> Result<Encoded, Status> {
    let json = match (transform, rows) {
        (Transform::Table(version), [row]) => {
            table_of_one(endpoint, row, version, true, negotiation.include())
        }
        (Transform::PartialObjectMetadata(version), [row]) => {
            table::partial_object_metadata(version, row.bytes)
        }
        _ => return Err(Status::not_acceptable(&["application/json"])),
    };
    in_format(json, format, negotiation)
}

fn table_of_one(
    endpoint: &Endpoint,
    row: &Row<'_>,
    version: MetaVersion,
    with_columns: bool,
    include: IncludeObject,
) -> Vec<u8> {
    let meta = ListMeta { resource_version: meta::resource_version(row.object), ..ListMeta::default() };
    let definitions = column_definitions(endpoint);
    let mut writer = TableWriter::new(version, &meta, with_columns.then_some(&definitions[..]));
    put_row_with(&mut writer, endpoint, row, include);
    writer.finish()
}

/// A watch event's object as the client accepts it.
pub(super) fn event_object(
    endpoint: &Endpoint,
    object: &CachedObject,
    accepted: Accepted,
    first: bool,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    let json = match accepted.transform {
        Some(Transform::Table(version)) => {
            let (value, bytes) = (parse(object.json())?, object_json(endpoint, object)?);
            table_of_one(endpoint, &Row { object: &value, bytes: &bytes }, version, first, include)
        }
        Some(Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version)) => {
            table::partial_object_metadata(version, object.json())
        }
        _ => object_json(endpoint, object)?.into(),
    };
    event_bytes(json, accepted.format)
}

/// A bookmark's object as the client accepts it: in the form that the objects of the watch have.
pub(super) fn bookmark_object(
    endpoint: &Endpoint,
    object: &Value,
    accepted: Accepted,
    first: bool,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    let bytes = json::encode(object);
    let json = match accepted.transform {
        Some(Transform::Table(version)) => {
            table_of_one(endpoint, &Row { object, bytes: &bytes }, version, first, include)
        }
        Some(Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version)) => {
            table::partial_object_metadata(version, &bytes)
        }
        _ => bytes,
    };
    event_bytes(json, accepted.format)
}

fn event_bytes(json: Vec<u8>, format: Format) -> Result<Vec<u8>, Status> {
    match format {
        Format::Protobuf => wrapped(&parse(&json)?),
        _ => Ok(json),
    }
}

fn put_row(writer: &mut TableWriter, endpoint: &Endpoint, row: &Row<'_>, negotiation: &Negotiation) {
    put_row_with(writer, endpoint, row, negotiation.include());
}

fn put_row_with(writer: &mut TableWriter, endpoint: &Endpoint, row: &Row<'_>, include: IncludeObject) {
    let cells = columns::row(&endpoint.def, row.object, time::now());
    let conditions = endpoint.def.strategy.completion(row.object).map(|completion| {
        json!([{"type": "Completed", "status": "True", "reason": completion.reason, "message": completion.message}])
    });
    let object = match include {
        IncludeObject::None => RowObject::None,
        IncludeObject::Metadata => RowObject::Metadata(row.bytes),
        IncludeObject::Object => RowObject::Object(row.bytes),
    };
    writer.row(&cells, conditions.as_ref(), object);
}

fn column_definitions(endpoint: &Endpoint) -> Vec<Column<'_>> {
    let columns = endpoint.def.columns.iter().map(|column| Column {
        name: &column.name,
        kind: &column.kind,
        format: &column.format,
        description: descriptions::of_column(&column.description),
        priority: column.priority,
    });
    columns.collect()
}

/// A document that was made as JSON in the format the client accepts.
fn in_format(mut json: Vec<u8>, format: Format, negotiation: &Negotiation) -> Result<Encoded, Status> {
    if format == Format::Json && !negotiation.pretty() {
        json.push(b'\n');
        return Ok((Format::Json.media_type().into(), json.into()));
    }
    document_bytes(&parse(&json)?, format, negotiation.pretty())
}

fn parse(bytes: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(bytes).map_err(Status::internal)
}
