//! Admission: the stage of a write in which plugins may change or refuse the object.
//!
//! ```text
//! Attributes, Object ─→ Chain::mutate ─→ validation (strategy, schema) ─→ Chain::validate ─→ the store
//!                         │ each plugin in order, a second time if       │ each plugin in order
//!                         │ a plugin requests reinvocation               │
//!                         └ then the checks that cannot be disabled      └ ResourceQuota after the others
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | `attributes` | [`Attributes`] of a request |
//! | `notes` | [`Notes`], the warnings and audit annotations that plugins add |
//! | `chain` | [`Mutate`], [`Validate`] and the [`Chain`] of both phases |
//! | `cluster` | access of plugins to the cluster |
//! | [`expressions`] | CEL: the variables, match conditions, limits |
//! | [`matching`] | selection of the webhooks and policies that apply to a request |
//! | `objects` | objects in the versions that webhooks and policies see |
//! | `observe` | plugins that keep their own form of stored objects |
//! | [`config`] | the enabled plugins and their configuration files |
//! | [`plugins`] | the plugins, one file each, and the list that orders them |
//! | `metrics` | the metrics, under upstream's names |
//! | [`testing`] | an in-memory cluster for tests |
//!
//! Invariants: a plugin reads the cluster through [`Lister`] and writes only through [`QuotaStatus`] and
//! [`NamespaceCreator`]. The list in [`plugins`] is the only place that names the plugins. A plugin sees objects in
//! their storage version. A plugin that does not handle a request costs one synchronous call.
//!
//! ```
//! use std::sync::Arc;
//! use nave_admission::matching::Matcher;
//! use nave_admission::{
//!     Cluster, KindResolver, Lister, Metrics, ObjectInterfaces, ParamKinds, Parts, PluginConfig, Writers, build,
//! };
//! # use nave_admission::{Chain, ConfigError};
//!
//! # fn example(lister: Arc<dyn Lister>, writers: Writers, kinds: Arc<dyn KindResolver>, interfaces: Arc<dyn ObjectInterfaces>, webhooks: Arc<nave_webhook::ClientManager>, params: Arc<dyn ParamKinds>, authorizer: nave_authz::Chain, rbac: Arc<nave_authz::rbac::Rbac>) -> Result<Chain, Box<dyn std::error::Error>> {
//! // A lister for each resource that plugins read, by group and resource.
//! let cluster = Cluster::new(|_| Some(Arc::clone(&lister)), writers, kinds)?;
//! let parts = Parts {
//!     matcher: Matcher::new(Arc::clone(&cluster.namespaces), Arc::clone(&interfaces)),
//!     interfaces,
//!     webhooks,
//!     programs: Default::default(),
//!     params,
//!     cluster,
//!     authorizer,
//!     rbac,
//!     default_not_ready_toleration_seconds: 300,
//!     default_unreachable_toleration_seconds: 300,
//! };
//! let config = PluginConfig::new(&["NodeRestriction".to_owned()], &[])?;
//! Ok(build(&parts, &config, &[], Metrics::new(&prometheus::Registry::new())?)?)
//! # }
//! ```

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
pub mod expressions;
mod managed_fields;
pub mod matching;
mod metrics;
mod notes;
mod objects;
mod observe;
pub mod plugins;
mod policies;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod versioned;

pub use attributes::{Attributes, Operation, RequestOptions};
pub use chain::{Chain, Mutate, Plugin, Validate};
pub use cluster::{Cluster, KindResolver, Lister, MissingResource, NamespaceCreator, QuotaStatus, Writers};
pub use config::{ConfigError, PluginConfig};
pub use metrics::Metrics;
pub use notes::{AnnotationError, Notes, Recorded};
pub use objects::ObjectInterfaces;
pub use observe::{Compiled, ObjectChange, Observation, Observer};
pub use plugins::{Parts, build, set_certificate_requester};
pub use policies::ParamKinds;
