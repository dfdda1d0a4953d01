//! Metrics under upstream's names (`storage/value`, `encrypt/envelope/metrics`, `encryptionconfig/metrics`).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest;
use lru::LruCache;
use nave_metrics::Registrar;
use parking_lot::Mutex;
use prometheus::{GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use crate::TransformError;

/// The metrics of encryption at rest.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    /// The hash of the server's identity, a label.
    server: String,
    transformations: IntCounterVec,
    durations: HistogramVec,
    cache_misses: IntCounter,
    calls: HistogramVec,
    key_uses: IntCounterVec,
    key_times: GaugeVec,
    status_times: GaugeVec,
    invalid_key_ids: IntCounterVec,
    seeds: IntGaugeVec,
    reloads: IntCounterVec,
    reload_times: GaugeVec,
    config: IntGaugeVec,
    /// The labels of `key_uses` and `status_times`, so that their number is bounded.
    known: Mutex<LruCache<[String; 3], ()>>,
}

/// The direction of a transformation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    FromStorage,
    ToStorage,
}

impl Metrics {
    /// Registers the metrics of a server with this identity (the name of its lease).
    ///
    /// # Errors
    /// A metric is already registered.
    pub fn new(registry: &Registry, server: &str) -> Result<Self, prometheus::Error> {
        let new = Registrar(registry);
        let name = |suffix: &str| format!("apiserver_envelope_encryption_{suffix}");
        let of_storage = |suffix: &str| format!("apiserver_storage_{suffix}");
        let of_config = |suffix: &str| format!("apiserver_encryption_config_controller_{suffix}");
        let by_key = ["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];
        let by_outcome = ["status", "apiserver_id_hash"];
        Ok(Self(Arc::new(Families {
            server: hash(server.as_bytes()),
            transformations: new.counters(
                &of_storage("transformation_operations_total"),
                "Encryptions and decryptions of values.",
                &["resource", "transformation_type", "transformer_prefix", "status"],
            )?,
            durations: new.histograms(
                &of_storage("transformation_duration_seconds"),
                "Duration of encryptions and decryptions of values, in seconds.",
                &["transformation_type", "transformer_prefix"],
                &prometheus::exponential_buckets(5e-6, 2.0, 25)?,
            )?,
            cache_misses: new.counter(
                &of_storage("envelope_transformation_cache_misses_total"),
                "Values whose seed a plugin had to decrypt.",
            )?,
            calls: new.histograms(
                &name("kms_operations_latency_seconds"),
                "Duration of calls to plugins, in seconds.",
                &["provider_name", "method_name", "grpc_status_code"],
                &prometheus::exponential_buckets(1e-4, 2.0, 20)?,
            )?,
            key_uses: new.counters(&name("key_id_hash_total"), "Uses of a key of a plugin.", &by_key)?,
            key_times: new.gauges(
                &name("key_id_hash_last_timestamp_seconds"),
                "Time of the last use of a key of a plugin, in Unix seconds.",
                &by_key,
            )?,
            status_times: new.gauges(
                &name("key_id_hash_status_last_timestamp_seconds"),
                "Time at which a plugin last reported a key as the current one, in Unix seconds.",
                &by_key[1..],
            )?,
            invalid_key_ids: new.counters(
                &name("invalid_key_id_from_status_total"),
                "Invalid key IDs that a plugin has reported.",
                &["provider_name", "error"],
            )?,
            seeds: new.int_gauges(
                &name("dek_source_cache_size"),
                "Decrypted seeds in memory.",
                &["provider_name"],
            )?,
            reloads: new.counters(
                &of_config("automatic_reloads_total"),
                "Reloads of the encryption configuration.",
                &by_outcome,
            )?,
            reload_times: new.gauges(
                &of_config("automatic_reload_last_timestamp_seconds"),
                "Time of the last reload of the encryption configuration, in Unix seconds.",
                &by_outcome,
            )?,
            config: new.int_gauges(
                &of_config("last_config_info"),
                "The hash of the encryption configuration in use.",
                &["apiserver_id_hash", "hash"],
            )?,
            known: Mutex::new(LruCache::new(MAX_KEYS)),
        })))
    }

    /// Records an encryption or decryption by the provider or key with this prefix.
    pub(crate) fn transformed(
        &self,
        resource: &str,
        direction: Direction,
        prefix: &str,
        started: Instant,
        outcome: Result<(), &TransformError>,
    ) {
        let status = outcome.map_or_else(TransformError::code, |()| "OK");
        self.0.transformations.with_label_values(&[resource, direction.label(), prefix, status]).inc();
        if outcome.is_ok() {
            let duration = self.0.durations.with_label_values(&[direction.label(), prefix]);
            duration.observe(started.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn missed_cache(&self) {
        self.0.cache_misses.inc();
    }

    pub(crate) fn called(&self, provider: &str, method: &str, code: &str, duration: Duration) {
        let calls = self.0.calls.with_label_values(&[provider, method, code]);
        calls.observe(duration.as_secs_f64());
    }

    pub(crate) fn used_key(&self, direction: Direction, provider: &str, key_id: &str) {
        let key = self.known(direction.label(), provider, key_id);
        let labels = [direction.label(), provider, &key, &self.0.server];
        self.0.key_uses.with_label_values(&labels).inc();
        self.0.key_times.with_label_values(&labels).set(unix_seconds());
    }

    pub(crate) fn reported_key(&self, provider: &str, key_id: &str) {
        let key = self.known("", provider, key_id);
        self.0.status_times.with_label_values(&[provider, &key, &self.0.server]).set(unix_seconds());
    }

    pub(crate) fn invalid_key_id(&self, provider: &str, error: &str) {
        self.0.invalid_key_ids.with_label_values(&[provider, error]).inc();
    }

    pub(crate) fn cached_seeds(&self, provider: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.0.seeds.with_label_values(&[provider]).set(count);
    }

    /// Records a reload.
    pub(crate) fn reloaded(&self, is_success: bool) {
        let labels = [if is_success { "success" } else { "failure" }, self.0.server.as_str()];
        self.0.reloads.with_label_values(&labels).inc();
        self.0.reload_times.with_label_values(&labels).set(unix_seconds());
    }

    /// Records the hash of the file in use.
    pub(crate) fn uses_config(&self, hash: &str) {
        self.0.config.reset();
        self.0.config.with_label_values(&[self.0.server.as_str(), hash]).set(1);
    }

    /// Returns the hash of a key ID, and removes the metrics of the least recently used one if there are too many.
    fn known(&self, direction: &str, provider: &str, key_id: &str) -> String {
        let key = hash(key_id.as_bytes());
        let labels = [direction.to_owned(), provider.to_owned(), key.clone()];
        if let Some((old, ())) = self.0.known.lock().push(labels.clone(), ())
            && old != labels
        {
            let [direction, provider, key] = &old;
            let labels = [direction.as_str(), provider, key, &self.0.server];
            // An error means that the metric does not exist.
            if direction.is_empty() {
                let _ = self.0.status_times.remove_label_values(&labels[1..]);
            } else {
                let _ = self.0.key_uses.remove_label_values(&labels);
                let _ = self.0.key_times.remove_label_values(&labels);
            }
        }
        key
    }
}

impl Direction {
    fn label(self) -> &'static str {
        match self {
            Self::FromStorage => "from_storage",
            Self::ToStorage => "to_storage",
        }
    }
}

/// Returns a hash as in metrics and log lines; empty for empty data.
pub(crate) fn hash(data: &[u8]) -> String {
    if data.is_empty() {
        return String::new();
    }
    let hash = digest::digest(&digest::SHA256, data);
    let digits: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Maximum number of keys with metrics.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(100).unwrap();
