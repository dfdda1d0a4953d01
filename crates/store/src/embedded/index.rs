//! In-memory index of keys and revisions, rebuilt from the log at start.
//!
//! ```text
//! keys        key → its latest version        about 126 bytes per key, including its text
//! superseded  position → previous version     16 bytes per retained record that replaced or deleted a key
//! deletions   position and key                24 bytes per retained deletion
//! ```
//! A read at an old revision follows the versions of a key backwards from the latest one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::{EventKind, StoreError};

use super::entry::{KeyRange, Lineage};
use super::position::Position;

/// The revision of an empty store, as in etcd: 0 means "any" in the Kubernetes API.
const FIRST_REVISION: u64 = 1;

/// Maximum number of keys to count beyond a range's limit.
const MAX_COUNTED: usize = 10_000;

/// Minimum capacity of a trimmed queue.
const MIN_CAPACITY: usize = 64;

/// The keys and their versions as of the last durable transaction.
#[derive(Debug)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, Latest>,
    /// Sorted by position, starting after the compacted revision.
    superseded: VecDeque<Superseded>,
    /// Sorted by position. The keys stay in `keys` until their deletion is compacted.
    deletions: VecDeque<(Position, Arc<str>)>,
    revision: u64,
    compacted: u64,
}

/// The latest version of a key.
#[derive(Clone, Copy, Debug)]
struct Latest {
    version: Version,
    lineage: Lineage,
}

/// A version of a key, packed into one word: the position of its row in the log, and a bit for deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version(u64);

/// The version that a record replaced.
#[derive(Clone, Copy, Debug)]
struct Superseded {
    by: Position,
    previous: Version,
}

/// The rows of a range, before their values are read.
#[derive(Debug, Default)]
pub(super) struct RangeRows {
    pub(super) rows: Vec<(Arc<str>, Position)>,
    pub(super) revision: u64,
    pub(super) more: bool,
    /// Number of keys beyond the limit; `None` if the number exceeds [`MAX_COUNTED`].
    pub(super) remaining: Option<u64>,
}

