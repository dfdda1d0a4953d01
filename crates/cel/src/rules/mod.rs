//! Validation rules in the schemas of custom resources: `x-kubernetes-validations` (KEP-2876).
//!
//! [`check`] and [`check_defaults`] check the rules when a CustomResourceDefinition is written. [`Validator`] applies the
//! rules to objects.

mod crd;
mod defaults;
mod error;
mod field_path;
mod node;
mod ratchet;
mod rule;
mod validate;

pub use crd::{CrdReport, RuleReport, check};
pub use defaults::check_defaults;
pub use error::{ErrorKind, RuleError, blocking_error};
pub use validate::{Validation, Validator};

/// Maximum estimated cost of one rule.
pub const MAX_RULE_COST: u64 = 10_000_000;
/// Maximum estimated cost of all rules of a schema.
pub const MAX_SCHEMA_COST: u64 = 100_000_000;
/// Maximum cost of validating one object.
pub const MAX_OBJECT_COST: u64 = 10_000_000;
