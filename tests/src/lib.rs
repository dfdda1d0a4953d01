//! The built server, driven by real clients: the harness of the end-to-end tests.
//!
//! ```text
//! Server ── a process of its own, on a free port, in a temporary folder; killed when dropped
//!   ├─ kubectl(…), helm(…), python(…)   real programs, with the server's kubeconfig and a home of their own
//!   ├─ client()                         kube-rs
//!   └─ target()                         raw HTTP/1.1 and HTTP/2
//! Proxy ── a way to a server that can be cut
//! ```
//!
//! Run by `cargo xtask test`, which says where the server and the clients are; without them a test fails, it is never
//! skipped. Nothing here waits for a time: a wait has a condition, and a deadline that is an error.
//!
//! ```no_run
//! # async fn example() {
//! let server = nave_tests::Server::start().await;
//! server.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]).await;
//! assert!(server.kubectl(&["get", "configmaps"]).await.contains("settings"));
//! # }
//! ```
#![allow(clippy::panic, reason = "in a harness a step that fails is a test that fails")]

pub mod cluster;

mod proxy;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use nave_loadtest::http::Target;
use nave_loadtest::spawn::ServerProcess;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

pub use self::proxy::Proxy;

/// No step of a test takes longer than this; only a hang does.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// A running server with a folder of its own.
pub struct Server {
    process: Option<ServerProcess>,
    folder: TempDir,
    flags: Vec<String>,
}

/// A server that runs no controllers.
const API_ALONE: &[&str] = &["--controllers=none", "--disable-admission-plugins=ServiceAccount"];

/// A program whose output is read line by line; it is killed when this is dropped.
pub struct Running {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Server {
    /// Starts a server on an empty folder.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server that runs no controllers: what is created stays as it is. Pods need no account there, as nobody
    /// makes any.
    pub async fn start_without_controllers() -> Self {
        Self::start_with(API_ALONE).await
    }

    /// Starts a server on an empty folder, with more flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(ok(tempfile::tempdir(), "a temporary folder"), flags).await
    }

