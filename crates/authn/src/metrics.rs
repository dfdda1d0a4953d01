//! What is counted, under upstream's names.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nave_metrics::Registrar;
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry, exponential_buckets,
};
use sha2::{Digest, Sha256};

use crate::{AuthnError, Identity};

/// Seconds from an hour to a year: how long certificates have to live yet.
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
    /// A hash of the server's name.
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
    /// Tokens used after the time that was asked for, within their extension.
    pub stale_tokens: IntCounter,
    /// Tokens with an extension used within the time that was asked for.
    pub valid_tokens: IntCounter,
    /// Tokens from secrets.
    pub legacy_tokens: IntCounter,
    /// Of these, those in secrets that the account lists, as they were made for each account once.
    pub legacy_auto_tokens: IntCounter,
    /// Those in other secrets.
    pub legacy_manual_tokens: IntCounter,
    /// Tokens from secrets that were refused because they had been ended.
    pub invalid_legacy_auto_tokens: IntCounter,
}

impl Metrics {
    /// Registers all metrics; `server` tells this one from others of the same cluster.
    ///
    /// # Errors
    /// A metric whose name or labels are not valid, which is a mistake in this file.
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
                "Requests of authenticated users, by user where that is one of the system's.",
                "username",
            )?,
            attempts: counters(
                "authentication_attempts",
                "Requests that were authenticated, by result.",
                "result",
            )?,
            durations: histograms(
                "authentication_duration_seconds",
                "Time to authenticate a request, in seconds.",
                "result",
                &buckets,
            )?,
            expiry: registrar.histogram(
                "apiserver_client_certificate_expiration_seconds",
                "Time that certificates of requests have yet to live, in seconds.",
                &EXPIRY_BUCKETS,
            )?,
            cache_requests: counters(
                "authentication_token_cache_request_total",
                "Tokens looked up, by whether the outcome was remembered.",
                "status",
            )?,
            cache_durations: histograms(
                "authentication_token_cache_request_duration_seconds",
                "Time to look up a token, in seconds.",
                "status",
                &lookups,
            )?,
            cache_fetches: counters(
                "authentication_token_cache_fetch_total",
                "Tokens whose user had to be found, by outcome.",
                "status",
            )?,
            cache_fetching: registrar.int_gauges(
                "authentication_token_cache_active_fetch_count",
                "Requests whose token's user is being found or waited for.",
                &["status"],
            )?,
            reloads: registrar.counters(
                "apiserver_authentication_config_controller_automatic_reloads_total",
                "How often the configuration of authentication was read again, by status.",
                &["status", "apiserver_id_hash"],
            )?,
            reloaded_at: registrar.gauges(
                "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
                "When the configuration of authentication was last read again, by status.",
                &["status", "apiserver_id_hash"],
            )?,
            config_info: registrar.gauges(
                "apiserver_authentication_config_controller_last_config_info",
                "The hash of the configuration of authentication that holds.",
                &["apiserver_id_hash", "hash"],
            )?,
            stale_tokens: registrar.counter(
                "serviceaccount_stale_tokens_total",
                "Service account tokens used after the time that was asked for.",
            )?,
            valid_tokens: registrar.counter(
                "serviceaccount_valid_tokens_total",
                "Service account tokens used within the time that was asked for.",
            )?,
            legacy_tokens: registrar
                .counter("serviceaccount_legacy_tokens_total", "Service account tokens from secrets used.")?,
            legacy_auto_tokens: registrar.counter(
                "serviceaccount_legacy_auto_token_uses_total",
                "Service account tokens used from secrets that their account lists.",
            )?,
            legacy_manual_tokens: registrar.counter(
                "serviceaccount_legacy_manual_token_uses_total",
                "Service account tokens used from secrets that their account does not list.",
            )?,
            invalid_legacy_auto_tokens: registrar.counter(
                "serviceaccount_invalid_legacy_auto_token_uses_total",
                "Service account tokens from secrets that were refused because they had been ended.",
            )?,
        })
    }

    /// The configuration of authentication was read again, or could not be used.
    pub fn config_reloaded(&self, succeeded: bool) {
        let labels = [if succeeded { "success" } else { "failure" }, &self.server];
        self.reloads.with_label_values(&labels).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reloaded_at.with_label_values(&labels).set(now.as_secs_f64());
    }

    /// This configuration of authentication holds.
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

    /// Counts a request that waits for a token's user (`blocked`), or one that finds it (`in_flight`), until the
    /// guard is dropped.
    pub(crate) fn fetching(&self, status: &str) -> Fetching {
        let gauge = self.cache_fetching.with_label_values(&[status]);
        gauge.inc();
        Fetching(gauge)
    }
}

/// A gauge counted up for as long as this lives.
pub(crate) struct Fetching(prometheus::IntGauge);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn hash(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The few users a label may name; anybody else would make it as long as the list of users.
fn user_label(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        email if email.contains('@') => "email_id",
        _ => "other",
    }
}
