//! Durations and errors of store operations by resource, under upstream's names (`storage/etcd3/metrics`), for every
//! engine.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use nave_machinery::GroupResource;
use nave_metrics::{Count, Distribution, Registrar, SeriesVec};
use nave_store::{
    Defragmentation, Expect, KeyValue, Op, Range, RangeResult, Store, StoreError, StoreStatus, Txn,
    TxnOutcome, WatchStream,
};
use prometheus::Registry;

/// The metrics of all stores.
#[derive(Clone)]
pub(super) struct StoreMetrics {
    durations: SeriesVec<Distribution>,
    requests: SeriesVec<Count>,
    errors: SeriesVec<Count>,
}

/// A store of one resource that measures its operations.
pub(super) struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: StoreMetrics,
    resource: GroupResource,
    create: Operation,
    update: Operation,
    delete: Operation,
    get: Operation,
    list: Operation,
}

/// One operation on one resource. Its metrics are created at the first use, so that operations that never happen have
/// none.
struct Operation {
    name: &'static str,
    metrics: OnceLock<OperationMetrics>,
}

struct OperationMetrics {
    duration: Arc<Distribution>,
    requests: Arc<Count>,
    errors: Arc<Count>,
}

impl StoreMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let labels = ["operation", "group", "resource"];
        let (name, help) = ("etcd_request_duration_seconds", "Duration of store operations, in seconds.");
        let durations = registrar.many_histograms(name, help, &labels, &BUCKETS)?;
        let requests = registrar.many_counters("etcd_requests_total", "Store operations.", &labels)?;
        let errors =
            registrar.many_counters("etcd_request_errors_total", "Failed store operations.", &labels)?;
        Ok(Self { durations, requests, errors })
    }

    fn of_operation(&self, name: &str, resource: &GroupResource) -> OperationMetrics {
        let labels = [name, resource.group.as_str(), resource.resource.as_str()];
        OperationMetrics {
            duration: self.durations.with_label_values(&labels),
            requests: self.requests.with_label_values(&labels),
            errors: self.errors.with_label_values(&labels),
        }
    }
}

impl MeasuredStore {
    pub(super) fn new(inner: Arc<dyn Store>, metrics: &StoreMetrics, resource: &GroupResource) -> Self {
        let operation = |name| Operation { name, metrics: OnceLock::new() };
        Self {
            inner,
            metrics: metrics.clone(),
            resource: resource.clone(),
            create: operation("create"),
            update: operation("update"),
            delete: operation("delete"),
            get: operation("get"),
            list: operation("list"),
        }
    }

    async fn measure<T>(
        &self,
        operation: &Operation,
        outcome: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let outcome = outcome.await;
        let create = || self.metrics.of_operation(operation.name, &self.resource);
        let metrics = operation.metrics.get_or_init(create);
        metrics.requests.inc();
        metrics.duration.observe(started.elapsed().as_secs_f64());
        // A compacted or future revision is the caller's error.
        let is_failure = |error: &StoreError| {
            !matches!(error, StoreError::Compacted { .. } | StoreError::FutureRevision { .. })
        };
        if outcome.as_ref().is_err_and(is_failure) {
            metrics.errors.inc();
        }
        outcome
    }
}

#[async_trait]
impl Store for MeasuredStore {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let operation = match (&txn.op, txn.expect) {
            (Op::Delete, _) => &self.delete,
            (Op::Put { .. }, Expect::Absent) => &self.create,
            (Op::Put { .. }, _) => &self.update,
        };
        self.measure(operation, self.inner.txn(txn)).await
    }

    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        self.measure(&self.get, self.inner.get(key, revision)).await
    }

    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.measure(&self.get, self.inner.revision(key)).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.measure(&self.list, self.inner.range(range)).await
    }

    async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        self.inner.count(prefix).await
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        self.inner.compacted_revision().await
    }

    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError> {
        self.inner.watch(prefix, from_revision).await
    }

    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError> {
        self.inner.request_progress(prefix).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }

    async fn defragment(&self) -> Result<Defragmentation, StoreError> {
        self.inner.defragment().await
    }

    async fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        self.inner.snapshot(to).await
    }
}

/// Upstream's buckets.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