    /// Starts a server on a folder that has files which flags name, and no data yet.
    pub async fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut server = Self { process: None, folder, flags };
        server.restart().await;
        server
    }

    /// Starts it again on the same folder; it must have been ended before.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let started = ServerProcess::start(&server_binary(), self.folder.path(), &flags).await;
        self.process = Some(ok(started, "starting the server"));
    }

    /// Ends it as SIGKILL does, in the middle of whatever it is doing.
    pub fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            ok(process.kill(), "kill -9");
        }
    }

    /// Asks it to end with SIGTERM and waits for it.
    pub async fn terminate(&mut self) -> ExitStatus {
        let Some(process) = self.process.take() else { panic!("the server does not run") };
        ok(process.terminate(DEADLINE).await, "SIGTERM")
    }

    /// A folder for the test's own files; the server's data is in `data` below it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        self.process().kubeconfig()
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// What the server printed so far.
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// Where it serves: `https://host:port`.
    pub fn url(&self) -> String {
        let text = ok(std::fs::read_to_string(self.kubeconfig()), "the kubeconfig");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("server: "));
        line.map_or_else(|| panic!("the kubeconfig names no server"), |url| url.trim_matches('"').to_owned())
    }

    /// For raw HTTP.
    pub fn target(&self) -> Target {
        ok(Target::from_kubeconfig(self.kubeconfig()), "the kubeconfig")
    }

    /// kube-rs, in the namespace `default`.
    pub async fn client(&self) -> kube::Client {
        // A process has one default provider; another test of this process may have set it already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = ok(Kubeconfig::read_from(self.kubeconfig()), "the kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        ok(kube::Client::try_from(ok(config, "the kubeconfig")), "kube-rs")
    }

    /// Runs kubectl, which must succeed, and returns what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(self.run("kubectl", arguments, "", &[]).await)
    }

    /// Runs kubectl, which must fail, and returns what it complained of.
    pub async fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let ran = self.run("kubectl", arguments, "", &[]).await;
        assert!(!ran.status.success(), "kubectl {arguments:?} succeeded: {}", ran.stdout);
        ran.stderr
    }

    /// Runs kubectl with a text to read and more in its environment.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        self.run("kubectl", arguments, input, environment).await
    }

    /// Applies YAML as a person would with a file.
    pub async fn apply(&self, yaml: &str) -> String {
        succeeded(self.run("kubectl", &["apply", "-f", "-"], yaml, &[]).await)
    }

    /// Starts kubectl and leaves it running.
    pub fn kubectl_running(&self, arguments: &[&str]) -> Running {
        self.running(&client("kubectl"), arguments)
    }

    /// Starts a Python script and leaves it running.
    pub fn python_running(&self, script: &str) -> Running {
        self.running(&needed("NAVE_PYTHON"), &["-u", "-c", script])
    }

    fn running(&self, program: &Path, arguments: &[&str]) -> Running {
        let mut command = self.command(program);
        let command = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
        let mut child = ok(command.spawn(), "a program");
        let Some(stdout) = child.stdout.take() else { panic!("the program's output is not read") };
        Running { lines: BufReader::new(stdout).lines(), _child: child }
    }

    /// Runs helm, which must succeed, and returns what it printed.
    pub async fn helm(&self, arguments: &[&str]) -> String {
        succeeded(self.helm_ran(arguments).await)
    }

    /// Runs helm, which may fail.
    pub async fn helm_ran(&self, arguments: &[&str]) -> Ran {
        self.run("helm", arguments, "", &[]).await
    }

    /// Runs a Python script, which must succeed; `import kubernetes` works, and `KUBECONFIG` is set.
    pub async fn python(&self, script: &str) -> String {
        self.python_with(script, &[]).await
    }

    /// Runs a Python script, which must succeed, with more in its environment.
    pub async fn python_with(&self, script: &str, environment: &[(&str, &str)]) -> String {
        succeeded(self.run("python", &["-c", script], "", environment).await)
    }

    async fn run(&self, program: &str, arguments: &[&str], input: &str, more: &[(&str, &str)]) -> Ran {
        let path = if program == "python" { needed("NAVE_PYTHON") } else { client(program) };
        let mut command = self.command(&path);
        command.args(arguments).envs(more.iter().copied()).stdin(Stdio::piped());
        let what = format!("{program} {}", arguments.join(" "));
        let mut child = ok(command.spawn(), &what);
        if let Some(mut stdin) = child.stdin.take() {
            ok(stdin.write_all(input.as_bytes()).await, &what);
        }
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = ok(ok(output, &what), &what);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { what, status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// A program with the server's kubeconfig, a home of its own and nothing of the caller's settings.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("KUBECONFIG", self.kubeconfig()).env("HOME", self.folder.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn process(&self) -> &ServerProcess {
        let Some(process) = &self.process else { panic!("the server does not run") };
        process
    }
}

/// What a program did.
pub struct Ran {
    what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Running {
    /// The next line, waited for.
    pub async fn line(&mut self) -> String {
        let line = ok(tokio::time::timeout(DEADLINE, self.lines.next_line()).await, "another line");
        ok(line, "reading a line").unwrap_or_else(|| panic!("the program ended"))
    }
}

/// The lines of a table that kubectl printed, the head first, each as its cells. Cells hold single blanks only.
pub fn cells(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

/// Asks again and again until the answer is yes; a deadline that passes fails the test.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(DEADLINE, what, condition).await;
}

/// The same, for what takes its time by design.
pub async fn eventually_within(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "{what}: not within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The server's program.
pub fn server_binary() -> PathBuf {
    needed("NAVE_BINARY")
}

fn client(name: &str) -> PathBuf {
    needed("NAVE_CLIENTS").join(name)
}

fn needed(variable: &str) -> PathBuf {
    let path = PathBuf::from(std::env::var_os(variable).unwrap_or_default());
    assert!(
        path.exists(),
        "{variable} names nothing that exists: run `cargo xtask test`, which brings what is needed"
    );
    path
}

fn succeeded(ran: Ran) -> String {
    assert!(ran.status.success(), "{}: {}\n{}{}", ran.what, ran.status, ran.stdout, ran.stderr);
    ran.stdout
}

fn ok<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}
