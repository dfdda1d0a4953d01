//! Readers that wait for the cache to reach a revision.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The revisions for which readers wait.
///
/// A wait leaves no state when it ends. A client may request a revision that the store never reaches; this delays only
/// the readers that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waited: Mutex<Waited>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waited {
    /// Number of readers waiting for each revision.
    readers: BTreeMap<u64, usize>,
    /// True if a revision was added since progress was last requested.
    unrequested: bool,
}

/// The need of the cache for a progress report from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// No reader waits for a revision that the cache has not reached.
    Nothing,
    /// Progress was requested for all waiting readers. It may be requested again later.
    Requested,
    /// A reader waits for a revision for which progress was not requested yet.
    Unrequested,
}

impl Waits {
    /// Registers a waiting reader until the guard is dropped.
    pub(crate) fn enter(&self, revision: u64) -> Waiting<'_> {
        let mut waited = self.waited.lock();
        let readers = waited.readers.entry(revision).or_default();
        *readers += 1;
        let is_first = *readers == 1;
        waited.unrequested |= is_first;
        drop(waited);
        if is_first {
            self.changed.notify_one();
        }
        Waiting { waits: self, revision }
    }

    /// Returns whether a cache that has reached `reached` needs to request progress.
    pub(crate) fn demand(&self, reached: u64) -> Demand {
        let waited = self.waited.lock();
        match waited.readers.last_key_value() {
            Some((revision, _)) if *revision > reached && waited.unrequested => Demand::Unrequested,
            Some((revision, _)) if *revision > reached => Demand::Requested,
            _ => Demand::Nothing,
        }
    }

    /// Records that progress is being requested for all waiting readers.
    pub(crate) fn requested(&self) {
        self.waited.lock().unrequested = false;
    }

    /// Waits until a reader starts to wait for a new revision.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A reader that waits for a revision.
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    revision: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waited = self.waits.waited.lock();
        if let Some(readers) = waited.readers.get_mut(&self.revision) {
            *readers -= 1;
            if *readers == 0 {
                waited.readers.remove(&self.revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_wait_leaves_no_demand() {
        let waits = Waits::default();
        let never = waits.enter(u64::MAX);
        let (one, other) = (waits.enter(5), waits.enter(5));
        assert_eq!(waits.demand(4), Demand::Unrequested);
        waits.requested();
        assert_eq!(waits.demand(4), Demand::Requested);
        drop(never);
        drop(one);
        assert_eq!((waits.demand(4), waits.demand(5)), (Demand::Requested, Demand::Nothing));
        drop(other);
        assert_eq!(waits.demand(4), Demand::Nothing);
    }

    #[test]
    fn each_new_revision_demands_progress() {
        let waits = Waits::default();
        let _never = waits.enter(u64::MAX);
        waits.requested();
        let _one = waits.enter(5);
        assert_eq!(waits.demand(4), Demand::Unrequested);
        waits.requested();
        let _same = waits.enter(5);
        assert_eq!(waits.demand(4), Demand::Requested);
    }
}