/// The rows of a range of keys, before their values are read.
#[derive(Debug, Default)]
pub(super) struct SelectedRows {
    pub(super) rows: Vec<(Arc<str>, Position)>,
    /// Number of keys in the range, regardless of the limit.
    pub(super) count: u64,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            superseded: VecDeque::new(),
            deletions: VecDeque::new(),
            revision: FIRST_REVISION,
            compacted: 0,
        }
    }

    /// Applies the next record of the log.
    pub(super) fn apply(&mut self, key: &Arc<str>, kind: EventKind, position: Position, lineage: Lineage) {
        let version = Version::new(position, kind);
        self.revision = position.revision();
        if let Some(latest) = self.keys.get_mut(key) {
            let previous = std::mem::replace(latest, Latest { version, lineage }).version;
            self.superseded.push_back(Superseded { by: position, previous });
        } else {
            self.keys.insert(Arc::clone(key), Latest { version, lineage });
        }
        if kind == EventKind::Delete {
            self.deletions.push_back((position, Arc::clone(key)));
        }
    }

    /// Drops versions that are invisible to reads at or above `revision`. Returns the rows of the log that are no
    /// longer needed.
    pub(super) fn compact(&mut self, revision: u64) -> Vec<Position> {
        self.compacted = self.compacted.max(revision);
        let mut obsolete = Vec::new();
        while let Some(superseded) = self.superseded.pop_front_if(|it| it.by.revision() <= revision) {
            // A previous version that is a deletion has no row here. `deletions` holds the rows of deletions.
            obsolete.extend(superseded.previous.row());
        }
        // Keeps the rows of the newest revision, which preserve the store's revision across a restart.
        let upto = revision.min(self.revision - 1);
        while let Some((deletion, key)) = self.deletions.pop_front_if(|(it, _)| it.revision() <= upto) {
            obsolete.push(deletion);
            if self.keys.get(&key).is_some_and(|latest| latest.version.position() == deletion) {
                self.keys.remove(&key);
            }
        }
        trim(&mut self.superseded);
        trim(&mut self.deletions);
        obsolete.sort_unstable();
        obsolete
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Returns the row of the latest version of `key`, unless it is deleted.
    pub(super) fn latest(&self, key: &str) -> Option<Position> {
        self.keys.get(key)?.version.row()
    }

    /// Returns the revision of the latest version of `key` and its lineage, unless it is deleted.
    pub(super) fn current(&self, key: &str) -> Option<(u64, Lineage)> {
        let latest = self.keys.get(key)?;
        Some((latest.version.row()?.revision(), latest.lineage))
    }

    /// Returns the rows of a range of keys at `revision`, at most `limit`, and the number of keys in the range.
    pub(super) fn select(
        &self,
        range: &KeyRange,
        limit: usize,
        revision: Option<u64>,
    ) -> Result<SelectedRows, StoreError> {
        let at = self.readable(revision)?;
        if let Some(key) = range.single() {
            let row = self.keys.get_key_value(key);
            let row = row.and_then(|(key, latest)| Some((Arc::clone(key), self.row_at(latest.version, at)?)));
            let count = u64::from(row.is_some());
            return Ok(SelectedRows { rows: row.into_iter().take(limit).collect(), count });
        }
        let mut live = self.live_in(range, at);
        let rows: Vec<_> = live.by_ref().take(limit).map(|(key, row)| (Arc::clone(key), row)).collect();
        let count = (rows.len() + live.count()) as u64;
        Ok(SelectedRows { rows, count })
    }

    /// Returns the keys of a range, in order, at most `limit`.
    pub(super) fn keys(&self, range: &KeyRange, limit: usize) -> Vec<Arc<str>> {
        if let Some(key) = range.single() {
            let live = self.keys.get_key_value(key).filter(|(_, latest)| !latest.version.is_deletion());
            return live.into_iter().take(limit).map(|(key, _)| Arc::clone(key)).collect();
        }
        self.live_in(range, self.revision).take(limit).map(|(key, _)| Arc::clone(key)).collect()
    }

    /// Returns the row of `key` as of `revision` (the latest if `None`).
    pub(super) fn find(
        &self,
        key: &str,
        revision: Option<u64>,
    ) -> Result<Option<(Arc<str>, Position)>, StoreError> {
        let at = self.readable(revision)?;
        let found = self.keys.get_key_value(key);
        Ok(found.and_then(|(key, latest)| Some((Arc::clone(key), self.row_at(latest.version, at)?))))
    }

    /// Returns the rows of a range; `limit` 0 means no limit.
    pub(super) fn range(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        revision: Option<u64>,
    ) -> Result<RangeRows, StoreError> {
        let at = self.readable(revision)?;
        let mut live = self.live(prefix, start_after, at);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let rows = live.by_ref().take(limit).map(|(key, row)| (Arc::clone(key), row)).collect();
        let beyond = live.take(MAX_COUNTED + 1).count();
        let remaining = (beyond <= MAX_COUNTED).then_some(beyond as u64);
        Ok(RangeRows { rows, revision: at, more: beyond > 0, remaining })
    }

    /// Returns the number of live keys with `prefix`.
    pub(super) fn count(&self, prefix: &str) -> u64 {
        self.live(prefix, None, self.revision).count() as u64
    }

    fn live_in<'a>(&'a self, range: &'a KeyRange, at: u64) -> impl Iterator<Item = (&'a Arc<str>, Position)> {
        self.keys
            .range::<str, _>((Bound::Included(range.seek()), Bound::Unbounded))
            .skip_while(|(key, _)| range.is_before(key))
            .take_while(|(key, _)| !range.is_past(key.as_bytes()))
            .filter_map(move |(key, latest)| Some((key, self.row_at(latest.version, at)?)))
    }

    fn live<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        at: u64,
    ) -> impl Iterator<Item = (&'a Arc<str>, Position)> {
        let start = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        self.keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, latest)| Some((key, self.row_at(latest.version, at)?)))
    }

    fn readable(&self, revision: Option<u64>) -> Result<u64, StoreError> {
        let revision = revision.unwrap_or(self.revision);
        if revision < self.compacted {
            return Err(StoreError::Compacted { compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::FutureRevision { requested: revision, current: self.revision });
        }
        Ok(revision)
    }

    /// Returns the row of the value a key had at `revision`, starting from its `latest` version.
    fn row_at(&self, latest: Version, revision: u64) -> Option<Position> {
        let mut version = latest;
        while version.position().revision() > revision {
            let found = self.superseded.binary_search_by_key(&version.position(), |it| it.by).ok()?;
            version = self.superseded.get(found)?.previous;
        }
        version.row()
    }
}

