//! Versions recently written by this server, decoded once.
//!
//! Both the response to a write and the watch cache need the JSON of the version. The first reader decodes the stored
//! bytes and keeps the result for the second one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nave_cacher::DecodedObject;
use nave_store::KeyValue;

/// Decoded versions of one resource that wait for the second reader.
#[derive(Default)]
pub(super) struct WrittenVersions {
    /// The number of writes whose responses are not yet encoded.
    writes: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Decoded versions by revision; each revision writes one key.
    versions: HashMap<u64, (Arc<str>, DecodedObject)>,
    /// Total length of their JSON.
    bytes: usize,
}

impl WrittenVersions {
    /// Registers a write. Decoded versions are kept until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> WriteGuard {
        self.writes.fetch_add(1, Ordering::Relaxed);
        WriteGuard(Arc::clone(self))
    }

    /// Takes the version if the first reader has decoded it.
    pub(super) fn take(&self, kv: &KeyValue) -> Option<DecodedObject> {
        if self.writes.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut waiting = self.waiting();
        let (key, decoded) = waiting.versions.remove(&kv.mod_revision)?;
        waiting.bytes -= decoded.json.len();
        (key == kv.key).then_some(decoded)
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

/// A write whose response is not yet encoded.
pub(super) struct WriteGuard(Arc<WrittenVersions>);

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if self.0.writes.fetch_sub(1, Ordering::Relaxed) == 1 {
            // The remaining versions have only one reader, such as those written by other servers.
            *self.0.waiting() = Waiting::default();
        }
    }
}

/// Maximum total size of the waiting JSON of a resource, in bytes.
const MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use nave_cacher::SelectableAttributes;

    use super::*;

    fn version(revision: u64, json: &str) -> (KeyValue, DecodedObject) {
        let kv = KeyValue { key: "/registry/a".into(), value: "v".into(), mod_revision: revision };
        let decoded = DecodedObject {
            json: json.to_owned().into(),
            version_at: 0,
            attributes: SelectableAttributes::default(),
        };
        (kv, decoded)
    }

    #[test]
    fn second_reader_takes_the_version_once() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, decoded) = version(7, "{}");
        let _write = versions.begin();
        assert!(versions.take(&kv).is_none());
        versions.leave(&kv, &decoded);
        assert!(versions.take(&KeyValue { mod_revision: 8, ..kv.clone() }).is_none());
        assert_eq!(versions.take(&kv).map(|decoded| decoded.json), Some("{}".into()));
        assert!(versions.take(&kv).is_none());
        assert_eq!(versions.waiting().bytes, 0);
    }

    #[test]
    fn version_of_another_key_is_not_returned() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, decoded) = version(7, "{}");
        let _write = versions.begin();
        versions.leave(&kv, &decoded);
        assert!(versions.take(&KeyValue { key: "/registry/b".into(), ..kv }).is_none());
    }

    #[test]
    fn keeps_nothing_without_a_write_and_nothing_beyond_the_bound() {
        let versions = Arc::new(WrittenVersions::default());
        let (kv, decoded) = version(7, "{}");
        versions.leave(&kv, &decoded);
        assert!(versions.waiting().versions.is_empty());

        let first = versions.begin();
        let second = versions.begin();
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
