//! The roles and bindings that a server starts with (upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
//!
//! [`policy`] is what they are to be; [`reconcile`] says what is to be written where one exists already. What an
//! administrator added stays: missing rules, subjects, labels and annotations are added, none is taken away. An object
//! with the annotation `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.

mod policy;
mod reconcile;

pub(crate) use policy::rules_of;
pub use policy::{Bootstrap, PolicyError, policy};
pub use reconcile::{Reconciled, reconcile};
