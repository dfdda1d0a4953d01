//! The built-in resources: what the API serves, as data plus a few hooks.
//!
//! A resource, built-in or custom, is a [`ResourceDef`]; the [`Registry`] holds all that are served, and generic
//! code (the endpoints, the cacher, discovery, OpenAPI, tables) asks it. There is no handler per kind: what is
//! particular to a kind is a [`Strategy`], a unit struct with hooks at fixed places on the road of a write.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`def`] | [`ResourceDef`] and its parts |
//! | [`strategy`] | [`Strategy`], the hooks of a kind |
//! | [`registry`] | [`Registry`], the resources by group, by plural name, by kind |
//! | [`discovery`] | the discovery documents, as functions of the registry |
//! | [`storage`] | storage keys |
//! | [`table`] | columns of tables and their cells |
//! | [`mod@convert`] | from one version to another |
//! | [`scale`] | the `scale` subresource |
//! | [`pod`] | what a pod refers to, all its containers |
//! | [`certificate_request`] | the bytes of a request to sign a certificate |
//! | [`quota`] | what objects take of a quota |
//! | `groups` | one module a group (`groups::core`, `groups::apps`): its resources, their columns and strategies |
//!
//! Invariants: no I/O; a registry never changes, a change makes a new one; a storage key is made of checked parts
//! only; columns, selectable fields and validation read an object in its storage version.
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
pub mod def;
mod defaults;
pub mod discovery;
mod groups;
mod ip;
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
    KeptMetadata, NameRule, ResourceDef, ResourceVersion, Rules, SelectableField, Storage, Subresource,
    SubresourceKind, Verb,
};
pub use groups::{Approval, is_protected_group, validate_service_cluster_ips};
pub use registry::{Group, Registry};
pub use scale::{ScalePaths, apply_scale, scale_of};
pub use storage::{KeyError, list_prefix, parse_key, storage_key};
pub use strategy::{Completion, Plain, Strategy};
pub use table::{Column, Description};
