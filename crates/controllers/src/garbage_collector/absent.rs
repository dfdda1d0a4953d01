//! Owners that are known not to exist (upstream: `absentOwnerCache`).

use std::collections::{HashSet, VecDeque};

use super::uid::Uid;

/// The maximum number of entries.
const CAPACITY: usize = 500;

/// The identity of an owner in references from one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OwnerKey {
    /// The expected UID. A UID is never reused.
    pub(super) uid: Uid,
    /// Group and version of its kind.
    pub(super) api_version: String,
    /// Its kind.
    pub(super) kind: String,
    /// Its namespace; empty for a cluster-scoped owner.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
}

/// The owners most recently found absent. All dependents of an absent owner share one live read.
#[derive(Debug, Default)]
pub(super) struct AbsentOwners {
    known: HashSet<OwnerKey>,
    order: VecDeque<OwnerKey>,
}

impl AbsentOwners {
    /// Records that an owner does not exist.
    pub(super) fn insert(&mut self, owner: OwnerKey) {
        if !self.known.insert(owner.clone()) {
            return;
        }
        self.order.push_back(owner);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Returns whether an owner is known not to exist.
    pub(super) fn contains(&self, owner: &OwnerKey) -> bool {
        self.known.contains(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(at: usize) -> OwnerKey {
        let text = String::new;
        OwnerKey {
            uid: Uid::new(&at.to_string()),
            api_version: text(),
            kind: text(),
            namespace: text(),
            name: text(),
        }
    }

    #[test]
    fn evicts_the_oldest_entry() {
        let mut absent = AbsentOwners::default();
        for at in 0..=CAPACITY {
            absent.insert(owner(at));
            absent.insert(owner(at));
        }
        assert!(!absent.contains(&owner(0)));
        assert!(absent.contains(&owner(1)) && absent.contains(&owner(CAPACITY)));
        assert_eq!(absent.known.len(), CAPACITY);
    }
}
