//! Which revision holds which version of which key: in memory, rebuilt from the log at start.
//!
//! About 140 bytes for a live key with its name, and 16 for each older version still kept.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::{EventKind, StoreError};

/// The revision of an empty store, as in etcd: 0 means "any" in the Kubernetes API.
const FIRST_REVISION: u64 = 1;

/// Keys beyond a range's limit that are counted at most.
const MAX_COUNTED: usize = 10_000;

/// The keys and their versions as of the last durable transaction.
#[derive(Debug)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, Versions>,
    /// Keys that compaction can take something from: those with older versions, and deleted ones.
    dirty: Vec<Arc<str>>,
    revision: u64,
    compacted: u64,
}

/// One version of a key. The revision that wrote it is also its row in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: u64,
    /// 0 for a deletion.
    create_revision: u64,
}

#[derive(Debug)]
struct Versions {
    latest: Version,
    /// Ascending.
    older: Vec<Version>,
}

/// What a range resolves to, before any value is read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: Vec<(Arc<str>, u64)>,
    pub(super) revision: u64,
    pub(super) more: bool,
    /// How many keys lie beyond the limit, unless there are so many that counting would cost too much.
    pub(super) remaining: Option<u64>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { keys: BTreeMap::new(), dirty: Vec::new(), revision: FIRST_REVISION, compacted: 0 }
    }

    /// Takes in the next revision of the log.
    pub(super) fn apply(&mut self, key: &Arc<str>, kind: EventKind, revision: u64, create_revision: u64) {
        let create_revision = if kind == EventKind::Delete { 0 } else { create_revision };
        let version = Version { revision, create_revision };
        self.revision = revision;
        if let Some(versions) = self.keys.get_mut(key) {
            if versions.is_clean() {
                self.dirty.push(Arc::clone(key));
            }
            versions.older.push(versions.latest);
            versions.latest = version;
        } else {
            self.keys.insert(Arc::clone(key), Versions { latest: version, older: Vec::new() });
            if version.is_deletion() {
                self.dirty.push(Arc::clone(key));
            }
        }
    }

    /// Forgets what no read at or above `revision` can see; returns the log's rows that nothing needs any more.
    pub(super) fn compact(&mut self, revision: u64) -> Vec<u64> {
        self.compacted = self.compacted.max(revision);
        let mut garbage = Vec::new();
        let newest = self.revision;
        let keys = &mut self.keys;
        self.dirty.retain(|key| {
            let Some(versions) = keys.get_mut(key) else { return false };
            versions.compact(revision, &mut garbage);
            if versions.older.is_empty()
                && versions.latest.is_deletion()
                && versions.latest.revision <= revision
            {
                // The newest row stays: it carries the store's revision over a restart.
                if versions.latest.revision == newest {
                    return true;
                }
                garbage.push(versions.latest.revision);
                keys.remove(key);
                return false;
            }
            !versions.is_clean()
        });
        self.dirty.shrink_to(64);
        garbage.sort_unstable();
        garbage
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn compacted(&self) -> u64 {
        self.compacted
    }

    /// The latest version of `key`, unless it is deleted.
    pub(super) fn latest(&self, key: &str) -> Option<u64> {
        self.keys.get(key).filter(|versions| !versions.latest.is_deletion()).map(|v| v.latest.revision)
    }

    /// The row that holds `key` as of `revision` (the latest if `None`).
    pub(super) fn find(
        &self,
        key: &str,
        revision: Option<u64>,
    ) -> Result<Option<(Arc<str>, u64)>, StoreError> {
        let at = self.readable(revision)?;
        let found = self.keys.get_key_value(key);
        Ok(found.and_then(|(key, versions)| Some((Arc::clone(key), versions.at(at)?))))
    }

    /// The rows of a range; `limit` 0 means all.
    pub(super) fn range(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
        revision: Option<u64>,
    ) -> Result<Found, StoreError> {
        let at = self.readable(revision)?;
        let mut live = self.live(prefix, start_after, at);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let rows = live.by_ref().take(limit).map(|(key, row)| (Arc::clone(key), row)).collect();
        let beyond = live.take(MAX_COUNTED + 1).count();
        let remaining = (beyond <= MAX_COUNTED).then_some(beyond as u64);
        Ok(Found { rows, revision: at, more: beyond > 0, remaining })
    }

    /// How many keys lie below `prefix` now.
    pub(super) fn count(&self, prefix: &str) -> u64 {
        self.live(prefix, None, self.revision).count() as u64
    }

    fn live<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        at: u64,
    ) -> impl Iterator<Item = (&'a Arc<str>, u64)> {
        let start = match start_after {
            Some(key) if key >= prefix => Bound::Excluded(key),
            _ => Bound::Included(prefix),
        };
        self.keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, versions)| Some((key, versions.at(at)?)))
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
}

impl Version {
    fn is_deletion(self) -> bool {
        self.create_revision == 0
    }
}

impl Versions {
    /// True where compaction has nothing to take.
    fn is_clean(&self) -> bool {
        self.older.is_empty() && !self.latest.is_deletion()
    }

    /// The row that was the key's value at `revision`.
    fn at(&self, revision: u64) -> Option<u64> {
        let version = if self.latest.revision <= revision {
            self.latest
        } else {
            let after = self.older.partition_point(|version| version.revision <= revision);
            *self.older.get(after.checked_sub(1)?)?
        };
        (!version.is_deletion()).then_some(version.revision)
    }

    /// Drops the older versions that a read at `revision` or above cannot see.
    fn compact(&mut self, revision: u64, garbage: &mut Vec<u64>) {
        let seen = self.older.partition_point(|version| version.revision <= revision);
        // Of the versions up to `revision` the last is still visible, unless it is a deletion.
        let visible = self.latest.revision > revision
            && seen.checked_sub(1).is_some_and(|last| !self.older[last].is_deletion());
        let dropped = seen - usize::from(visible);
        garbage.extend(self.older.drain(..dropped).map(|version| version.revision));
        if self.older.is_empty() {
            self.older = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(log: &[(&str, EventKind)]) -> Index {
        let mut index = Index::new();
        for (revision, (key, kind)) in (2..).zip(log) {
            let create_revision = index.latest(key).unwrap_or(revision);
            index.apply(&Arc::from(*key), *kind, revision, create_revision);
        }
        index
    }

    #[test]
    fn compaction_returns_what_no_read_needs() {
        use EventKind::{Delete, Put};
        //                       2           3           4           5              6           7
        let log = [("/a", Put), ("/b", Put), ("/a", Put), ("/b", Delete), ("/a", Put), ("/c", Put)];
        assert_eq!(index(&log).compact(3), [] as [u64; 0]);
        assert_eq!(index(&log).compact(4), [2]);
        assert_eq!(index(&log).compact(5), [2, 3, 5]);
        assert_eq!(index(&log).compact(7), [2, 3, 4, 5]);
        let mut stepwise = index(&log);
        assert_eq!([stepwise.compact(4), stepwise.compact(6)].concat(), [2, 3, 4, 5]);
        assert_eq!(stepwise.find("/a", Some(6)).unwrap(), Some(("/a".into(), 6)));
    }

    #[test]
    fn the_newest_row_outlives_compaction() {
        use EventKind::{Delete, Put};
        let mut index = index(&[("/a", Put), ("/a", Delete)]);
        assert_eq!(index.compact(3), [2]);
        index.apply(&Arc::from("/b"), Put, 4, 4);
        assert_eq!(index.compact(4), [3]);
        assert_eq!(index.count("/"), 1);
    }
}
