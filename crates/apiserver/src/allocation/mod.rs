//! Cluster IPs and node ports of services (upstream: `pkg/registry/core/service`).
//!
//! | file | contents |
//! | --- | --- |
//! | `service_cidr.rs`, `range.rs` | the ranges of cluster IPs, from `ServiceCIDR` objects |
//! | `families.rs` | the IP families of a service |
//! | `addresses.rs` | cluster IPs as `IPAddress` objects |
//! | `node_ports.rs` | the node ports that a service needs |
//! | `ports.rs`, `bitmap.rs` | node ports as a `RangeAllocation` |
//! | `repair.rs` | reconciliation of services, addresses and ports |
//!
//! A write [begins](ServiceAllocator::begin) with a reservation, which claims the addresses and ports that the new
//! state needs in addition to those of the old one. They are claimed in the store before the service is written, so
//! servers that share a store never allocate an address or port twice. Dropping the reservation releases its claims.
//! After the commit, allocations that only the old state has are released.

mod addresses;
mod bitmap;
mod error;
mod families;
pub(crate) mod metrics;
mod node_ports;
mod ports;
mod range;
mod repair;
mod service;
mod service_cidr;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::{join, join_all};
use nave_machinery::{
    FieldError, FieldPath, GroupKind, GroupResource, GroupVersionResource, Map, Status, Value, meta,
};
use prometheus::Registry;
use serde_json::json;
use tokio::runtime::Handle;

use self::addresses::{AddressClaim, Addresses, Holder};
use self::error::{AddressError, PortError};
use self::metrics::AllocationMetrics;
use self::node_ports::{Plan, SpecPosition, Wanted};
use self::ports::{PortClaim, Ports};
use self::range::{Family, ServiceRange};
pub use self::range::{RangeError, ServiceRanges};
pub use self::repair::Repair;
use self::service::{Allocations, ServiceName, texts};
pub(crate) use self::service_cidr::DEFAULT_SERVICE_CIDR;
use self::service_cidr::ServiceCidrs;
use crate::storage::{Reservation, ReservationOutcome, ResourceStorage, Storages};

/// Allocates cluster IPs and node ports.
pub struct ServiceAllocator {
    ranges: ServiceRanges,
    addresses: Arc<Addresses>,
    ports: Arc<Ports>,
    cidrs: ServiceCidrs,
    services: Arc<ResourceStorage>,
    metrics: AllocationMetrics,
}

/// The claims of a write attempt, until the write is committed or the reservation is dropped.
pub struct ServiceReservation {
    service: ServiceName,
    addresses: Arc<Addresses>,
    ports: Arc<Ports>,
    claimed_addresses: Vec<AddressClaim>,
    claimed_ports: Option<PortClaim>,
    /// The allocations of the old state, with the revisions of the address objects.
    before: Allocations,
    known: Vec<(IpAddr, Option<u64>)>,
}

impl ServiceAllocator {
    /// Creates an allocator; `None` if a required resource is not stored. Must be called within a Tokio runtime, which
    /// runs tasks that must complete even if their request is dropped.
    ///
    /// # Errors
    /// A metric is already registered.
    pub fn new(
        storages: &Storages,
        ranges: ServiceRanges,
        ports: RangeInclusive<u16>,
        registry: &Registry,
    ) -> Result<Option<Arc<Self>>, prometheus::Error> {
        let networking = |resource: &str| {
            storages.get(&GroupVersionResource::new("networking.k8s.io", "v1", resource)).cloned()
        };
        let services = storages.get(&GroupVersionResource::new("", "v1", "services"));
        let (Some(services), Some(cidrs), Some(objects)) =
            (services, networking("servicecidrs"), networking("ipaddresses"))
        else {
            return Ok(None);
        };
        let node_ports =
            GroupResource { group: String::new(), resource: "servicenodeportallocations".to_owned() };
        let (store, runtime) = (storages.stores().for_resource(&node_ports), Handle::current());
        let cidrs = ServiceCidrs::new(cidrs, ranges);
        let addresses = Addresses::new(Arc::clone(objects.store()), objects, cidrs.clone(), runtime.clone());
        Ok(Some(Arc::new(Self {
            ranges,
            addresses: Arc::new(addresses),
            ports: Arc::new(Ports::new(store, ports, runtime)),
            cidrs,
            services: Arc::clone(services),
            metrics: AllocationMetrics::new(registry)?,
        })))
    }

    /// Returns the number of cluster IPs in use in each range that is ready.
    fn used_addresses(&self) -> Vec<(ServiceRange, i64)> {
        let known = self.addresses.objects.cacher().snapshot();
        let names = known.range("", None).filter_map(|object| object.key().rsplit('/').next()?.parse().ok());
        metrics::by_range(self.cidrs.all_ready(), names)
    }

