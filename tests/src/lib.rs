//! The harness of the end-to-end tests: starts the built server and drives it with real clients.
//!
//! ```text
//! Server ── a process on a free port with a temporary folder; killed when dropped
//!   ├─ kubectl(…), helm(…), python(…)   real programs, with the server's kubeconfig and a separate home
//!   ├─ client()                         kube-rs
//!   └─ target()                         raw HTTP/1.1 and HTTP/2
//! StandInKubelet ── a kubelet's HTTPS server, which runs commands on this machine
//! ExtensionServer ── an aggregated server with metrics-server's shape
//! Browser ── a headless Chromium
//! Proxy ── a TCP proxy that can drop connections
//! ```
//!
//! `cargo xtask test` sets the paths of the server and the clients. Without them, tests fail instead of being skipped.
//! The harness never waits a fixed time. Each wait has a condition, and a deadline that fails the test.
//!
//! ```no_run
//! # async fn example() {
//! let server = nave_tests::Server::start().await;
//! server.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue"]).await;
//! assert!(server.kubectl(&["get", "configmaps"]).await.contains("settings"));
//! # }
//! ```
#![allow(clippy::panic, reason = "in a harness a step that fails is a test that fails")]

pub mod browser;
pub mod cluster;
pub mod extension;
pub mod kubelet;
pub mod linearizability;

mod proxy;
mod signals;
mod tls;

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
pub use self::signals::{pause, resume};

/// Deadline of each step. Only a hang exceeds it.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// A running server with a data folder.
pub struct Server {
    process: Option<ServerProcess>,
    folder: TempDir,
    flags: Vec<String>,
}

/// The flags of a server without controllers.
const API_ALONE: &[&str] = &["--controllers=none", "--disable-admission-plugins=ServiceAccount"];

/// A program whose output is read line by line. Dropping it kills the program.
pub struct Running {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Server {
    /// Starts a server on an empty folder.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server without controllers, so that objects stay as they are created. Pods need no service account,
    /// because no controller creates service accounts.
    pub async fn start_without_controllers() -> Self {
        Self::start_with(API_ALONE).await
    }

    /// Starts a server on an empty folder, with extra flags.
    pub async fn start_with(flags: &[&str]) -> Self {
        Self::start_in(ok(tempfile::tempdir(), "a temporary folder"), flags).await
    }

    /// Starts a server on a folder that contains the files for its flags but no data.
    pub async fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut server = Self { process: None, folder, flags };
        server.restart().await;
        server
    }

    /// Restarts the server on the same folder. The server must have ended before.
    pub async fn restart(&mut self) {
        self.restart_until("/readyz").await;
    }

    /// Restarts the server and waits until a health endpoint succeeds: `/livez` for a server that cannot become ready.
    pub async fn restart_until(&mut self, endpoint: &str) {
        assert!(self.process.is_none(), "the server still runs");
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let started =
            ServerProcess::start_until(&server_binary(), self.folder.path(), &flags, endpoint).await;
        self.process = Some(ok(started, "starting the server"));
    }

    /// Ends the server with SIGKILL.
    pub fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            ok(process.kill(), "kill -9");
        }
    }

    /// Ends the server with SIGTERM and waits for it.
    pub async fn terminate(&mut self) -> ExitStatus {
        let Some(process) = self.process.take() else { panic!("the server does not run") };
        ok(process.terminate(DEADLINE).await, "SIGTERM")
    }

    /// Returns a folder for files of the test. Its subfolder `data` holds the server's data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        self.process().kubeconfig()
    }

    /// Returns the process ID of the server.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Returns the log output so far.
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// Returns the server's URL: `https://host:port`.
    pub fn url(&self) -> String {
        let text = ok(std::fs::read_to_string(self.kubeconfig()), "the kubeconfig");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("server: "));
        line.map_or_else(|| panic!("the kubeconfig names no server"), |url| url.trim_matches('"').to_owned())
    }

    /// Returns the target for raw HTTP requests.
    pub fn target(&self) -> Target {
        ok(Target::from_kubeconfig(self.kubeconfig()), "the kubeconfig")
    }

    /// Returns a kube-rs client for the namespace `default`.
    pub async fn client(&self) -> kube::Client {
        // Fails if another test of this process has already installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let file = ok(Kubeconfig::read_from(self.kubeconfig()), "the kubeconfig");
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        ok(kube::Client::try_from(ok(config, "the kubeconfig")), "kube-rs")
    }

    /// Runs kubectl and returns its output. kubectl must succeed.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(self.run("kubectl", arguments, "", &[]).await)
    }

    /// Runs kubectl and returns its error output. kubectl must fail.
    pub async fn kubectl_fails(&self, arguments: &[&str]) -> String {
        let ran = self.run("kubectl", arguments, "", &[]).await;
        assert!(!ran.status.success(), "kubectl {arguments:?} succeeded: {}", ran.stdout);
        ran.stderr
    }

    /// Runs kubectl with standard input and extra environment variables.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        self.run("kubectl", arguments, input, environment).await
    }

    /// Waits until a CustomResourceDefinition is established, or all with `--all`. kubectl fails to wait for an object
    /// whose conditions are null, as those of a new definition are.
    pub async fn established(&self, definition: &str) {
        let wait = ["wait", "--for=condition=established", "--timeout=20s", "crd", definition];
        let is_established = async || self.kubectl_with(&wait, "", &[]).await.status.success();
        eventually_within(Duration::from_mins(1), "the definition is established", is_established).await;
    }

    /// Applies YAML with kubectl.
    pub async fn apply(&self, yaml: &str) -> String {
        succeeded(self.run("kubectl", &["apply", "-f", "-"], yaml, &[]).await)
    }

    /// Starts kubectl in the background.
    pub fn kubectl_running(&self, arguments: &[&str]) -> Running {
        self.running(&client("kubectl"), arguments)
    }

    /// Starts a Python script in the background.
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

    /// Runs helm and returns its output. helm must succeed.
    pub async fn helm(&self, arguments: &[&str]) -> String {
        succeeded(self.helm_ran(arguments).await)
    }

    /// Runs helm, which may fail.
    pub async fn helm_ran(&self, arguments: &[&str]) -> Ran {
        self.run("helm", arguments, "", &[]).await
    }

    /// Runs a Python script and returns its output. The script must succeed. It can import `kubernetes`, and
    /// `KUBECONFIG` is set.
    pub async fn python(&self, script: &str) -> String {
        self.python_with(script, &[]).await
    }

    /// As [`Self::python`], with extra environment variables.
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

    /// Returns a command with the server's kubeconfig and a separate home, without the caller's settings.
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

/// The result of a program.
pub struct Ran {
    what: String,
    /// The exit status.
    pub status: ExitStatus,
    /// The standard output.
    pub stdout: String,
    /// The error output.
    pub stderr: String,
}

impl Running {
    /// Waits for the next line.
    pub async fn line(&mut self) -> String {
        let line = ok(tokio::time::timeout(DEADLINE, self.lines.next_line()).await, "another line");
        ok(line, "reading a line").unwrap_or_else(|| panic!("the program ended"))
    }
}

/// Splits the lines of a kubectl table into cells, starting with the header. Cells must not contain double spaces.
pub fn cells(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

/// Polls a condition. Fails the test at the deadline.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(DEADLINE, what, condition).await;
}

/// As [`eventually`], with a longer deadline for slow operations.
pub async fn eventually_within(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < deadline, "{what}: not within {deadline:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the path of the server's binary.
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
