//! Tasks of the project: `cargo xtask facts|kinds|layout|test|tools|bench`.

mod bench;
mod facts;
mod kinds;
mod layout;
mod test;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Write the table of the built-in API types from the sources of `k8s-openapi` and `k8s-pb`.
    Facts {
        /// Fail if the table is out of date, instead of writing it.
        #[arg(long)]
        check: bool,
    },
    /// Generate `docs/kinds.md`, the page of the built-in kinds, from the registry.
    Kinds {
        /// Fail if the page is out of date, instead of writing it.
        #[arg(long)]
        check: bool,
    },
    /// Record which functions of the release build run, and write the order in which the linker places them.
    Layout,
    /// Run all checks and tests, including end-to-end tests with real clients.
    Test,
    /// Install the clients of the end-to-end tests, and print the environment variables that the tests need.
    Tools,
    /// Build the server and benchmark it. Arguments are passed to the load generator (`-- --help` lists them).
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
        Chore::Layout => layout::run(&target()),
        Chore::Test => test::run(&target()),
        Chore::Tools => tools::run(&target()),
        Chore::Bench { arguments } => bench::run(&target(), &arguments),
    }
}

/// Returns the root folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Returns Cargo's target folder.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}
