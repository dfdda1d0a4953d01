//! Reads of the latest or an older state: rows are chosen in the index and read from the file.

use std::sync::Arc;
use std::time::Duration;

use crate::{KeyValue, Range, RangeResult, StoreError};

use super::Shared;
use super::entry::{Content, Entry, Found, Query};
use super::index::SelectedRows;
use super::position::Position;
use super::record::Record;
use super::view::View;

impl Shared {
    pub(super) fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        let index = self.index.read();
        let Some((key, row)) = index.find(key, revision)? else { return Ok(None) };
        let view = self.engine.view()?;
        drop(index);
        view.key_value(&key, row).map(Some)
    }

    pub(super) async fn range(self: &Arc<Self>, range: Range) -> Result<RangeResult, StoreError> {
        if range.limit > 0 && range.limit <= INLINE_VALUES {
            return retrying(|| self.read_range(&range)).await;
        }
        self.read_blocking(move |shared| shared.read_range(&range)).await
    }

    fn read_range(&self, range: &Range) -> Result<RangeResult, StoreError> {
        let index = self.index.read();
        let found = index.range(&range.prefix, range.start_after.as_deref(), range.limit, range.revision)?;
        // The view is opened while the index is locked. Compaction cannot remove rows from an open view.
        let view = self.engine.view()?;
        drop(index);
        Ok(RangeResult {
            items: read_rows(&view, &found.rows, |record: Record<'_>, revision, key| {
                record.to_key_value(revision, key)
            })?,
            revision: found.revision,
            more: found.more,
            remaining: found.remaining,
        })
    }

    pub(super) fn query(&self, query: &Query) -> Result<Found, StoreError> {
        let limit = match (query.content, query.limit) {
            (Content::CountOnly, _) => 0,
            (_, 0) => usize::MAX,
            (_, limit) => limit,
        };
        let index = self.index.read();
        let SelectedRows { rows, count } = index.select(&query.range, limit, query.revision)?;
        let revision = index.revision();
        let view = self.engine.view()?;
        drop(index);
        let read: fn(Record<'_>, u64, Arc<str>) -> Entry = match query.content {
            Content::Full => |record, revision, key| record.to_entry(revision, key),
            Content::KeysOnly | Content::CountOnly => {
                |record, revision, key| Record { value: &[], ..record }.to_entry(revision, key)
            }
        };
        Ok(Found { entries: read_rows(&view, &rows, read)?, count, revision })
    }

    /// Runs a long read on a blocking thread.
    pub(super) async fn read_blocking<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl Fn(&Shared) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let read = Arc::new(read);
        for _ in 0..RECOVERY_TRIES {
            let (shared, read) = (Arc::clone(self), Arc::clone(&read));
            let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let blocking = move || {
                // The permit is released when the read ends, even if the caller has stopped waiting.
                let _permit = permit;
                read(&shared)
            };
            let done = tokio::task::spawn_blocking(blocking).await;
            match done.map_err(|error| StoreError::from(std::io::Error::other(error)))? {
                Err(StoreError::Recovering) => tokio::time::sleep(RECOVERY_PAUSE).await,
                done => return done,
            }
        }
        Err(StoreError::Recovering)
    }
}

/// Reads rows in disk order and returns them in the requested order.
fn read_rows<T>(
    view: &View,
    rows: &[(Arc<str>, Position)],
    read_row: impl Fn(Record<'_>, u64, Arc<str>) -> T,
) -> Result<Vec<T>, StoreError> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|&position| rows[position].1);
    let (Some(&first), Some(&last)) = (order.first(), order.last()) else { return Ok(Vec::new()) };
    let span = rows[first].1.revision()..=rows[last].1.revision();
    let mut read = Vec::with_capacity(rows.len());
    if rows.len() > INLINE_VALUES && (span.end() - span.start()) / SPARSE < rows.len() as u64 {
        let mut wanted = order.iter().peekable();
        view.scan(span, |at, record, _| {
            if let Some(position) = wanted.next_if(|&&position| rows[position].1 == at) {
                read.push((*position, read_row(record, at.revision(), Arc::clone(&rows[*position].0))));
            }
            Ok(true)
        })?;
    } else {
        for position in order {
            let (key, row) = &rows[position];
            let item = view.row(*row, key, |record| read_row(record, row.revision(), Arc::clone(key)))?;
            read.push((position, item));
        }
    }
    if read.len() < rows.len() {
        return Err(StoreError::Corrupt("revisions of a range are missing".into()));
    }
    read.sort_unstable_by_key(|(position, _)| *position);
    Ok(read.into_iter().map(|(_, item)| item).collect())
}

/// Retries a short read while the writer reopens the file.
pub(super) async fn retrying<T>(read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..RECOVERY_TRIES {
        match read() {
            Err(StoreError::Recovering) => tokio::time::sleep(RECOVERY_PAUSE).await,
            done => return done,
        }
    }
    Err(StoreError::Recovering)
}

/// Maximum number of values read on the caller's thread; larger reads run on a blocking thread.
pub(super) const INLINE_VALUES: usize = 16;
/// A range is read by scanning the log if at least one in `SPARSE` scanned rows belongs to it; otherwise its rows are
/// read one by one.
const SPARSE: u64 = 4;
/// Number of retries of a read while the file is reopened after a failed write.
const RECOVERY_TRIES: u32 = 100;
const RECOVERY_PAUSE: Duration = Duration::from_millis(50);
