//! Leases: times to live that several keys share and that clients prolong, as in etcd's API.
//!
//! The identifiers and times to live are on disk. The remaining time is not: after a restart each lease has its full
//! time again, as in etcd after a change of the leader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The leases and their keys as of the last durable transaction.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: BTreeMap<i64, Lease>,
    deadlines: BTreeSet<(Instant, i64)>,
    of_key: HashMap<Arc<str>, i64>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Arc<str>>,
}

/// The state of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The time to live after a grant or a renewal.
    pub ttl: Duration,
    /// The time until it ends.
    pub remaining: Duration,
    /// Its keys.
    pub keys: Vec<Arc<str>>,
}

impl Leases {
    pub(super) fn grant(&mut self, id: i64, ttl: Duration, now: Instant) {
        let deadline = now + ttl;
        self.deadlines.insert((deadline, id));
        self.by_id.insert(id, Lease { ttl, deadline, keys: BTreeSet::new() });
    }

    /// Removes a lease. Its keys stay.
    pub(super) fn revoke(&mut self, id: i64) {
        let Some(lease) = self.by_id.remove(&id) else { return };
        self.deadlines.remove(&(lease.deadline, id));
        for key in lease.keys {
            self.of_key.remove(&key);
        }
    }

    /// Gives a lease its full time again; returns this time.
    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Option<Duration> {
        let lease = self.by_id.get_mut(&id)?;
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = now + lease.ttl;
        self.deadlines.insert((lease.deadline, id));
        Some(lease.ttl)
    }

    /// Moves a key that was written to its lease; 0 for a key without one.
    pub(super) fn attach(&mut self, key: &Arc<str>, lease: i64) {
        if lease == 0 && self.of_key.is_empty() {
            return;
        }
        if let Some(previous) = self.of_key.remove(key).and_then(|previous| self.by_id.get_mut(&previous)) {
            previous.keys.remove(key);
        }
        if let Some(granted) = self.by_id.get_mut(&lease) {
            granted.keys.insert(Arc::clone(key));
            self.of_key.insert(Arc::clone(key), lease);
        }
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn keys(&self, id: i64) -> Vec<Arc<str>> {
        self.by_id.get(&id).map(|lease| lease.keys.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn info(&self, id: i64, now: Instant) -> Option<LeaseInfo> {
        let lease = self.by_id.get(&id)?;
        let remaining = lease.deadline.saturating_duration_since(now);
        Some(LeaseInfo { ttl: lease.ttl, remaining, keys: self.keys(id) })
    }

    /// Returns the time at which the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Returns a lease that has ended.
    pub(super) fn ended(&self, now: Instant) -> Option<i64> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_its_latest_lease() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        leases.grant(1, Duration::from_secs(5), now);
        leases.grant(2, Duration::from_secs(5), now);
        for (lease, of_first, of_second) in [(1, 1, 0), (2, 0, 1), (0, 0, 0), (3, 0, 0), (1, 1, 0)] {
            leases.attach(&Arc::from("/a"), lease);
            assert_eq!([leases.keys(1).len(), leases.keys(2).len()], [of_first, of_second], "{lease}");
        }
        leases.revoke(1);
        assert!(!leases.contains(1) && leases.of_key.is_empty());
    }

    #[test]
    fn renewal_moves_the_deadline() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let second = Duration::from_secs(1);
        leases.grant(1, 2 * second, start);
        assert_eq!(leases.renew(1, start + second), Some(2 * second));
        assert_eq!(leases.ended(start + 2 * second), None);
        assert_eq!(leases.ended(start + 3 * second), Some(1));
        assert_eq!(leases.renew(7, start), None);
    }
}
