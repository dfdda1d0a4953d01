//! Compares the RBAC index with a slow and simple evaluator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bootstrap;
mod matrix;
mod model;
mod support;
