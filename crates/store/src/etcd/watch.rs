//! Watches. Each is a stream of its own, so that a progress request concerns exactly one watch.
//!
//! # Progress
//! A watch reports progress on request, so that reads can be served from a cache. Old versions of etcd answer a progress
//! request before events that are already queued (etcd issue 15220): the reader would miss events. With such a member,
//! a request writes the key that follows all keys with the prefix. The watch includes this key, and etcd keeps the
//! order of events within a watch, so the marker's event follows all events before it. Progress that the member reports
//! on its own is ordered in all versions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::endpoints::{Effect, WatchSlot};
use super::error::CallFailure;
use super::{Client, Progress, STATUS, TXN, from_wire, keys, malformed, revision_of, to_wire};
use crate::etcdserverpb as m;
use crate::grpc::{CallError, MessageSender, MessageStream};
use crate::{Event, EventKind, StoreError, WatchBatch, WatchStream};

/// Starts watches and requests their progress.
pub(super) struct Watches {
    client: Arc<Client>,
    progress: Progress,
    open: Arc<Mutex<OpenWatches>>,
}

/// The open watches.
#[derive(Default)]
struct OpenWatches {
    next: u64,
    by_prefix: HashMap<Arc<str>, HashMap<u64, ProgressSource>>,
}

/// The way in which a watch reports progress on request.
#[derive(Clone)]
enum ProgressSource {
    Requests(MessageSender),
    Marker,
}

/// An open watch.
struct Watch {
    client: Arc<Client>,
    member: usize,
    messages: MessageStream,
    source: ProgressSource,
    /// The marker key, if it is in the range of the watch.
    marker: Option<Bytes>,
    /// Events of a revision whose other events may follow in the next fragment.
    held: Vec<Event>,
    ready: VecDeque<Result<WatchBatch, StoreError>>,
    ended: bool,
    _registration: Registration,
    _slot: WatchSlot,
}

/// Removes the watch from the open ones when dropped.
struct Registration {
    open: Arc<Mutex<OpenWatches>>,
    prefix: Arc<str>,
    id: u64,
}

impl Watches {
    pub(super) fn new(client: Arc<Client>, progress: Progress) -> Self {
        Self { client, progress, open: Arc::default() }
    }

    pub(super) async fn watch(&self, prefix: &str, from: u64) -> Result<WatchStream, StoreError> {
        let from = match from {
            0 => self.client.current_revision().await? + 1,
            from => from,
        };
        let client = &self.client;
        let (member, endpoint, slot, connection) = client.endpoints.connect_for_watch().await?;
        let failed = |error: CallFailure| {
            client.endpoints.demote(member, &error);
            StoreError::Unavailable(error.to_string().into())
        };
        let by_requests = match self.progress {
            Progress::Requests => true,
            Progress::Markers => false,
            Progress::ByVersion => {
                let status = endpoint.call::<m::StatusResponse>(STATUS, &m::StatusRequest {}).await;
                has_ordered_progress(&status.map_err(failed)?.version)
            }
        };
        let key = client.keys.stored(prefix);
        let end = keys::prefix_end(&key);
        let marker = (!by_requests && *end != *b"\0").then(|| end.clone());
        let create = m::WatchCreateRequest {
            key,
            range_end: marker.as_ref().map_or(end, |marker| keys::successor(marker)),
            start_revision: to_wire(from),
            progress_notify: true,
            fragment: true,
            ..m::WatchCreateRequest::default()
        };
        let request = m::WatchRequest { request: Some(m::WatchRequestUnion::Create(create)) };
        let call_failed = |error| failed(CallFailure::new(endpoint.address(), error));
        let opened = connection.open_stream(WATCH, REQUIRE_LEADER, &request).await;
        let (sender, mut messages) = opened.map_err(call_failed)?;
        let created = timeout(CREATE_TIMEOUT, messages.next::<m::WatchResponse>()).await;
        let created = created.unwrap_or_else(|_| Err(CallError::Broken("no answer".to_owned())));
        let ended = || CallError::Broken("the watch ended at its start".to_owned());
        let created = created.and_then(|message| message.ok_or_else(ended)).map_err(call_failed)?;
        if !created.created {
            return Err(malformed("a watch without a creation"));
        }
        let source =
            if by_requests { ProgressSource::Requests(sender.clone()) } else { ProgressSource::Marker };
        let mut watch = Watch {
            client: Arc::clone(client),
            member,
            messages,
            marker,
            held: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
            _registration: self.register(prefix.into(), source.clone()),
            source,
            _slot: slot,
        };
        if created.canceled {
            watch.apply(created);
        }
        // The stream's side of the client stays open as long as the watch.
        Ok(Box::pin(stream::unfold((watch, sender), |(mut watch, sender)| async move {
            watch.next_batch().await.map(|batch| (batch, (watch, sender)))
        })))
    }

