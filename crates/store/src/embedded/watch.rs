//! The stream of a watch: reads from the window, or from the log if the window has moved on.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::stream;

use crate::{Event, StoreError, WatchBatch, WatchStream};

use super::Shared;
use super::engine::View;
use super::hub::{CursorStep, Subscription};

/// Limits of one read from the log.
const CATCH_UP_ROWS: usize = 4096;
const CATCH_UP_BYTES: usize = 1 << 20;

struct Cursor {
    shared: Arc<Shared>,
    subscription: Subscription,
    /// The error that ends the stream if the watch cannot start.
    refused: Option<StoreError>,
    ended: bool,
}

/// Watches `prefix` starting at the revision `from`; 0 means after the current revision.
pub(super) fn watch(shared: Arc<Shared>, prefix: &str, from: u64) -> WatchStream {
    let subscription = shared.hub.subscribe(prefix, from);
    let compacted = shared.index.read().compacted();
    let refused = (subscription.next <= compacted).then_some(StoreError::Compacted { compacted });
    let cursor = Cursor { shared, subscription, refused, ended: false };
    Box::pin(stream::unfold(cursor, |mut cursor| async move {
        if cursor.ended {
            return None;
        }
        let item = cursor.advance().await;
        cursor.ended = item.is_err();
        Some((item, cursor))
    }))
}

impl Cursor {
    async fn advance(&mut self) -> Result<WatchBatch, StoreError> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        loop {
            match self.subscription.step() {
                CursorStep::Batch(events, revision) => return Ok(WatchBatch { events, revision }),
                CursorStep::Behind => return self.catch_up().await,
                CursorStep::Wait => self.subscription.wake.notified().await,
                CursorStep::Closed => return Err(StoreError::Closed),
            }
        }
    }

    /// Reads the next batch from the log.
    async fn catch_up(&mut self) -> Result<WatchBatch, StoreError> {
        let prefix = Arc::clone(&self.subscription.prefix);
        let next = self.subscription.next;
        let batch = self.shared.read_blocking(move |shared| history(shared, &prefix, next)).await?;
        self.subscription.next = batch.revision + 1;
        Ok(batch)
    }
}

/// Returns the changes with `prefix` starting at `next`, up to the limits of one read.
fn history(shared: &Shared, prefix: &str, next: u64) -> Result<WatchBatch, StoreError> {
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
pub(super) fn read_log(
    view: &View,
    prefix: &str,
    rows: RangeInclusive<u64>,
) -> Result<WatchBatch, StoreError> {
    let mut batch = WatchBatch { events: Vec::new(), revision: *rows.end() };
    let (mut seen, mut bytes) = (0, 0);
    view.scan(rows, |revision, record, size| {
        seen += 1;
        if record.key.starts_with(prefix) {
            bytes += size;
            let kv = record.to_key_value(revision, Arc::from(record.key));
            batch.events.push(Event { kind: record.kind, kv });
        }
        let more = seen < CATCH_UP_ROWS && bytes < CATCH_UP_BYTES;
        if !more {
            batch.revision = revision;
        }
        Ok(more)
    })?;
    Ok(batch)
}
