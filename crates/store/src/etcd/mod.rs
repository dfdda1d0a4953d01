//! The engine `etcd`: an etcd cluster, shared with other servers. Keys and values have kube-apiserver's layout.
//!
//! | file | content |
//! | --- | --- |
//! | `endpoints.rs`, `address.rs`, `tls.rs` | members, connections, failover |
//! | `error.rs` | effect and meaning of failed calls |
//! | `keys.rs` | `--etcd-prefix` |
//! | `watch.rs` | watches and their progress |
//! | `lease.rs` | leases for times to live |
//! | `compactor.rs` | compaction at an interval, shared by all servers of the cluster |
//!
//! All reads are linearizable. A write is sent at most once: if its outcome is unknown, the error says so.

mod address;
mod compactor;
mod dial;
mod endpoints;
mod error;
mod keys;
mod lease;
mod tls;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use crate::etcdserverpb as m;
use crate::grpc::chain;
use crate::{
    Defragmentation, Expect, KeyValue, Op, Range, RangeResult, Store, StoreError, StoreStatus, Txn,
    TxnOutcome, WatchStream, private_files,
};

pub use address::{Address, InvalidAddress};
pub use dial::{Dial, Dialer, MemberStream};
use endpoints::{Effect, Endpoints};
use error::Refusal;
use keys::Keys;
use lease::Leases;
pub use tls::TlsFiles;
use watch::Watches;

/// Configuration of the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The addresses of the members.
    pub servers: Vec<Address>,
    /// The files for TLS to `https` addresses.
    pub tls: TlsFiles,
    /// The way to the members.
    pub dialer: Dialer,
    /// Replaces `/registry` at the start of keys (`--etcd-prefix`).
    pub prefix: String,
    /// Interval of compactions; `None` leaves them to others (`--etcd-compaction-interval`).
    pub compaction_interval: Option<Duration>,
    /// Maximum time for which a lease is used for further keys (`--lease-reuse-duration-seconds`).
    pub lease_reuse: Duration,
    /// How watches report progress on request.
    pub progress: Progress,
}

/// How watches report progress on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// By etcd's progress requests, unless the member's version has a race in them.
    #[default]
    ByVersion,
    /// By etcd's progress requests.
    Requests,
    /// By a marker key after the watched keys, in the range of the watch.
    Markers,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            tls: TlsFiles::default(),
            dialer: Dialer::default(),
            prefix: "/registry".to_owned(),
            compaction_interval: Some(Duration::from_mins(5)),
            lease_reuse: Duration::from_mins(1),
            progress: Progress::default(),
        }
    }
}

/// The engine. Dropping it ends its watches and connections.
pub struct Etcd {
    client: Arc<Client>,
    leases: Leases,
    watches: Watches,
    compactor: Option<JoinHandle<()>>,
}

/// The calls that the parts of the engine share.
struct Client {
    endpoints: Endpoints,
    keys: Keys,
    /// A compacted revision; the cluster's may be higher.
    compacted: AtomicU64,
}

