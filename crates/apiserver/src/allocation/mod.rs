//! Cluster IPs and node ports of services (upstream: `pkg/registry/core/service/{ipallocator,portallocator}`).
//!
//! A write [begins](ServiceAllocator::begin) with a reservation of all that the new state needs. Dropping it frees what
//! this attempt claimed; settling it records what was committed. What is in use is derived from the services that are
//! stored, as the watch cache and the writers report them: see [`Ledger`].

mod ledger;
mod range;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use nave_cacher::{CachedObject, Delivery, EventType};
use nave_machinery::{FieldError, FieldPath, GroupKind, Map, Status, Value, meta};
use parking_lot::Mutex;
use rand::Rng;

pub use self::ledger::InUse;
use self::ledger::{Allocations, Ledger};
pub use self::range::{RangeError, ServiceRange};
use crate::storage::{Follower, Reservation};

/// Allocates cluster IPs and node ports.
pub struct ServiceAllocator {
    range: ServiceRange,
    ports: RangeInclusive<u16>,
    ledger: Arc<Mutex<Ledger>>,
}

/// The claims of one attempt of a write, until it is settled or dropped.
pub struct ServiceReservation {
    ledger: Arc<Mutex<Ledger>>,
    key: Arc<str>,
    claimed: Allocations,
}

impl ServiceAllocator {
    /// An allocator of which nothing is in use yet.
    pub fn new(range: ServiceRange, ports: RangeInclusive<u16>) -> Self {
        Self { range, ports, ledger: Arc::default() }
    }

    /// The follower through which the services in the watch cache count as in use.
    pub fn follower(&self) -> Arc<dyn Follower> {
        Arc::new(ServiceFollower { ledger: Arc::clone(&self.ledger), present: Mutex::default() })
    }

    /// Reserves the addresses and ports that the service at `key` names, and gives it those that its type needs
    /// beyond them. `old` is the state that the write replaces.
    ///
    /// # Errors
    /// 422 where an address or a port is taken, out of range, or none is left.
    pub fn begin(
        &self,
        key: &str,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<ServiceReservation, Status> {
        let name = meta::name(service).to_owned();
        let held = old.and_then(|old| Allocations::of(old).ok()).unwrap_or_default();
        let mut attempt = Attempt { allocator: self, held: &held, reservation: self.begin_deletion(key) };
        let allocated = match service.get_mut("spec").and_then(Value::as_object_mut) {
            Some(spec) => attempt.allocate(spec),
            None => Ok(()),
        };
        allocated.map_err(|error| {
            Status::invalid(&GroupKind { group: String::new(), kind: "Service".to_owned() }, &name, &[error])
        })?;
        Ok(attempt.reservation)
    }

    /// The reservation of a write that needs nothing: once it is committed, what the service had is free.
    pub fn begin_deletion(&self, key: &str) -> ServiceReservation {
        let (ledger, key) = (Arc::clone(&self.ledger), Arc::from(key));
        ServiceReservation { ledger, key, claimed: Allocations::default() }
    }

    /// All addresses and ports in use.
    pub fn in_use(&self) -> InUse {
        self.ledger.lock().claimed()
    }
}

impl Reservation for ServiceReservation {
    fn settle(self: Box<Self>, revision: u64, stored: Option<&Value>) {
        match stored.map(Allocations::of).transpose() {
            Ok(allocations) => self.ledger.lock().committed(&self.key, revision, allocations),
            // The event in the watch cache has the same object and the same error.
            Err(error) => {
                tracing::error!(key = &*self.key, %error, "allocations of a service cannot be read");
            }
        }
    }
}

impl Drop for ServiceReservation {
    fn drop(&mut self) {
        if !self.claimed.is_empty() {
            self.ledger.lock().release(&self.key, &self.claimed);
        }
    }
}

/// The allocation for one state of one service.
struct Attempt<'a> {
    allocator: &'a ServiceAllocator,
    held: &'a Allocations,
    reservation: ServiceReservation,
}

