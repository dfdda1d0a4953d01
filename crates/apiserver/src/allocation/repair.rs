//! Repairs the allocations of services after crashes, failures and manual changes (upstream:
//! `pkg/registry/core/service/{ipallocator,portallocator}/controller`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use nave_cacher::{CachedObject, Delivery, EventType, Snapshot};
use nave_machinery::{Status, Value, meta, time};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ServiceAllocator;
use super::addresses::{FAMILY_LABEL, Holder, MANAGER, MANAGER_LABEL, parent};
use super::error::AddressError;
use super::range::Family;
use super::service::{Allocations, ServiceName};
use crate::storage::{Follower, Following, Latest, ResourceStorage};

/// Interval between comparisons.
const INTERVAL: Duration = Duration::from_mins(3);
/// Pause after a failed comparison.
const RETRY: Duration = Duration::from_secs(10);
/// Pause before a comparison that is triggered by a change, so that one comparison covers many changes.
const PAUSE: Duration = Duration::from_secs(1);
/// Number of consecutive comparisons that must find a port without a service before it is freed. The first of them must
/// also be older than the maximum duration of a request.
const ROUNDS_BEFORE_CLEANUP: u32 = 3;
/// Maximum number of attempts to update the ports when other writers conflict.
const MAX_ATTEMPTS: usize = 5;

/// Compares services, addresses and ports, and repairs the differences.
pub struct Repair {
    allocator: Arc<ServiceAllocator>,
    /// Maximum duration of a request.
    grace: Duration,
    /// The ports without a service.
    leaks: Mutex<HashMap<u16, Leak>>,
}

/// A port without a service, as found by comparisons.
#[derive(Clone, Copy)]
struct Leak {
    since: Instant,
    /// The number of consecutive comparisons that have found the port.
    rounds: u32,
}

impl Repair {
    /// Creates the repair of an allocator. `grace` is the maximum duration of a request for a service.
    pub fn new(allocator: Arc<ServiceAllocator>, grace: Duration) -> Self {
        Self { allocator, grace, leaks: Mutex::default() }
    }

    /// Creates the objects that allocations need: the default `ServiceCIDR`, an `IPAddress` for each address in use,
    /// and the object with the ports in use. Must complete before the first allocation.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn start(&self) -> Result<(), Status> {
        self.sync_default_cidr().await?;
        self.allocator.free_own_address().await;
        self.run_once(self.grace).await.map(drop)
    }

    /// Creates the default `ServiceCIDR`, or adds the second range or a missing Ready condition to it.
    ///
    /// # Errors
    /// The error of the store.
    pub(crate) async fn sync_default_cidr(&self) -> Result<(), Status> {
        self.allocator.cidrs.sync_default().await
    }

    /// Compares all addresses and ports once. Returns the time until the next comparison that can release an address or
    /// a port, if any. An address without a service is deleted once it is older than `grace`, when no request can still
    /// create its service.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn run_once(&self, grace: Duration) -> Result<Option<Duration>, Status> {
        let allocator = Arc::clone(&self.allocator);
        let (addresses, ports) = join(compare_addresses(&allocator, grace), self.compare_ports(grace)).await;
        let metrics = &self.allocator.metrics;
        let addresses = addresses.inspect_err(|_| metrics.address_repair_errors.inc());
        ports.inspect_err(|_| metrics.port_repair_errors.inc())?;
        let has_leaks = !self.leaks.lock().is_empty();
        Ok([addresses?, has_leaks.then_some(self.grace)].into_iter().flatten().min())
    }

    /// Compares periodically, and when the address of a service disappears. Never returns.
    pub async fn run(&self) -> Infallible {
        let wake = Arc::new(Notify::new());
        let follower =
            AddressFollower { services: Arc::clone(&self.allocator.services), wake: Arc::clone(&wake) };
        let cacher = Arc::clone(self.allocator.addresses.objects.cacher());
        let _following = Following::start(cacher, Arc::new(follower));
        // After the first pause, addresses that were too recent at start can be deleted.
        let mut pause = self.grace.clamp(PAUSE, INTERVAL);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => tokio::time::sleep(PAUSE).await,
            }
            pause = match self.run_once(self.grace).await {
                Ok(again) => again.unwrap_or(INTERVAL).clamp(PAUSE, INTERVAL),
                Err(status) => {
                    tracing::warn!(%status, "service allocations cannot be compared");
                    RETRY
                }
            };
        }
    }

    async fn compare_ports(&self, grace: Duration) -> Result<(), Status> {
        for _ in 0..MAX_ATTEMPTS {
            if self.try_compare_ports(grace).await? {
                return Ok(());
            }
        }
        Err(Status::service_unavailable("other servers changed the node ports at each attempt"))
    }

    /// Rebuilds the ports in use from the services; returns false if another writer was faster.
    async fn try_compare_ports(&self, grace: Duration) -> Result<bool, Status> {
        let ports = Arc::clone(&self.allocator.ports);
        // Read the ports before the services, so that each port in use belongs to a listed service or to a service that
        // is being created.
        let stored = ports.read().await?;
        let services = latest(&self.allocator.services).await?;
        let is_same_range = stored.range == ports.range_text();
        let mut leaked = if is_same_range { stored.bitmap.clone() } else { ports.empty() };
        let mut rebuilt = ports.empty();
        for service in services.range("", None) {
            let Some(allocations) = allocations_of(service) else { continue };
            let key = &**service.key();
            for port in allocations.ports {
                let Some(offset) = ports.offset(port) else {
                    tracing::warn!(
                        key,
                        port,
                        range = ports.range_text(),
                        "node port is out of range; please recreate the service"
                    );
                    continue;
                };
                if !rebuilt.set(offset) {
                    tracing::warn!(
                        key,
                        port,
                        "node port is assigned to several services; please recreate the service"
                    );
                } else if !leaked.is_set(offset) && stored.revision != 0 && is_same_range {
                    tracing::warn!(key, port, "node port is not allocated; repairing");
                }
                leaked.clear(offset);
            }
        }
        let found = leaked.offsets().map(|offset| ports.port(offset));
        let before = self.leaks.lock().clone();
        let now = Instant::now();
        let leak = |port: u16| {
            let Leak { since, rounds } = before.get(&port).copied().unwrap_or(Leak { since: now, rounds: 0 });
            (port, Leak { since, rounds: rounds + 1 })
        };
        let mut leaks: HashMap<u16, Leak> = found.map(leak).collect();
        let is_over = |leak: &Leak| leak.rounds >= ROUNDS_BEFORE_CLEANUP && now - leak.since >= grace;
        for (port, leak) in &leaks {
            if is_over(leak) {
                tracing::warn!(port, "node port has leaked; freeing it");
            } else if let Some(offset) = ports.offset(*port) {
                rebuilt.set(offset);
            }
        }
        let is_same = stored.revision != 0 && is_same_range && rebuilt == stored.bitmap;
        let done = is_same || ports.replace(&stored, &rebuilt).await?;
        if done {
            leaks.retain(|_, leak| !is_over(leak));
            *self.leaks.lock() = leaks;
        }
        Ok(done)
    }
}

