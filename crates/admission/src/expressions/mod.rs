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
mod expression;
mod metrics;
mod programs;
mod request;
mod workload;

pub use authorizer::AuthorizerChecks;
pub use conditions::{ConditionLabels, MatchConditions, MatchOutcome};
pub(crate) use expression::{Budget, Expression, OutOfBudget};
pub use metrics::ExpressionMetrics;
pub(crate) use nave_cel::policies::COMPATIBILITY_VERSION as VERSION;
pub(crate) use programs::Compiler;
pub use programs::{ExpressionTimes, Programs};
pub use request::VersionedRequest;
pub(crate) use request::{Inputs, request_resource};
pub(crate) use workload::{Workload, process};
