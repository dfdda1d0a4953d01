//! Bytes to values and back: JSON, YAML, Kubernetes' protobuf, and what a client may ask of them.
//!
//! ```text
//!             json::decode ─┐                         ┌─ json::encode
//!  bytes ──── yaml::decode ─┼──▶ Decoded / Value ──▶──┼─ yaml::encode ───▶ bytes
//!         protobuf::decode ─┘                         └─ protobuf::encode
//!             │                                                ▲
//!             └── protobuf::transcode_json (no Value between) ─┘
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`json`] | one pass: value, duplicate fields with their paths, bounded depth |
//! | [`yaml`] | the same for one YAML document, resolved by YAML 1.1's rules as clients expect |
//! | [`protobuf`] | messages by a [`nave_schema::SchemaSet`], the `k8s\0` envelope, watch frames, lists |
//! | [`negotiate`] | `Accept` and `Content-Type` into small enums |
//! | [`table`] | the wire form of `Table` and `PartialObjectMetadata`, from objects' bytes |
//!
//! Invariants: no input panics; every decoder bounds depth and what one byte of input can cost; nothing here knows
//! a kind by name. The size of the input is bounded by the caller.
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

/// A document as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The document; of duplicate fields the last one.
    pub value: Value,
    /// A sentence for each duplicate field, as the strict decoder's error lists them; at most a hundred.
    pub duplicates: Vec<String>,
}