impl ServiceAllocator {
    /// Deletes the address object of the `kubernetes` service if the service is missing after a crash. Otherwise the
    /// server could not create the service at start.
    async fn free_own_address(&self) {
        let service = ServiceName { namespace: "default".to_owned(), name: "kubernetes".to_owned() };
        let address = self.ranges.first();
        let revision = self.addresses.known_revision(address);
        if revision.is_some() && self.services.find(&service.namespace, &service.name).is_none() {
            self.addresses.release(address, Holder::Service(&service), revision).await;
        }
    }
}

async fn compare_addresses(
    allocator: &ServiceAllocator,
    grace: Duration,
) -> Result<Option<Duration>, Status> {
    // Read the addresses before the services, so that each address belongs to a listed service or to a service that is
    // being written.
    let known = allocator.addresses.objects.cacher().snapshot();
    let services = latest(&allocator.services).await?;
    let comparison = Comparison { allocator, known, services };
    comparison.check_services().await?;
    comparison.check_addresses(grace).await
}

/// The state that is compared.
struct Comparison<'a> {
    allocator: &'a ServiceAllocator,
    known: Snapshot,
    services: Snapshot,
}

impl Comparison<'_> {
    /// Creates the missing address objects of services.
    async fn check_services(&self) -> Result<(), Status> {
        let mut missing = Vec::new();
        for service in self.services.range("", None) {
            let Some(allocations) = allocations_of(service) else { continue };
            for address in allocations.addresses {
                self.check_service(service, address, &mut missing);
            }
        }
        // Create them concurrently, so that the store can commit them together.
        let created = missing.into_iter().map(|(address, service, object)| async move {
            let addresses = &self.allocator.addresses;
            if let Some(object) = object {
                addresses.release_as_seen(address, object.resource_version()).await;
            }
            match addresses.create(address, &service).await {
                Ok(claim) => claim.keep(),
                // Another server has created the object.
                Err(AddressError::Allocated) => {}
                Err(AddressError::Store(status)) => return Err(status),
                Err(error) => return Err(Status::internal(error)),
            }
            Ok(())
        });
        futures_util::future::try_join_all(created).await.map(drop)
    }

    /// Checks one service. Adds each missing address to the objects to create, with the object to replace, if any.
    fn check_service<'s>(
        &'s self,
        service: &CachedObject,
        address: IpAddr,
        missing: &mut Vec<(IpAddr, ServiceName, Option<&'s Arc<CachedObject>>)>,
    ) {
        let name = ServiceName { namespace: service.namespace().to_owned(), name: service.name().to_owned() };
        let key = &**service.key();
        if !self.allocator.cidrs.contain(address) {
            tracing::warn!(key, %address, "cluster IP is not within any service CIDR; please recreate the service");
            return;
        }
        let Some(object) = self.object(address) else {
            tracing::warn!(key, %address, "cluster IP is not allocated; repairing");
            missing.push((address, name, None));
            return;
        };
        match serde_json::from_slice::<Value>(&object.json()).ok().and_then(|object| parent(&object)) {
            Some(parent) if parent == name => {
                let family = Family::from_address(address).as_str();
                let labels = object.attributes();
                if labels.label(FAMILY_LABEL) != Some(family) || labels.label(MANAGER_LABEL) != Some(MANAGER)
                {
                    missing.push((address, name, Some(object)));
                }
            }
            Some(parent) if self.names(&parent, address) => {
                tracing::warn!(key, %address, other = ?parent, "cluster IP is assigned to several services; please recreate the service");
            }
            _ => {
                tracing::warn!(key, %address, "cluster IP has a wrong reference; repairing");
                missing.push((address, name, Some(object)));
            }
        }
    }

    /// Deletes addresses without a service. Returns the time until the next address is old enough, if any.
    async fn check_addresses(&self, grace: Duration) -> Result<Option<Duration>, Status> {
        let mut next = None;
        for object in self.known.range("", None) {
            if object.attributes().label(MANAGER_LABEL) != Some(MANAGER) {
                continue;
            }
            let (Ok(address), Ok(value)) =
                (object.name().parse::<IpAddr>(), serde_json::from_slice::<Value>(&object.json()))
            else {
                continue;
            };
            let parent = parent(&value);
            if parent.as_ref().is_some_and(|parent| self.names(parent, address)) {
                continue;
            }
            let left = grace.saturating_sub(age(&value));
            if parent.is_some() && !left.is_zero() {
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
                continue;
            }
            tracing::warn!(%address, service = ?parent, "IPAddress belongs to no service; deleting it");
            self.allocator.addresses.release_as_seen(address, object.resource_version()).await;
        }
        Ok(next)
    }

    fn object(&self, address: IpAddr) -> Option<&Arc<CachedObject>> {
        let def = self.allocator.addresses.objects.def();
        self.known.get(&nave_resources::storage_key(def, None, &address.to_string()).ok()?)
    }

    /// Returns whether the service exists and has the address.
    fn names(&self, service: &ServiceName, address: IpAddr) -> bool {
        let def = self.allocator.services.def();
        let key = nave_resources::storage_key(def, Some(&service.namespace), &service.name).ok();
        let service = key.and_then(|key| self.services.get(&key));
        service.and_then(|service| allocations_of(service)).is_some_and(|it| it.addresses.contains(&address))
    }
}

