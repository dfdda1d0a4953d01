//! Owners that were found not to exist.

use std::collections::{HashSet, VecDeque};

use super::uid::Uid;

/// Owners remembered at most.
const CAPACITY: usize = 500;

/// Where an owner was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The uid it was to have. An object that is gone never comes back under its uid.
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

/// The owners that were found absent last: the many dependents of one owner need one look, not one each.
#[derive(Debug, Default)]
pub(super) struct AbsentOwners {
    known: HashSet<Place>,
    order: VecDeque<Place>,
}

impl AbsentOwners {
    /// Notes that an owner is not there.
    pub(super) fn insert(&mut self, place: Place) {
        if !self.known.insert(place.clone()) {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Returns whether an owner is known not to be there.
    pub(super) fn contains(&self, place: &Place) -> bool {
        self.known.contains(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(at: usize) -> Place {
        let text = String::new;
        Place {
            uid: Uid::new(&at.to_string()),
            api_version: text(),
            kind: text(),
            namespace: text(),
            name: text(),
        }
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut absent = AbsentOwners::default();
        for at in 0..=CAPACITY {
            absent.insert(place(at));
            absent.insert(place(at));
        }
        assert!(!absent.contains(&place(0)));
        assert!(absent.contains(&place(1)) && absent.contains(&place(CAPACITY)));
        assert_eq!(absent.known.len(), CAPACITY);
    }
}
