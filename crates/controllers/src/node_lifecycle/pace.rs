//! Limits the rate of `NoExecute` taints on unready nodes. Sets no taints if all nodes, or most nodes of a small
//! cluster, appear unready: the likely cause is a failure of this process or its network.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// The time between two taints in a zone.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The time between two taints in a zone that is mostly unready, in a large cluster.
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(100);
/// A cluster with more nodes than this is large.
const LARGE: usize = 50;

/// The time of the last taint by zone.
#[derive(Debug, Default)]
pub(super) struct TaintLimiter {
    last: Mutex<HashMap<String, Timestamp>>,
}

/// The node counts of a cluster by zone.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// The number of ready nodes and the number of all nodes.
    zones: HashMap<String, (usize, usize)>,
}

impl Zones {
    pub(super) fn add(&mut self, zone: &str, ready: bool) {
        let (ready_nodes, all) = self.zones.entry(zone.to_owned()).or_default();
        *ready_nodes += usize::from(ready);
        *all += 1;
    }

    pub(super) fn none_ready(&self) -> bool {
        self.zones.values().all(|(ready, _)| *ready == 0)
    }

    /// Returns the time between two taints in a zone; `None` if tainting is disabled.
    fn pause(&self, zone: &str) -> Option<SignedDuration> {
        let (ready, all) = self.zones.get(zone).copied().unwrap_or_default();
        let lost = all - ready;
        let mostly_lost = ready > 0 && lost > 2 && lost * 100 >= all * 55;
        let total: usize = self.zones.values().map(|(_, all)| all).sum();
        match (self.none_ready(), mostly_lost, total > LARGE) {
            (true, _, _) | (false, true, false) => None,
            (false, true, true) => Some(LONG_PAUSE),
            (false, false, _) => Some(PAUSE),
        }
    }
}

impl TaintLimiter {
    /// Returns whether a node in a zone may be tainted now. If so, records the taint.
    pub(super) fn may_taint(&self, zones: &Zones, zone: &str, now: Timestamp) -> bool {
        let Some(pause) = zones.pause(zone) else { return false };
        let mut last = self.last.lock();
        if last.get(zone).is_some_and(|at| at.duration_until(now) < pause) {
            return false;
        }
        // Removes zones without nodes.
        last.retain(|zone, _| zones.zones.contains_key(zone));
        last.insert(zone.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::now;

    fn zones(list: &[(&str, usize, usize)]) -> Zones {
        let zones = list.iter().map(|(zone, ready, all)| ((*zone).to_owned(), (*ready, *all)));
        Zones { zones: zones.collect() }
    }

    #[test]
    fn taints_one_node_of_a_zone_at_a_time() {
        let (pace, zones) = (TaintLimiter::default(), zones(&[("a", 8, 10), ("b", 1, 2)]));
        assert!(pace.may_taint(&zones, "a", now()));
        assert!(!pace.may_taint(&zones, "a", now() + SignedDuration::from_secs(9)));
        assert!(pace.may_taint(&zones, "b", now()));
        assert!(pace.may_taint(&zones, "a", now() + SignedDuration::from_secs(10)));
    }

    #[test]
    fn disruption_slows_or_stops_eviction() {
        let pause = |list: &[(&str, usize, usize)]| zones(list).pause("a");
        assert_eq!(pause(&[("a", 0, 10)]), None, "everything is lost");
        assert_eq!(pause(&[("a", 0, 10), ("b", 5, 5)]), Some(PAUSE), "one zone of two is lost");
        assert_eq!(pause(&[("a", 4, 10), ("b", 5, 5)]), None, "most of a zone of a small cluster");
        assert_eq!(pause(&[("a", 40, 100)]), Some(LONG_PAUSE), "most of a zone of a large cluster");
        assert_eq!(pause(&[("a", 1, 3)]), Some(PAUSE), "two nodes are never most");
    }
}
