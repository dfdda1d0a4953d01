//! The chores of the project: `cargo xtask facts|test|bench`.
fn main() {}