impl Etcd {
    /// Creates the engine. Connects when it is used first. Must be called within a runtime.
    pub fn new(options: Options) -> Self {
        let client = Arc::new(Client {
            endpoints: Endpoints::new(options.servers, &Arc::new(options.tls), &options.dialer),
            keys: Keys::new(&options.prefix),
            compacted: AtomicU64::new(0),
        });
        let compactor = options.compaction_interval.map(|interval| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { compactor::run(&client, interval).await })
        });
        Self {
            leases: Leases::new(Arc::clone(&client), options.lease_reuse),
            watches: Watches::new(Arc::clone(&client), options.progress),
            client,
            compactor,
        }
    }

    /// Logs a warning for each member whose version has a known flaw. Members that do not answer are left out.
    pub async fn report_flaws(&self) {
        for endpoint in self.client.endpoints.all() {
            let status: Result<m::StatusResponse, _> = endpoint.call(STATUS, &m::StatusRequest {}).await;
            let Ok(m::StatusResponse { version, .. }) = status else { continue };
            let endpoint = endpoint.address();
            if ["3.5.0", "3.5.1", "3.5.2"].contains(&version.as_str()) {
                tracing::warn!(%endpoint, version, "this version of etcd loses writes when it is killed; upgrade it");
            }
            if !watch::has_ordered_progress(&version) {
                tracing::warn!(
                    %endpoint,
                    version,
                    "this version of etcd reports progress too early; consistent lists write marker keys until it is upgraded to 3.5.13 or newer"
                );
            }
        }
    }

    async fn submit(&self, txn: &Txn, lease: i64) -> Result<TxnOutcome, Refusal> {
        let key = self.client.keys.stored(&txn.key);
        let compare = match txn.expect {
            Expect::Any => None,
            Expect::Absent => Some(0),
            // etcd's comparison with 0 means that the key does not exist.
            Expect::Revision(0) => Some(i64::MAX),
            Expect::Revision(revision) => Some(to_wire(revision)),
        };
        let operation = match &txn.op {
            Op::Put { value, .. } => m::Request::Put(m::PutRequest {
                key: key.clone(),
                value: value.clone(),
                lease,
                ..Default::default()
            }),
            Op::Delete => {
                m::Request::DeleteRange(m::DeleteRangeRequest { key: key.clone(), ..Default::default() })
            }
        };
        let read = m::Request::Range(m::RangeRequest { key: key.clone(), ..Default::default() });
        let request = m::TxnRequest {
            compare: compare.map(|revision| mod_revision_is(key, revision)).into_iter().collect(),
            success: vec![m::RequestOp { request: Some(operation) }],
            failure: vec![m::RequestOp { request: Some(read) }],
        };
        let answer: m::TxnResponse = self.client.endpoints.call(TXN, &request, Effect::Write).await?;
        let revision = revision_of(answer.header);
        if answer.succeeded {
            return Ok(TxnOutcome::Committed { revision });
        }
        let Some(m::ResponseOp { response: Some(m::Response::Range(read)) }) =
            answer.responses.into_iter().next()
        else {
            return Err(malformed("a failed transaction without the key").into());
        };
        let current = read.kvs.into_iter().next().map(|kv| self.client.keys.key_value(kv)).transpose()?;
        Ok(TxnOutcome::Failed { current, revision })
    }
}

