//! The default roles and bindings (upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
//!
//! [`policy`] lists the objects. [`reconcile`] computes the update of an existing object: it adds missing rules,
//! subjects, labels and annotations but never removes any, so an administrator's additions stay. Objects with the
//! annotation `rbac.authorization.kubernetes.io/autoupdate: "false"` are skipped.

mod policy;
mod reconcile;

pub(crate) use policy::rules_of;
pub use policy::{Bootstrap, PolicyError, policy};
pub use reconcile::{Reconciled, reconcile};
