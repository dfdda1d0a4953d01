//! etcd's API (version 3, gRPC) over the embedded engine, for `etcdctl`, backup tools, and several API servers on one
//! store.
//!
//! | file | content |
//! | --- | --- |
//! | `connections.rs`, `tls.rs` | listening, TLS, limits of connections |
//! | `calls.rs` | the methods by path; health checks over HTTP |
//! | `kv.rs`, `txn.rs`, `check.rs` | reads and writes, transactions, and the checks of their requests |
//! | `watch.rs` | streams of watches |
//! | `lease.rs` | leases |
//! | `maintenance.rs` | status, alarms, snapshots, the list of members |
//! | `hash.rs` | hashes of all keys |
//! | `error.rs` | etcd's errors |
//!
//! # Differences from etcd
//! - There is one member and no Raft.
//! - Keys are UTF-8 and have at most 4096 bytes.
//! - A snapshot is a copy of the engine's file with a checksum, not a database of etcd.
//! - A transaction reads at most 10,000 keys and writes at most 65,536, deleted ranges included. A lease with more keys
//!   than that ends at several revisions, which become visible together.
//! - There are no users and roles: access is by client certificates.

mod calls;
mod check;
#[cfg(test)]
mod comparison;
mod connections;
mod error;
mod hash;
mod kv;
mod lease;
mod maintenance;
#[cfg(test)]
mod tests;
mod tls;
mod txn;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::embedded::Embedded;
use crate::etcdserverpb as m;

pub use connections::Listener;
pub use tls::ServerTls;

/// The version of etcd's API that clients are told.
pub const VERSION: &str = "3.6.0";

/// Configuration of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the member.
    pub name: String,
    /// The URLs that clients are told.
    pub client_urls: Vec<String>,
    /// Folder for the file of a snapshot while it is sent.
    pub snapshot_folder: PathBuf,
    /// Maximum size of a request, in bytes.
    pub max_request_bytes: usize,
}

impl Options {
    /// Returns etcd's defaults.
    pub fn new(snapshot_folder: PathBuf) -> Self {
        Self {
            name: "default".to_owned(),
            client_urls: Vec::new(),
            snapshot_folder,
            max_request_bytes: MAX_REQUEST,
        }
    }
}

/// The server of etcd's API. Clones share it.
#[derive(Clone)]
pub struct EtcdServer(Arc<Inner>);

struct Inner {
    store: Arc<Embedded>,
    options: Options,
    /// Permits for watches.
    watches: Arc<Semaphore>,
    /// Permits for snapshots, which need space on the disk.
    snapshots: Semaphore,
    /// Permits for hashes, which read all keys.
    hashes: Semaphore,
}

impl EtcdServer {
    /// Creates the server of a store.
    pub fn new(store: Arc<Embedded>, options: Options) -> Self {
        let watches = Arc::new(Semaphore::new(WATCHES));
        let (snapshots, hashes) = (Semaphore::new(SNAPSHOTS), Semaphore::new(HASHES));
        Self(Arc::new(Inner { store, options, watches, snapshots, hashes }))
    }
}

/// Returns the header of a response at a revision of the store.
fn header(revision: u64) -> m::ResponseHeader {
    let revision = to_wire(revision);
    m::ResponseHeader { cluster_id: CLUSTER, member_id: MEMBER, revision, raft_term: RAFT_TERM }
}

/// Converts a revision to etcd's signed type.
fn to_wire(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Converts a revision of a request; `None` if it is not positive.
fn from_wire(revision: i64) -> Option<u64> {
    u64::try_from(revision).ok().filter(|revision| *revision > 0)
}

/// Identifiers, which are constant because there is one member.
const CLUSTER: u64 = 0x6e61_7665;
const MEMBER: u64 = 1;
const RAFT_TERM: u64 = 1;
/// etcd's default of `--max-request-bytes`.
const MAX_REQUEST: usize = 1536 << 10;
/// Maximum number of watches of all clients.
const WATCHES: usize = 50_000;
const SNAPSHOTS: usize = 1;
const HASHES: usize = 1;
