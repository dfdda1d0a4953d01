//! Runs the contract tests on the engine `etcd` over the embedded engine's own endpoint of etcd's API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nave_store::contract::Fixture;
use nave_store::embedded::{self, Embedded};
use nave_store::etcd::{Etcd, Options, Progress};
use nave_store::etcd_server::{EtcdServer, Listener};
use nave_store::{Store, StoreError, contract_tests, etcd_server};
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

struct Endpoint {
    folder: TempDir,
    progress: Progress,
    running: Mutex<Option<(SocketAddr, JoinHandle<()>)>>,
}

impl Endpoint {
    fn new(progress: Progress) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), progress, running: Mutex::default() }
    }
}

#[async_trait]
impl Fixture for Endpoint {
    /// Starts the server again if the store was open before.
    async fn open(&self) -> Arc<dyn Store> {
        let mut running = self.running.lock().await;
        let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
        if let Some((previous, task)) = running.take() {
            address = previous;
            task.abort();
        }
        let store = Arc::new(open_embedded(self.folder.path()).await);
        let listener = Listener::bind(address, None).await.unwrap();
        let address = listener.local_address().unwrap();
        let options = etcd_server::Options::new(self.folder.path().to_owned());
        let server = EtcdServer::new(store, options);
        let task = tokio::spawn(async move { match server.serve(listener).await {} });
        *running = Some((address, task));
        Arc::new(Etcd::new(Options {
            servers: vec![format!("http://{address}").parse().unwrap()],
            compaction_interval: None,
            progress: self.progress,
            ..Options::default()
        }))
    }
}

/// Waits until the calls of the previous server have ended.
async fn open_embedded(folder: &Path) -> Embedded {
    let options = embedded::Options { history: None, ..Default::default() };
    loop {
        match Embedded::open(folder, &options) {
            Err(StoreError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => return opened.unwrap(),
        }
    }
}

contract_tests!(Endpoint::new(Progress::ByVersion));

mod markers {
    use super::*;
    use nave_store::contract::{progress_is_reported_on_request, quiet_watch_survives_compaction};

    #[tokio::test]
    async fn report_progress() {
        progress_is_reported_on_request(&Endpoint::new(Progress::Markers)).await;
    }

    #[tokio::test]
    async fn keep_quiet_watches_alive() {
        quiet_watch_survives_compaction(&Endpoint::new(Progress::Markers)).await;
    }
}
