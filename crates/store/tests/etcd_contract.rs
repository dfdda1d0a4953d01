//! Runs the contract tests on the engine `etcd` over real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use async_trait::async_trait;
use nave_store::contract::{EtcdProcess, Fixture, installed_etcd};
use nave_store::etcd::{Etcd, Options, Progress};
use nave_store::{Store, contract_tests};
use parking_lot::Mutex;

struct Server {
    process: Mutex<EtcdProcess>,
    is_opened: Mutex<bool>,
    progress: Progress,
}

impl Server {
    fn start(version: &str, progress: Progress) -> Self {
        let process = EtcdProcess::start(&installed_etcd(version));
        Self { process: Mutex::new(process), is_opened: Mutex::new(false), progress }
    }
}

#[async_trait]
impl Fixture for Server {
    /// Kills the server and starts it again if the store was open before.
    async fn open(&self) -> Arc<dyn Store> {
        let mut process = self.process.lock();
        if std::mem::replace(&mut *self.is_opened.lock(), true) {
            process.start_again();
        }
        let options = Options {
            servers: vec![process.url().parse().unwrap()],
            compaction_interval: None,
            progress: self.progress,
            ..Options::default()
        };
        Arc::new(Etcd::new(options))
    }
}

mod v3_4 {
    use super::*;
    contract_tests!(Server::start("3.4", Progress::ByVersion));
}

mod v3_5 {
    use super::*;
    contract_tests!(Server::start("3.5", Progress::ByVersion));
}

/// Newer versions report progress on request; these do too, but for a race that these tests do not provoke.
mod progress_requests {
    use super::*;
    use nave_store::contract::{progress_is_reported_on_request, quiet_watch_survives_compaction};

    #[tokio::test]
    async fn report_progress() {
        progress_is_reported_on_request(&Server::start("3.5", Progress::Requests)).await;
    }

    #[tokio::test]
    async fn keep_quiet_watches_alive() {
        quiet_watch_survives_compaction(&Server::start("3.5", Progress::Requests)).await;
    }
}