    pub(super) async fn request_progress(&self, prefix: &str) -> Result<(), StoreError> {
        let sources: Vec<ProgressSource> = {
            let open = self.open.lock();
            open.by_prefix.get(prefix).into_iter().flat_map(|watches| watches.values().cloned()).collect()
        };
        let mut is_marked = false;
        for source in sources {
            match source {
                ProgressSource::Requests(sender) => sender.send(&progress_request()).await,
                // All watches of the prefix see the same marker.
                ProgressSource::Marker if is_marked => {}
                ProgressSource::Marker => {
                    write_marker(&self.client, prefix).await?;
                    is_marked = true;
                }
            }
        }
        Ok(())
    }

    fn register(&self, prefix: Arc<str>, source: ProgressSource) -> Registration {
        let mut open = self.open.lock();
        let id = open.next;
        open.next += 1;
        open.by_prefix.entry(Arc::clone(&prefix)).or_default().insert(id, source);
        Registration { open: Arc::clone(&self.open), prefix, id }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(watches) = open.by_prefix.get_mut(&self.prefix) {
            watches.remove(&self.id);
            if watches.is_empty() {
                open.by_prefix.remove(&self.prefix);
            }
        }
    }
}

impl Watch {
    /// Returns the next batch, or `None` after an error.
    async fn next_batch(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        let mut progress_at = Instant::now() + PROGRESS_INTERVAL;
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(batch);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                message = self.messages.next::<m::WatchResponse>() => match message {
                    Ok(Some(response)) => self.apply(response),
                    Ok(None) => self.fail(CallError::Broken("the watch has ended".to_owned())),
                    Err(error) => self.fail(error),
                },
                () = tokio::time::sleep_until(progress_at) => {
                    if let ProgressSource::Requests(sender) = &self.source {
                        sender.send(&progress_request()).await;
                    }
                    progress_at = Instant::now() + PROGRESS_INTERVAL;
                }
            }
        }
    }

    fn apply(&mut self, response: m::WatchResponse) {
        if response.canceled {
            self.end(match response.compact_revision {
                0 => {
                    StoreError::Unavailable(format!("etcd ended a watch: {}", response.cancel_reason).into())
                }
                compacted => StoreError::Compacted { compacted: from_wire(compacted) },
            });
            return;
        }
        let revision = revision_of(response.header);
        if response.events.is_empty() {
            if !response.created && self.held.is_empty() {
                self.ready.push_back(Ok(WatchBatch { events: Vec::new(), revision }));
            }
            return;
        }
        let mut events = std::mem::take(&mut self.held);
        // The header has the member's revision, which may be ahead of the events.
        let mut last = events.last().map_or(0, |event: &Event| event.kv.mod_revision);
        for event in response.events {
            match self.read_event(event) {
                Ok((revision, event)) => {
                    last = revision;
                    events.extend(event);
                }
                Err(error) => return self.end(error),
            }
        }
        if response.fragment {
            // The last revision may have further events.
            let complete =
                events.iter().rposition(|event| event.kv.mod_revision != last).map_or(0, |at| at + 1);
            self.held = events.split_off(complete);
            let Some(event) = events.last() else { return };
            last = event.kv.mod_revision;
        }
        self.ready.push_back(Ok(WatchBatch { events, revision: last }));
    }

    /// Converts an event; there is none for the marker.
    fn read_event(&self, event: m::StoredEvent) -> Result<(u64, Option<Event>), StoreError> {
        let kind = match event.kind() {
            m::StoredEventType::Put => EventKind::Put,
            m::StoredEventType::Delete => EventKind::Delete,
        };
        let kv = event.kv.ok_or_else(|| malformed("an event without a key"))?;
        let revision = from_wire(kv.mod_revision);
        if self.marker.as_ref() == Some(&kv.key) {
            return Ok((revision, None));
        }
        Ok((revision, Some(Event { kind, kv: self.client.keys.key_value(kv)? })))
    }

    fn fail(&mut self, error: CallError) {
        let Some(endpoint) = self.client.endpoints.all().get(self.member) else { return };
        let failure = CallFailure::new(endpoint.address(), error);
        self.client.endpoints.demote(self.member, &failure);
        self.end(StoreError::Unavailable(failure.to_string().into()));
    }

    fn end(&mut self, error: StoreError) {
        self.ready.push_back(Err(error));
        self.ended = true;
    }
}

