//! Creations and deletions that the informers have yet to see.
//!
//! A cache lags behind what a controller has just done. Until it has caught up, counting the cache's pods would make
//! the controller create or delete the same pods again. So a controller says here what it is about to do, its handlers
//! say what they saw, and a sync does nothing more while something is outstanding.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// After so long what was expected will not be seen any more: an event was lost with its watch, or the object was
/// gone before it was ever listed.
const TIMEOUT: Duration = Duration::from_mins(5);

/// What is outstanding for each owner, by the owner's uid.
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
    /// Returns whether nothing is outstanding for an owner, so that the cache may be believed.
    pub fn satisfied(&self, owner: &str) -> bool {
        let by_owner = self.by_owner.lock();
        by_owner.get(owner).is_none_or(|outstanding| {
            (outstanding.creations == 0 && outstanding.deletions.is_empty())
                || outstanding.since.elapsed() > TIMEOUT
        })
    }

    /// So many objects are about to be created; what was outstanding before is forgotten.
    pub fn expect_creations(&self, owner: &str, count: usize) {
        self.put(owner, count, HashSet::new());
    }

    /// These objects, by uid, are about to be deleted; what was outstanding before is forgotten.
    pub fn expect_deletions(&self, owner: &str, uids: impl IntoIterator<Item = String>) {
        self.put(owner, 0, uids.into_iter().collect());
    }

    /// So many objects are about to be created and these deleted; what was outstanding before is forgotten.
    pub fn expect(&self, owner: &str, creations: usize, deleted: impl IntoIterator<Item = String>) {
        self.put(owner, creations, deleted.into_iter().collect());
    }

    /// A created object was seen, or its creation failed.
    pub fn creation_observed(&self, owner: &str) {
        self.creations_observed(owner, 1);
    }

    /// So many created objects were seen, or were never created.
    pub fn creations_observed(&self, owner: &str, count: usize) {
        self.settle(owner, |outstanding| outstanding.creations = outstanding.creations.saturating_sub(count));
    }

    /// The deletion of an object was seen, or it failed.
    pub fn deletion_observed(&self, owner: &str, uid: &str) {
        self.settle(owner, |outstanding| {
            outstanding.deletions.remove(uid);
        });
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, owner: &str) {
        self.by_owner.lock().remove(owner);
    }

    fn put(&self, owner: &str, creations: usize, deletions: HashSet<String>) {
        let outstanding = Outstanding { creations, deletions, since: Instant::now() };
        self.by_owner.lock().insert(owner.to_owned(), outstanding);
    }

    /// Applies an observation; an owner with nothing outstanding takes no memory.
    fn settle(&self, owner: &str, observe: impl FnOnce(&mut Outstanding)) {
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
    fn an_owner_is_satisfied_when_all_creations_were_seen_or_failed() {
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
    fn a_deletion_counts_once_however_often_it_is_seen() {
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
    fn an_owner_that_is_gone_leaves_nothing() {
        let expectations = Expectations::default();
        expectations.expect_creations("a", 1);
        expectations.forget("a");
        assert!(expectations.satisfied("a") && expectations.by_owner.lock().is_empty());
    }
}
