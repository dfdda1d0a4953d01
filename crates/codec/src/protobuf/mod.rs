//! Kubernetes' protobuf, driven by a [`SchemaSet`].
//!
//! Kubernetes' messages are proto2 as gogo's generated code writes them: fields in ascending order, maps as entries
//! `{key = 1, value = 2}` with sorted keys, some Go structs inlined in JSON but messages of their own here
//! ([`nave_schema::Wire::via`]), some slices wrapped ([`nave_schema::Wire::wrapped`]). A few scalars are messages:
//!
//! | scalar | message |
//! | --- | --- |
//! | Time, MicroTime | `{seconds = 1, nanos = 2}`; empty is null |
//! | Duration | `{duration = 1}`, nanoseconds |
//! | Quantity | `{string = 1}` |
//! | IntOrString | `{type = 1, intVal = 2, strVal = 3}`, type 1 being a string |
//! | Any | `{raw = 1}`, JSON text; or see [`nave_schema::AnyForm`] |
//!
//! A writer here leaves out what the value lacks, where gogo writes the zero of fields that are no pointers; readers
//! of both kinds give both the same meaning. A reader here takes fields in any order, split messages, packed and
//! unpacked lists, and skips what it does not know.
//!
//! `apiVersion` and `kind` are not part of a message: they stand in the [`envelope`] around it.

mod decode;
mod encode;
pub mod envelope;
pub mod project;
mod scalar;
mod sink;
#[cfg(test)]
mod tests;
mod wire;

use nave_machinery::limits::{Budget, LimitError, MAX_DEPTH, MAX_DOCUMENT_DEPTH};
use nave_machinery::{Status, Value};
use nave_schema::{SchemaSet, TypeId};

use crate::json::JsonError;

/// How many bytes of messages that came in pieces are put together for one object. No writer splits messages; each
/// level of nested pieces copies all that is within.
const MAX_JOINED_BYTES: usize = 8 * 1024 * 1024;

/// Why bytes are not a message of the type, or a value cannot be one.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ProtobufError {
    /// A length reaches beyond the end.
    #[error("unexpected EOF")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("integer overflow")]
    BadVarint,
    /// A field number or wire type that does not exist.
    #[error("illegal tag {0:#x}")]
    BadTag(u64),
    /// Too deep, or too many values.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A field holds something else than its type.
    #[error("field {0:?} has the wrong type")]
    WrongType(String),
    /// A string is not UTF-8.
    #[error("field {0:?} is not UTF-8")]
    NotUtf8(String),
    /// An untyped field holds bytes that are not JSON.
    #[error("field {0:?} holds invalid JSON: {1}")]
    NotJson(String, String),
    /// The bytes do not begin with `k8s\0`.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoEnvelope,
}

impl ProtobufError {
    fn not_json(field: &str, error: &JsonError) -> Self {
        match error {
            JsonError::Limit(limit) => Self::Limit(*limit),
            other => Self::NotJson(field.to_owned(), other.to_string()),
        }
    }

    /// The answer to a request with such a body.
    pub fn into_status(self) -> Status {
        match self {
            Self::Limit(limit) => limit.into_status(),
            other => Status::bad_request(other.to_string()),
        }
    }
}

/// What the message of an object lacks, and a reader is to add.
#[derive(Clone, Copy, Debug, Default)]
pub struct Root<'a> {
    /// Written second as `apiVersion`, unless empty.
    pub api_version: &'a str,
    /// Written first as `kind`, unless empty.
    pub kind: &'a str,
    /// Takes the place of `metadata.resourceVersion`.
    pub resource_version: Option<&'a str>,
}

/// Appends the message of `value`, which is of the type `id`, to `out`. Fields that the type does not have are left
/// out, as are `apiVersion` and `kind`. On an error `out` holds a part of the message.
pub fn encode(set: &SchemaSet, id: TypeId, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    encode::message(set, id, value, MAX_DEPTH, out)
}

/// Appends the message of a document that may have objects in it, such as a list.
pub fn encode_document(
    set: &SchemaSet,
    id: TypeId,
    document: &Value,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    encode::message(set, id, document, MAX_DOCUMENT_DEPTH, out)
}

/// Reads a message of the type `id`.
pub fn decode(set: &SchemaSet, id: TypeId, message: &[u8]) -> Result<Value, ProtobufError> {
    decode_object(set, id, message, Root::default())
}

/// Reads a message of the type `id` that was stored: however many values it has, it was accepted once.
pub fn decode_stored(set: &SchemaSet, id: TypeId, message: &[u8]) -> Result<Value, ProtobufError> {
    let mut sink = sink::ValueSink::new(Budget::new(usize::MAX));
    decode::walk(set, id, message, Root::default(), &mut sink)?;
    Ok(sink.finish()?)
}

/// Reads a message of the type `id` and adds what `root` has.
pub fn decode_object(
    set: &SchemaSet,
    id: TypeId,
    message: &[u8],
    root: Root<'_>,
) -> Result<Value, ProtobufError> {
    let mut sink = sink::ValueSink::new(Budget::default());
    decode::walk(set, id, message, root, &mut sink)?;
    Ok(sink.finish()?)
}

/// Appends the JSON of a message of the type `id` to `out`, with what `root` adds, and no value in between. On an
/// error `out` holds a part of the text.
pub fn transcode_json(
    set: &SchemaSet,
    id: TypeId,
    message: &[u8],
    root: Root<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    decode::walk(set, id, message, root, &mut sink::JsonSink::new(out))
}