    /// Returns the number of node ports in use, as last read or written, and that of all node ports.
    fn used_ports(&self) -> (i64, i64) {
        self.ports.used()
    }

    /// Completes the IP families of a service, and claims the addresses and ports that it needs in addition to those of
    /// `old`, the state to be replaced. A dry run claims nothing.
    ///
    /// # Errors
    /// 422 if fields contradict each other, or an address or port is taken or out of range; 500 if no address or port
    /// is free.
    pub async fn begin(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<ServiceReservation, Status> {
        let mut reservation = self.reservation(ServiceName::from_service(service), old);
        let errors = nave_resources::validate_service_cluster_ips(service);
        let old = old.and_then(|old| old.get("spec")).and_then(Value::as_object);
        let name = meta::name(service).to_owned();
        let invalid = |errors: &[FieldError]| {
            let kind = GroupKind { group: String::new(), kind: "Service".to_owned() };
            Status::invalid(&kind, &name, errors)
        };
        if !errors.is_empty() {
            return Err(invalid(&errors));
        }
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else {
            return Ok(reservation);
        };
        families::complete(spec, old, self.ranges).map_err(|errors| invalid(&errors))?;
        for index in families::missing_addresses(spec, old) {
            let allocated = self.allocate_address(spec, index, &mut reservation, dry_run).await;
            allocated.map_err(|failure| failure.into_status(spec, &name, invalid))?;
        }
        let plan = Plan::new(spec, old);
        if !plan.wanted.is_empty() {
            let allocated = self.allocate_ports(&plan, spec, &mut reservation, dry_run).await;
            allocated.map_err(|(place, error)| port_status(&plan, place, error, invalid))?;
        }
        Ok(reservation)
    }

    /// Returns the reservation of a deletion, which releases the allocations of the service after the commit.
    pub fn begin_deletion(&self, service: &Value) -> ServiceReservation {
        self.reservation(ServiceName::from_service(service), Some(service))
    }

    fn reservation(&self, service: ServiceName, before: Option<&Value>) -> ServiceReservation {
        let before = before.and_then(|before| match Allocations::from_service(before) {
            Ok(allocations) => Some(allocations),
            Err(error) => {
                tracing::error!(?service, %error, "allocations of a service cannot be read");
                None
            }
        });
        let before = before.unwrap_or_default();
        let known =
            before.addresses.iter().map(|address| (*address, self.addresses.known_revision(*address)));
        ServiceReservation {
            service,
            addresses: Arc::clone(&self.addresses),
            ports: Arc::clone(&self.ports),
            claimed_addresses: Vec::new(),
            claimed_ports: None,
            known: known.collect(),
            before,
        }
    }

    async fn allocate_address(
        &self,
        spec: &mut Map,
        index: usize,
        reservation: &mut ServiceReservation,
        dry_run: bool,
    ) -> Result<(), AddressFailure> {
        let mut addresses = texts(spec, "clusterIPs");
        let families = texts(spec, "ipFamilies");
        addresses.resize(addresses.len().max(index + 1), String::new());
        spec.insert("clusterIPs".to_owned(), json!(addresses));
        let (Some(text), Some(family)) =
            (addresses.get_mut(index), families.get(index).and_then(|name| Family::parse(name)))
        else {
            return Ok(());
        };
        // Validation has ensured that the text is an address.
        let wanted = text.parse::<IpAddr>().ok();
        let started = Instant::now();
        let claimed = match wanted {
            _ if dry_run => self.addresses.check_claim(wanted, family).await,
            Some(address) => {
                self.addresses.claim(address, &reservation.service).await.map(|claim| reservation.add(claim))
            }
            None => self
                .addresses
                .claim_any(family, &reservation.service)
                .await
                .map(|claim| reservation.add(claim)),
        };
        if !dry_run {
            let ranges = self.cidrs.ready(family);
            let allocated = claimed.as_ref().ok().copied();
            let contains =
                |range: &&ServiceRange| allocated.or(wanted).is_none_or(|address| range.contains(address));
            let range = ranges.iter().find(contains).copied();
            self.metrics.address(range, wanted.is_some(), allocated.is_some(), started.elapsed());
        }
        let address = claimed.map_err(|error| AddressFailure { wanted: text.clone(), error })?;
        if text.is_empty() {
            *text = address.to_string();
        }
        if let Some(first) = addresses.first().filter(|_| index == 0) {
            spec.insert("clusterIP".to_owned(), json!(first));
        }
        spec.insert("clusterIPs".to_owned(), json!(addresses));
        Ok(())
    }

    async fn allocate_ports(
        &self,
        plan: &Plan,
        spec: &mut Map,
        reservation: &mut ServiceReservation,
        dry_run: bool,
    ) -> Result<(), ports::ClaimError> {
        let wanted: Vec<Wanted> = plan.wanted.iter().map(|(wanted, _)| *wanted).collect();
        if dry_run {
            plan.fill(spec, &self.ports.check_claim(&wanted)?);
            return Ok(());
        }
        let claim = self.ports.claim(wanted.clone()).await;
        self.metrics.ports(&wanted, claim.is_ok());
        let claim = claim?;
        plan.fill(spec, claim.ports());
        reservation.claimed_ports = Some(claim);
        Ok(())
    }
}

#[async_trait]
impl Reservation for ServiceReservation {
    async fn complete(mut self: Box<Self>, outcome: ReservationOutcome<'_>) {
        let stored = match outcome.stored().map(Allocations::from_service).transpose() {
            Ok(stored) => stored.unwrap_or_default(),
            // Keep all claims; the repair finds leaked ones.
            Err(error) => {
                tracing::error!(service = ?self.service, %error, "allocations of a service cannot be read");
                self.claimed_addresses.drain(..).for_each(AddressClaim::keep);
                self.claimed_ports.take().map(|claim| claim.keep(&[]));
                return;
            }
        };
        let (kept, lost): (Vec<_>, Vec<_>) =
            self.claimed_addresses.drain(..).partition(|claim| stored.addresses.contains(&claim.address));
        kept.into_iter().for_each(AddressClaim::keep);
        let mut ports = self.claimed_ports.take().map(|claim| claim.keep(&stored.ports)).unwrap_or_default();
        let freed = std::mem::take(&mut self.before).without(&stored);
        let known = |address: &IpAddr| self.known.iter().find(|(known, _)| known == address)?.1;
        let (holder, freed_addresses) = match outcome {
            ReservationOutcome::Committed(_) => {
                ports.extend(freed.ports);
                (Holder::Service(&self.service), freed.addresses)
            }
            // Other writers may have released the same allocations, and another service may use them now. The revision
            // of an address object shows whether it is still the same. Ports have no revision, so they are left to the
            // repair.
            ReservationOutcome::Found(_) => {
                ports.clear();
                let addresses = freed.addresses.into_iter().filter(|address| known(address).is_some());
                (Holder::None, addresses.collect())
            }
        };
        let old =
            freed_addresses.iter().map(|address| self.addresses.release(*address, holder, known(address)));
        let addresses = join(join_all(lost.into_iter().map(AddressClaim::release)), join_all(old));
        join(addresses, self.ports.release(ports)).await;
    }
}

impl ServiceReservation {
    fn add(&mut self, claim: AddressClaim) -> IpAddr {
        let address = claim.address;
        self.claimed_addresses.push(claim);
        address
    }
}

/// A failed allocation of an address.
struct AddressFailure {
    /// The requested address; empty if any address was requested.
    wanted: String,
    error: AddressError,
}

impl AddressFailure {
    fn into_status(self, spec: &Map, name: &str, invalid: impl FnOnce(&[FieldError]) -> Status) -> Status {
        let why = match (self.error, self.wanted.as_str()) {
            (AddressError::Store(status), _) => return status,
            (error @ AddressError::Full, _) => {
                let why = format!("failed to allocate a serviceIP for Service {name:?}: {error}");
                return Status::internal(why);
            }
            (error, "") => format!("failed to allocate IP: {error}"),
            (error, wanted) => format!("failed to allocate IP {wanted}: {error}"),
        };
        let at = FieldPath::new("spec").child("clusterIPs");
        invalid(&[FieldError::invalid(&at, spec.get("clusterIPs").cloned().unwrap_or_default(), why)])
    }
}

fn port_status(
    plan: &Plan,
    position: usize,
    error: PortError,
    invalid: impl FnOnce(&[FieldError]) -> Status,
) -> Status {
    match (error, plan.wanted.get(position)) {
        (PortError::Store(status), _) => status,
        (error, Some((Wanted::Number(number), SpecPosition::HealthCheck))) => {
            Status::internal(format!("failed to allocate requested HealthCheck NodePort {number}: {error}"))
        }
        (error, Some((Wanted::Any, SpecPosition::HealthCheck))) => {
            Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {error}"))
        }
        (error, Some((Wanted::Number(number), place))) => {
            invalid(&[FieldError::invalid(&place.path(), *number, error.to_string())])
        }
        (error, _) => Status::internal(format!("failed to allocate a nodePort: {error}")),
    }
}

#[cfg(test)]
mod tests;
