//! The attack suite: requests that try to exceed their user's rights, against a whole server in the test process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

mod access;
mod authorizers;
mod bodies;
#[path = "../common/mod.rs"]
mod common;
mod deletions;
mod kubelets;
mod paths;
mod subresources;
