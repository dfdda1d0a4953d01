//! Versions written by this server.
//!
//! Both the response to a write and the watch cache need the JSON of the version. It is made from the object that is
//! written, before the store knows its revision, and then used for stored bytes that are equal to the written ones.
//! Decoding these bytes would cost three times as much. Tests compare both for all kinds, and builds with debug
//! assertions for every write.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use nave_cacher::{DecodedObject, SelectableAttributes};
use nave_store::KeyValue;

/// The JSON of an object whose revision is not known yet.
pub(super) struct Unversioned {
    /// The JSON without the digits of the resourceVersion.
    pub json: Vec<u8>,
    /// Position of the missing digits.
    pub version_at: usize,
    /// The values that selectors use.
    pub attributes: SelectableAttributes,
}

impl Unversioned {
    /// Inserts the revision.
    pub(super) fn at_revision(self, revision: u64) -> DecodedObject {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(revision).as_bytes();
        let (head, tail) = self.json.split_at_checked(self.version_at).unwrap_or((&self.json, &[]));
        let json = [head, digits, tail].concat();
        DecodedObject { json: json.into(), version_at: self.version_at, attributes: self.attributes }
    }
}

/// Versions of one resource that this server is writing, or that wait for their second reader.
#[derive(Default)]
pub(super) struct WrittenVersions {
    /// The number of writes whose responses are not yet encoded.
    writes: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// The writes in progress by key, with the bytes that they write.
    prepared: HashMap<Arc<str>, Vec<(Bytes, Unversioned)>>,
    /// Decoded versions by revision; each revision writes one key.
    versions: HashMap<u64, (Arc<str>, DecodedObject)>,
    /// Total length of the JSON of `versions`.
    bytes: usize,
}

impl WrittenVersions {
    /// Registers a write of `value`, and its JSON if there is one. Versions are kept until the guard is dropped.
    pub(super) fn begin(
        self: &Arc<Self>,
        key: &Arc<str>,
        value: &Bytes,
        prepared: Option<Unversioned>,
    ) -> WriteGuard {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let prepares = prepared.is_some();
        if let Some(prepared) = prepared {
            self.waiting().prepared.entry(Arc::clone(key)).or_default().push((value.clone(), prepared));
        }
        WriteGuard {
            versions: Arc::clone(self),
            prepared: prepares.then(|| (Arc::clone(key), value.clone())),
        }
    }

    /// Takes the version for its second reader, or for its first reader if its JSON was prepared.
    pub(super) fn take(&self, kv: &KeyValue) -> Taken {
        if self.writes.load(Ordering::Relaxed) == 0 {
            return Taken::Nothing;
        }
        let mut waiting = self.waiting();
        match waiting.versions.remove(&kv.mod_revision) {
            Some((key, decoded)) => {
                waiting.bytes -= decoded.json.len();
                if key == kv.key { Taken::Decoded(decoded) } else { Taken::Nothing }
            }
            None => waiting.take_prepared(&kv.key, &kv.value).map_or(Taken::Nothing, Taken::Prepared),
        }
    }

    /// Keeps a version for the second reader, if a write is in progress and there is room.
    pub(super) fn leave(&self, kv: &KeyValue, decoded: &DecodedObject) {
        if self.writes.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut waiting = self.waiting();
        let bytes = waiting.bytes + decoded.json.len();
        if bytes <= MAX_BYTES && !waiting.versions.contains_key(&kv.mod_revision) {
            waiting.versions.insert(kv.mod_revision, (Arc::clone(&kv.key), decoded.clone()));
            waiting.bytes = bytes;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Poisoning is ignored: a panic cannot leave the map inconsistent.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take_prepared(&mut self, key: &Arc<str>, value: &Bytes) -> Option<Unversioned> {
        let of_key = self.prepared.get_mut(key)?;
        let at = of_key.iter().position(|(written, _)| written == value)?;
        let (_, prepared) = of_key.swap_remove(at);
        if of_key.is_empty() {
            self.prepared.remove(key);
        }
        Some(prepared)
    }
}

/// The result of [`WrittenVersions::take`].
pub(super) enum Taken {
    /// The version must be decoded.
    Nothing,
    /// The caller is the second reader.
    Decoded(DecodedObject),
    /// The caller is the first reader.
    Prepared(Unversioned),
}

/// A write whose response is not yet encoded.
pub(super) struct WriteGuard {
    versions: Arc<WrittenVersions>,
    /// The key and the bytes of a write with prepared JSON.
    prepared: Option<(Arc<str>, Bytes)>,
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if let Some((key, value)) = &self.prepared {
            // Usually a reader has taken it.
            self.versions.waiting().take_prepared(key, value);
        }
        if self.versions.writes.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The remaining versions have only one reader, such as those written by other servers.
            *self.versions.waiting() = Waiting::default();
        }
    }
}