impl Attempt<'_> {
    fn allocate(&mut self, spec: &mut Map) -> Result<(), FieldError> {
        let kind = spec.get("type").and_then(Value::as_str).unwrap_or("ClusterIP").to_owned();
        if kind == "ExternalName" {
            return Ok(());
        }
        self.allocate_address(spec)?;
        if kind == "NodePort" || kind == "LoadBalancer" {
            self.allocate_ports(
                spec,
                kind == "NodePort" || spec.get("allocateLoadBalancerNodePorts") != Some(&false.into()),
            )?;
        }
        if kind == "LoadBalancer"
            && spec.get("externalTrafficPolicy").and_then(Value::as_str) == Some("Local")
        {
            let at = FieldPath::new("spec").child("healthCheckNodePort");
            let wanted = port_number(spec.get("healthCheckNodePort"));
            let port = self.allocate_port(wanted, &at)?;
            spec.insert("healthCheckNodePort".to_owned(), port.into());
        }
        Ok(())
    }

    fn allocate_address(&mut self, spec: &mut Map) -> Result<(), FieldError> {
        let at = FieldPath::new("spec").child("clusterIPs").index(0);
        let given = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
        let address = match given.parse() {
            _ if given == "None" => given,
            // Validation reports text that is not an address.
            Err(_) if !given.is_empty() => return Ok(()),
            Ok(IpAddr::V4(wanted)) => {
                self.reserve_address(wanted, &at)?;
                given
            }
            _ => self.free_address(&at)?.to_string(),
        };
        spec.insert("clusterIP".to_owned(), Value::String(address.clone()));
        spec.insert("clusterIPs".to_owned(), Value::Array(vec![Value::String(address)]));
        let families = || Value::Array(vec![Value::String("IPv4".to_owned())]);
        spec.entry("ipFamilies").or_insert_with(families);
        spec.entry("ipFamilyPolicy").or_insert_with(|| Value::String("SingleStack".to_owned()));
        Ok(())
    }

    fn reserve_address(&mut self, wanted: Ipv4Addr, at: &FieldPath) -> Result<(), FieldError> {
        let mut ledger = self.allocator.ledger.lock();
        if ledger.addresses().is_taken(wanted, &self.reservation.key) {
            let why = "failed to allocate IP: provided IP is already allocated";
            return Err(FieldError::invalid(at, wanted.to_string(), why));
        }
        // A service keeps its address when the range changes.
        if !self.allocator.range.contains(wanted) && !self.held.addresses.contains(&wanted) {
            let at = FieldPath::new("spec").child("clusterIPs");
            let why = format!(
                "failed to allocate IP {wanted}: the provided network does not match the current range"
            );
            return Err(FieldError::invalid(&at, Value::Array(vec![wanted.to_string().into()]), why));
        }
        self.reservation.add_address(&mut ledger, wanted);
        Ok(())
    }

    fn free_address(&mut self, at: &FieldPath) -> Result<Ipv4Addr, FieldError> {
        let range = self.allocator.range;
        let (lower, upper) = (range.lower_band(), range.upper_band());
        let start = rand::rng().random_range(upper.clone());
        let mut ledger = self.allocator.ledger.lock();
        let mut candidates = (start..upper.end).chain(upper.start..start).chain(lower);
        let free = candidates.find(|offset| ledger.addresses().is_free(range.address(*offset)));
        let free = free.ok_or_else(|| FieldError::invalid(at, "", "failed to allocate IP: range is full"))?;
        self.reservation.add_address(&mut ledger, range.address(free));
        Ok(range.address(free))
    }

    /// Reserves the ports that the service names and, unless the service declines them, allocates the others.
    fn allocate_ports(&mut self, spec: &mut Map, allocates: bool) -> Result<(), FieldError> {
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let at = FieldPath::new("spec").child("ports").index(index).child("nodePort");
            let wanted = port_number(port.get("nodePort"));
            if wanted.is_none() && !allocates {
                continue;
            }
            let number = self.allocate_port(wanted, &at)?;
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".to_owned(), number.into());
            }
        }
        Ok(())
    }

    fn allocate_port(&mut self, wanted: Option<u64>, at: &FieldPath) -> Result<u16, FieldError> {
        let range = &self.allocator.ports;
        let mut ledger = self.allocator.ledger.lock();
        let Some(wanted) = wanted else {
            let start = rand::rng().random_range(range.clone());
            let mut candidates = (start..=*range.end()).chain(*range.start()..start);
            let free = candidates.find(|port| ledger.ports().is_free(*port));
            let full = || FieldError::invalid(at, 0, "failed to allocate a nodePort: range is full");
            let free = free.ok_or_else(full)?;
            self.reservation.add_port(&mut ledger, free);
            return Ok(free);
        };
        // A service keeps its ports when the range changes.
        let number = u16::try_from(wanted).ok();
        let number = number.filter(|port| range.contains(port) || self.held.ports.contains(port));
        let Some(number) = number else {
            let (first, last) = (range.start(), range.end());
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            );
            return Err(FieldError::invalid(at, wanted, why));
        };
        if ledger.ports().is_taken(number, &self.reservation.key) {
            return Err(FieldError::invalid(at, wanted, "provided port is already allocated"));
        }
        self.reservation.add_port(&mut ledger, number);
        Ok(number)
    }
}

impl ServiceReservation {
    fn add_address(&mut self, ledger: &mut Ledger, address: Ipv4Addr) {
        ledger.claim(&self.key, &Allocations { addresses: vec![address], ports: Vec::new() });
        self.claimed.addresses.push(address);
    }

    fn add_port(&mut self, ledger: &mut Ledger, port: u16) {
        ledger.claim(&self.key, &Allocations { addresses: Vec::new(), ports: vec![port] });
        self.claimed.ports.push(port);
    }
}

/// A port that an object names; 0 reads as absent.
fn port_number(port: Option<&Value>) -> Option<u64> {
    port?.as_u64().filter(|port| *port != 0)
}

/// Brings the ledger up to date with the services in the watch cache.
struct ServiceFollower {
    ledger: Arc<Mutex<Ledger>>,
    /// The services of a list whose revision is yet to be told.
    present: Mutex<Option<HashSet<Arc<str>>>>,
}

impl ServiceFollower {
    fn observe(&self, service: &CachedObject, is_deleted: bool) {
        let mut json = serde_json::Deserializer::from_slice(service.json());
        let allocations = if is_deleted { Ok(None) } else { Allocations::of(&mut json).map(Some) };
        match allocations {
            Ok(allocations) => {
                self.ledger.lock().observed(service.key(), service.resource_version(), allocations);
            }
            Err(error) => {
                tracing::error!(key = %service.key(), %error, "allocations of a service cannot be read");
            }
        }
    }
}

impl Follower for ServiceFollower {
    fn replace(&self, services: &[Arc<CachedObject>]) {
        for service in services {
            self.observe(service, false);
        }
        let present = services.iter().map(|service| Arc::clone(service.key())).collect();
        self.present.lock().replace(present);
    }

    fn apply(&self, changes: &[Delivery]) {
        for change in changes {
            self.observe(&change.object(), change.kind == EventType::Deleted);
        }
    }

    fn reached(&self, revision: u64) {
        if let Some(present) = self.present.lock().take() {
            self.ledger.lock().replaced(&present, revision);
        }
    }
}

#[cfg(test)]
mod tests;
