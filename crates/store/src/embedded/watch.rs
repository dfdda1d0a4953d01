//! The stream of a watch: reads from the window, or from the log if the window has moved on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::stream;

use crate::{StoreError, WatchBatch, WatchStream};

use super::entry::{Entry, EntryEvent, KeyRange};
use super::hub::{CursorStep, Subscription};
use super::view::View;
use super::{INLINE_VALUES, Shared};

/// Limits of one read from the log, which ends with a whole revision.
const CATCH_UP_ROWS: usize = 4096;
const CATCH_UP_BYTES: usize = 1 << 20;

/// A step of a cursor: changes in order, complete up to the revision.
pub(super) struct Step {
    pub(super) events: Vec<EntryEvent>,
    pub(super) revision: u64,
}

struct Cursor {
    shared: Arc<Shared>,
    subscription: Subscription,
    /// The error that ends the stream if the watch cannot start.
    refused: Option<StoreError>,
    ended: bool,
}

/// Watches `prefix` starting at the revision `from`; 0 means after the current revision.
pub(super) fn watch(shared: Arc<Shared>, prefix: &str, from: u64) -> WatchStream {
    let cursor = Cursor::new(shared, prefix, from);
    Box::pin(stream::unfold(cursor, |mut cursor| async move {
        let item = cursor.next().await?;
        let item = item.map(|Step { events, revision }| {
            let events = events.into_iter().map(EntryEvent::into_event).collect();
            WatchBatch { events, revision }
        });
        Some((item, cursor))
    }))
}

/// A watch of a range of keys with all that etcd's API reports.
pub struct EntryWatch {
    cursor: Cursor,
    range: KeyRange,
    with_previous: bool,
}

/// A batch of an [`EntryWatch`].
#[derive(Debug)]
pub struct EntryBatch {
    /// Changes in revision order, each with the version before it if that is requested and readable; empty for a
    /// progress notification.
    pub events: Vec<(EntryEvent, Option<Entry>)>,
    /// Every event of the range up to and including this revision has been delivered.
    pub revision: u64,
}

impl EntryWatch {
    /// Watches `range` starting at the revision `from`; 0 means after the current revision.
    pub(super) fn new(shared: Arc<Shared>, range: KeyRange, from: u64, with_previous: bool) -> Self {
        let cursor = Cursor::new(shared, &range.common_prefix(), from);
        Self { cursor, range, with_previous }
    }

    /// Returns the next batch. An error is the last one. Dropping the future loses events.
    pub async fn next(&mut self) -> Option<Result<EntryBatch, StoreError>> {
        let Step { events, revision } = match self.cursor.next().await? {
            Ok(step) => step,
            Err(error) => return Some(Err(error)),
        };
        let range = &self.range;
        let events: Vec<_> = events.into_iter().filter(|event| range.contains(&event.entry.kv.key)).collect();
        if !self.with_previous || events.is_empty() {
            let events = events.into_iter().map(|event| (event, None)).collect();
            return Some(Ok(EntryBatch { events, revision }));
        }
        let (shared, ended) = (&self.cursor.shared, &mut self.cursor.ended);
        let read = if events.len() <= INLINE_VALUES {
            with_previous(shared, &events)
        } else {
            let events = events.clone();
            shared.read_blocking(move |shared| with_previous(shared, &events)).await
        };
        *ended = read.is_err();
        Some(read.map(|previous| EntryBatch { events: events.into_iter().zip(previous).collect(), revision }))
    }
}

/// Returns the versions before the events; `None` for a creation or a compacted version.
fn with_previous(shared: &Shared, events: &[EntryEvent]) -> Result<Vec<Option<Entry>>, StoreError> {
    let (rows, view): (Vec<_>, _) = {
        let index = shared.index.read();
        let previous = |event: &EntryEvent| {
            let kv = &event.entry.kv;
            index.find(&kv.key, Some(kv.mod_revision.saturating_sub(1))).ok().flatten()
        };
        let rows = events.iter().map(previous).collect();
        // The view is opened while the index is locked, so that compaction does not remove its rows.
        (rows, shared.engine.view()?)
    };
    rows.into_iter().map(|row| row.map(|(key, row)| view.entry(&key, row)).transpose()).collect()
}

impl Cursor {
    fn new(shared: Arc<Shared>, prefix: &str, from: u64) -> Self {
        let subscription = shared.hub.subscribe(prefix, from);
        let compacted = shared.index.read().compacted();
        let refused = (subscription.next <= compacted).then_some(StoreError::Compacted { compacted });
        Self { shared, subscription, refused, ended: false }
    }

    async fn next(&mut self) -> Option<Result<Step, StoreError>> {
        if self.ended {
            return None;
        }
        let step = self.advance().await;
        self.ended = step.is_err();
        Some(step)
    }

    async fn advance(&mut self) -> Result<Step, StoreError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        loop {
            match self.subscription.step() {
                CursorStep::Batch(events, revision) => return Ok(Step { events, revision }),
                CursorStep::Behind => return self.catch_up().await,
                CursorStep::Wait => self.subscription.wake.notified().await,
                CursorStep::Closed => return Err(StoreError::Closed),
            }
        }
    }

    /// Reads the next batch from the log.
    async fn catch_up(&mut self) -> Result<Step, StoreError> {
        let prefix = Arc::clone(&self.subscription.prefix);
        let next = self.subscription.next;
        let batch = self.shared.read_blocking(move |shared| history(shared, &prefix, next)).await?;
        self.subscription.next = batch.revision + 1;
        Ok(batch)
    }
}

/// Returns the changes with `prefix` starting at `next`, up to the limits of one read.
fn history(shared: &Shared, prefix: &str, next: u64) -> Result<Step, StoreError> {
    let index = shared.index.read();
    if next <= index.compacted() {
        return Err(StoreError::Compacted { compacted: index.compacted() });
    }
    let newest = index.revision();
    // The view is opened while the index is locked, so it contains everything in the index.
    let view = shared.engine.view()?;
    drop(index);
    read_log(&view, prefix, next..=newest)
}

/// Returns the events with `prefix` in the given rows of the log, up to the limits of one read.
pub(super) fn read_log(view: &View, prefix: &str, rows: RangeInclusive<u64>) -> Result<Step, StoreError> {
    let mut batch = Step { events: Vec::new(), revision: *rows.end() };
    let (mut seen, mut bytes, mut last) = (0, 0, 0);
    view.scan(rows, |position, record, size| {
        let revision = position.revision();
        if (seen >= CATCH_UP_ROWS || bytes >= CATCH_UP_BYTES) && revision > last {
            batch.revision = last;
            return Ok(false);
        }
        (seen, last) = (seen + 1, revision);
        if record.key.starts_with(prefix) {
            bytes += size;
            let entry = record.to_entry(revision, Arc::from(record.key));
            batch.events.push(EntryEvent { kind: record.kind, entry });
        }
        Ok(true)
    })?;
    Ok(batch)
}