#[async_trait]
impl Store for Etcd {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let ttl = match &txn.op {
            Op::Put { ttl, .. } => *ttl,
            Op::Delete => None,
        };
        let mut attempts = 0;
        loop {
            let lease = match ttl {
                Some(ttl) => self.leases.lease_for(ttl).await?,
                None => 0,
            };
            attempts += 1;
            return match self.submit(&txn, lease).await {
                Ok(outcome) => Ok(outcome),
                // The lease has expired or was revoked; nothing was written.
                Err(Refusal::LeaseNotFound) if attempts < LEASE_ATTEMPTS => {
                    self.leases.forget(lease);
                    continue;
                }
                Err(Refusal::TooLarge) => {
                    let size = match &txn.op {
                        Op::Put { value, .. } => value.len(),
                        Op::Delete => txn.key.len(),
                    };
                    Err(StoreError::TooLarge { what: "request", size, limit: DEFAULT_REQUEST_LIMIT })
                }
                Err(refusal) => Err(refusal.into()),
            };
        }
    }

    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        let key = self.client.keys.stored(key);
        let request =
            m::RangeRequest { key, revision: revision.map_or(0, to_wire), ..m::RangeRequest::default() };
        let found = self.client.read(&request).await?;
        found.kvs.into_iter().next().map(|kv| self.client.keys.key_value(kv)).transpose()
    }

    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let key = self.client.keys.stored(key);
        let request = m::RangeRequest { key, keys_only: true, ..m::RangeRequest::default() };
        let found = self.client.read(&request).await?;
        Ok(found.kvs.first().map(|kv| from_wire(kv.mod_revision)))
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let prefix = self.client.keys.stored(&range.prefix);
        let range_end = keys::prefix_end(&prefix);
        let after = range.start_after.as_deref().map(|key| keys::successor(&self.client.keys.stored(key)));
        let mut start = after.filter(|after| *after > prefix).unwrap_or(prefix);
        let mut result = RangeResult { revision: range.revision.unwrap_or_default(), ..Default::default() };
        let mut page = FIRST_PAGE;
        loop {
            let wanted = match range.limit {
                0 => page,
                limit => page.min(limit - result.items.len()),
            };
            let request = m::RangeRequest {
                key: start,
                range_end: range_end.clone(),
                limit: wanted as i64,
                revision: to_wire(result.revision),
                ..m::RangeRequest::default()
            };
            let answer = self.client.read(&request).await?;
            if result.revision == 0 {
                result.revision = revision_of(answer.header);
            }
            let (count, bytes) = (answer.kvs.len(), answer.kvs.iter().map(|kv| kv.value.len()).sum());
            for kv in answer.kvs {
                result.items.push(self.client.keys.key_value(kv)?);
            }
            result.more = answer.more;
            result.remaining = u64::try_from(answer.count).ok().map(|all| all.saturating_sub(count as u64));
            let last = result.items.last().filter(|_| answer.more && result.items.len() != range.limit);
            let Some(last) = last else { return Ok(result) };
            start = keys::successor(&self.client.keys.stored(&last.key));
            page = next_page(page, count, bytes);
        }
    }

    async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        let key = self.client.keys.stored(prefix);
        let range_end = keys::prefix_end(&key);
        let request = m::RangeRequest { key, range_end, count_only: true, ..m::RangeRequest::default() };
        let found = self.client.read(&request).await?;
        Ok(u64::try_from(found.count).unwrap_or_default())
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        self.client.current_revision().await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.client.compact(revision).await
    }

    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        self.client.compacted_revision().await
    }

    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError> {
        self.watches.watch(prefix, from_revision).await
    }

    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError> {
        self.watches.request_progress(prefix).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let status: m::StatusResponse =
            self.client.endpoints.call(STATUS, &m::StatusRequest {}, Effect::Read).await?;
        let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        Ok(StoreStatus {
            engine: format!("etcd {}", status.version),
            size_on_disk: size(status.db_size),
            size_in_use: size(status.db_size_in_use),
            revision: self.current_revision().await?,
            // Asking etcd for it takes a tenth of a second.
            compacted: self.client.compacted.load(Ordering::Relaxed),
            no_space: status.errors.iter().any(|error| error.contains("NOSPACE")),
            commits: None,
        })
    }

    /// Defragments the members one after the other. Each does not serve meanwhile.
    async fn defragment(&self) -> Result<Defragmentation, StoreError> {
        let mut reclaimed = 0;
        for endpoint in self.client.endpoints.all() {
            let mut sizes = [0; 2];
            for (turn, size) in sizes.iter_mut().enumerate() {
                if turn == 1 {
                    let connection = endpoint.connection().await.map_err(|error| unavailable(&error))?;
                    let done = connection.call::<m::DefragmentResponse>(DEFRAGMENT, &m::DefragmentRequest {});
                    done.await.map_err(|error| unavailable(&error))?;
                }
                let status: Result<m::StatusResponse, _> = endpoint.call(STATUS, &m::StatusRequest {}).await;
                *size = status.map_err(|error| unavailable(&error))?.db_size;
            }
            let [before, after] = sizes;
            reclaimed += u64::try_from(before - after).unwrap_or_default();
        }
        Ok(Defragmentation::Reclaimed(reclaimed))
    }

    /// Writes `snapshot.db` into the folder, as `etcdctl snapshot save` does. `etcdutl snapshot restore` makes a data
    /// folder of etcd from it.
    async fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        private_files::create_folder(to)?;
        let (_, _, slot, connection) = self.client.endpoints.connect_for_watch().await?;
        let mut stream = connection
            .call_for_stream(SNAPSHOT, &m::SnapshotRequest {})
            .await
            .map_err(|e| unavailable(&e))?;
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(to.join(SNAPSHOT_FILE)).await?;
        while let Some(part) = stream.next::<m::SnapshotResponse>().await.map_err(|e| unavailable(&e))? {
            file.write_all(&part.blob).await?;
        }
        file.sync_all().await?;
        drop(slot);
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(compactor) = &self.compactor {
            compactor.abort();
        }
    }
}

