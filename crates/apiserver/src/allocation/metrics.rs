//! The metrics of allocations and of their repair, by upstream's names (`ipallocator/metrics.go`,
//! `portallocator/metrics.go`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nave_metrics::Registrar;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{DEFAULT_BUCKETS, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::ServiceAllocator;
use super::node_ports::Wanted;
use super::range::ServiceRange;

/// The counters of allocations and repairs.
pub(super) struct AllocationMetrics {
    addresses: Outcomes,
    address_times: HistogramVec,
    ports: Outcomes,
    pub(super) address_repair_errors: IntCounter,
    pub(super) port_repair_errors: IntCounter,
}

/// The numbers of successes and failures.
struct Outcomes {
    allocated: IntCounterVec,
    failed: IntCounterVec,
}

impl Outcomes {
    fn new(registrar: Registrar<'_>, kind: &str, labels: &[&str]) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("kube_apiserver_{kind}_allocator_{name}");
        let (allocated, failed) = (name("allocation_total"), name("allocation_errors_total"));
        Ok(Self {
            allocated: registrar.counters(&allocated, "Allocations, by their scope.", labels)?,
            failed: registrar.counters(&failed, "Failed allocations, by their scope.", labels)?,
        })
    }

    fn count(&self, labels: &[&str], is_allocated: bool) {
        let counter = if is_allocated { &self.allocated } else { &self.failed };
        counter.with_label_values(labels).inc();
    }
}

impl AllocationMetrics {
    /// Registers the metrics.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let name = "kube_apiserver_clusterip_allocator_allocation_duration_seconds";
        let help = "Time to allocate a cluster IP, in seconds.";
        let address_times = registrar.histograms(name, help, &["cidr"], DEFAULT_BUCKETS)?;
        let help = "Comparisons of services with their allocations that failed.";
        Ok(Self {
            addresses: Outcomes::new(registrar, "clusterip", &["cidr", "scope"])?,
            address_times,
            ports: Outcomes::new(registrar, "nodeport", &["scope"])?,
            address_repair_errors: registrar
                .counter("apiserver_clusterip_repair_reconcile_errors_total", help)?,
            port_repair_errors: registrar
                .counter("apiserver_nodeport_repair_reconcile_errors_total", help)?,
        })
    }

    /// Counts an allocation of an address in a range. A requested address is `static`.
    pub(super) fn address(
        &self,
        range: Option<ServiceRange>,
        is_requested: bool,
        is_allocated: bool,
        elapsed: Duration,
    ) {
        let cidr = range.map(|range| range.to_string()).unwrap_or_default();
        self.addresses.count(&[&cidr, scope(is_requested)], is_allocated);
        self.address_times.with_label_values(&[&cidr]).observe(elapsed.as_secs_f64());
    }

    /// Counts an allocation of ports, which succeeds for all or for none.
    pub(super) fn ports(&self, wanted: &[Wanted], is_allocated: bool) {
        for wanted in wanted {
            self.ports.count(&[scope(matches!(wanted, Wanted::Number(_)))], is_allocated);
        }
    }
}

fn scope(is_requested: bool) -> &'static str {
    if is_requested { "static" } else { "dynamic" }
}

/// Reads the addresses and ports in use when metrics are collected.
pub(crate) struct AllocationGauges {
    allocator: Weak<ServiceAllocator>,
    allocated_addresses: IntGaugeVec,
    available_addresses: IntGaugeVec,
    allocated_ports: IntGaugeVec,
    available_ports: IntGaugeVec,
}

impl AllocationGauges {
    /// Creates the collector of an allocator.
    ///
    /// # Errors
    /// A name is invalid (a bug in this file).
    pub(crate) fn new(allocator: &Arc<ServiceAllocator>) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(format!("kube_apiserver_{name}"), help), labels)
        };
        let cidr = ["cidr"];
        Ok(Self {
            allocator: Arc::downgrade(allocator),
            allocated_addresses: gauges("clusterip_allocator_allocated_ips", "Cluster IPs in use.", &cidr)?,
            available_addresses: gauges("clusterip_allocator_available_ips", "Free cluster IPs.", &cidr)?,
            allocated_ports: gauges("nodeport_allocator_allocated_ports", "Node ports in use.", &[])?,
            available_ports: gauges("nodeport_allocator_available_ports", "Free node ports.", &[])?,
        })
    }

    fn parts(&self) -> [&IntGaugeVec; 4] {
        [&self.allocated_addresses, &self.available_addresses, &self.allocated_ports, &self.available_ports]
    }

    fn refresh(&self, allocator: &ServiceAllocator) {
        self.allocated_addresses.reset();
        self.available_addresses.reset();
        for (range, used) in allocator.used_addresses() {
            let cidr = range.to_string();
            let size = i64::try_from(range.size()).unwrap_or(i64::MAX);
            self.allocated_addresses.with_label_values(&[&cidr]).set(used);
            self.available_addresses.with_label_values(&[&cidr]).set(size.saturating_sub(used).max(0));
        }
        let (used, size) = allocator.used_ports();
        self.allocated_ports.with_label_values::<&str>(&[]).set(used);
        self.available_ports.with_label_values::<&str>(&[]).set(size.saturating_sub(used));
    }
}

impl Collector for AllocationGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(allocator) = self.allocator.upgrade() else { return Vec::new() };
        self.refresh(&allocator);
        let families = self.parts().into_iter().flat_map(Collector::collect);
        // The registry rejects a family without metrics.
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

/// Returns the number of addresses in each range.
pub(super) fn by_range(
    ranges: Vec<ServiceRange>,
    addresses: impl Iterator<Item = IpAddr>,
) -> Vec<(ServiceRange, i64)> {
    let mut used: HashMap<usize, i64> = HashMap::new();
    for address in addresses {
        if let Some(position) = ranges.iter().position(|range| range.contains(address)) {
            *used.entry(position).or_default() += 1;
        }
    }
    let with_number = |(position, range)| (range, used.get(&position).copied().unwrap_or_default());
    ranges.into_iter().enumerate().map(with_number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_addresses_of_each_range() {
        let range = |cidr: &str| ServiceRange::new(cidr.parse().unwrap()).unwrap();
        let ranges = vec![range("10.0.0.0/24"), range("fd00::/112")];
        let addresses = ["10.0.0.1", "10.0.0.9", "192.0.2.1", "fd00::3"];
        let counted = by_range(ranges, addresses.iter().map(|address| address.parse().unwrap()));
        let counted: Vec<_> =
            counted.iter().map(|(range, used)| (range.to_string(), range.size(), *used)).collect();
        assert_eq!(counted, [("10.0.0.0/24".to_owned(), 254, 2), ("fd00::/112".to_owned(), 65535, 1)]);
    }
}
