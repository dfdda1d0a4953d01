//! Kubernetes' protobuf, driven by a [`SchemaSet`].
//!
//! Kubernetes' messages are proto2 as encoded by gogo's generated code: fields in ascending order, maps as entries
//! `{key = 1, value = 2}` with sorted keys. Some Go structs are inlined in JSON but are separate messages in protobuf
//! ([`nave_schema::Wire::via`]). Some slices are wrapped ([`nave_schema::Wire::wrapped`]). A few scalars are messages:
//!
//! | scalar | message |
//! | --- | --- |
//! | Time, MicroTime | `{seconds = 1, nanos = 2}`; empty is null |
//! | Duration | `{duration = 1}`, nanoseconds |
//! | Quantity | `{string = 1}` |
//! | IntOrString | `{type = 1, intVal = 2, strVal = 3}`, type 1 is a string |
//! | Any | `{raw = 1}`, JSON text; or see [`nave_schema::AnyForm`] |
//!
//! This encoder omits absent values, while gogo writes the zero value of fields that are not pointers. Decoders treat
//! both alike. This decoder accepts fields in any order, split messages, and packed and unpacked lists. It skips
//! unknown fields.
//!
//! `apiVersion` and `kind` are not part of a message; they are in the [`envelope`] around it.

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

/// Maximum number of bytes copied to join the split messages of one object. Known encoders do not split messages, but
/// each level of nested pieces would copy everything inside it.
const MAX_JOINED_BYTES: usize = 8 * 1024 * 1024;

/// Error of decoding or encoding a message.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ProtobufError {
    /// A length exceeds the input.
    #[error("unexpected EOF")]
    Truncated,
    /// A varint has more than 64 bits.
    #[error("integer overflow")]
    BadVarint,
    /// A field number or wire type is invalid.
    #[error("illegal tag {0:#x}")]
    BadTag(u64),
    /// The message is too deep or too large.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A field has the wrong type.
    #[error("field {0:?} has the wrong type")]
    WrongType(String),
    /// A string is not UTF-8.
    #[error("field {0:?} is not UTF-8")]
    NotUtf8(String),
    /// An untyped field contains bytes that are not JSON.
    #[error("field {0:?} holds invalid JSON: {1}")]
    NotJson(String, String),
    /// The bytes do not start with `k8s\0`.
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

    /// Returns the response to a request whose body has this error.
    pub fn into_status(self) -> Status {
        match self {
            Self::Limit(limit) => limit.into_status(),
            other => Status::bad_request(other.to_string()),
        }
    }
}

/// Values of a decoded object that its message does not contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Root<'a> {
    /// Emitted second as `apiVersion`, unless empty.
    pub api_version: &'a str,
    /// Emitted first as `kind`, unless empty.
    pub kind: &'a str,
    /// Replaces `metadata.resourceVersion`.
    pub resource_version: Option<&'a str>,
    /// Adds `apiVersion` and `kind` to embedded objects, as upstream's conversion of stored objects does.
    pub embedded_types: bool,
}

/// Appends the message of `value`, of the type `id`, to `out`. Omits unknown fields, `apiVersion` and `kind`. After an
/// error, `out` contains a part of the message.
pub fn encode(set: &SchemaSet, id: TypeId, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    encode::message(set, id, value, MAX_DEPTH, out)
}

/// Appends the message of a document that may contain objects, such as a list.
pub fn encode_document(
    set: &SchemaSet,
    id: TypeId,
    document: &Value,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    encode::message(set, id, document, MAX_DOCUMENT_DEPTH, out)
}

/// Decodes a message of the type `id`.
pub fn decode(set: &SchemaSet, id: TypeId, message: &[u8]) -> Result<Value, ProtobufError> {
    decode_object(set, id, message, Root::default())
}

/// Decodes a stored message of the type `id`. Has no memory limit, because the limit was checked on the write.
pub fn decode_stored(set: &SchemaSet, id: TypeId, message: &[u8]) -> Result<Value, ProtobufError> {
    let mut sink = sink::ValueSink::new(Budget::new(usize::MAX));
    let root = Root { embedded_types: true, ..Root::default() };
    decode::walk(set, id, message, root, &mut sink)?;
    Ok(sink.finish()?)
}

/// Decodes a message of the type `id` and adds the values of `root`.
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

/// Appends the JSON of a message of the type `id` to `out`, with the values of `root`, without building a value. After
/// an error `out` contains a part of the text.
pub fn transcode_json(
    set: &SchemaSet,
    id: TypeId,
    message: &[u8],
    root: Root<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ProtobufError> {
    decode::walk(set, id, message, root, &mut sink::JsonSink::new(out))
}
