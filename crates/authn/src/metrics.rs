//! The metrics of authentication, under upstream's names.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nave_metrics::Registrar;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry, exponential_buckets,
};
use sha2::{Digest, Sha256};

use crate::{AuthnError, Identity};

/// The buckets for the remaining lifetime of client certificates, in seconds.
const EXPIRY_BUCKETS: [f64; 14] = [
    0.0,
    1_800.0,
    3_600.0,
    7_200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

/// The metrics of authentication.
pub struct Metrics {
    /// A hash of the API server's identity.
    server: String,
    users: IntCounterVec,
    attempts: IntCounterVec,
    durations: HistogramVec,
    expiry: Histogram,
    cache_requests: IntCounterVec,
    cache_durations: HistogramVec,
    cache_fetches: IntCounterVec,
    cache_fetching: IntGaugeVec,
    reloads: IntCounterVec,
    reloaded_at: GaugeVec,
    config_info: GaugeVec,
    /// Tokens with an extended lifetime, used after their nominal expiration.
    pub stale_tokens: IntCounter,
    /// Tokens with an extended lifetime, used before their nominal expiration.
    pub valid_tokens: IntCounter,
    /// Tokens from secrets.
    pub legacy_tokens: IntCounter,
    /// Legacy tokens in secrets that the service account lists; old versions created these automatically.
    pub legacy_auto_tokens: IntCounter,
    /// Legacy tokens in other secrets.
    pub legacy_manual_tokens: IntCounter,
    /// Legacy tokens that were refused because they are marked invalid.
    pub invalid_legacy_auto_tokens: IntCounter,
}

impl Metrics {
    /// Registers all metrics. `server` identifies this server among the servers of a cluster.
    ///
    /// # Errors
    /// A metric has an invalid name or label, which is a bug in this file.
    pub fn new(registry: &Registry, server: &str) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let counters = |name, help, label| registrar.counters(name, help, &[label]);
        let histograms =
            |name, help, label, buckets: &[f64]| registrar.histograms(name, help, &[label], buckets);
        let buckets = exponential_buckets(0.001, 2.0, 15)?;
        let lookups = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0];
        Ok(Self {
            server: hash(server.as_bytes()),
            users: counters(
                "authenticated_user_requests",
                "Authenticated requests, by user name; users that are not well known share a label.",
                "username",
            )?,
            attempts: counters("authentication_attempts", "Authentication attempts, by result.", "result")?,
            durations: histograms(
                "authentication_duration_seconds",
                "Time to authenticate a request, in seconds.",
                "result",
                &buckets,
            )?,
            expiry: registrar.histogram(
                "apiserver_client_certificate_expiration_seconds",
                "Remaining lifetime of the client certificate of a request, in seconds.",
                &EXPIRY_BUCKETS,
            )?,
            cache_requests: counters(
                "authentication_token_cache_request_total",
                "Token cache lookups, by hit or miss.",
                "status",
            )?,
            cache_durations: histograms(
                "authentication_token_cache_request_duration_seconds",
                "Duration of token cache lookups, in seconds.",
                "status",
                &lookups,
            )?,
            cache_fetches: counters(
                "authentication_token_cache_fetch_total",
                "Token authentications after a cache miss, by outcome.",
                "status",
            )?,
            cache_fetching: registrar.int_gauges(
                "authentication_token_cache_active_fetch_count",
                "Token authentications in flight, and requests waiting for them.",
                &["status"],
            )?,
            reloads: registrar.counters(
                "apiserver_authentication_config_controller_automatic_reloads_total",
                "Reloads of the authentication configuration, by status.",
                &["status", "apiserver_id_hash"],
            )?,
            reloaded_at: registrar.gauges(
                "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
                "Time of the last reload of the authentication configuration, by status.",
                &["status", "apiserver_id_hash"],
            )?,
            config_info: registrar.gauges(
                "apiserver_authentication_config_controller_last_config_info",
                "Hash of the authentication configuration in effect.",
                &["apiserver_id_hash", "hash"],
            )?,
            stale_tokens: registrar.counter(
                "serviceaccount_stale_tokens_total",
                "Service account tokens used after their nominal expiration.",
            )?,
            valid_tokens: registrar.counter(
                "serviceaccount_valid_tokens_total",
                "Service account tokens with an extended expiration, used before the nominal one.",
            )?,
            legacy_tokens: registrar
                .counter("serviceaccount_legacy_tokens_total", "Legacy service account tokens used.")?,
            legacy_auto_tokens: registrar.counter(
                "serviceaccount_legacy_auto_token_uses_total",
                "Auto-generated legacy service account tokens used.",
            )?,
            legacy_manual_tokens: registrar.counter(
                "serviceaccount_legacy_manual_token_uses_total",
                "Manually created legacy service account tokens used.",
            )?,
            invalid_legacy_auto_tokens: registrar.counter(
                "serviceaccount_invalid_legacy_auto_token_uses_total",
                "Auto-generated legacy service account tokens refused because they are marked invalid.",
            )?,
        })
    }

    /// Records a reload of the authentication configuration.
    pub fn config_reloaded(&self, succeeded: bool) {
        let labels = [if succeeded { "success" } else { "failure" }, &self.server];
        self.reloads.with_label_values(&labels).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reloaded_at.with_label_values(&labels).set(now.as_secs_f64());
    }

    /// Records the hash of the configuration in effect.
    pub fn config_is(&self, text: &[u8]) {
        self.config_info.reset();
        self.config_info.with_label_values(&[&self.server, &*hash(text)]).set(1.0);
    }

    pub(crate) fn attempted(&self, found: &Result<Identity, AuthnError>, elapsed: Duration) {
        let result = match found {
            Ok(identity) => {
                self.users.with_label_values(&[user_label(&identity.user.name)]).inc();
                "success"
            }
            Err(AuthnError::NoCredential) => "failure",
            Err(_) => "error",
        };
        self.attempts.with_label_values(&[result]).inc();
        self.durations.with_label_values(&[result]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn certificate_expires_in(&self, time: Duration) {
        self.expiry.observe(time.as_secs_f64());
    }

    pub(crate) fn looked_up(
        &self,
        hit: bool,
        outcome: &Result<Option<Identity>, AuthnError>,
        elapsed: Duration,
    ) {
        let status = if hit { "hit" } else { "miss" };
        self.cache_requests.with_label_values(&[status]).inc();
        self.cache_durations.with_label_values(&[status]).observe(elapsed.as_secs_f64());
        if !hit {
            let status = if outcome.is_ok() { "ok" } else { "error" };
            self.cache_fetches.with_label_values(&[status]).inc();
        }
    }

    /// Counts a request that waits for a token's authentication (`blocked`) or performs it (`in_flight`), until the
    /// guard is dropped.
    pub(crate) fn fetching(&self, status: &str) -> Fetching {
        let gauge = self.cache_fetching.with_label_values(&[status]);
        gauge.inc();
        Fetching(gauge)
    }
}

/// A guard that increments a gauge and decrements it when dropped.
pub(crate) struct Fetching(prometheus::IntGauge);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn hash(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns the label for a user name. All users except well-known ones share a label, which bounds the number of
/// series.
fn user_label(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        email if email.contains('@') => "email_id",
        _ => "other",
    }
}
