//! Types of the Kubernetes API machinery, without I/O.
//!
//! | module | content |
//! | --- | --- |
//! | [`cidr`] | blocks of IP addresses |
//! | [`go_regex`] | regular expressions in Go's syntax |
//! | [`go_value`] | values as Go prints them |
//! | [`gvk`] | group, version, kind and resource names |
//! | [`status`] | [`Status`], the error (and success) document of the API, with its causes |
//! | [`field`] | field paths and validation errors |
//! | [`field_errors`] | a bounded list of validation errors |
//! | [`limits`] | limits on depth and size of objects |
//! | [`meta`] | reads and writes `metadata` of an object held as a [`Value`] |
//! | [`object`] | [`Object`], a value that is always a map, with access to its metadata |
//! | [`conditions`] | conditions in the status of an object held as a [`Value`] |
//! | [`selector`] | label and field selectors |
//! | [`quantity`] | resource quantities (`1500m`, `1Gi`) |
//! | [`names`] | rules for names, labels and annotations |
//! | [`options`] | the query parameters of each verb |
//! | [`schedule`] | schedules of cron jobs |
//! | [`scan`] | finds parts of a JSON text without parsing it |
//! | [`time`] | the API's timestamps |
//! | [`backoff`] | pauses between retries |
//! | [`duration`] | durations in Go's format |
//! | [`requested_resource`] | the resource of a request |
//! | [`user`] | the user of a request |
//!
//! Invariants: no I/O, no clock other than [`time::now`], no input causes a panic.

pub mod backoff;
pub mod cidr;
pub mod conditions;
pub mod duration;
pub mod field;
pub mod field_errors;
pub mod go_regex;
pub mod go_value;
pub mod gvk;
pub mod limits;
pub mod managed_fields;
pub mod meta;
pub mod names;
pub mod object;
pub mod options;
pub mod packed;
pub mod quantity;
pub mod requested_resource;
pub mod scan;
pub mod schedule;
pub mod selector;
pub mod status;
pub mod time;
pub mod url;
pub mod user;

pub use cidr::Cidr;
pub use field::{FieldError, FieldErrorKind, FieldPath};
pub use field_errors::FieldErrors;
pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use object::Object;
pub use requested_resource::RequestedResource;
pub use status::{Reason, Status};

/// An object or a part of an object, between decoding and encoding.
pub type Value = serde_json::Value;
/// The fields of an object.
pub type Map = serde_json::Map<String, Value>;
