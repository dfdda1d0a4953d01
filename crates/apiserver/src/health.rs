//! `/healthz`, `/livez` and `/readyz`: named checks, individually or all together (upstream: `server/healthz`).
//!
//! `/livez` tells whether to restart the process, `/readyz` whether to send traffic. During shutdown the server is live
//! but not ready. `/healthz` is the old name of `/livez`.

use std::fmt::Write as _;
use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use nave_metrics::Registrar;
use prometheus::{Encoder, GaugeVec, IntCounterVec, Registry, TextEncoder};

use crate::request_info::Query;

/// Timeout of a check without one of its own.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The health paths.
const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// kube-apiserver's checks of its start, under the names that probes and monitoring ask for.
const START: [&str; 32] = [
    "log",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/bootstrap-controller",
    "poststarthook/crd-informer-synced",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/kube-apiserver-autoregistration",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/storage-readiness",
    "autoregister-completion",
];

/// A check; the error is a short reason.
type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks of a server.
#[derive(Clone, Default)]
pub struct Health {
    checks: Vec<Check>,
    results: Option<Results>,
}

/// The results of checks, as metrics (upstream: `component-base/metrics/prometheus/slis`).
#[derive(Clone)]
pub(crate) struct Results {
    registry: Registry,
    latest: GaugeVec,
    total: IntCounterVec,
}

impl Results {
    /// Creates the metrics in a registry of their own.
    ///
    /// # Errors
    /// A name is invalid (a bug in this file).
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let registrar = Registrar(&registry);
        let help = "The latest result of a health check: 1 if it passed.";
        let latest = registrar.gauges("kubernetes_healthcheck", help, &["name", "type"])?;
        let (name, help) = ("kubernetes_healthchecks_total", "Results of health checks.");
        let total = registrar.counters(name, help, &["name", "status", "type"])?;
        Ok(Self { registry, latest, total })
    }

    fn record(&self, endpoint: &str, name: &str, passed: bool) {
        self.latest.with_label_values(&[name, endpoint]).set(f64::from(u8::from(passed)));
        let status = if passed { "success" } else { "error" };
        self.total.with_label_values(&[name, status, endpoint]).inc();
    }
}

#[derive(Clone)]
struct Check {
    name: String,
    scope: Scope,
    timeout: Duration,
    probe: Probe,
}

/// The paths that a check applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// `/healthz` and `/readyz`: the failure cannot be repaired by a restart.
    HealthzAndReadyz,
    /// `/readyz`.
    Readyz,
}

/// The response to a health request.
#[derive(Debug, PartialEq, Eq)]
pub struct HealthAnswer {
    /// The HTTP status code.
    pub code: StatusCode,
    /// The body.
    pub text: String,
}

/// A flag that is set once, such as `ready` or `shutting down`.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<AtomicBool>);

impl Switch {
    /// Sets the flag.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Scope {
    fn applies_to(self, endpoint: &str) -> bool {
        match self {
            Self::All => true,
            Self::HealthzAndReadyz => endpoint != "livez",
            Self::Readyz => endpoint == "readyz",
        }
    }
}

impl Health {
    /// Creates a set of checks that contains only `ping`, which always passes.
    pub fn new() -> Self {
        let mut health = Self::default();
        health.add("ping", Scope::All, || Ok(()));
        health
    }

    /// Records the results of checks.
    pub(crate) fn with_results(mut self, results: Results) -> Self {
        self.results = Some(results);
        self
    }