/// Returns the age of an object according to this server's clock.
fn age(object: &Value) -> Duration {
    let created = meta::field(object, "creationTimestamp").and_then(Value::as_str);
    let seconds = created.and_then(time::Timestamp::parse).map(|created| time::now().seconds_since(created));
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.try_into().unwrap_or_default()))
}

fn allocations_of(service: &CachedObject) -> Option<Allocations> {
    let bytes = service.json();
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    match Allocations::from_service(&mut json) {
        Ok(allocations) => Some(allocations),
        Err(error) => {
            tracing::error!(key = %service.key(), %error, "allocations of a service cannot be read");
            None
        }
    }
}

/// Returns the latest state of a resource's objects.
async fn latest(storage: &ResourceStorage) -> Result<Snapshot, Status> {
    match storage.latest().await? {
        Latest::Memory(snapshot) => Ok(snapshot),
        Latest::Store(_) => Err(Status::service_unavailable("the watch cache lags behind")),
    }
}

/// Wakes the repair when the address object of a service is changed or deleted.
struct AddressFollower {
    services: Arc<ResourceStorage>,
    wake: Arc<Notify>,
}

impl AddressFollower {
    fn is_missed(&self, change: &Delivery) -> bool {
        let object = change.object();
        let Ok(value) = serde_json::from_slice::<Value>(&object.json()) else { return false };
        let (Some(parent), Ok(address)) = (parent(&value), object.name().parse::<IpAddr>()) else {
            return true;
        };
        let service = self.services.find(&parent.namespace, &parent.name);
        service.and_then(|it| allocations_of(&it)).is_some_and(|it| it.addresses.contains(&address))
    }
}

impl Follower for AddressFollower {
    fn replace(&self, _: &[Arc<CachedObject>]) {}

    fn apply(&self, changes: &[Delivery]) {
        let suspicious = changes.iter().filter(|change| change.kind != EventType::Added);
        if suspicious.into_iter().any(|change| self.is_missed(change)) {
            self.wake.notify_one();
        }
    }
}
