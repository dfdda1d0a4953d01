//! Admission: the stage of a write that may change or refuse an object.
//!
//! ```text
//! Attributes, Object ─→ Chain::mutate ─→ validation (strategy, schema) ─→ Chain::validate ─→ the store
//!                         │ each plugin in order, once more where        │ each plugin in order
//!                         │ a plugin asks for reinvocation               │
//!                         └ then the checks that nobody can disable      └ the last one is ResourceQuota
//! ```
//!
//! | module | what it holds |
//! | --- | --- |
//! | `attributes` | [`Attributes`], what is about to happen to an object |
//! | `notes` | [`Notes`], the warnings and audit annotations that plugins leave |
//! | `chain` | [`Mutate`], [`Validate`] and the [`Chain`] of both phases |
//! | `cluster` | how plugins read the cluster, and the few writes they make |
//! | [`config`] | which plugins run, and the files that configure them |
//! | [`plugins`] | the plugins, a file each, and the one list that orders them |
//! | `metrics` | what is measured, under upstream's names |
//! | [`testing`] | a cluster in memory, for tests |
//!
//! Invariants: a plugin reads the cluster through [`Lister`] and writes only what [`QuotaStatus`] and
//! [`NamespaceCreator`] offer. The list in [`plugins`] is the only place that names the plugins. A plugin sees objects
//! in their storage version. A plugin that does not handle a request costs one synchronous call.

#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        clippy::cloned_ref_to_slice_refs,
        reason = "literals are passed as they are written"
    )
)]

mod attributes;
mod chain;
mod cluster;
pub mod config;
mod metrics;
mod notes;
pub mod plugins;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use attributes::{Attributes, Operation};
pub use chain::{Chain, Mutate, Plugin, Validate};
pub use cluster::{Cluster, KindResolver, Lister, NamespaceCreator, QuotaStatus};
pub use metrics::Metrics;
pub use notes::{AnnotationError, Notes};
pub use plugins::set_certificate_requester;
