//! The addresses and ports in use, and by which service.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

/// The addresses and ports of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allocations {
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) ports: Vec<u16>,
}

/// The addresses and ports in use, sorted, each with the storage key of its service; more than once while a write is
/// under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// The cluster IPs.
    pub addresses: Vec<(Ipv4Addr, String)>,
    /// The node ports.
    pub ports: Vec<(u16, String)>,
}

/// Claims on addresses and ports by the storage key of a service.
///
/// A service claims what it is known to hold (`services`), and each reservation claims what its attempt needs. An item
/// is in use while anyone claims it, so that the end of one claim never frees another's.
///
/// The state of a service is known from the watch cache and, before an event gets there, from the writer that
/// committed it. Whichever comes first, the higher revision counts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    addresses: Claims<Ipv4Addr>,
    ports: Claims<u16>,
    services: HashMap<Arc<str>, Known>,
    /// The revision up to which the watch cache has reported everything.
    followed: u64,
}

/// The latest known state of a service. A deleted service stays, with nothing, until the watch cache reports the
/// deletion too.
#[derive(Debug)]
struct Known {
    revision: u64,
    allocations: Allocations,
}

/// The keys that claim each item.
#[derive(Debug)]
pub(super) struct Claims<T>(HashMap<T, Vec<Arc<str>>>);

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Eq + Hash> Claims<T> {
    /// Whether nobody claims the item.
    pub(super) fn is_free(&self, item: T) -> bool {
        !self.0.contains_key(&item)
    }

    /// Whether a service other than `key` claims the item.
    pub(super) fn is_taken(&self, item: T, key: &str) -> bool {
        self.0.get(&item).is_some_and(|keys| keys.iter().any(|other| **other != *key))
    }

    fn add(&mut self, items: &[T], key: &Arc<str>) {
        for item in items {
            self.0.entry(*item).or_default().push(Arc::clone(key));
        }
    }

    fn remove(&mut self, items: &[T], key: &str) {
        for item in items {
            let Some(keys) = self.0.get_mut(item) else { continue };
            if let Some(index) = keys.iter().position(|other| **other == *key) {
                keys.swap_remove(index);
            }
            if keys.is_empty() {
                self.0.remove(item);
            }
        }
    }
}

impl Ledger {
    /// The claims on addresses.
    pub(super) fn addresses(&self) -> &Claims<Ipv4Addr> {
        &self.addresses
    }

    /// The claims on ports.
    pub(super) fn ports(&self) -> &Claims<u16> {
        &self.ports
    }

    /// Adds a claim for `key`.
    pub(super) fn claim(&mut self, key: &Arc<str>, allocations: &Allocations) {
        self.addresses.add(&allocations.addresses, key);
        self.ports.add(&allocations.ports, key);
    }

    /// Removes a claim that [`claim`](Self::claim) added.
    pub(super) fn release(&mut self, key: &str, allocations: &Allocations) {
        self.addresses.remove(&allocations.addresses, key);
        self.ports.remove(&allocations.ports, key);
    }

    /// Takes note of a committed write: as of `revision` the service has these allocations, or is deleted.
    pub(super) fn committed(&mut self, key: &Arc<str>, revision: u64, allocations: Option<Allocations>) {
        // The watch cache has reported this revision, and possibly later ones.
        if revision > self.followed {
            self.learn(key, revision, allocations.unwrap_or_default());
        }
    }

    /// Takes note of an event from the watch cache.
    pub(super) fn observed(&mut self, key: &Arc<str>, revision: u64, allocations: Option<Allocations>) {
        self.followed = self.followed.max(revision);
        let is_deletion = allocations.is_none();
        self.learn(key, revision, allocations.unwrap_or_default());
        if is_deletion && self.services.get(key).is_some_and(|known| known.revision <= revision) {
            self.services.remove(key);
        }
    }

    /// Takes note that the watch cache holds exactly the services `present` as of `revision`.
    pub(super) fn replaced(&mut self, present: &HashSet<Arc<str>>, revision: u64) {
        self.followed = self.followed.max(revision);
        let is_gone = |key: &Arc<str>, known: &Known| known.revision <= revision && !present.contains(key);
        let gone: Vec<Arc<str>> = self
            .services
            .iter()
            .filter(|(key, known)| is_gone(key, known))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in gone {
            if let Some(known) = self.services.remove(&key) {
                self.release(&key, &known.allocations);
            }
        }
    }

    /// All claims, sorted: for checks.
    pub(super) fn claimed(&self) -> InUse {
        InUse { addresses: self.addresses.sorted(), ports: self.ports.sorted() }
    }

    fn learn(&mut self, key: &Arc<str>, revision: u64, allocations: Allocations) {
        let known = self.services.remove(key);
        if let Some(known) = known {
            if known.revision > revision {
                self.services.insert(Arc::clone(key), known);
                return;
            }
            self.release(key, &known.allocations);
        }
        self.claim(key, &allocations);
        self.services.insert(Arc::clone(key), Known { revision, allocations });
    }
}

