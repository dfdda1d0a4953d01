//! etcd servers for tests: processes on free ports with temporary folders.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running etcd server with a data folder. Killed when dropped.
pub struct EtcdProcess {
    binary: PathBuf,
    folder: TempDir,
    flags: Vec<String>,
    ports: [u16; 2],
    scheme: &'static str,
    child: Option<Child>,
}

/// Returns the installed server of a version (`3.4` or `3.5`).
pub fn installed_etcd(version: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/etcd");
    let binary = tools.join(version).join("etcd");
    assert!(binary.is_file(), "{} is missing: run `cargo xtask tools`", binary.display());
    binary
}

impl EtcdProcess {
    /// Starts a server without data.
    pub fn start(binary: &Path) -> Self {
        Self::start_with("http", binary, &[])
    }

    /// Starts a server with more flags. `scheme` is that of its URLs.
    pub fn start_with(scheme: &'static str, binary: &Path, flags: &[String]) -> Self {
        // Another process may have taken a port meanwhile.
        for _ in 0..PORT_ATTEMPTS {
            let mut server = Self::on_free_ports(scheme, binary);
            server.flags = flags.to_vec();
            if server.try_spawn() {
                return server;
            }
        }
        panic!("etcd does not start");
    }

    /// Starts a cluster of several servers.
    pub fn start_cluster(binary: &Path, size: usize) -> Vec<Self> {
        for _ in 0..PORT_ATTEMPTS {
            let mut members: Vec<Self> = (0..size).map(|_| Self::on_free_ports("http", binary)).collect();
            let peers: Vec<String> = (0..)
                .zip(&members)
                .map(|(number, member)| format!("m{number}={}", member.peer_url()))
                .collect();
            for (number, member) in members.iter_mut().enumerate() {
                // Elections on a loaded machine take longer than those of a single server.
                member.flags = vec![
                    format!("--name=m{number}"),
                    format!("--initial-cluster={}", peers.join(",")),
                    "--heartbeat-interval=100".to_owned(),
                    "--election-timeout=1000".to_owned(),
                ];
            }
            if members.iter_mut().all(Self::try_spawn) {
                return members;
            }
        }
        panic!("the etcd cluster does not start");
    }

    fn on_free_ports(scheme: &'static str, binary: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            binary: binary.to_owned(),
            folder,
            flags: Vec::new(),
            ports: free_ports(),
            scheme,
            child: None,
        }
    }

    /// Returns the URL for clients.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[0])
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a running process");
            child.wait().expect("a child");
        }
    }

    /// Starts the server again on its data, with the same URL.
    pub fn start_again(&mut self) {
        self.kill();
        assert!(self.try_spawn(), "etcd does not start again");
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a running process").id()
    }

    /// Returns whether the server accepts connections.
    fn try_spawn(&mut self) -> bool {
        let [client, _] = self.ports;
        let (client_url, peer_url) = (self.url(), self.peer_url());
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let child = Command::new(&self.binary)
            .arg(format!("--data-dir={}", self.folder.path().join("data").display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=default={peer_url}"))
            // Elections are immediate, and leases may be short.
            .args(["--heartbeat-interval=10", "--election-timeout=100"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let mut child = child.expect("etcd can be executed");
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if child.try_wait().expect("a child").is_some() {
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", client)).is_ok() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().expect("a running process");
        child.wait().expect("a child");
        false
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_ports() -> [u16; 2] {
    // Both listeners exist at the same time, so the ports differ.
    let listeners = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

const PORT_ATTEMPTS: u32 = 5;
const START_LIMIT: Duration = Duration::from_mins(1);
