//! The metrics of calls, by client-go's names (`component-base/metrics/prometheus/restclient`).

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{StatusCode, Uri};
use nave_metrics::Registrar;
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, Registry};

use crate::client::{ClientError, Response};

const DURATIONS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const SIZES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// Maximum number of hosts with series of their own. Others share the host `other`, because objects name the hosts.
const MAX_HOSTS: usize = 200;

/// The metrics of the calls of clients, by host. Clones share them.
#[derive(Clone)]
pub struct CallMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    request_sizes: HistogramVec,
    response_sizes: HistogramVec,
    hosts: Arc<Mutex<HashSet<String>>>,
}

impl CallMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// A name is already registered.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let registrar = Registrar(registry);
        let by_verb = ["verb", "host"];
        let histograms =
            |name: &str, help: &str, buckets: &[f64]| registrar.histograms(name, help, &by_verb, buckets);
        let (name, help) =
            ("rest_client_requests_total", "Calls of other servers, by code, method and host.");
        Ok(Self {
            requests: registrar.counters(name, help, &["code", "method", "host"])?,
            durations: histograms(
                "rest_client_request_duration_seconds",
                "Duration of calls of other servers, in seconds.",
                &DURATIONS,
            )?,
            request_sizes: histograms(
                "rest_client_request_size_bytes",
                "Sizes of the bodies of calls, in bytes.",
                &SIZES,
            )?,
            response_sizes: histograms(
                "rest_client_response_size_bytes",
                "Sizes of the responses to calls, in bytes.",
                &SIZES,
            )?,
            hosts: Arc::default(),
        })
    }

    /// Returns the metrics of the POST calls of a host.
    pub(crate) fn of_host(&self, uri: &Uri) -> HostMetrics {
        let host = self.host(uri);
        HostMetrics {
            durations: self.durations.with_label_values(&["POST", host]),
            request_sizes: self.request_sizes.with_label_values(&["POST", host]),
            response_sizes: OnceLock::new(),
            successes: OnceLock::new(),
            host: host.to_owned(),
            all: self.clone(),
        }
    }

    /// Returns the label of a host.
    fn host<'u>(&self, uri: &'u Uri) -> &'u str {
        let host = uri.authority().map_or("", http::uri::Authority::as_str);
        let hosts = &mut *self.hosts.lock();
        if !hosts.contains(host) {
            if hosts.len() >= MAX_HOSTS {
                return "other";
            }
            hosts.insert(host.to_owned());
        }
        host
    }
}

/// The metrics of the calls of one host, whose series are searched once.
pub(crate) struct HostMetrics {
    durations: Histogram,
    request_sizes: Histogram,
    response_sizes: OnceLock<Histogram>,
    /// The calls with the status 200.
    successes: OnceLock<IntCounter>,
    host: String,
    all: CallMetrics,
}

impl HostMetrics {
    /// Records a POST call.
    pub(crate) fn posted(&self, size: usize, outcome: Result<&Response, &ClientError>, elapsed: Duration) {
        let calls = |code: &str| self.all.requests.with_label_values(&[code, "POST", &self.host]);
        match outcome {
            Ok(response) if response.status == StatusCode::OK => {
                self.successes.get_or_init(|| calls("200")).inc();
            }
            Ok(response) => calls(response.status.as_str()).inc(),
            Err(_) => calls("<error>").inc(),
        }
        self.durations.observe(elapsed.as_secs_f64());
        self.request_sizes.observe(size as f64);
        if let Ok(response) = outcome {
            let sizes = || self.all.response_sizes.with_label_values(&["POST", &self.host]);
            self.response_sizes.get_or_init(sizes).observe(response.body.len() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn number_of_hosts_is_bounded() {
        let registry = Registry::new();
        let metrics = CallMetrics::new(&registry).unwrap();
        let outcome: Result<Response, _> = Err(ClientError::TimedOut(Duration::ZERO));
        for number in 0..2 * MAX_HOSTS {
            let uri: Uri = format!("https://h{number}.example.com:8443/hook?timeout=1s").parse().unwrap();
            metrics.of_host(&uri).posted(1, outcome.as_ref(), Duration::ZERO);
        }
        let counts = |host| metrics.requests.with_label_values(&["<error>", "POST", host]).get();
        let answer =
            Response { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from_static(b"{}") };
        metrics.of_host(&"https://h0.example.com/".parse().unwrap()).posted(1, Ok(&answer), Duration::ZERO);
        let families: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert!(families.contains(&"rest_client_response_size_bytes".to_owned()), "{families:?}");
        assert_eq!((counts("h0.example.com:8443"), counts("other")), (1, MAX_HOSTS as u64));
    }
}
