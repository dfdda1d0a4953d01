//! Counts how clients read logs with regard to the kubelet's certificate, by upstream's names
//! (`pkg/registry/core/pod/rest/log.go`).

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts};

/// The requests of logs with and without verification of the kubelet, and the failed verifications.
#[derive(Clone, Debug)]
pub(crate) struct LogUsage {
    requests: IntCounterVec,
    tls_failures: IntCounter,
}

impl LogUsage {
    /// Counts a request.
    pub(super) fn requested(&self, skips_verification: bool) {
        let usage = if skips_verification { "skip_tls_allowed" } else { "enforce_tls" };
        self.requests.with_label_values(&[usage]).inc();
    }

    /// Counts a kubelet whose certificate cannot be verified.
    pub(super) fn tls_failed(&self) {
        self.tls_failures.inc();
    }

    /// Returns the metrics, to register.
    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.requests.clone()), Box::new(self.tls_failures.clone())]
    }
}

impl LogUsage {
    fn new() -> Result<Self, prometheus::Error> {
        let requests = Opts::new(
            "kube_apiserver_pod_logs_insecure_backend_total",
            "Requests of logs, by the verification of the kubelet.",
        );
        let failures = Opts::new(
            "kube_apiserver_pod_logs_backend_tls_failure_total",
            "Requests of logs that failed because the kubelet's certificate could not be verified.",
        );
        let requests = IntCounterVec::new(requests, &["usage"])?;
        Ok(Self { requests, tls_failures: IntCounter::with_opts(failures)? })
    }
}

impl Default for LogUsage {
    fn default() -> Self {
        Self::new().unwrap_or_else(|error| unreachable!("the metrics of this file are valid: {error}"))
    }
}
