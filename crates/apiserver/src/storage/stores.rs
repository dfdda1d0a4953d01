//! The stores of resources: one for most, others for single resources (`--etcd-servers-overrides`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nave_machinery::GroupResource;
use nave_store::Store;

use super::store_metrics::{MeasuredStore, StoreMetrics};

/// The stores of all resources.
#[derive(Clone)]
pub struct Stores {
    main: Arc<dyn Store>,
    overrides: Arc<HashMap<GroupResource, Arc<dyn Store>>>,
    metrics: Option<StoreMetrics>,
    timeouts: CheckTimeouts,
}

/// Timeouts of the health checks of stores.
#[derive(Clone, Copy, Debug)]
pub struct CheckTimeouts {
    /// Timeout of the check `etcd` (`--etcd-healthcheck-timeout`).
    pub health: Duration,
    /// Timeout of the check `etcd-readiness` (`--etcd-readycheck-timeout`).
    pub readiness: Duration,
}

impl Default for CheckTimeouts {
    fn default() -> Self {
        Self { health: Duration::from_secs(2), readiness: Duration::from_secs(2) }
    }
}

impl Stores {
    /// Creates the stores without overrides, metrics and with default timeouts.
    pub fn new(main: Arc<dyn Store>) -> Self {
        Self { main, overrides: Arc::default(), metrics: None, timeouts: CheckTimeouts::default() }
    }

    /// Returns these stores with other stores for single resources.
    #[must_use]
    pub fn with_overrides(mut self, overrides: HashMap<GroupResource, Arc<dyn Store>>) -> Self {
        self.overrides = Arc::new(overrides);
        self
    }

    /// Returns these stores with other timeouts of health checks.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: CheckTimeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Returns these stores with the durations of their operations as metrics.
    ///
    /// # Errors
    /// A metric is already registered.
    pub fn measured(mut self, registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        self.metrics = Some(StoreMetrics::new(registry)?);
        Ok(self)
    }

    /// Returns the store of most resources.
    pub fn main(&self) -> &Arc<dyn Store> {
        &self.main
    }

    /// Returns the timeouts of health checks.
    pub fn timeouts(&self) -> CheckTimeouts {
        self.timeouts
    }

    /// Returns all stores.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Store>> {
        std::iter::once(&self.main).chain(self.overrides.values())
    }

    /// Returns the store of a resource.
    pub(super) fn for_resource(&self, resource: &GroupResource) -> Arc<dyn Store> {
        let store = Arc::clone(self.overrides.get(resource).unwrap_or(&self.main));
        match &self.metrics {
            Some(metrics) => Arc::new(MeasuredStore::new(store, metrics, resource)),
            None => store,
        }
    }
}

impl From<Arc<dyn Store>> for Stores {
    fn from(store: Arc<dyn Store>) -> Self {
        Self::new(store)
    }
}

impl<S: Store> From<Arc<S>> for Stores {
    fn from(store: Arc<S>) -> Self {
        Self::new(store)
    }
}
