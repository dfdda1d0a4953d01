//! The vocabulary of the Kubernetes API, without any I/O.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`cidr`] | blocks of IP addresses |
//! | [`gvk`] | group, version, kind and resource names |
//! | [`status`] | [`Status`], the error (and success) document of the API, with its causes |
//! | [`field`] | field paths and the errors of validation |
//! | [`limits`] | how deep and how large an object may be |
//! | [`meta`] | reading and writing `metadata` of an object held as a [`Value`] |
//! | [`object`] | [`Object`], a value that is known to be a map, with its metadata |
//! | [`conditions`] | conditions in the status of an object held as a [`Value`] |
//! | [`selector`] | label and field selectors |
//! | [`quantity`] | resource quantities (`1500m`, `1Gi`) |
//! | [`names`] | the rules that names, labels and annotations follow |
//! | [`options`] | the query parameters of each verb |
//! | [`schedule`] | schedules of cron jobs |
//! | [`scan`] | the parts of a JSON text, without a tree of it |
//! | [`time`] | the API's timestamps |
//! | [`backoff`] | pauses between attempts |
//! | [`duration`] | durations as Go writes them |
//! | [`user`] | who a request comes from |
//!
//! Invariants: no I/O, no clock other than [`time::now`], and no input that panics.

pub mod backoff;
pub mod cidr;
pub mod conditions;
pub mod duration;
pub mod field;
pub mod gvk;
pub mod limits;
pub mod meta;
pub mod names;
pub mod object;
pub mod options;
pub mod quantity;
pub mod scan;
pub mod schedule;
pub mod selector;
pub mod status;
pub mod time;
pub mod user;

pub use cidr::Cidr;
pub use field::{FieldError, FieldErrorKind, FieldPath};
pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use object::Object;
pub use status::{Reason, Status};

/// An object, or any part of one, between decoding and encoding.
pub type Value = serde_json::Value;
/// The fields of one object.
pub type Map = serde_json::Map<String, Value>;