/// Maximum total size of the waiting JSON of a resource, in bytes.
const MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn version(revision: u64, json: &str) -> (KeyValue, DecodedObject) {
        let kv = KeyValue { key: "/registry/a".into(), value: "v".into(), mod_revision: revision };
        let attributes = SelectableAttributes::default();
        (kv, DecodedObject { json: json.to_owned().into(), version_at: 0, attributes })
    }

    fn begin(versions: &Arc<WrittenVersions>, kv: &KeyValue, json: Option<&str>) -> WriteGuard {
        let prepared = json.map(|json| Unversioned {
            json: json.into(),
            version_at: 1,
            attributes: SelectableAttributes::default(),
        });
        versions.begin(&kv.key, &kv.value, prepared)
    }

    fn taken(versions: &WrittenVersions, kv: &KeyValue) -> Option<Bytes> {
        match versions.take(kv) {
            Taken::Nothing => None,
            Taken::Decoded(decoded) => Some(decoded.json),
            Taken::Prepared(prepared) => Some(prepared.at_revision(kv.mod_revision).json),
        }
    }

    #[test]
    fn second_reader_takes_the_version_once() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, decoded) = version(7, "{}");
        let _write = begin(&versions, &kv, None);
        assert_eq!(taken(&versions, &kv), None);
        versions.leave(&kv, &decoded);
        assert_eq!(taken(&versions, &KeyValue { mod_revision: 8, ..kv.clone() }), None);
        assert_eq!(taken(&versions, &kv), Some("{}".into()));
        assert_eq!(taken(&versions, &kv), None);
        assert_eq!(versions.waiting().bytes, 0);
    }

    #[test]
    fn first_reader_takes_prepared_json_of_the_same_bytes() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, _) = version(7, "{}");
        let write = begin(&versions, &kv, Some("()"));
        let other = begin(&versions, &KeyValue { value: "w".into(), ..kv.clone() }, Some("[]"));
        assert_eq!(taken(&versions, &KeyValue { value: "x".into(), ..kv.clone() }), None);
        assert_eq!(taken(&versions, &KeyValue { key: "/registry/b".into(), ..kv.clone() }), None);
        assert_eq!(taken(&versions, &kv), Some("(7)".into()));
        assert_eq!(taken(&versions, &kv), None);
        drop(write);
        assert_eq!(taken(&versions, &KeyValue { value: "w".into(), ..kv.clone() }), Some("[7]".into()));
        drop(other);
        assert!(versions.waiting().prepared.is_empty());
    }

    #[test]
    fn failed_writes_leave_nothing() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, _) = version(7, "{}");
        let _other = begin(&versions, &kv, None);
        drop(begin(&versions, &kv, Some("()")));
        assert!(versions.waiting().prepared.is_empty());
        assert_eq!(taken(&versions, &kv), None);
    }

    #[test]
    fn version_of_another_key_is_not_returned() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, decoded) = version(7, "{}");
        let _write = begin(&versions, &kv, None);
        versions.leave(&kv, &decoded);
        assert_eq!(taken(&versions, &KeyValue { key: "/registry/b".into(), ..kv }), None);
    }

    #[test]
    fn keeps_nothing_without_a_write_and_nothing_beyond_the_bound() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, decoded) = version(7, "{}");
        versions.leave(&kv, &decoded);
        assert!(versions.waiting().versions.is_empty());

        let first = begin(&versions, &kv, None);
        let second = begin(&versions, &kv, None);
        let (large_kv, large) = version(8, &"x".repeat(MAX_BYTES - 1));
        versions.leave(&large_kv, &large);
        versions.leave(&kv, &decoded);
        assert_eq!(versions.waiting().versions.len(), 1);
        drop(first);
        assert_eq!(versions.waiting().versions.len(), 1);
        drop(second);
        assert!(versions.waiting().versions.is_empty());
        assert_eq!(versions.waiting().bytes, 0);
    }
}
