//! The chores of the project: `cargo xtask facts|kinds|test|bench`.

mod bench;
mod facts;
mod kinds;
mod test;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// The chores of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Write the table of the built-in API types from the sources of `k8s-openapi` and `k8s-pb`.
    Facts {
        /// Only fail if the table is not as it would be written.
        #[arg(long)]
        check: bool,
    },
    /// Write `docs/kinds.md`, the page of the built-in kinds, from the registry.
    Kinds {
        /// Only fail if the page is not as it would be written.
        #[arg(long)]
        check: bool,
    },
    /// Run every check there is, up to real clients on the real binary.
    Test,
    /// Bring the clients of the end-to-end tests and print the environment that these tests need.
    Tools,
    /// Build the server and measure it; arguments go to the load generator (`-- --help` lists them).
    Bench {
        /// Arguments of the load generator.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match Chore::parse() {
        Chore::Facts { check } => facts::run(check),
        Chore::Kinds { check } => kinds::run(check),
        Chore::Test => test::run(&target()),
        Chore::Tools => tools::run(&target()),
        Chore::Bench { arguments } => bench::run(&target(), &arguments),
    }
}

/// The workspace's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target folder.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}
