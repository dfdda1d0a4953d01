//! The structure of API types, for built-in and custom kinds alike, and what follows from structure alone.
//!
//! A [`SchemaSet`] holds struct types by their OpenAPI definition name; [`Shape`] is what a field holds.
//!
//! | module | what it does with an object | a write uses it |
//! | --- | --- | --- |
//! | [`normalize`] | what decoding into upstream's Go struct and encoding again does | after decoding, built-in kinds |
//! | [`prune`] | drops unknown fields | after decoding, custom kinds |
//! | [`defaulting`] | fills in static defaults | before admission |
//! | [`validate`] | finds wrong types, missing fields, values outside enumerations | after mutating admission |
//!
//! The built-in types come from a table, `facts/builtin.txt`, which `cargo xtask facts` writes from the sources of
//! other crates; corrections go into `facts/overlay.txt`.
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
//! Invariants: no kind is named in the code of this crate, only in its table; nothing here does I/O; what input holds
//! is an error or a finding, never a panic; the depth of a walk is bounded by the decoder's limit on depth, and
//! what is filled in by the limits of an object.

pub mod builtin;
pub mod defaulting;
mod field_index;
pub mod normalize;
pub mod prune;
pub mod types;
pub mod validate;

pub use builtin::builtin;
pub use types::{
    AnyForm, Default, Field, ListTopology, PatchStrategy, Scalar, SchemaSet, Shape, StructType, TypeId, Wire,
    WirePlan,
};
