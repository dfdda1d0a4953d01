//! Counts the watches by the requests that concern them (upstream: `flowcontrol/watch_tracker.go`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::RwLock;

use nave_machinery::RequestedResource;

/// Counts of watches by resource, namespace and name.
///
/// Counts are keyed by a keyed hash, so that a look-up allocates nothing. A collision would only add to an estimate.
#[derive(Debug, Default)]
pub struct WatchCounts {
    counts: RwLock<HashMap<u64, u32>>,
    hasher: RandomState,
}

/// A counted watch, until it is dropped.
#[derive(Debug)]
pub struct CountedWatch {
    counts: Arc<WatchCounts>,
    key: u64,
}

impl WatchCounts {
    /// Counts a watch until the guard is dropped. As upstream, watches of the pods of one node are not counted: they
    /// concern few of the writes.
    pub fn count(
        self: &Arc<Self>,
        watched: &RequestedResource<'_>,
        node: Option<&str>,
    ) -> Option<CountedWatch> {
        if watched.resource == "pods" && node.is_some_and(|node| !node.is_empty()) {
            return None;
        }
        let key = self.key(watched, watched.namespace, watched.name);
        *self.counts.write().entry(key).or_default() += 1;
        Some(CountedWatch { counts: Arc::clone(self), key })
    }

    /// Returns the number of watches that a write concerns: those of the resource, of the namespace and of the object.
    pub fn concerned(&self, written: &RequestedResource<'_>) -> u32 {
        let counts = self.counts.read();
        if counts.is_empty() {
            return 0;
        }
        let get =
            |namespace, name| counts.get(&self.key(written, namespace, name)).copied().unwrap_or_default();
        let mut total = get("", "");
        if !written.namespace.is_empty() {
            total += get(written.namespace, "");
        }
        if !written.name.is_empty() {
            total += get(written.namespace, written.name);
        }
        total
    }

    fn key(&self, resource: &RequestedResource<'_>, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((resource.group, resource.resource, namespace, name))
    }
}

impl Drop for CountedWatch {
    fn drop(&mut self) {
        let mut counts = self.counts.counts.write();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_watches_that_a_write_concerns() {
        let counts = Arc::new(WatchCounts::default());
        let of = |resource, namespace, name| RequestedResource {
            resource,
            namespace,
            name,
            ..RequestedResource::default()
        };
        let watched = [of("maps", "", ""), of("maps", "a", ""), of("maps", "a", "m"), of("maps", "b", "")];
        let held: Vec<_> = watched.iter().map(|watched| counts.count(watched, None)).collect();
        for (written, concerned) in [
            (of("maps", "a", "m"), 3),
            (of("maps", "a", "n"), 2),
            (of("maps", "a", ""), 2),
            (of("maps", "c", "m"), 1),
            (of("nodes", "", "m"), 0),
        ] {
            assert_eq!(counts.concerned(&written), concerned, "{written:?}");
        }
        assert!(counts.count(&of("pods", "", ""), Some("node")).is_none());
        let all = counts.count(&of("pods", "", ""), None);
        assert_eq!(counts.concerned(&of("pods", "a", "p")), 1);
        drop((held, all));
        assert!(counts.counts.read().is_empty());
    }
}
