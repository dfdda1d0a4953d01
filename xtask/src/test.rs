//! `cargo xtask test`: all checks and tests, from formatting to real clients on the real binary.
//!
//! Every step runs, even after a failure. The end-to-end tests need the clients and the server built with the profile
//! `e2e`. The last line contains the totals. Each test counts as one; each step without tests also counts as one.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::tools::Tools;

/// Runs all steps and prints the summary.
pub(crate) fn run(target: &Path) -> ExitCode {
    let mut report = Report::default();
    report.step("format", cargo(["fmt", "--all", "--check"]));
    let deny_warnings = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    report.step("clippy", cargo(deny_warnings));
    // The tests of the store start real etcd servers.
    let tools = Tools::ensure(target);
    report.step("unit and property tests", runner(Tests::InProcess));
    report.step("doc tests", cargo(["test", "--doc", "--workspace"]));
    report.step("facts", cargo(["run", "--quiet", "--package", "xtask", "--", "facts", "--check"]));
    report.step("page of kinds", cargo(["run", "--quiet", "--package", "xtask", "--", "kinds", "--check"]));
    if installed("deny") {
        report.step("licenses", cargo(["deny", "--offline", "check", "licenses", "bans", "sources"]));
        if has_advisories() {
            report.step("advisories", cargo(["deny", "--offline", "check", "advisories"]));
        } else {
            report.skip("advisories", "the advisory database is missing; run `cargo deny fetch db`");
        }
    } else {
        report.skip("licenses", "cargo-deny is not installed");
        report.skip("advisories", "cargo-deny is not installed");
    }
    let built = report.step("server build", cargo(["build", "--profile", "e2e", "--package", "nave"]));
    match tools {
        Ok(_) if !built => report.skip("end-to-end tests", "the server build failed"),
        Ok(tools) => {
            let mut tests = runner(Tests::EndToEnd);
            tests.envs(tools.environment(target));
            report.step("end-to-end tests", tests);
        }
        Err(error) => report.fail("end-to-end tests", &error.to_string()),
    }
    report.close()
}

fn cargo(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(crate::root());
    command.args(arguments);
    command
}

/// A set of tests.
enum Tests {
    /// All tests except the end-to-end tests.
    InProcess,
    /// The end-to-end tests. They use the built server.
    EndToEnd,
}

/// Returns nextest if it is installed, because it runs the tests of all crates in parallel; otherwise Cargo's runner.
/// nextest builds the whole workspace for either set, so that dependencies are built once with one set of features.
fn runner(tests: Tests) -> Command {
    let arguments: &[&str] = match (installed("nextest"), tests) {
        (true, Tests::InProcess) => &["nextest", "run", "--workspace", "-E", "not package(nave-tests)"],
        (true, Tests::EndToEnd) => &["nextest", "run", "--workspace", "-E", "package(nave-tests)"],
        (false, Tests::InProcess) => &["test", "--all-targets", "--workspace", "--exclude", "nave-tests"],
        (false, Tests::EndToEnd) => &["test", "--all-targets", "--package", "nave-tests"],
    };
    let mut command = cargo(arguments);
    command.arg("--no-fail-fast");
    command
}

fn installed(subcommand: &str) -> bool {
    let asked = cargo([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Returns whether cargo-deny's advisory database exists.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let databases = home.and_then(|home| home.join("advisory-dbs").read_dir().ok());
    databases
        .is_some_and(|mut databases| databases.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())))
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
    total: Counts,
    skipped: u32,
}

/// The numbers of tests that a runner reports.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Runs a step; returns whether it succeeded.
    fn step(&mut self, name: &str, command: Command) -> bool {
        println!("\n==> {name}");
        let started = Instant::now();
        let (well, counts) = match watch(command) {
            Ok(result) => result,
            Err(error) => {
                self.fail(name, &error.to_string());
                return false;
            }
        };
        // A step without tests counts as one test. A runner that fails without a failed test (a build error) also
        // counts as one.
        let counts = match (well, counts) {
            (true, Counts { passed: 0, failed: 0 }) => Counts { passed: 1, failed: 0 },
            (false, Counts { passed, failed: 0 }) => Counts { passed, failed: 1 },
            (_, counts) => counts,
        };
        self.add(name, counts, started.elapsed());
        well
    }

    fn add(&mut self, name: &str, counts: Counts, took: Duration) {
        let word = if counts.failed == 0 { "ok" } else { "FAILED" };
        let Counts { passed, failed } = counts;
        self.lines.push(format!(
            "{word:7} {name:28} {passed:5} passed {failed:3} failed {:6.1} s",
            took.as_secs_f64()
        ));
        self.total.passed += passed;
        self.total.failed += failed;
    }

    fn fail(&mut self, name: &str, why: &str) {
        eprintln!("{name}: {why}");
        self.add(name, Counts { passed: 0, failed: 1 }, Duration::ZERO);
    }

    fn skip(&mut self, name: &str, why: &str) {
        println!("\n==> {name}: skipped, {why}");
        self.lines.push(format!("skipped {name:28} {why}"));
        self.skipped += 1;
    }

    fn close(self) -> ExitCode {
        let Counts { passed, failed } = self.total;
        println!("\n{}\n\n{passed} passed, {failed} failed, {} skipped", self.lines.join("\n"), self.skipped);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs a command, relays its output, and sums the test counts in it.
fn watch(mut command: Command) -> std::io::Result<(bool, Counts)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let readers = [out.map(|s| thread::spawn(|| relay(s))), err.map(|s| thread::spawn(|| relay(s)))];
    let mut total = Counts::default();
    for counts in readers.into_iter().flatten().filter_map(|reader| reader.join().ok()) {
        total.passed += counts.passed;
        total.failed += counts.failed;
    }
    Ok((child.wait()?.success(), total))
}

fn relay(stream: impl Read) -> Counts {
    let mut total = Counts::default();
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(counts) = counts(&line) {
            total.passed += counts.passed;
            total.failed += counts.failed;
        }
    }
    total
}

/// Parses the last line of nextest or of Cargo's runner.
fn counts(line: &str) -> Option<Counts> {
    let closing =
        line.starts_with("test result: ") || (line.contains("Summary [") && line.contains(" run: "));
    let words: Vec<_> = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let before = |word: &str| {
        let pairs = words.windows(2).filter(|pair| pair[1] == word);
        pairs.filter_map(|pair| pair[0].parse::<u32>().ok()).sum::<u32>()
    };
    closing.then(|| Counts { passed: before("passed"), failed: before("failed") + before("timed") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_last_lines() {
        let of = |line| counts(line).map(|c| (c.passed, c.failed));
        assert_eq!(
            of("     Summary [   1.0s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped"),
            Some((10, 2))
        );
        assert_eq!(
            of("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out"),
            Some((4, 2))
        );
        assert_eq!(of("test tests::parses_last_lines ... ok"), None);
        assert_eq!(of("3 passed"), None);
    }
}
