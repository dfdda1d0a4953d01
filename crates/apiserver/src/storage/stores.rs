//! The stores of resources: one for most, others for single resources (`--etcd-servers-overrides`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use nave_encryption::Encryption;
use nave_machinery::GroupResource;
use nave_store::{Store, StoreStatus};
use tokio::time::timeout;

use super::StorageMediaType;
use super::store_metrics::{MeasuredStore, StoreMetrics};

/// The stores of all resources.
#[derive(Clone)]
pub struct Stores {
    main: Arc<dyn Store>,
    overrides: Arc<HashMap<GroupResource, Arc<dyn Store>>>,
    metrics: Option<StoreMetrics>,
    encryption: Option<Encryption>,
    media_type: StorageMediaType,
    timeouts: StoreTimeouts,
}

/// Time to wait for the status of a store.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeouts of stores.
#[derive(Clone, Copy, Debug)]
pub struct StoreTimeouts {
    /// Timeout of the check `etcd` (`--etcd-healthcheck-timeout`).
    pub health: Duration,
    /// Timeout of the check `etcd-readiness` (`--etcd-readycheck-timeout`).
    pub readiness: Duration,
    /// Time to wait for the watch caches at start (`--storage-initialization-timeout`).
    pub initialization: Duration,
}

impl Default for StoreTimeouts {
    fn default() -> Self {
        let check = Duration::from_secs(2);
        Self { health: check, readiness: check, initialization: Duration::from_mins(1) }
    }
}

impl Stores {
    /// Creates the stores without overrides, metrics and with default timeouts.
    pub fn new(main: Arc<dyn Store>) -> Self {
        let timeouts = StoreTimeouts::default();
        let media_type = StorageMediaType::default();
        Self { main, overrides: Arc::default(), metrics: None, encryption: None, media_type, timeouts }
    }

    /// Returns these stores with other stores for single resources.
    #[must_use]
    pub fn with_overrides(mut self, overrides: HashMap<GroupResource, Arc<dyn Store>>) -> Self {
        self.overrides = Arc::new(overrides);
        self
    }

    /// Returns these stores with values encrypted at rest.
    #[must_use]
    pub fn with_encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = Some(encryption);
        self
    }

    /// Returns these stores with built-in kinds written in this form.
    #[must_use]
    pub fn with_media_type(mut self, media_type: StorageMediaType) -> Self {
        self.media_type = media_type;
        self
    }

    /// Returns these stores with other timeouts.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: StoreTimeouts) -> Self {
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

    /// Returns the encryption at rest.
    pub fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
    }

    /// Returns the form in which built-in kinds are written.
    pub fn media_type(&self) -> StorageMediaType {
        self.media_type
    }

    /// Returns the timeouts.
    pub fn timeouts(&self) -> StoreTimeouts {
        self.timeouts
    }

    /// Returns all stores.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Store>> {
        std::iter::once(&self.main).chain(self.overrides.values())
    }

    /// Returns the status of each store, in the order of [`Self::all`]; `None` for a store that does not answer in time.
    pub(crate) async fn statuses(&self) -> Vec<Option<StoreStatus>> {
        join_all(self.all().map(status)).await
    }

    /// Returns the status of the store of most resources; `None` if it does not answer in time.
    pub(crate) async fn main_status(&self) -> Option<StoreStatus> {
        status(&self.main).await
    }

    /// Returns whether a resource has a store of its own.
    pub(crate) fn has_override(&self, resource: &GroupResource) -> bool {
        self.overrides.contains_key(resource)
    }

    /// Returns the store of a resource.
    pub(crate) fn for_resource(&self, resource: &GroupResource) -> Arc<dyn Store> {
        let mut store = Arc::clone(self.overrides.get(resource).unwrap_or(&self.main));
        if let Some(metrics) = &self.metrics {
            store = Arc::new(MeasuredStore::new(store, metrics, resource));
        }
        match &self.encryption {
            Some(encryption) => encryption.store(resource, store),
            None => store,
        }
    }
}

async fn status(store: &Arc<dyn Store>) -> Option<StoreStatus> {
    match timeout(STATUS_TIMEOUT, store.status()).await {
        Ok(Ok(status)) => return Some(status),
        Ok(Err(error)) => tracing::warn!(%error, "size of the store is unknown"),
        Err(_) => tracing::warn!("size of the store is unknown: no answer in time"),
    }
    None
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
