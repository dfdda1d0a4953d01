//! Expressions of the Common Expression Language (CEL), as Kubernetes' configuration files have them.
//!
//! ```text
//! text ─ parse (the `cel` crate) ─► tree ─ check: names and types ─► Expression ─ evaluate, within bounds ─► JSON
//! ```
//!
//! The `cel` crate parses and evaluates. What it does not do is here: it finds out that a name means nothing, or that a
//! text is compared with a number, when the expression is evaluated, and it would evaluate for as long as it takes.
//!
//! Invariants:
//! - What compiles speaks of declared variables and known functions only, and has a type that was asked for.
//! - An evaluation visits a bounded number of elements of lists and maps, whatever its input is.
//!
//! ```
//! use nave_cel::{Expression, Input, Type, Variable};
//! use serde_json::json;
//!
//! let claims = Variable { name: "claims", of: Type::map(Type::String, Type::Dyn) };
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
