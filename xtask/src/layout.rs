//! `cargo xtask layout`: records which functions of the release build run, and writes the order in which the linker
//! places them (see `crates/nave/build.rs`). Needs `valgrind`.
//!
//! A server runs under `callgrind`, first idle, then under a small load. The file has three parts: functions that run
//! only at the start, those that run in both, and those that only requests need. The first two are what an idle server
//! has in memory, the last two are what a busy server runs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time for the first rounds of the controllers and background tasks, at valgrind's speed.
const IDLE: Duration = Duration::from_secs(75);
/// Maximum time until the server is ready.
const START: Duration = Duration::from_mins(2);
/// The parts of the benchmark that make up the load.
const LOADS: [&str; 6] =
    ["create-pods", "create-config-maps", "small-read", "list-json", "list-protobuf", "watch-fan-out"];
const SIZES: [&str; 6] = ["--pods", "100", "--config-maps", "200", "--watchers", "20"];

pub(crate) fn run(target: &Path) -> ExitCode {
    match record(target) {
        Ok(count) => {
            println!("{count} functions");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("xtask layout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn record(target: &Path) -> io::Result<usize> {
    // One package at a time: together they would select other features, and with them other names of functions.
    for package in ["nave", "nave-loadtest"] {
        let mut build = Command::new(env!("CARGO"));
        succeed(build.current_dir(crate::root()).args(["build", "--release", "-p", package]))?;
    }
    let folder = target.join("layout");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let release = target.join("release");
    let profile = folder.join("profile");
    let mut server = Command::new("valgrind");
    server
        .args(["--tool=callgrind", "--demangle=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(release.join("nave"))
        .args(["serve", "--secure-port", "0", "--data-dir"])
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.join("log"))?);
    let mut server = Killed(server.spawn()?);
    let kubeconfig = folder.join("data").join("admin.kubeconfig");
    wait_for(&kubeconfig, &mut server.0)?;
    thread::sleep(IDLE);
    let idle = dump(&server.0, &profile, 1)?;
    for load in LOADS {
        let mut work = Command::new(release.join("nave-loadtest"));
        work.args(SIZES).args(["--only", load]).arg("--kubeconfig").arg(&kubeconfig).stdout(Stdio::null());
        // A request may exceed its timeout at this speed. The functions have run.
        work.status()?;
    }
    let busy = dump(&server.0, &profile, 2)?;
    let names = order(&costs(&idle), &costs(&busy));
    fs::write(file(), names.join("\n") + "\n")?;
    Ok(names.len())
}

fn file() -> PathBuf {
    crate::root().join("crates/nave/function-order.txt")
}

/// Warns if a program lacks many of the functions in the file: its memory is then larger than it could be.
pub(crate) fn warn_if_outdated(program: &Path) -> io::Result<()> {
    let (program, names) = (fs::read(program)?, fs::read_to_string(file())?);
    let (found, all) = count_symbols(&program, &names);
    if found * 10 < all * 9 {
        eprintln!(
            "{found} of {all} functions of function-order.txt are in the program, so more of its code stays in memory; \
             run `cargo xtask layout`"
        );
    }
    Ok(())
}

/// Counts the names that are symbols of a program, and all names. Symbols are texts that end with a zero byte.
fn count_symbols(program: &[u8], names: &str) -> (usize, usize) {
    let mut wanted: HashSet<&[u8]> = names.lines().map(str::as_bytes).collect();
    let all = wanted.len();
    for text in program.split(|byte| *byte == 0) {
        wanted.remove(text);
    }
    (all - wanted.len(), all)
}

/// A process that is killed when it is no longer needed.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeed(command: &mut Command) -> io::Result<()> {
    if command.status()?.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} failed", command.get_program().display())))
}

/// Waits until the server has written its kubeconfig, which it does once it is ready.
fn wait_for(file: &Path, server: &mut Child) -> io::Result<()> {
    let end = Instant::now() + START;
    while !file.exists() {
        if Instant::now() > end || server.try_wait()?.is_some() {
            return Err(io::Error::other("the server did not start"));
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Writes the costs since the last dump, and returns the text.
fn dump(server: &Child, profile: &Path, part: usize) -> io::Result<String> {
    succeed(
        Command::new("callgrind_control").args(["--dump", &server.id().to_string()]).stdout(Stdio::null()),
    )?;
    let file = PathBuf::from(format!("{}.{part}", profile.display()));
    let text = fs::read(file)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Returns the instructions of each function of the server, by its symbol.
fn costs(profile: &str) -> HashMap<&str, u64> {
    let (mut names, mut objects) = (HashMap::new(), HashMap::new());
    let (mut costs, mut function, mut is_server) = (HashMap::new(), "", false);
    let mut is_call = false;
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_server = named(&mut objects, object).ends_with("/nave");
        } else if let Some(object) = line.strip_prefix("cob=") {
            named(&mut objects, object);
        } else if let Some(name) = line.strip_prefix("fn=") {
            // Recursive calls have names of their own, with the depth after an apostrophe.
            function = named(&mut names, name).split('\'').next().unwrap_or_default();
        } else if let Some(name) = line.strip_prefix("cfn=") {
            named(&mut names, name);
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or_default();
            // The line after `calls=` has the cost of the called functions.
            let own = if std::mem::take(&mut is_call) { 0 } else { cost };
            if is_server && !function.contains(['?', ' ']) {
                *costs.entry(function).or_default() += own;
            }
        }
    }
    costs
}

/// Resolves `(7) name`, which defines a number, and `(7)`, which refers to it.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or(text),
    }
}

/// Returns the functions: those of an idle server, those of both, those of a busy server.
fn order<'a>(idle: &HashMap<&'a str, u64>, busy: &HashMap<&'a str, u64>) -> Vec<&'a str> {
    let of = |costs: &HashMap<&'a str, u64>, name: &str| costs.get(name).copied().unwrap_or_default();
    let mut names: Vec<&str> =
        idle.keys().chain(busy.keys().filter(|name| !idle.contains_key(*name))).copied().collect();
    names.sort_by_key(|name| match (idle.contains_key(name), busy.contains_key(name)) {
        (true, false) => (0, of(idle, name), *name),
        (true, true) => (1, of(busy, name), *name),
        _ => (2, u64::MAX - of(busy, name), *name),
    });
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_symbols_of_a_program() {
        assert_eq!(count_symbols(b"\x7fELF\0main\0mainly\0\0end", "main\nlost\nend\nmai\n"), (2, 4));
    }

    #[test]
    fn sorts_the_functions_of_the_server_by_their_use() {
        let idle = "ob=(1) /x/nave\nfn=(1) start\n0 5\nfn=(2) both\n+1 7\ncfn=(3) busy\ncalls=1 0\n* 900\n";
        let busy = "ob=(1) /x/nave\nfn=(1) both\n1 20\nfn=(2) busy'2\n1 30\nfn=(3) hot\n1 40\nob=(2) /lib/libc.so\nfn=(4) libc\n1 9\n";
        let (idle, busy) = (costs(idle), costs(busy));
        assert_eq!(idle, HashMap::from([("start", 5), ("both", 7)]));
        assert_eq!(order(&idle, &busy), ["start", "both", "hot", "busy"]);
    }
}
