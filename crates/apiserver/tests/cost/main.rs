//! The cost of hostile bodies and patches: time and memory must grow at most linearly with the input size.
//!
//! The tests use small sizes. `cargo xtask bench cost` sets `NAVE_COST=full` and runs an optimized build with sizes up
//! to the maximum body. If the variable is set, a table is printed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers may fail the test")]

mod bodies;
mod kinds;
mod managed_fields;
mod measure;
mod patches;

use measure::{Case, excesses};

/// Sizes of the test.
const SMALL: [usize; 2] = [10_000, 100_000];

/// Sizes of the benchmark, up to the maximum body.
const FULL: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 3_000_000];

/// Sizes for tests with many cases.
const SMALLER: [usize; 2] = [2_000, 20_000];

fn check(cases: &[Case], small: &[usize]) {
    let wanted = std::env::var("NAVE_COST").unwrap_or_default();
    let sizes = if wanted == "full" { &FULL[..] } else { small };
    let excesses = excesses(cases, sizes, !wanted.is_empty());
    assert!(excesses.is_empty(), "{}", excesses.join("\n"));
}

#[test]
fn json_bodies() {
    check(&bodies::json(), &SMALL);
}

#[test]
fn yaml_bodies() {
    check(&bodies::yaml(), &SMALLER);
}

#[test]
fn protobuf_bodies() {
    check(&bodies::protobuf(), &SMALL);
}

#[test]
fn json_patches() {
    check(&patches::json(), &SMALL);
}

#[test]
fn merge_patches() {
    check(&patches::merge(), &SMALL);
}

#[test]
fn strategic_merge_patches() {
    check(&patches::strategic(), &SMALL);
}

#[test]
fn updates_of_managed_fields() {
    check(&managed_fields::updates(), &SMALLER);
}

#[test]
fn applies_beside_managed_fields() {
    check(&managed_fields::applies(), &SMALLER);
}

#[test]
fn objects_of_every_kind() {
    check(&kinds::all(), &SMALLER);
}
