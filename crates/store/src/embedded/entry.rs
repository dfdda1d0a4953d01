//! Versions of keys as etcd's API reports them: with their creation, number of writes and lease, which the contract of
//! [`Store`](crate::Store) leaves out.

use std::sync::Arc;

use crate::{Event, EventKind, KeyValue};

/// The creation of a key and the number of its writes since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The revision that created the key; 0 for a delete.
    pub create_revision: u64,
    /// 1 for the creation, plus 1 for each later put; 0 for a delete.
    pub version: u64,
}

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, the value and the revision.
    pub kv: KeyValue,
    /// The creation of the key.
    pub lineage: Lineage,
    /// The lease that deletes the key when it ends; 0 without one.
    pub lease: i64,
}

/// One committed change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEvent {
    /// The kind of change.
    pub kind: EventKind,
    /// The new version. For a delete: the key, an empty value and the revision of the delete.
    pub entry: Entry,
}

/// A set of keys in byte order, as in etcd's API. The bounds need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    start: Vec<u8>,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Only the key `start`.
    Single,
    /// All keys from `start` on.
    Open,
    Before(Vec<u8>),
}

/// The parts of the versions that a query returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Keys and values.
    Full,
    /// Versions with empty values.
    KeysOnly,
    /// Only the number of keys.
    CountOnly,
}

/// A query for the keys of a range, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The keys.
    pub range: KeyRange,
    /// Revision to read at; the latest if `None`.
    pub revision: Option<u64>,
    /// Maximum number of entries; 0 means no limit.
    pub limit: usize,
    /// The parts to return.
    pub content: Content,
}

/// The result of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The versions in key order.
    pub entries: Vec<Entry>,
    /// Number of keys in the range, regardless of the limit.
    pub count: u64,
    /// The store's latest revision at the time of the query.
    pub revision: u64,
}

impl Lineage {
    pub(super) fn created_at(revision: u64) -> Self {
        Self { create_revision: revision, version: 1 }
    }

    /// Returns the lineage of a put at `revision` over the previous version.
    pub(super) fn after(previous: Option<Self>, revision: u64) -> Self {
        previous.map_or_else(
            || Self::created_at(revision),
            |previous| Self { version: previous.version.saturating_add(1), ..previous },
        )
    }
}

impl EntryEvent {
    pub(super) fn into_event(self) -> Event {
        Event { kind: self.kind, kv: self.entry.kv }
    }
}

impl KeyRange {
    /// Returns the keys from `key` to before `end`. An empty `end` selects only `key`, and `\0` all keys from `key` on.
    pub fn new(key: &[u8], end: &[u8]) -> Self {
        let end = match end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end.to_vec()),
        };
        Self { start: key.to_vec(), end }
    }

    /// Returns whether the range has this key.
    pub fn contains(&self, key: &str) -> bool {
        let key = key.as_bytes();
        match &self.end {
            End::Single => key == self.start,
            _ => key >= self.start.as_slice() && !self.is_past(key),
        }
    }

    /// Returns whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.start)
    }

    /// Returns the single key of the range; `None` for a range of several keys, or for a key that is not UTF-8.
    pub(super) fn single(&self) -> Option<&str> {
        std::str::from_utf8(&self.start).ok().filter(|_| self.end == End::Single)
    }

    /// Returns the longest text that all keys of the range begin with.
    pub(super) fn common_prefix(&self) -> Arc<str> {
        let shared = match &self.end {
            End::Single => self.start.as_slice(),
            End::Open => &[],
            End::Before(end) => {
                let length = self.start.iter().zip(end).take_while(|(one, other)| one == other).count();
                // The range of a prefix ends at its successor, which differs in the last byte.
                let is_prefix = end.len() == self.start.len()
                    && length + 1 == end.len()
                    && self.start.get(length).and_then(|byte| byte.checked_add(1))
                        == end.get(length).copied();
                if is_prefix { self.start.as_slice() } else { self.start.get(..length).unwrap_or_default() }
            }
        };
        valid_start(shared).into()
    }

    /// Returns the text at which to start a search; keys before `start` may follow it.
    pub(super) fn seek(&self) -> &str {
        valid_start(&self.start)
    }

    pub(super) fn is_before(&self, key: &str) -> bool {
        key.as_bytes() < self.start.as_slice()
    }

    pub(super) fn is_past(&self, key: impl AsRef<[u8]>) -> bool {
        match &self.end {
            End::Single => key.as_ref() > self.start.as_slice(),
            End::Open => false,
            End::Before(end) => key.as_ref() >= end.as_slice(),
        }
    }
}

/// Returns the part of `bytes` that is UTF-8 from the start.
fn valid_start(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => bytes
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_etcd_selects() {
        let keys = ["", "/a", "/a/", "/a/1", "/a/é", "/a0", "/b", "z"];
        for (start, end, selected, prefix) in [
            (&b"/a"[..], &b""[..], vec!["/a"], "/a"),
            (b"/a/", b"/a0", vec!["/a/", "/a/1", "/a/é"], "/a/"),
            (b"/a", b"/b", vec!["/a", "/a/", "/a/1", "/a/é", "/a0"], "/a"),
            (b"/a/", b"/b", vec!["/a/", "/a/1", "/a/é", "/a0"], "/"),
            (b"/a0", b"\0", vec!["/a0", "/b", "z"], ""),
            (b"\0", b"\0", vec!["/a", "/a/", "/a/1", "/a/é", "/a0", "/b", "z"], ""),
            (b"/a/\xc3", b"/a/\xc4", vec!["/a/é"], "/a/"),
            (b"/b", b"/a", vec![], "/"),
        ] {
            let range = KeyRange::new(start, end);
            let found: Vec<_> = keys.iter().copied().filter(|key| range.contains(key)).collect();
            assert_eq!(found, selected, "{start:?} to {end:?}");
            assert_eq!(&*range.common_prefix(), prefix, "{start:?} to {end:?}");
            assert_eq!(range.is_empty(), start == b"/b");
        }
    }
}