    /// Encodes the results of checks in Prometheus' text format.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub(crate) fn metrics(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        let families = self.results.iter().flat_map(|results| results.registry.gather());
        TextEncoder::new().encode(&families.collect::<Vec<_>>(), &mut text)?;
        Ok(text)
    }

    /// Runs a check and records its result.
    async fn run(&self, endpoint: &str, check: &Check) -> Result<(), String> {
        let result = check.run().await;
        if let Some(results) = &self.results {
            results.record(endpoint, &check.name, result.is_ok());
        }
        result
    }

    /// Adds a check.
    pub fn add(
        &mut self,
        name: &str,
        scope: Scope,
        probe: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.add_async(name, scope, PROBE_TIMEOUT, move || ready(probe()));
    }

    /// Adds an asynchronous check; it fails if it times out.
    pub fn add_async<F, Fut>(&mut self, name: &str, scope: Scope, timeout: Duration, probe: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let probe: Probe = Arc::new(move || probe().boxed());
        self.checks.push(Check { name: name.to_owned(), scope, timeout, probe });
    }

    /// Adds the checks of the steps of the start. They always pass: the server listens when its start is complete.
    pub(crate) fn add_start(&mut self) {
        for name in START {
            self.add(name, Scope::All, || Ok(()));
        }
    }

    /// Returns the response for `path`; `None` if it is not a health path or names an unknown check.
    pub async fn answer(&self, path: &str, query: &Query) -> Option<HealthAnswer> {
        let path = path.strip_prefix('/')?;
        let (endpoint, name) = match path.split_once('/') {
            Some((endpoint, name)) => (endpoint, Some(name)),
            None => (path, None),
        };
        if !ENDPOINTS.contains(&endpoint) {
            return None;
        }
        let mut checks = self.checks.iter().filter(|check| check.scope.applies_to(endpoint));
        match name {
            None => Some(self.all(endpoint, checks, query).await),
            Some(name) => match checks.find(|check| check.name == name) {
                Some(check) => Some(self.one(endpoint, check).await),
                None => None,
            },
        }
    }

    /// Returns all health paths.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for endpoint in ENDPOINTS {
            paths.push(format!("/{endpoint}"));
            let names = self.checks.iter().filter(|check| check.scope.applies_to(endpoint));
            paths.extend(names.map(|check| format!("/{endpoint}/{}", check.name)));
        }
        paths
    }

    async fn one(&self, endpoint: &str, check: &Check) -> HealthAnswer {
        match self.run(endpoint, check).await {
            Ok(()) => HealthAnswer { code: StatusCode::OK, text: "ok".to_owned() },
            Err(why) => HealthAnswer {
                code: StatusCode::INTERNAL_SERVER_ERROR,
                text: format!("internal server error: {why}\n"),
            },
        }
    }

    async fn all(&self, endpoint: &str, checks: impl Iterator<Item = &Check>, query: &Query) -> HealthAnswer {
        // Each excluded name, and whether a check has it.
        let mut excluded: Vec<(&str, bool)> = query
            .pairs()
            .iter()
            .filter(|(name, _)| name == "exclude")
            .map(|(_, value)| (value.as_str(), false))
            .collect();
        let mut text = String::new();
        let mut failed = false;
        for check in checks {
            let name = &check.name;
            // Writing to a string cannot fail.
            let _ = if let Some((_, found)) = excluded.iter_mut().find(|(excluded, _)| excluded == name) {
                *found = true;
                writeln!(text, "[+]{name} excluded: ok")
            } else {
                match self.run(endpoint, check).await {
                    Ok(()) => writeln!(text, "[+]{name} ok"),
                    Err(why) => {
                        failed = true;
                        tracing::warn!(endpoint, check = name, why, "health check failed");
                        writeln!(text, "[-]{name} failed: reason withheld")
                    }
                }
            };
        }
        excluded.retain(|(name, found)| !found && !name.is_empty());
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|(name, _)| format!("{name:?}")).collect();
            let _ = writeln!(
                text,
                "warn: some health checks cannot be excluded: no matches for {}",
                names.join(",")
            );
        }
        if failed {
            let _ = writeln!(text, "{endpoint} check failed");
            return HealthAnswer { code: StatusCode::INTERNAL_SERVER_ERROR, text };
        }
        if query.get("verbose").is_some() {
            let _ = writeln!(text, "{endpoint} check passed");
            return HealthAnswer { code: StatusCode::OK, text };
        }
        HealthAnswer { code: StatusCode::OK, text: "ok".to_owned() }
    }
}

impl Check {
    async fn run(&self) -> Result<(), String> {
        tokio::time::timeout(self.timeout, (self.probe)())
            .await
            .unwrap_or_else(|_| Err("timed out".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request_info::RequestInfo;

    async fn get(health: &Health, uri: &str) -> Option<(u16, String)> {
        let info = RequestInfo::new(&Method::GET, &uri.parse().unwrap());
        health.answer(&info.path, &info.query).await.map(|answer| (answer.code.as_u16(), answer.text))
    }

    #[tokio::test]
    async fn readiness_fails_while_liveness_passes() {
        let ready = Switch::default();
        let seen = ready.clone();
        let mut health = Health::new();
        health.add(
            "started",
            Scope::Readyz,
            move || if seen.is_set() { Ok(()) } else { Err("starting".into()) },
        );
        assert_eq!(get(&health, "/livez").await, Some((200, "ok".into())));
        let text = "[+]ping ok\n[-]started failed: reason withheld\nreadyz check failed\n";
        assert_eq!(get(&health, "/readyz").await, Some((500, text.into())));
        assert_eq!(get(&health, "/readyz?exclude=started").await, Some((200, "ok".into())));
        let unknown = get(&health, "/livez?verbose&exclude=ping&exclude=x&exclude=y").await;
        let warning = "warn: some health checks cannot be excluded: no matches for \"x\",\"y\"\n";
        let text = format!("[+]ping excluded: ok\n{warning}livez check passed\n");
        assert_eq!(unknown, Some((200, text)));
        assert_eq!(get(&health, "/livez/started").await, None);
        ready.set();
        assert_eq!(get(&health, "/readyz/started").await, Some((200, "ok".into())));
        health.add("plugin", Scope::HealthzAndReadyz, || Ok(()));
        assert_eq!(get(&health, "/healthz/plugin").await, Some((200, "ok".into())));
        assert_eq!(get(&health, "/livez/plugin").await, None);
        let text = "[+]ping ok\n[+]started ok\n[+]plugin ok\nreadyz check passed\n";
        assert_eq!(get(&health, "/readyz?verbose").await, Some((200, text.into())));
        assert_eq!(get(&health, "/readyz/none").await, None);
        assert_eq!(get(&health, "/other").await, None);
    }

    #[tokio::test]
    async fn steps_of_the_start_pass_on_all_endpoints() {
        let mut health = Health::default();
        health.add_start();
        for endpoint in ENDPOINTS {
            let (code, text) = get(&health, &format!("/{endpoint}?verbose")).await.unwrap();
            assert_eq!(code, 200);
            for name in START {
                assert!(text.lines().any(|line| line == format!("[+]{name} ok")), "{endpoint} {name}");
                assert_eq!(get(&health, &format!("/{endpoint}/{name}")).await, Some((200, "ok".into())));
            }
        }
    }
}
