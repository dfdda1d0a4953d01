//! Opens the stores: the embedded one in the data folder, or etcd clusters.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::GroupResource;
use nave_machinery::backoff::Backoff;
use nave_store::{Embedded, Etcd, PendingWrites, Store, StoreError, embedded, etcd};
use tokio::time::{Instant, timeout_at};

use super::{ServeError, egress};
use crate::flags::{Config, EngineConfig, StoreConfig};

/// The store of most resources.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Store>,
    /// The same store, if it is embedded.
    pub(super) embedded: Option<Arc<Embedded>>,
}

/// Opens the store of most resources.
pub(super) async fn open(config: &Config) -> Result<Opened, ServeError> {
    match &config.store.engine {
        EngineConfig::Embedded(options) => {
            let store = open_embedded(&config.data_dir, options.clone()).await?;
            Ok(Opened { store: Arc::<Embedded>::clone(&store), embedded: Some(store) })
        }
        EngineConfig::Etcd(options) => {
            let dialer = egress::dialer(&config.egress.etcd);
            let options = etcd::Options { dialer, ..options.clone() };
            let store = open_etcd(&options, config.store.timeouts.initialization).await?;
            Ok(Opened { store, embedded: None })
        }
    }
}

/// Returns the counter of the requests that are about to write, which the embedded store reads.
pub(super) fn pending_writes(config: &StoreConfig) -> PendingWrites {
    match &config.engine {
        EngineConfig::Embedded(options) => options.pending.clone(),
        EngineConfig::Etcd(_) => PendingWrites::default(),
    }
}

/// Opens the stores of single resources.
pub(super) fn open_overrides(config: &Config) -> HashMap<GroupResource, Arc<dyn Store>> {
    let open = |options: &etcd::Options| {
        let dialer = egress::dialer(&config.egress.etcd);
        Arc::new(Etcd::new(etcd::Options { dialer, ..options.clone() })) as Arc<dyn Store>
    };
    config.store.overrides.iter().map(|(resource, options)| (resource.clone(), open(options))).collect()
}

/// Opens the store in the data folder. Only one process can open it: waits a moment for one that is ending, such as one
/// that was just killed.
pub(crate) async fn open_embedded(
    data_dir: &Path,
    options: embedded::Options,
) -> Result<Arc<Embedded>, ServeError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match try_open_embedded(data_dir, options.clone()).await {
            Err(ServeError::Store(StoreError::Locked { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            opened => return opened,
        }
    }
}

async fn try_open_embedded(data_dir: &Path, options: embedded::Options) -> Result<Arc<Embedded>, ServeError> {
    let folder = data_dir.join("store");
    let damaged = |why: String| ServeError::Damaged { folder: folder.clone(), why };
    let opening = {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || Embedded::open(&folder, &options))
    };
    match opening.await {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(StoreError::Corrupt(why))) => Err(damaged(why.to_string())),
        // The engine does not recognize the file.
        Ok(Err(StoreError::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
            Err(damaged(error.to_string()))
        }
        Ok(Err(StoreError::Io(error))) => Err(ServeError::StoreFolder { folder: folder.clone(), error }),
        Ok(Err(error)) => Err(ServeError::Store(error)),
        // The engine panics on some damaged files.
        Err(_) => Err(damaged("its pages cannot be read".to_owned())),
    }
}

/// Waits until the cluster answers.
async fn open_etcd(options: &etcd::Options, limit: Duration) -> Result<Arc<dyn Store>, ServeError> {
    let store = Etcd::new(options.clone());
    let deadline = Instant::now() + limit;
    let mut pauses = RETRY.pauses();
    let mut last = String::from("no server has answered");
    loop {
        let error = match timeout_at(deadline, store.status()).await {
            Ok(Ok(status)) => {
                tracing::info!(engine = status.engine, revision = status.revision, "etcd connected");
                store.report_flaws().await;
                return Ok(Arc::new(store));
            }
            Ok(Err(error @ StoreError::Unavailable(_))) if Instant::now() < deadline => error,
            Ok(Err(error)) => return Err(ServeError::Etcd(error.to_string())),
            Err(_) => {
                let why = format!("{} not available within {limit:?}: {last}", servers(options));
                return Err(ServeError::Etcd(why));
            }
        };
        tracing::warn!(%error, "etcd is not available yet");
        last = error.to_string();
        tokio::time::sleep(pauses.next_pause()).await;
    }
}

/// Returns the line of the start's output that says where objects are stored.
pub(super) fn location(config: &Config, revision: u64) -> String {
    let folder = config.data_dir.display();
    match &config.store.engine {
        EngineConfig::Embedded(_) => format!("data       {folder} (revision {revision})"),
        EngineConfig::Etcd(options) => {
            format!("keys       {folder}\nstore      {} (revision {revision})", servers(options))
        }
    }
}

fn servers(options: &etcd::Options) -> String {
    let servers: Vec<String> = options.servers.iter().map(ToString::to_string).collect();
    servers.join(",")
}

/// Time to wait for another process to leave the data folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between attempts to lock the data folder.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Pauses between attempts to connect at start.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(2));