impl Client {
    /// Reads keys. Completes errors about revisions.
    async fn read(&self, request: &m::RangeRequest) -> Result<m::RangeResponse, StoreError> {
        match self.endpoints.call(RANGE, request, Effect::Read).await {
            Ok(found) => Ok(found),
            Err(refusal) => Err(self.error_about(from_wire(request.revision), refusal).await),
        }
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        let key = self.keys.stored("/registry/");
        let request = m::RangeRequest { key, count_only: true, ..m::RangeRequest::default() };
        let answer: m::RangeResponse = self.endpoints.call(RANGE, &request, Effect::Read).await?;
        Ok(revision_of(answer.header))
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        let request = m::CompactionRequest { revision: to_wire(revision) };
        let answer = self.endpoints.call::<m::CompactionResponse>(COMPACT, &request, Effect::Write).await;
        if let Err(refusal) = answer {
            return Err(self.error_about(revision, refusal).await);
        }
        self.compacted.fetch_max(revision, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the error for a refused operation at `revision`.
    async fn error_about(&self, revision: u64, refusal: Refusal) -> StoreError {
        let completed = match refusal {
            Refusal::Compacted => {
                let known = self.compacted.load(Ordering::Relaxed);
                let compacted = if known >= revision { Ok(known) } else { self.compacted_revision().await };
                compacted.map(|compacted| StoreError::Compacted { compacted })
            }
            Refusal::FutureRevision => {
                let current = self.current_revision().await;
                current.map(|current| StoreError::FutureRevision { requested: revision, current })
            }
            other => Ok(other.into()),
        };
        completed.unwrap_or_else(|error| error)
    }

    /// etcd reports its compacted revision only to a watch that starts below it.
    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        let key = self.keys.stored("/registry/");
        let oldest = m::RangeRequest { key, revision: 1, count_only: true, ..m::RangeRequest::default() };
        let answer = self.endpoints.call::<m::RangeResponse>(RANGE, &oldest, Effect::Read).await;
        match answer {
            Ok(_) => return Ok(0),
            Err(Refusal::Compacted) => {}
            Err(other) => return Err(other.into()),
        }
        let compacted = watch::compacted_revision(self).await?;
        self.compacted.fetch_max(compacted, Ordering::Relaxed);
        Ok(compacted)
    }
}

fn mod_revision_is(key: Bytes, revision: i64) -> m::Compare {
    let target_union = Some(m::TargetUnion::ModRevision(revision));
    m::Compare { target: m::CompareTarget::Mod.into(), key, target_union, ..Default::default() }
}

/// Returns the number of keys of the next page, so that a page has about [`PAGE_BYTES`].
fn next_page(page: usize, count: usize, bytes: usize) -> usize {
    let fitting = PAGE_BYTES * count.max(1) / bytes.max(1);
    fitting.clamp(1, (page * 4).min(MAX_PAGE))
}

fn revision_of(header: Option<m::ResponseHeader>) -> u64 {
    header.map_or(0, |header| from_wire(header.revision))
}

/// Converts a revision to etcd's signed type.
fn to_wire(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn from_wire(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}

fn malformed(what: &str) -> StoreError {
    StoreError::Corrupt(format!("etcd's answer is malformed: {what}").into())
}

fn unavailable(error: &dyn std::error::Error) -> StoreError {
    StoreError::Unavailable(chain(error).into())
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
/// The file of a snapshot.
const SNAPSHOT_FILE: &str = "snapshot.db";
/// Number of keys in the first page of a range.
const FIRST_PAGE: usize = 500;
const MAX_PAGE: usize = 10_000;
/// Wanted size of a page's values. etcd does not limit its responses.
const PAGE_BYTES: usize = 4 << 20;
const LEASE_ATTEMPTS: u32 = 3;
/// etcd's default of `--max-request-bytes`.
const DEFAULT_REQUEST_LIMIT: usize = 1536 << 10;
