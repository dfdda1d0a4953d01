//! `cargo xtask bench`: builds the server and the load generator, and runs the benchmarks. `cargo xtask bench cost`
//! measures the cost of malicious bodies and patches.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::layout;

/// Runs the load generator with `arguments` (`cargo xtask bench -- --help` lists them). Without `--kubeconfig`, the
/// load generator starts the built server in a temporary folder.
pub(crate) fn run(target: &Path, arguments: &[String]) -> ExitCode {
    if arguments.iter().find(|argument| *argument != "--").is_some_and(|first| first == "cost") {
        return cost();
    }
    // One package at a time: together they would select other features, and so another server than that of the users.
    for package in ["nave", "nave-loadtest"] {
        let mut build = Command::new(env!("CARGO"));
        let built = build.current_dir(crate::root()).args(["build", "--release", "-p", package]).status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("xtask bench: the build of {package} failed");
            return ExitCode::FAILURE;
        }
    }
    let release = target.join("release");
    if let Err(error) = layout::warn_if_outdated(&release.join("nave")) {
        eprintln!("xtask bench: {error}");
    }
    let mut load = Command::new(release.join("nave-loadtest"));
    load.args(arguments);
    let names_a_server = arguments
        .iter()
        .any(|a| ["--kubeconfig", "--start", "--help"].iter().any(|flag| a.split('=').next() == Some(flag)));
    if !names_a_server {
        load.arg("--start").arg(release.join("nave"));
    }
    match load.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask bench: {}: {error}", release.join("nave-loadtest").display());
            ExitCode::FAILURE
        }
    }
}

/// Runs the cost suite in release mode with bodies up to the maximum size, one test at a time.
fn cost() -> ExitCode {
    let arguments = ["test", "--release", "-p", "nave-apiserver", "--test", "cost", "--"];
    let mut suite = Command::new(env!("CARGO"));
    suite.current_dir(crate::root()).args(arguments).args(["--nocapture", "--test-threads=1"]);
    match suite.env("NAVE_COST", "full").status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask bench: {error}");
            ExitCode::FAILURE
        }
    }
}