/// Returns the compacted revision of a cluster in which revision 1 is compacted.
pub(super) async fn compacted_revision(client: &Client) -> Result<u64, StoreError> {
    let (_, endpoint, slot, connection) = client.endpoints.connect_for_watch().await?;
    let failed =
        |error| StoreError::Unavailable(CallFailure::new(endpoint.address(), error).to_string().into());
    let key = client.keys.stored("/registry/");
    let create = m::WatchCreateRequest { key, start_revision: 1, ..m::WatchCreateRequest::default() };
    let request = m::WatchRequest { request: Some(m::WatchRequestUnion::Create(create)) };
    let (sender, mut messages) =
        connection.open_stream(WATCH, REQUIRE_LEADER, &request).await.map_err(failed)?;
    let search = async {
        while let Some(response) = messages.next::<m::WatchResponse>().await? {
            if response.compact_revision != 0 {
                return Ok(from_wire(response.compact_revision));
            }
        }
        Err(CallError::Broken("the watch has ended".to_owned()))
    };
    let found = timeout(CREATE_TIMEOUT, search).await;
    drop((sender, slot));
    found.unwrap_or_else(|_| Err(CallError::Broken("no answer".to_owned()))).map_err(failed)
}

/// Writes the key that follows all keys with the prefix.
async fn write_marker(client: &Client, prefix: &str) -> Result<(), StoreError> {
    let key = keys::prefix_end(&client.keys.stored(prefix));
    let put = m::PutRequest { key, ..m::PutRequest::default() };
    let success = vec![m::RequestOp { request: Some(m::Request::Put(put)) }];
    let txn = m::TxnRequest { success, ..m::TxnRequest::default() };
    // A second marker does no harm.
    client.endpoints.call::<m::TxnResponse>(TXN, &txn, Effect::Read).await?;
    Ok(())
}

fn progress_request() -> m::WatchRequest {
    m::WatchRequest { request: Some(m::WatchRequestUnion::Progress(m::WatchProgressRequest {})) }
}

/// Returns whether a version of etcd orders requested progress after the events before it (kube-apiserver:
/// `storage/feature/feature_support_checker.go`).
pub(super) fn has_ordered_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// A member without a leader ends the watch instead of keeping it without events.
const REQUIRE_LEADER: &[(&str, &str)] = &[("hasleader", "true")];
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of progress requests while nothing arrives, so that an interrupted watch need not resume far in the past.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_versions_with_ordered_progress() {
        for (version, expected) in [
            ("3.3.25", false),
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.5.1", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(has_ordered_progress(version), expected, "{version}");
        }
    }
}
