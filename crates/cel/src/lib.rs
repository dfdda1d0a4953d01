//! The Common Expression Language (CEL) as Kubernetes uses it: parsed, checked, costed and evaluated.
//!
//! ```text
//! text ─ syntax ─► tree ─ check (Env: names, types) ─► Ast ─ cost ─► estimate
//!                                                       └─ plan ─► Program ─ run (Activation) ─► Outcome, cost
//! ```
//!
//! Results, errors, costs and estimates match cel-go 0.26 with the libraries of Kubernetes 1.36.
//!
//! Invariants:
//! - An expression that compiles uses declared names only and has a known type.
//! - An evaluation ends at its cost limit and within a memory limit, for any input.
//! - JSON input is borrowed, never copied.
//! - No input panics: depth and size of expressions, patterns and values are bounded.
//!
//! ```
//! use nave_cel::{Activation, Ast, Env, PER_CALL_LIMIT, Type};
//! use serde_json::json;
//!
//! let env = Env::default().with("claims", Type::map(Type::String, Type::Dyn));
//! let program = Ast::compile("'dev' in claims.groups", &env)?.program()?;
//! let claims = json!({"groups": ["dev", "ops"]});
//! let outcome = program.evaluate(&Activation::new().with("claims", &claims), PER_CALL_LIMIT);
//! assert_eq!(outcome.bool()?, Some(true));
//!
//! let error = Ast::compile("'dev' in claim.groups", &env).unwrap_err();
//! assert!(error.to_string().contains("undeclared reference to 'claim'"));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![allow(
    clippy::match_same_arms,
    clippy::single_match_else,
    reason = "tables of cases read best in the order of the rules they state"
)]

mod authorizer;
mod cache;
mod check;
mod cost;
mod deep;
mod devices;
mod env;
mod expression;
pub mod facts;
mod failure;
mod kinds;
mod library;
mod messages;
mod mutation;
mod plan;
pub mod policies;
mod program;
pub mod rules;
mod run;
mod schema;
mod syntax;
pub mod type_checking;
mod value;

pub use authorizer::{Authorizer, Decision, NoAuthorizer, PathCheck, ResourceCheck, Subject};
pub use cache::{Compiled, ProgramCache};
pub use cost::{Bounds, NodePath, SizeEstimator, Unlimited};
pub use devices::{DeviceSelectorError, check_device_selector};
pub use env::{Env, NEWEST};
pub use expression::{CompileError, EvaluationError, Expression, Input, Variable};
pub use failure::Failure;
pub use kinds::{ObjectType, Type};
pub use program::{Activation, Ast, Outcome, PER_CALL_LIMIT, Program};
pub use schema::{Decl, DeclSizes, escape_property, is_reserved, unescape_property};
pub use syntax::{Issue, Issues};

#[cfg(test)]
mod tests;
