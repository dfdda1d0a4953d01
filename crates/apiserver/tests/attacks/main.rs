//! The attack suite: requests against a whole server in this process that try to exceed their user's rights.

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
