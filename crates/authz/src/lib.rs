//! Authorization: whether a user may do what a request asks for.
//!
//! ```text
//! Attributes ─→ Chain ─┬─ system:masters may do everything
//!                      ├─ Node       what a kubelet needs for the pods on its node
//!                      ├─ Rbac       roles and bindings
//!                      ├─ Webhook, Abac, AlwaysAllow, AlwaysDeny: as configured
//!                      └─ nobody allowed it: 403
//! ```
//!
//! | decision | what the chain does |
//! | --- | --- |
//! | [`Decision::Allow`] | the request goes on; nobody else is asked |
//! | [`Decision::Deny`] | 403; nobody else is asked |
//! | [`Decision::NoOpinion`] | asks the next; the last one's silence is a 403 |
//!
//! | module | what it holds |
//! | --- | --- |
//! | `attributes`, `chain`, `forbidden` | the question, the answer, and the answer to a client who is refused |
//! | [`rbac`] | roles and bindings as an index; escalation |
//! | [`node`] | what kubelets may do |
//! | [`webhook`], `abac` | somebody else decides; a file of policies |
//! | [`config`] | which authorizers are asked, in which order |
//! | [`bootstrap`] | the roles and bindings that a server starts with |
//! | `always`, `metrics`, `rules` | the simplest authorizers; what is counted; what a user may do, as a list |
//!
//! Invariants: what no authorizer allows is forbidden. The attributes come from the parsed request, the same parts
//! that storage keys are built from, never from the path's text. No stage after this one widens access. A decision
//! by RBAC or about nodes waits for nothing: all that it needs is in memory.
//!
//! ```
//! use std::sync::Arc;
//! use nave_authz::{Attributes, Chain, Metrics};
//! use nave_machinery::user::UserInfo;
//!
//! # async fn example() -> Result<(), prometheus::Error> {
//! let chain = Chain::new(Vec::new(), Metrics::new(&prometheus::Registry::new())?);
//! let user = UserInfo { name: "x".into(), ..UserInfo::default() };
//! let list = Attributes { verb: "list", version: "v1", resource: "pods", namespace: "y", ..Attributes::of(&user) };
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
pub use always::{AlwaysAllow, AlwaysDeny, SYSTEM_MASTERS};
pub use attributes::{Attributes, Selected};
pub use chain::{Authorizer, Chain, Decision, Link, Verdict};
pub use forbidden::forbidden;
pub use metrics::Metrics;
pub use rules::{RuleResolver, UserRules};
