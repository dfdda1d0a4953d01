//! RBAC from outside: the index against an evaluator that is slow and plain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bootstrap;
mod matrix;
mod model;
mod support;