impl Version {
    fn new(position: Position, kind: EventKind) -> Self {
        Self(position.packed() << 1 | u64::from(kind == EventKind::Delete))
    }

    fn position(self) -> Position {
        Position::unpack(self.0 >> 1)
    }

    fn is_deletion(self) -> bool {
        self.0 & 1 == 1
    }

    /// Returns the row of the value; `None` for a deletion.
    fn row(self) -> Option<Position> {
        (!self.is_deletion()).then_some(self.position())
    }
}

/// Releases excess capacity left by a burst.
fn trim<T>(queue: &mut VecDeque<T>) {
    queue.shrink_to((queue.len() * 2).max(MIN_CAPACITY));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(log: &[(&str, EventKind)]) -> Index {
        let mut index = Index::new();
        for (revision, (key, kind)) in (2..).zip(log) {
            index.apply(&Arc::from(*key), *kind, Position::first(revision), Lineage::default());
        }
        index
    }

    #[test]
    fn compaction_returns_unreadable_rows() {
        use EventKind::{Delete, Put};
        //                       2           3           4           5              6           7
        let log = [("/a", Put), ("/b", Put), ("/a", Put), ("/b", Delete), ("/a", Put), ("/c", Put)];
        assert_eq!(index(&log).compact(3), [] as [Position; 0]);
        assert_eq!(index(&log).compact(4), [2].map(Position::first));
        assert_eq!(index(&log).compact(5), [2, 3, 5].map(Position::first));
        assert_eq!(index(&log).compact(7), [2, 3, 4, 5].map(Position::first));
        let mut stepwise = index(&log);
        let obsolete = [stepwise.compact(4), stepwise.compact(6)].concat();
        assert_eq!(obsolete, [2, 3, 4, 5].map(Position::first));
        assert_eq!(stepwise.find("/a", Some(6)).unwrap(), Some(("/a".into(), Position::first(6))));
    }

    #[test]
    fn reads_revisions_that_are_not_compacted() {
        use EventKind::{Delete, Put};
        //              2           3              4           5           6
        let log = [("/a", Put), ("/a", Delete), ("/b", Put), ("/a", Put), ("/a", Put)];
        let states = [None, Some(2), None, None, Some(5), Some(6)];
        for compacted in 0..=6 {
            let mut index = index(&log);
            index.compact(compacted);
            for (revision, row) in (1..).zip(states).filter(|(revision, _)| *revision >= compacted) {
                let found = index.find("/a", Some(revision)).unwrap().map(|(_, row)| row.revision());
                assert_eq!(found, row, "at {revision}, compacted at {compacted}");
            }
        }
    }

    #[test]
    fn compaction_keeps_the_newest_row() {
        use EventKind::{Delete, Put};
        let mut index = index(&[("/a", Put), ("/a", Delete)]);
        assert_eq!(index.compact(3), [2].map(Position::first));
        index.apply(&Arc::from("/b"), Put, Position::first(4), Lineage::default());
        assert_eq!(index.compact(4), [3].map(Position::first));
        assert_eq!(index.count("/"), 1);
    }

    #[test]
    fn records_of_one_revision_are_compacted_together() {
        use EventKind::{Delete, Put};
        let (mut index, part) = (Index::new(), Position::new);
        for (key, kind, position) in [
            ("/a", Put, part(2, 0)),
            ("/b", Put, part(2, 1)),
            ("/c", Put, part(2, 2)),
            ("/b", Delete, part(3, 0)),
            ("/a", Put, part(3, 1)),
        ] {
            index.apply(&Arc::from(key), kind, position, Lineage::default());
        }
        let rows_at = |revision| {
            let found = index.range("/", None, 0, Some(revision)).unwrap();
            found.rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>()
        };
        assert_eq!(rows_at(2), [part(2, 0), part(2, 1), part(2, 2)]);
        assert_eq!(rows_at(3), [part(3, 1), part(2, 2)]);
        assert_eq!(index.compact(2), []);
        assert_eq!(index.compact(3), [part(2, 0), part(2, 1)], "the deletion is of the newest revision");
        index.apply(&Arc::from("/d"), Put, part(4, 0), Lineage::default());
        assert_eq!(index.compact(4), [part(3, 0)]);
    }
}
