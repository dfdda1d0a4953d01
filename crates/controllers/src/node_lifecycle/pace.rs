//! How fast nodes that are not ready get the taint that evicts their pods: slowly, and not at all when most of a small
//! cluster, or everything, seems to be lost, for then it is more likely that this process is.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// Between two nodes of a zone.
const PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// Between two nodes of a zone most of which is lost, in a large cluster.
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(100);
/// A cluster of more nodes than this is large.
const LARGE: usize = 50;

/// When nodes were tainted last, by zone.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Mutex<HashMap<String, Timestamp>>,
}

/// How the nodes of a cluster are, by zone.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// Nodes that are ready, and all nodes.
    zones: HashMap<String, (usize, usize)>,
}

impl Zones {
    pub(super) fn add(&mut self, zone: &str, ready: bool) {
        let (ready_nodes, all) = self.zones.entry(zone.to_owned()).or_default();
        *ready_nodes += usize::from(ready);
        *all += 1;
    }

    /// Returns whether no node at all is ready.
    pub(super) fn all_lost(&self) -> bool {
        self.zones.values().all(|(ready, _)| *ready == 0)
    }

    /// The pause between two nodes of a zone; nothing if none is to be tainted.
    fn pause(&self, zone: &str) -> Option<SignedDuration> {
        let (ready, all) = self.zones.get(zone).copied().unwrap_or_default();
        let lost = all - ready;
        let mostly_lost = ready > 0 && lost > 2 && lost * 100 >= all * 55;
        let total: usize = self.zones.values().map(|(_, all)| all).sum();
        match (self.all_lost(), mostly_lost, total > LARGE) {
            (true, _, _) | (false, true, false) => None,
            (false, true, true) => Some(LONG_PAUSE),
            (false, false, _) => Some(PAUSE),
        }
    }
}

impl Pace {
    /// Returns whether a node of a zone may be tainted now; if so, that is noted.
    pub(super) fn may_taint(&self, zones: &Zones, zone: &str, now: Timestamp) -> bool {
        let Some(pause) = zones.pause(zone) else { return false };
        let mut last = self.last.lock();
        if last.get(zone).is_some_and(|at| at.duration_until(now) < pause) {
            return false;
        }
        // Zones without nodes are forgotten.
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
    fn a_zone_is_tainted_node_by_node() {
        let (pace, zones) = (Pace::default(), zones(&[("a", 8, 10), ("b", 1, 2)]));
        assert!(pace.may_taint(&zones, "a", now()));
        assert!(!pace.may_taint(&zones, "a", now() + SignedDuration::from_secs(9)));
        assert!(pace.may_taint(&zones, "b", now()));
        assert!(pace.may_taint(&zones, "a", now() + SignedDuration::from_secs(10)));
    }

    #[test]
    fn a_disruption_slows_eviction_down_or_stops_it() {
        let pause = |list: &[(&str, usize, usize)]| zones(list).pause("a");
        assert_eq!(pause(&[("a", 0, 10)]), None, "everything is lost");
        assert_eq!(pause(&[("a", 0, 10), ("b", 5, 5)]), Some(PAUSE), "one zone of two is lost");
        assert_eq!(pause(&[("a", 4, 10), ("b", 5, 5)]), None, "most of a zone of a small cluster");
        assert_eq!(pause(&[("a", 40, 100)]), Some(LONG_PAUSE), "most of a zone of a large cluster");
        assert_eq!(pause(&[("a", 1, 3)]), Some(PAUSE), "two nodes are never most");
    }
}
