//! The structure of API types, built-in and custom, and the operations that depend only on structure.
//!
//! A [`SchemaSet`] holds struct types by OpenAPI definition name; a [`Shape`] is the type of a field.
//!
//! | module | operation | step of a write |
//! | --- | --- | --- |
//! | [`normalize`] | has the effect of a round trip through upstream's Go struct | after decoding, built-in kinds |
//! | [`prune`] | drops unknown fields | after decoding, custom kinds |
//! | [`defaulting`] | sets static defaults | before admission |
//! | [`validate`] | finds wrong types, missing fields, invalid enum values | after mutating admission |
//!
//! The built-in types come from the table `facts/builtin.txt`, which `cargo xtask facts` generates from the sources of
//! other crates. Corrections belong in `facts/overlay.txt`.
//!
//! ```
//! use nave_schema::{builtin, defaulting, normalize};
//!
//! let set = builtin();
//! let service = set.find("io.k8s.api.core.v1.Service").unwrap();
//! let mut object = serde_json::json!({"spec": {"ports": [{"port": 80, "name": ""}]}});
//! normalize::normalize(set, service, &mut object, normalize::Mode::Report).unwrap();
//! defaulting::apply(set, service, &mut object).unwrap();
//! let port = serde_json::json!({"port": 80, "protocol": "TCP", "targetPort": 0});
//! assert_eq!(object["spec"]["ports"], serde_json::json!([port]));
//! ```
//!
//! Invariants: only the table names kinds, the code does not; no I/O; invalid input gives an error or a finding, never
//! a panic; the decoder's depth limit bounds the depth of a walk; the memory limit of an object bounds added values.

pub mod builtin;
pub mod defaulting;
mod field_index;
pub mod normalize;
pub mod prune;
pub mod types;
pub mod unstructured;
pub mod validate;

pub use builtin::builtin;
pub use types::{
    AnyForm, Default, Field, ListTopology, PatchStrategy, Scalar, SchemaSet, Shape, StructType, TypeId,
    TypeMeta, Wire, WirePlan,
};
