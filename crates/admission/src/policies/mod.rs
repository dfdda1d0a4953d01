//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy (KEP-3488, KEP-3962; upstream: `admission/plugin/policy`).
//!
//! ```text
//! policies, bindings (watch caches) ─→ Store: compiled, indexed by resource
//!                                        │ the policies and bindings that match a request, with their parameters
//!                                        ▼
//!          validating: Validator ─→ decisions ─→ refusal, warnings, audit annotations
//!          mutating:   Mutator   ─→ patched object, policies to invoke again
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | `store` | the compiled policies and bindings, which follow the watch caches |
//! | `params` | the parameters of a binding |
//! | `dispatch` | what both kinds of policies share: exclusions, matching, errors of configuration |
//! | `validator`, `validating` | evaluation of a validating policy; the plugin |
//! | `mutator`, `mutating`, `reinvocation` | evaluation of a mutating policy; the plugin; its second run |
//! | `param_rights` | the check that writers of policies can read the parameters |
//! | `metrics` | the metrics of both plugins |

mod dispatch;
mod metrics;
mod mutating;
mod mutator;
mod param_rights;
mod params;
mod reinvocation;
mod store;
mod validating;
mod validator;

pub(crate) use metrics::PolicyMetrics;
pub(crate) use mutating::plugin as mutating;
pub(crate) use param_rights::check as check_param_rights;
pub use params::ParamKinds;
pub(crate) use validating::plugin as validating;

#[cfg(test)]
mod tests;
