//! The service `Watch`: several watches on one stream.
//!
//! One task serves a stream. It takes the next batch of a watch only when the stream has room, so a client that does not
//! read costs no more memory than a few batches. A watch itself holds a position and no events.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::{self, BoxStream, SelectAll};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;

use super::error::EtcdError;
use super::kv::stored_key;
use super::{Inner, from_wire, header};
use crate::embedded::{Entry, EntryBatch, EntryEvent, KeyRange};
use crate::etcdserverpb as m;
use crate::grpc::server::{Messages, RequestStream};
use crate::grpc::{Status, frame};
use crate::{EventKind, Store, StoreError};

/// Maximum number of watches of one stream.
const WATCHES_PER_STREAM: usize = 10_000;
/// The identifier in responses that concern no watch or all of them.
const NO_WATCH: i64 = -1;

/// A stream of watches.
struct WatchStream<'a> {
    inner: &'a Inner,
    watches: HashMap<i64, Watch>,
    batches: SelectAll<BoxStream<'static, (i64, Result<EntryBatch, StoreError>)>>,
    next_id: i64,
    /// The revision of a requested progress report that is not sent yet.
    progress: Option<u64>,
}

struct Watch {
    range: KeyRange,
    reports_progress: bool,
    fragments: bool,
    /// The kinds of events that are left out, at most one entry each.
    filters: Vec<i32>,
    /// All events up to this revision have been sent.
    reached: u64,
    handle: AbortHandle,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Inner {
    /// Serves a stream until the client ends it.
    pub(super) async fn watch(&self, mut requests: RequestStream, messages: Messages) {
        let mut stream = WatchStream {
            inner: self,
            watches: HashMap::new(),
            batches: SelectAll::new(),
            next_id: 0,
            progress: None,
        };
        loop {
            // Fails once the client has gone.
            let Ok(room) = messages.reserve().await else { return };
            let responses = tokio::select! {
                request = requests.next::<m::WatchRequest>() => match request {
                    Ok(None) => return,
                    Ok(Some(request)) => stream.handle(request).await,
                    Err(status) => Err(status),
                },
                Some((id, batch)) = stream.batches.next(), if !stream.batches.is_empty() => stream.deliver(id, batch),
            };
            let responses = match responses {
                Ok(responses) => responses,
                Err(status) => return room.send(Err(status)),
            };
            drop(room);
            for response in responses.into_iter().chain(stream.progress_if_reached()) {
                if messages.send(Ok(frame(&response))).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl WatchStream<'_> {
    async fn handle(&mut self, request: m::WatchRequest) -> Result<Vec<m::WatchResponse>, Status> {
        let current = self.inner.store.current_revision().await?;
        match request.request {
            Some(m::WatchRequestUnion::Create(create)) => Ok(vec![self.create(&create, current)]),
            Some(m::WatchRequestUnion::Cancel(m::WatchCancelRequest { watch_id })) => {
                let canceled = self.watches.remove(&watch_id).map(|_| m::WatchResponse {
                    header: Some(header(current)),
                    watch_id,
                    canceled: true,
                    ..Default::default()
                });
                Ok(canceled.into_iter().collect())
            }
            Some(m::WatchRequestUnion::Progress(_)) => {
                self.progress = Some(current);
                for watch in self.watches.values().filter(|watch| watch.reached < current) {
                    self.inner.store.request_entry_progress(&watch.range, current);
                }
                Ok(Vec::new())
            }
            None => Ok(Vec::new()),
        }
    }

    /// Creates a watch, or refuses it in the response.
    fn create(&mut self, request: &m::WatchCreateRequest, current: u64) -> m::WatchResponse {
        let created = m::WatchResponse { header: Some(header(current)), created: true, ..Default::default() };
        let refused = |reason: &str| m::WatchResponse {
            watch_id: NO_WATCH,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..created.clone()
        };
        let range = match (&*request.key, &*request.range_end) {
            // The smallest key.
            ([], end) => KeyRange::new(&[0], end),
            (key, end) => KeyRange::new(key, end),
        };
        if range.is_empty() {
            return refused("mvcc: watcher range is empty");
        }
        if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            return refused("mvcc: duplicate watch ID provided on the WatchStream");
        }
        let permit = std::sync::Arc::clone(&self.inner.watches).try_acquire_owned();
        let (Ok(permit), true) = (permit, self.watches.len() < WATCHES_PER_STREAM) else {
            return refused(EtcdError::TooManyRequests.message());
        };
        let watch_id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
        let from = from_wire(request.start_revision).unwrap_or(current + 1);
        let (handle, registration) = AbortHandle::new_pair();
        let entries = self.inner.store.watch_entries(range.clone(), from, request.prev_kv);
        let batches = stream::unfold(entries, move |mut entries| async move {
            let batch = entries.next().await?;
            Some(((watch_id, batch), entries))
        });
        self.batches.push(Abortable::new(batches, registration).boxed());
        let mut filters = vec![m::FilterType::Noput.into(), m::FilterType::Nodelete.into()];
        filters.retain(|filter| request.filters.contains(filter));
        let watch = Watch {
            range,
            reports_progress: request.progress_notify,
            fragments: request.fragment,
            filters,
            reached: from.saturating_sub(1),
            handle,
            _permit: permit,
        };
        self.watches.insert(watch_id, watch);
        m::WatchResponse { watch_id, ..created }
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Returns the responses for a batch of a watch.
    ///
    /// # Errors
    /// The store is closed or damaged.
    fn deliver(
        &mut self,
        watch_id: i64,
        batch: Result<EntryBatch, StoreError>,
    ) -> Result<Vec<m::WatchResponse>, Status> {
        // The watch may have been cancelled after the batch was read.
        let Some(watch) = self.watches.get_mut(&watch_id) else { return Ok(Vec::new()) };
        let EntryBatch { events, revision } = match batch {
            Ok(batch) => batch,
            Err(StoreError::Compacted { compacted }) => {
                self.watches.remove(&watch_id);
                return Ok(vec![m::WatchResponse {
                    header: Some(header(compacted)),
                    watch_id,
                    canceled: true,
                    compact_revision: i64::try_from(compacted).unwrap_or(i64::MAX),
                    cancel_reason: EtcdError::Compacted.message().to_owned(),
                    ..Default::default()
                }]);
            }
            Err(error) => return Err(error.into()),
        };
        watch.reached = watch.reached.max(revision);
        let response = m::WatchResponse { header: Some(header(revision)), watch_id, ..Default::default() };
        let events: Vec<_> =
            events.into_iter().filter(|(event, _)| watch.includes(event)).map(stored_event).collect();
        if events.is_empty() {
            return Ok(if watch.reports_progress { vec![response] } else { Vec::new() });
        }
        let limit = if watch.fragments { self.inner.options.max_request_bytes } else { usize::MAX };
        Ok(fragments(&response, events, limit))
    }

    /// Returns the requested progress report once all watches have reached its revision.
    fn progress_if_reached(&mut self) -> Option<m::WatchResponse> {
        let revision = self.progress?;
        if self.watches.values().any(|watch| watch.reached < revision) {
            return None;
        }
        self.progress = None;
        let response =
            m::WatchResponse { header: Some(header(revision)), watch_id: NO_WATCH, ..Default::default() };
        (!self.watches.is_empty()).then_some(response)
    }
}

impl Watch {
    fn includes(&self, event: &EntryEvent) -> bool {
        let filter = match event.kind {
            EventKind::Put => m::FilterType::Noput,
            EventKind::Delete => m::FilterType::Nodelete,
        };
        !self.filters.contains(&filter.into())
    }
}

fn stored_event((event, previous): (EntryEvent, Option<Entry>)) -> m::StoredEvent {
    let kind = match event.kind {
        EventKind::Put => m::StoredEventType::Put,
        EventKind::Delete => m::StoredEventType::Delete,
    };
    m::StoredEvent { kind: kind.into(), kv: Some(stored_key(event.entry)), prev_kv: previous.map(stored_key) }
}

/// Splits events into responses of at most `limit` bytes, but at least one event each.
fn fragments(
    response: &m::WatchResponse,
    events: Vec<m::StoredEvent>,
    limit: usize,
) -> Vec<m::WatchResponse> {
    let mut responses: Vec<m::WatchResponse> = Vec::new();
    let mut size = usize::MAX;
    for event in events {
        let length = event.encoded_len();
        if size.saturating_add(length) > limit || responses.is_empty() {
            if let Some(last) = responses.last_mut() {
                last.fragment = true;
            }
            responses.push(response.clone());
            size = 0;
        }
        size += length;
        if let Some(last) = responses.last_mut() {
            last.events.push(event);
        }
    }
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_responses_over_the_limit() {
        let event = |size: usize| {
            let kv = m::StoredKey { value: vec![0; size].into(), ..Default::default() };
            m::StoredEvent { kv: Some(kv), ..Default::default() }
        };
        for (sizes, limit, expected) in [
            (vec![10, 10, 10], usize::MAX, vec![(3, false)]),
            (vec![40, 40, 40], 100, vec![(2, true), (1, false)]),
            (vec![400, 40], 100, vec![(1, true), (1, false)]),
            (vec![400], 100, vec![(1, false)]),
        ] {
            let split = fragments(
                &m::WatchResponse::default(),
                sizes.iter().map(|size| event(*size)).collect(),
                limit,
            );
            let seen: Vec<_> = split.iter().map(|part| (part.events.len(), part.fragment)).collect();
            assert_eq!(seen, expected, "{sizes:?}");
        }
    }
}
