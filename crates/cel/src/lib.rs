//! Common Expression Language (CEL) expressions as used in Kubernetes configuration files.
//!
//! ```text
//! text ─ parse (the `cel` crate) ─► tree ─ check: names and types ─► Expression ─ evaluate, within bounds ─► JSON
//! ```
//!
//! The `cel` crate parses and evaluates, but finds undeclared names and type errors only during evaluation, and has no
//! cost limit. This crate adds both checks.
//!
//! Invariants:
//! - A compiled expression uses only declared variables and known functions, and has the required type.
//! - An evaluation iterates over a bounded number of list and map elements, for any input.
//!
//! ```
//! use nave_cel::{Expression, Input, Type, Variable};
//! use serde_json::json;
//!
//! let claims = Variable { name: "claims", ty: Type::map(Type::String, Type::Dyn) };
//! let is_dev = Expression::compile("'dev' in claims.groups", &claims, &Type::Bool)?;
//! let input = Input::new("claims", &json!({"groups": ["dev", "ops"]}));
//! assert_eq!(is_dev.evaluate(&input)?, json!(true));
//!
//! let error = Expression::compile("'dev' in claim.groups", &claims, &Type::Bool).unwrap_err();
//! assert!(error.to_string().contains("undeclared reference to 'claim'"));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod budget;
mod check;
mod expression;
mod library;
mod types;

pub use expression::{CompileError, EvaluationError, Expression, Input, Variable};
pub use types::{ObjectType, Type};
