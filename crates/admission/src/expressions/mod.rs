//! CEL expressions in admission: match conditions of webhooks and policies, and the expressions of policies.
//!
//! ```text
//! VersionedRequest ─→ Inputs (the variables) ─┐
//! AuthorizerChecks (the user's rights) ───────┼─→ Expression ─→ value or error, cost
//! Budget ─────────────────────────────────────┘
//! ```
//!
//! Evaluation is synchronous and does no I/O. A check of the authorizer that cannot be decided at once is noted; the
//! caller awaits it and evaluates again ([`AuthorizerChecks::settle`]). The limits are upstream's: per expression
//! ([`nave_cel::PER_CALL_LIMIT`]), per policy and parameter, and for match conditions.

mod authorizer;
mod conditions;
#[allow(dead_code, reason = "policies use them")]
mod expression;
mod metrics;
#[allow(dead_code, reason = "policies use them")]
mod request;

pub use authorizer::AuthorizerChecks;
pub use conditions::{ConditionLabels, MatchConditions, MatchOutcome};
pub(crate) use expression::{Budget, Expression};
pub use metrics::ExpressionMetrics;
pub use request::VersionedRequest;
pub(crate) use request::{Inputs, request_resource};

/// The minor version of Kubernetes whose CEL libraries stored expressions can use: upstream's default compatibility
/// version is the previous release.
pub(crate) const VERSION: u32 = nave_cel::NEWEST - 1;
