//! Authorization: decides whether a user may make a request.
//!
//! ```text
//! Attributes ─→ Chain ─┬─ system:masters: allowed
//!                      ├─ Node       access of a kubelet to the objects of its pods
//!                      ├─ Rbac       roles and bindings
//!                      ├─ Webhook, Abac, AlwaysAllow, AlwaysDeny: as configured
//!                      └─ no authorizer allowed it: 403
//! ```
//!
//! | decision | action of the chain |
//! | --- | --- |
//! | [`Decision::Allow`] | the request proceeds; later authorizers are not called |
//! | [`Decision::Deny`] | 403; later authorizers are not called |
//! | [`Decision::NoOpinion`] | calls the next authorizer; 403 after the last authorizer |
//!
//! | module | contents |
//! | --- | --- |
//! | `attributes`, `chain`, `forbidden` | the request's attributes, the decision, and the 403 response |
//! | [`rbac`] | roles and bindings as an index; escalation |
//! | [`node`] | the permissions of kubelets |
//! | [`webhook`], `abac` | decisions of an external service; policies in a file |
//! | [`config`] | the configured authorizers and their order |
//! | [`bootstrap`] | the default roles and bindings |
//! | `always`, `metrics`, `rules` | authorizers with fixed decisions; the metrics; a user's rules as a list |
//!
//! Invariants: a request that no authorizer allows is forbidden. The attributes and the storage keys come from the same
//! parsed request, never from the raw path. Later stages never grant access. The RBAC and node authorizers perform no
//! I/O: all their data is in memory.
//!
//! ```
//! use std::sync::Arc;
//! use nave_authz::{Attributes, Chain, Metrics};
//! use nave_machinery::user::UserInfo;
//!
//! # async fn example() -> Result<(), prometheus::Error> {
//! let chain = Chain::new(Vec::new(), Metrics::new(&prometheus::Registry::new())?);
//! let user = UserInfo { name: "x".into(), ..UserInfo::default() };
//! let list = Attributes { verb: "list", version: "v1", resource: "pods", namespace: "y", ..Attributes::for_user(&user) };
//! assert_eq!(
//!     chain.authorize(&list).await.unwrap_err().message,
//!     r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
//! );
//! # Ok(())
//! # }
//! ```

mod abac;
mod always;
mod attributes;
pub mod bootstrap;
mod chain;
pub mod config;
mod forbidden;
mod metrics;
pub mod node;
pub mod rbac;
mod rules;
pub mod webhook;

pub use abac::{Abac, AbacError};
pub use always::{AllowedPaths, AlwaysAllow, AlwaysDeny, PathError, SYSTEM_MASTERS};
pub use attributes::{Attributes, Selected};
pub use chain::{Authorizer, Chain, Decision, NamedAuthorizer, Verdict};
pub use forbidden::forbidden;
pub use metrics::Metrics;
pub use rules::{RuleResolver, UserRules};
