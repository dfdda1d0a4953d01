//! Watches that resume at another server after each interruption.

use std::sync::Arc;
use std::time::Duration;

use nave_loadtest::http::Call;
use nave_tests::DEADLINE;
use nave_tests::linearizability::{Answer, Operation, Request};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{MAPS, revision_of};
use super::cluster::Targets;
use super::record::Record;

/// Time after which a watch without any message resumes at another server, which may be stopped.
const SILENCE: Duration = Duration::from_secs(3);

/// An event of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    revision: u64,
    key: String,
    change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The object was written with this value.
    Written(Option<u64>),
    Deleted,
}

/// The events that a watch has delivered.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivered {
    events: Vec<Event>,
    /// Resource versions whose events are missing, because no server had them any more after restarts: those after the
    /// first number, up to the second one.
    gaps: Vec<(u64, u64)>,
}

/// Running watches. The channel has the resource version at which they end.
pub(super) struct Watchers(watch::Sender<u64>, JoinSet<Delivered>);

/// Starts a watch at each server, from a resource version.
pub(super) fn start(record: &Arc<Record>, targets: &Arc<Targets>, revision: u64) -> Watchers {
    let (end, mut tasks) = (watch::Sender::new(u64::MAX), JoinSet::new());
    for server in 0..targets.len() {
        let watcher = Watcher {
            label: record.label(),
            targets: Arc::clone(targets),
            server,
            revision,
            delivered: Delivered::default(),
            expired: 0,
            end: end.subscribe(),
        };
        tasks.spawn(watcher.run());
    }
    Watchers(end, tasks)
}

/// Waits until all watches have delivered the event of a resource version, and returns their events.
pub(super) async fn finish(watchers: Watchers, revision: u64) -> Vec<Delivered> {
    let Watchers(end, tasks) = watchers;
    end.send_replace(revision);
    tokio::time::timeout(DEADLINE, tasks.join_all()).await.unwrap()
}

/// Checks that two watches have delivered the same events where both had them.
pub(super) fn agree(one: &Delivered, other: &Delivered) {
    let shared = |of: &Delivered, than: &Delivered| -> Vec<Event> {
        of.events.iter().filter(|event| than.covers(event.revision)).cloned().collect()
    };
    assert_eq!(shared(one, other), shared(other, one), "all watches deliver the same events");
}

impl Delivered {
    fn covers(&self, revision: u64) -> bool {
        !self.gaps.iter().any(|(after, until)| (after + 1..=*until).contains(&revision))
    }

    /// Returns the number of events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Checks that the acknowledged writes are among the events, and that there are no other deletions.
    pub(super) fn includes(&self, history: &[Operation]) {
        let is_delete = |operation: &&Operation| matches!(operation.request, Request::Delete { .. });
        let is_acknowledged = |operation: &&Operation| matches!(operation.answer, Some((_, Answer::Deleted)));
        let is_unknown = |operation: &&Operation| operation.answer.is_none();
        for operation in history {
            let (Request::Create { value } | Request::Update { value, .. }) = operation.request else {
                continue;
            };
            let Some((_, Answer::Written { revision })) = operation.answer else { continue };
            let (key, change) = (operation.key.clone(), Change::Written(Some(value)));
            let is_seen = self.events.contains(&Event { revision, key, change });
            assert!(is_seen || !self.covers(revision), "no event of {operation:?}");
        }
        let deleted = self.events.iter().filter(|event| event.change == Change::Deleted).count();
        let acknowledged = history.iter().filter(is_delete).filter(is_acknowledged).count();
        let most = acknowledged + history.iter().filter(is_delete).filter(is_unknown).count();
        let least = if self.gaps.is_empty() { acknowledged } else { 0 };
        assert!((least..=most).contains(&deleted), "{deleted} deletions instead of {least} to {most}");
    }
}

struct Watcher {
    label: String,
    targets: Arc<Targets>,
    server: usize,
    /// The resource version of the last event or bookmark.
    revision: u64,
    delivered: Delivered,
    /// Number of servers in a row that no longer had the events since `revision`.
    expired: usize,
    end: watch::Receiver<u64>,
}

impl Watcher {
    async fn run(mut self) -> Delivered {
        while !self.is_complete() {
            // An interruption is no fault.
            let _ = self.follow().await;
            if self.expired == self.targets.len() {
                let _ = self.list().await;
            }
            self.server = (self.server + 1) % self.targets.len();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.delivered
    }

    /// Continues after a list, as informers do, when all servers have restarted since the last event.
    async fn list(&mut self) -> Option<()> {
        let (_, target) = self.targets.get(self.server);
        let list = async { target.pool(1).await.ok()?.call(&Call::get(MAPS)).await.ok() };
        let list = tokio::time::timeout(SILENCE, list).await.ok()??;
        let revision = revision_of(&serde_json::from_slice(&list).unwrap()).unwrap();
        self.delivered.gaps.push((self.revision, revision));
        (self.revision, self.expired) = (revision, 0);
        Some(())
    }

    fn is_complete(&self) -> bool {
        self.revision >= *self.end.borrow()
    }

    /// Follows a watch until it is interrupted or complete.
    async fn follow(&mut self) -> Option<()> {
        let (_, target) = self.targets.get(self.server);
        let path = format!(
            "{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={}&labelSelector=history%3D{}",
            self.revision, self.label
        );
        let call = Call::get(path);
        let opened = async { target.connect_http1().await.ok()?.send(&call).await.ok() };
        let mut response = tokio::time::timeout(SILENCE, opened).await.ok()??;
        if response.status() != 200 {
            // The server is not ready.
            let status = response.status().as_u16();
            assert!([410, 429, 500, 503, 504].contains(&status), "{status}");
            self.expired = if status == 410 { self.expired + 1 } else { 0 };
            return None;
        }
        let mut text = Vec::new();
        while !self.is_complete() {
            let chunk = tokio::time::timeout(SILENCE, response.next_chunk()).await.ok()?.ok()??;
            text.extend_from_slice(&chunk);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                self.take(&serde_json::from_slice(&line).unwrap())?;
            }
        }
        Some(())
    }

    fn take(&mut self, event: &Value) -> Option<()> {
        let object = &event["object"];
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "ERROR" {
            // A server that loses its store ends its watches. A restarted one has no events from before.
            self.expired = if object["code"] == 410 { self.expired + 1 } else { 0 };
            return None;
        }
        self.expired = 0;
        let revision = revision_of(object).unwrap();
        if kind == "BOOKMARK" {
            assert!(revision >= self.revision, "a bookmark of {revision} after {}", self.revision);
        } else {
            assert!(revision > self.revision, "an event of {revision} after {}", self.revision);
            let key = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let value = object["data"]["value"].as_str().and_then(|value| value.parse().ok());
            let change = if kind == "DELETED" { Change::Deleted } else { Change::Written(value) };
            self.delivered.events.push(Event { revision, key, change });
        }
        self.revision = revision;
        Some(())
    }
}
