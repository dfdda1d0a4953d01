//! Structural schemas of custom resources, and the operations on objects that follow from them.
//!
//! | module | content | upstream |
//! | --- | --- | --- |
//! | [`compile`] | a schema as JSON becomes shared [`Node`]s | `apiextensions-apiserver/pkg/apiserver/schema` |
//! | [`rules`] | the rules for schemas in definitions | the same, `apis/apiextensions/validation` |
//! | [`defaults`] | validation of the defaults in a schema | `apiserver/schema/defaulting` |
//! | [`validate`] | validation of objects, with ratcheting (KEP-4008) | `apiserver/validation`, `kube-openapi/validate` |
//! | [`metadata`] | metadata of embedded resources | `apiserver/schema/objectmeta` |
//! | [`jsonpath`] | JSONPath of printer columns and selectable fields | `client-go/util/jsonpath` |
//! | [`column`] | cells of printer columns | `registry/customresource/tableconvertor` |
//!
//! ```
//! use nave_structural::Structural;
//! use serde_json::json;
//!
//! let replicas = json!({"type": "integer", "minimum": 1, "default": 1});
//! let spec = json!({"type": "object", "properties": {"replicas": replicas}, "default": {}});
//! let schema = Structural::compile(&json!({"type": "object", "properties": {"spec": spec}})).unwrap();
//!
//! let mut object = json!({"kind": "Cache", "spec": {"size": 3}});
//! assert_eq!(schema.prune(&mut object), ["spec.size"]);
//! schema.default(&mut object).unwrap();
//! assert_eq!(object, json!({"kind": "Cache", "spec": {"replicas": 1}}));
//!
//! let found = schema.validate(&json!({"spec": {"replicas": 0}}), None);
//! let text = "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1";
//! assert_eq!(found.errors[0].to_string(), text);
//! ```
//!
//! Invariants: no I/O; no input causes a panic; depth, steps and reported errors are bounded; cost is linear in the
//! object for a given schema.

pub mod column;
pub mod compile;
mod defaulting;
pub mod defaults;
mod excerpt;
pub mod formats;
pub mod jsonpath;
mod list_type;
pub mod metadata;
mod node;
mod prune;
pub mod rules;
mod structural;
pub mod validate;

pub use column::{PrinterColumn, SelectablePath};
pub use compile::CompileError;
pub use metadata::Malformed;
pub use node::{Additional, Kind, ListType, Node, NodeRef, Property};
pub use structural::Structural;
pub use validate::Findings;
