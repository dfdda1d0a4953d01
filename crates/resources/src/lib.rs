//! The built-in resources: the served API as data, with a few hooks.
//!
//! A resource, built-in or custom, is a [`ResourceDef`]. The [`Registry`] contains all served resources. Generic code
//! (the endpoints, the cacher, discovery, OpenAPI, tables) reads it. Kinds have no handlers of their own: the rules
//! of a kind are a [`Strategy`], a unit struct with hooks that the write path calls.
//!
//! | module | contents |
//! | --- | --- |
//! | [`def`] | [`ResourceDef`] and its parts |
//! | [`strategy`] | [`Strategy`], the hooks of a kind |
//! | [`registry`] | [`Registry`], the resources by group, by plural name, by kind |
//! | [`discovery`] | the discovery documents, computed from the registry |
//! | [`storage`] | storage keys |
//! | [`table`] | columns of tables and their cells |
//! | [`mod@convert`] | conversion between versions |
//! | [`custom`] | conversion of a CustomResourceDefinition to a resource |
//! | [`scale`] | the `scale` subresource |
//! | [`pod`] | the references and containers of a pod |
//! | [`certificate_request`] | decoding of certificate signing requests |
//! | [`quota`] | the usage of objects in quotas |
//! | `groups` | one module per group (`groups::core`, `groups::apps`): its resources, columns and strategies |
//!
//! Invariants: The crate does no I/O. A registry is immutable; a change creates a new registry. A storage key
//! consists of validated parts only. Columns, selectable fields and validation of built-in kinds read the storage
//! version of an object.
//!
//! ```
//! use nave_machinery::GroupVersionResource;
//! use nave_resources::{Registry, storage_key};
//! use nave_schema::SchemaSet;
//!
//! let registry = Registry::builtin(&SchemaSet::default());
//! let pods = registry.lookup(&GroupVersionResource::new("", "v1", "pods")).expect("pods are built in");
//! assert_eq!(storage_key(pods, Some("default"), "web").as_deref(), Ok("/registry/pods/default/web"));
//! assert!(storage_key(pods, Some("default"), "../secrets").is_err());
//! ```

#![cfg_attr(
    test,
    allow(clippy::needless_pass_by_value, reason = "what a test makes for a call reads best in the call")
)]

mod builder;
pub mod certificate_request;
mod conditions;
pub mod convert;
pub mod custom;
pub mod def;
mod defaults;
pub mod discovery;
mod groups;
mod ip;
pub mod optional;
mod pem;
pub mod pod;
pub mod quota;
mod read;
pub mod registry;
mod resource_names;
pub mod scale;
mod semantic;
mod signer;
pub mod storage;
pub mod strategy;
pub mod table;
mod validate;
mod webhook_client;

pub use convert::{ConversionError, convert};
pub use def::{
    Conversion, ConversionWebhook, Generation, KeptMetadata, NameRule, ResourceDef, ResourceVersion, Rules,
    Schema, SelectableField, Storage, Subresource, SubresourceKind, Verb,
};
pub use groups::{Approval, is_protected_group, validate_service_cluster_ips};
pub use registry::{Group, Registry, cohabiting_resources};
pub use scale::{AccessorError, ScalePaths, UNSET_REPLICAS, apply_scale, scale_of};
pub use storage::{KeyError, list_prefix, parse_key, storage_key};
pub use strategy::{Completion, Plain, Strategy};
pub use table::{Column, Description};
