//! The data that the page gets each second. Lists are bounded, so snapshots are small. A part is `None` if the server
//! has it switched off; a rate is `None` before the second sample.

use bytes::Bytes;
use nave_codec::json;
use serde::Serialize;

use crate::introspection::FieldWatchers;

/// The state of the server.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    /// Unix time in milliseconds.
    pub(super) time: u64,
    pub(super) server: Server,
    pub(super) requests: Requests,
    pub(super) verbs: Vec<Verb>,
    pub(super) priority_levels: Option<Vec<PriorityLevel>>,
    /// The queues with requests.
    pub(super) queues: Option<Vec<Queue>>,
    pub(super) flows: Option<Vec<Flow>>,
    pub(super) caches: Caches,
    pub(super) store: Store,
    pub(super) webhooks: Option<Vec<Webhook>>,
    pub(super) api_services: Option<Vec<ApiService>>,
    pub(super) clients: Vec<Client>,
    pub(super) audit: Option<Audit>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Server {
    pub(super) version: &'static str,
    pub(super) kubernetes: String,
    pub(super) memory_bytes: Option<f64>,
    /// Processors in use.
    pub(super) cpu: Option<f64>,
    pub(super) task_restarts: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Requests {
    pub(super) total: f64,
    pub(super) per_second: Option<f64>,
    /// Rejected by a limit (429).
    pub(super) rejected_per_second: Option<f64>,
    /// Failures of the server (5xx).
    pub(super) failed_per_second: Option<f64>,
    pub(super) in_flight_reads: f64,
    pub(super) in_flight_writes: f64,
    pub(super) long_running: f64,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// Requests of one verb. Durations are in seconds, of the last ten seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verb {
    #[serde(rename = "verb")]
    pub(super) name: String,
    pub(super) total: f64,
    pub(super) per_second: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PriorityLevel {
    pub(super) name: String,
    pub(super) seats_in_use: f64,
    /// The current limit, with seats lent and borrowed.
    pub(super) seats: f64,
    pub(super) nominal_seats: f64,
    pub(super) executing: f64,
    pub(super) queued: f64,
    pub(super) dispatched_per_second: Option<f64>,
    pub(super) rejected: f64,
    pub(super) rejected_per_second: Option<f64>,
    /// 99th percentile of the time in a queue, in seconds.
    pub(super) wait_p99: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flow {
    pub(super) name: String,
    pub(super) priority_level: String,
    pub(super) dispatched: f64,
    pub(super) per_second: Option<f64>,
    pub(super) executing: f64,
    pub(super) queued: f64,
    /// Mean and 99th percentile of the execution, in seconds.
    pub(super) mean: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// The watch caches. The largest ones are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Caches {
    pub(super) count: usize,
    pub(super) objects: usize,
    pub(super) bytes: usize,
    pub(super) watchers: usize,
    pub(super) shown: Vec<Cache>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cache {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) objects: usize,
    pub(super) bytes: usize,
    pub(super) window_events: usize,
    pub(super) window_capacity: usize,
    pub(super) window_bytes: usize,
    pub(super) watchers: usize,
    /// The indexed fields with most watchers.
    pub(super) buckets: Vec<FieldWatchers>,
    /// Revisions by which the cache is behind the store. The cache of an idle resource gets the store's revision every few
    /// seconds.
    pub(super) lag: Option<u64>,
    pub(super) events_per_second: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Store {
    /// `None` if the store does not answer.
    pub(super) engine: Option<String>,
    pub(super) revision: Option<u64>,
    pub(super) compacted: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) bytes_in_use: Option<u64>,
    /// Commits to disk; `None` if another process commits.
    pub(super) commits: Option<u64>,
    pub(super) commits_per_second: Option<f64>,
    /// Mean time of a commit, with the sync of the disk, in seconds.
    pub(super) commit_mean: Option<f64>,
    pub(super) writes_per_second: Option<f64>,
    /// Mean time of a write, with the wait for its commit, in seconds.
    pub(super) write_mean: Option<f64>,
    pub(super) reads_per_second: Option<f64>,
    pub(super) errors: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) calls: f64,
    pub(super) per_second: Option<f64>,
    pub(super) mean: Option<f64>,
    pub(super) p99: Option<f64>,
    /// Requests that the webhook denied.
    pub(super) denied: f64,
    /// Calls that failed, whether or not the request was let through.
    pub(super) failed: f64,
    pub(super) failed_per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiService {
    pub(super) name: String,
    pub(super) available: bool,
    /// Number of times the server became unavailable.
    pub(super) failures: f64,
}

/// A queue of a priority level.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Queue {
    pub(super) level: String,
    pub(super) index: u32,
    pub(super) waiting: usize,
    pub(super) executing: u32,
    pub(super) seats_in_use: u64,
}

/// A user's requests in the last minute.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Client {
    pub(super) user: String,
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// Total, mean and longest duration, in seconds.
    pub(super) time: f64,
    pub(super) mean: f64,
    pub(super) slowest: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    pub(super) total: f64,
    pub(super) per_second: Option<f64>,
    pub(super) errors: f64,
}

impl Snapshot {
    /// Returns the snapshot as a Server-Sent Event. JSON contains no line breaks.
    pub(super) fn event(&self) -> Bytes {
        let mut event = b"event: snapshot\ndata: ".to_vec();
        event.extend_from_slice(&json::encode(self));
        event.extend_from_slice(b"\n\n");
        event.into()
    }
}
