//! Creations and deletions that the informers have not shown yet.
//!
//! A cache lags behind the controller's own writes. A controller that counts pods in a stale cache would create or
//! delete the same pods again. Each sync therefore registers the objects that it is about to create and delete, and
//! event handlers report the objects that they observe. Later syncs create and delete no objects while an expectation
//! is outstanding (upstream: `ControllerExpectations`).

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time after which an expectation is dropped: its event was lost when the watch broke, or the object was deleted
/// before a list returned it.
const TIMEOUT: Duration = Duration::from_mins(5);

/// The outstanding expectations by owner UID.
#[derive(Debug, Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<String, Outstanding>>,
}

#[derive(Debug)]
struct Outstanding {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Returns whether an owner has no outstanding expectations, so that the cache is up to date.
    pub fn satisfied(&self, owner: &str) -> bool {
        let by_owner = self.by_owner.lock();
        by_owner.get(owner).is_none_or(|outstanding| {
            (outstanding.creations == 0 && outstanding.deletions.is_empty())
                || outstanding.since.elapsed() > TIMEOUT
        })
    }

    /// Expects `count` creations; replaces earlier expectations.
    pub fn expect_creations(&self, owner: &str, count: usize) {
        self.replace(owner, count, HashSet::new());
    }

    /// Expects the deletion of the objects with these UIDs; replaces earlier expectations.
    pub fn expect_deletions(&self, owner: &str, uids: impl IntoIterator<Item = String>) {
        self.replace(owner, 0, uids.into_iter().collect());
    }

    /// Expects `creations` creations and the deletion of these UIDs; replaces earlier expectations.
    pub fn expect(&self, owner: &str, creations: usize, deleted: impl IntoIterator<Item = String>) {
        self.replace(owner, creations, deleted.into_iter().collect());
    }

    /// Records that a created object was observed, or that a creation failed.
    pub fn creation_observed(&self, owner: &str) {
        self.creations_observed(owner, 1);
    }

    /// Records that `count` created objects were observed, or were never created.
    pub fn creations_observed(&self, owner: &str, count: usize) {
        self.observe(owner, |outstanding| {
            outstanding.creations = outstanding.creations.saturating_sub(count);
        });
    }

    /// Records that the deletion of an object was observed, or that the deletion failed.
    pub fn deletion_observed(&self, owner: &str, uid: &str) {
        self.observe(owner, |outstanding| {
            outstanding.deletions.remove(uid);
        });
    }

    /// Removes the expectations of a deleted owner.
    pub fn forget(&self, owner: &str) {
        self.by_owner.lock().remove(owner);
    }

    fn replace(&self, owner: &str, creations: usize, deletions: HashSet<String>) {
        let outstanding = Outstanding { creations, deletions, since: Instant::now() };
        self.by_owner.lock().insert(owner.to_owned(), outstanding);
    }

    /// Applies an observation and frees the entry of an owner that has no outstanding expectations left.
    fn observe(&self, owner: &str, observe: impl FnOnce(&mut Outstanding)) {
        let mut by_owner = self.by_owner.lock();
        if let Some(outstanding) = by_owner.get_mut(owner) {
            observe(outstanding);
            if outstanding.creations == 0 && outstanding.deletions.is_empty() {
                by_owner.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_satisfied_when_all_creations_were_seen_or_failed() {
        let expectations = Expectations::default();
        assert!(expectations.satisfied("a"));
        expectations.expect_creations("a", 3);
        expectations.creation_observed("a");
        expectations.creation_observed("other");
        assert!(!expectations.satisfied("a"));
        expectations.creations_observed("a", 2);
        assert!(expectations.satisfied("a"));
        expectations.creation_observed("a");
        assert!(expectations.satisfied("a"), "creations of others count for nothing");
        assert!(expectations.by_owner.lock().is_empty());
    }

    #[test]
    fn repeated_deletion_events_count_once() {
        let expectations = Expectations::default();
        expectations.expect_deletions("a", ["1".to_owned(), "2".to_owned()]);
        for _ in 0..2 {
            expectations.deletion_observed("a", "1");
        }
        expectations.deletion_observed("a", "3");
        assert!(!expectations.satisfied("a"));
        expectations.deletion_observed("a", "2");
        assert!(expectations.satisfied("a"));
    }

    #[test]
    fn forgetting_an_owner_frees_its_entry() {
        let expectations = Expectations::default();
        expectations.expect_creations("a", 1);
        expectations.forget("a");
        assert!(expectations.satisfied("a") && expectations.by_owner.lock().is_empty());
    }
}
