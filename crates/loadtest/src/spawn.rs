//! Starts the server under test in its own folder on a free port, and stops it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::LoadError;
use crate::http::{Call, Target};

/// A running server. Dropping it kills the server.
pub struct ServerProcess {
    child: Child,
    kubeconfig: PathBuf,
    log: PathBuf,
    ready_in: Duration,
}

impl ServerProcess {
    /// Runs `binary serve --data-dir FOLDER/data --secure-port 0 …arguments` and waits until it is ready.
    pub async fn start(binary: &Path, folder: &Path, arguments: &[&str]) -> Result<Self, LoadError> {
        Self::start_until(binary, folder, arguments, "/readyz").await
    }

    /// As [`start`](Self::start), but waits until a health endpoint succeeds: `/livez` for a server that is not ready.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub async fn start_until(
        binary: &Path,
        folder: &Path,
        arguments: &[&str],
        endpoint: &str,
    ) -> Result<Self, LoadError> {
        let (data, log) = (folder.join("data"), folder.join("server.log"));
        let kubeconfig = data.join("admin.kubeconfig");
        // The kubeconfig of an earlier run has a different port.
        if kubeconfig.exists() {
            fs::remove_file(&kubeconfig).map_err(|e| LoadError::File(kubeconfig.clone(), e))?;
        }
        let open = || {
            File::options().create(true).append(true).open(&log).map_err(|e| LoadError::File(log.clone(), e))
        };
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data-dir").arg(&data).args(["--secure-port", "0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        let started = Instant::now();
        let child = command.spawn().map_err(|e| LoadError::Spawn(binary.to_owned(), e.to_string()))?;
        let mut server = Self { child, kubeconfig, log, ready_in: Duration::ZERO };
        server.wait_until_ready(binary, endpoint).await?;
        server.ready_in = started.elapsed();
        Ok(server)
    }

    /// Returns the path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the time from the start of the process until /readyz succeeded.
    pub fn ready_in(&self) -> Duration {
        self.ready_in
    }

    /// Returns the output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills the server with SIGKILL.
    pub fn kill(mut self) -> Result<(), LoadError> {
        self.child.kill().and_then(|()| self.child.wait().map(drop)).map_err(|e| self.failed(&e.to_string()))
    }

    /// Sends SIGTERM and waits for the server to exit.
    pub async fn terminate(mut self, limit: Duration) -> Result<ExitStatus, LoadError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| self.failed("no process id"))?;
        kill_process(pid, Signal::TERM).map_err(|e| self.failed(&e.to_string()))?;
        let asked = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if asked.elapsed() > limit => return Err(self.failed("did not end after SIGTERM")),
                Ok(None) => tokio::time::sleep(POLL).await,
                Err(error) => return Err(self.failed(&error.to_string())),
            }
        }
    }

    async fn wait_until_ready(&mut self, binary: &Path, endpoint: &str) -> Result<(), LoadError> {
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if let Ok(Some(status)) = self.child.try_wait() {
                let problem = format!("ended with {status}: {}", self.log());
                return Err(LoadError::Spawn(binary.to_owned(), problem));
            }
            if self.is_ready(endpoint).await {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        let what = format!("{} becoming ready ({})", binary.display(), self.log());
        Err(LoadError::Late { what, limit: START_LIMIT })
    }

    /// Returns whether the server is ready. The kubeconfig may be incomplete or the port closed, so every failure means
    /// "not ready".
    async fn is_ready(&self, endpoint: &str) -> bool {
        let ask = async {
            let mut connection = Target::from_kubeconfig(&self.kubeconfig)?.connect_http2().await?;
            connection.send(&Call::get(endpoint)).await
        };
        ask.await.is_ok_and(|answer| answer.status().is_success())
    }

    fn failed(&self, problem: &str) -> LoadError {
        LoadError::Process(self.child.id(), format!("{problem}: {}", self.log()))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails only if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);