impl<T: Copy + Ord> Claims<T> {
    fn sorted(&self) -> Vec<(T, String)> {
        let claims = self.0.iter();
        let mut all: Vec<_> =
            claims.flat_map(|(item, keys)| keys.iter().map(|key| (*item, key.to_string()))).collect();
        all.sort();
        all
    }
}

impl Allocations {
    /// Reads the allocations of a service.
    ///
    /// # Errors
    /// The service's fields are not of the types that validation ensures.
    pub(super) fn of<'de, D: Deserializer<'de>>(service: D) -> Result<Self, D::Error> {
        let spec = ServiceView::deserialize(service)?.spec;
        // `None` of headless services is not an address, and other families are not allocated here.
        let addresses = spec.cluster_ips.iter().filter_map(|address| address.parse().ok()).collect();
        let ports = spec.ports.iter().map(|port| port.node_port).chain([spec.health_check_node_port]);
        Ok(Self { addresses, ports: ports.filter(|port| *port != 0).collect() })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }
}

#[derive(Deserialize)]
struct ServiceView {
    #[serde(default)]
    spec: SpecView,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecView {
    #[serde(default, rename = "clusterIPs", deserialize_with = "null_is_empty")]
    cluster_ips: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    ports: Vec<PortView>,
    #[serde(default)]
    health_check_node_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortView {
    #[serde(default)]
    node_port: u16,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports(ports: &[u16]) -> Allocations {
        Allocations { addresses: Vec::new(), ports: ports.to_vec() }
    }

    fn claimed(ledger: &Ledger) -> Vec<(u16, String)> {
        ledger.claimed().ports
    }

    fn of(pairs: &[(u16, &str)]) -> Vec<(u16, String)> {
        pairs.iter().map(|(port, key)| (*port, (*key).to_owned())).collect()
    }

    #[test]
    fn the_end_of_one_claim_frees_no_other() {
        let (mut ledger, key, other) = (Ledger::default(), Arc::from("a"), Arc::from("b"));
        ledger.claim(&key, &ports(&[1]));
        ledger.claim(&key, &ports(&[1]));
        assert!(ledger.ports().is_taken(1, &other) && !ledger.ports().is_taken(1, &key));
        ledger.release(&key, &ports(&[1]));
        assert!(ledger.ports().is_taken(1, &other) && !ledger.ports().is_free(1));
        ledger.release(&key, &ports(&[1]));
        assert!(ledger.ports().is_free(1));
    }

    #[test]
    fn the_higher_revision_counts_whoever_reports_it() {
        let key: Arc<str> = Arc::from("a");
        // Each order in which the writers and the watch cache can report three states of one service.
        let states = [(5, Some(ports(&[1]))), (7, Some(ports(&[2]))), (9, None)];
        for committed_before_event in 0..=3 {
            let mut ledger = Ledger::default();
            for (revision, state) in &states[..committed_before_event] {
                ledger.committed(&key, *revision, state.clone());
            }
            for (revision, state) in &states {
                ledger.observed(&key, *revision, state.clone());
            }
            for (revision, state) in &states[committed_before_event..] {
                ledger.committed(&key, *revision, state.clone());
            }
            assert_eq!(claimed(&ledger), [], "{committed_before_event}");
            assert!(ledger.services.is_empty(), "{committed_before_event}");
        }
    }

    #[test]
    fn a_late_event_undoes_no_later_commit() {
        let (mut ledger, key) = (Ledger::default(), Arc::from("a"));
        ledger.committed(&key, 5, Some(ports(&[1])));
        ledger.committed(&key, 7, Some(ports(&[2])));
        ledger.observed(&key, 5, Some(ports(&[1])));
        assert_eq!(claimed(&ledger), of(&[(2, "a")]));
        ledger.committed(&key, 9, None);
        ledger.observed(&key, 7, Some(ports(&[2])));
        assert_eq!(claimed(&ledger), []);
        ledger.observed(&key, 9, None);
        assert!(ledger.services.is_empty());
    }

    #[test]
    fn services_that_vanished_in_a_gap_claim_nothing() {
        let (mut ledger, gone, kept, newer) =
            (Ledger::default(), Arc::from("gone"), Arc::from("kept"), Arc::from("newer"));
        ledger.observed(&gone, 3, Some(ports(&[1])));
        ledger.observed(&kept, 4, Some(ports(&[2])));
        ledger.committed(&newer, 9, Some(ports(&[3])));
        ledger.replaced(&HashSet::from([kept]), 8);
        assert_eq!(claimed(&ledger), of(&[(2, "kept"), (3, "newer")]));
    }

    #[test]
    fn reads_addresses_and_all_kinds_of_ports() {
        let service = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
            "ports": [{"port": 80, "nodePort": 30000}, {"port": 81}], "healthCheckNodePort": 30001}});
        let read = Allocations::of(&service).unwrap();
        assert_eq!(read.addresses, [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(read.ports, [30000, 30001]);
        for empty in
            [json!({}), json!({"spec": {}}), json!({"spec": {"clusterIPs": ["None"], "ports": null}})]
        {
            assert!(Allocations::of(&empty).unwrap().is_empty(), "{empty}");
        }
    }
}
