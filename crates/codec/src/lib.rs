//! Encoding and decoding: JSON, YAML, Kubernetes' protobuf, and content negotiation.
//!
//! ```text
//!             json::decode ─┐                         ┌─ json::encode
//!  bytes ──── yaml::decode ─┼──▶ DecodedDocument / Value ──▶──┼─ yaml::encode ───▶ bytes
//!         protobuf::decode ─┘                         └─ protobuf::encode
//!             │                                                ▲
//!             └── protobuf::transcode_json (no Value between) ─┘
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | [`json`] | one pass: value, duplicate fields with their paths, limited depth; strict errors of a typed document |
//! | [`yaml`] | the same for one YAML document, with YAML 1.1 scalars as clients expect |
//! | [`protobuf`] | messages described by a [`nave_schema::SchemaSet`], the `k8s\0` envelope, watch frames, lists |
//! | [`negotiate`] | `Accept` and `Content-Type` as enums |
//! | [`table`] | encodes `Table` and `PartialObjectMetadata` from encoded objects |
//!
//! Invariants: no input causes a panic; every decoder limits the depth and the cost per byte of input; the code names
//! no kind. The caller limits the size of the input.
//!
//! ```
//! let decoded = nave_codec::json::decode(br#"{"spec":{"replicas":1,"replicas":2}}"#)?;
//! assert_eq!(decoded.value["spec"]["replicas"], 2);
//! assert_eq!(decoded.duplicates, [r#"duplicate field "spec.replicas""#]);
//! # Ok::<(), nave_codec::json::JsonError>(())
//! ```

pub mod json;
pub mod negotiate;
pub mod protobuf;
mod syntax;
pub mod table;
pub mod yaml;

use nave_machinery::Value;

/// A decoded document.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedDocument {
    /// The document. Of duplicate fields, only the last is present.
    pub value: Value,
    /// A message for each duplicate field, as in the strict decoder's error; at most a hundred.
    pub duplicates: Vec<String>,
}
