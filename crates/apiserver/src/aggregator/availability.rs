//! The condition `Available` of APIServices (upstream: `kube-aggregator/pkg/controllers/status`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nave_machinery::backoff::Backoff;
use nave_machinery::options::UpdateOptions;
use nave_machinery::{Object, Status, Value, conditions, time};
use nave_metrics::Registrar;
use nave_webhook::Services;
use prometheus::{IntCounterVec, IntGaugeVec};

use super::api_service::{ApiService, Availability, Remote};
use super::directory::Directory;
use super::schedule::Next;
use super::servers::{Servers, aggregator_user};
use crate::endpoints::view::View;
use crate::internal::InternalWriter;

/// Pauses after a failed check.
pub(super) const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(5), Duration::from_secs(30));
/// Interval of the checks.
const RESYNC: Duration = Duration::from_secs(30);
/// Number of concurrent checks.
pub(super) const WORKERS: usize = 5;
/// Number of concurrent requests of a check. A check passes if one of them does.
const ATTEMPTS: usize = 5;
/// Maximum time of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks aggregated servers and reports the result in the status of their APIServices.
pub(super) struct Checks {
    pub(super) directory: Arc<Directory>,
    pub(super) servers: Arc<Servers>,
    pub(super) services: Arc<dyn Services>,
    pub(super) metrics: Metrics,
}

/// The metrics of availability.
pub(super) struct Metrics {
    unavailable: IntGaugeVec,
    changes: IntCounterVec,
}

impl Checks {
    /// Checks an APIService and writes its status if it has changed.
    pub(super) async fn sync(&self, name: &str, writer: &InternalWriter<'_>) -> Next {
        let Some(service) = self.directory.load().get(name).cloned() else {
            self.metrics.forget(name);
            return Next::OnChange;
        };
        let availability = match &service.remote {
            None => Availability::local(),
            Some(remote) => self.check(&service, remote).await,
        };
        self.metrics.set(name, &availability);
        if service.availability.as_ref() != Some(&availability) {
            self.metrics.count_change(&service, &availability);
            tracing::info!(
                api_service = name,
                available = availability.status,
                reason = availability.reason,
                message = availability.message,
                "availability of the API service changed"
            );
            match write(writer, name, &availability).await {
                Ok(()) => {}
                Err(status) if status.code == 404 => return Next::OnChange,
                Err(status) => {
                    tracing::warn!(api_service = name, error = status.message, "status cannot be written");
                    return Next::Retry;
                }
            }
        }
        match &service.remote {
            None => Next::OnChange,
            Some(_) if availability.reason == FAILED_CHECK => Next::Retry,
            Some(_) => Next::After(RESYNC),
        }
    }

    async fn check(&self, service: &ApiService, remote: &Remote) -> Availability {
        if let Some(failed) = check_service(&*self.services, remote) {
            return failed;
        }
        match self.check_discovery(service, remote).await {
            Ok(()) => {
                remote.circuit.close();
                Availability::passed()
            }
            Err(why) => Availability::failed(FAILED_CHECK, why),
        }
    }

    /// Reads the resource list of the version, which every server has. Returns the last failure if all attempts fail.
    async fn check_discovery(&self, service: &ApiService, remote: &Remote) -> Result<(), String> {
        let mut attempts: FuturesUnordered<_> =
            (0..ATTEMPTS).map(|_| self.attempt(service, remote)).collect();
        let mut outcome = Ok(());
        while let Some(attempt) = attempts.next().await {
            outcome = attempt;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn attempt(&self, service: &ApiService, remote: &Remote) -> Result<(), String> {
        let destination = self.servers.resolve(remote).map_err(|error| error.to_string())?;
        let path = service.path();
        let url = format!("https://{destination}{path}");
        let user = aggregator_user();
        let request = self.servers.probe(remote, &destination, &path, &user);
        let why = match tokio::time::timeout(TIMEOUT, request).await {
            Ok(Ok(exchange)) => match exchange.response.status() {
                status if status.is_success() => return Ok(()),
                status => format!("bad status from {url}: {}", status.as_u16()),
            },
            Ok(Err(error)) => format!("Get {url:?}: {error}"),
            Err(_) => {
                format!(
                    "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )
            }
        };
        Err(format!("failing or missing response from {url}: {why}"))
    }
}

const FAILED_CHECK: &str = "FailedDiscoveryCheck";

/// Returns the failure of a service that cannot be used; `None` if it can.
fn check_service(services: &dyn Services, remote: &Remote) -> Option<Availability> {
    let Remote { namespace, service: name, port, .. } = remote;
    let failed = |reason, message| Some(Availability::failed(reason, message));
    let Some(service) = services.service(namespace, name) else {
        return failed("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    if service["spec"]["type"] != "ClusterIP" {
        return None;
    }
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(found) = ports.iter().find(|found| found["port"].as_u64() == Some(u64::from(*port))) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return failed("ServicePortError", message);
    };
    let port_name = found["name"].as_str().unwrap_or_default();
    let slices = services.endpoint_slices(namespace, name);
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return failed("EndpointsNotFound", message);
    }
    if !slices.iter().any(|slice| has_endpoint(slice, port_name)) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return failed("MissingEndpoints", message);
    }
    None
}

fn has_endpoint(slice: &Value, port_name: &str) -> bool {
    let items = |field: &str| slice[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ready = |endpoint: &Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
    let is_port = |port: &Value| port["name"].as_str() == Some(port_name) && !port["port"].is_null();
    items("endpoints").iter().any(is_ready) && items("ports").iter().any(is_port)
}

async fn write(writer: &InternalWriter<'_>, name: &str, availability: &Availability) -> Result<(), Status> {
    let now = time::now().rfc3339();
    let change = |stored: &Object| {
        let mut object = stored.clone().into_value();
        conditions::set(&mut object, availability.to_json(&now));
        Ok(object)
    };
    writer.update(View::Status, ("", name), &UpdateOptions::default(), &change).await.map(drop)
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// A metric is already registered.
    pub(super) fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        let (unavailable, changes) =
            ("aggregator_unavailable_apiservice", "aggregator_unavailable_apiservice_total");
        Ok(Self {
            unavailable: Registrar(registry).int_gauges(
                unavailable,
                "APIServices that are unavailable.",
                &["name"],
            )?,
            changes: Registrar(registry).counters(
                changes,
                "Changes of APIServices to unavailable, by reason.",
                &["name", "reason"],
            )?,
        })
    }

    fn set(&self, name: &str, availability: &Availability) {
        self.unavailable.with_label_values(&[name]).set(i64::from(availability.status != "True"));
    }

    fn count_change(&self, service: &ApiService, availability: &Availability) {
        if availability.status != "True" && service.availability.is_none() | service.is_available() {
            self.changes.with_label_values(&[&*service.name, &*availability.reason]).inc();
        }
    }

    fn forget(&self, name: &str) {
        // An error means that the name has no value.
        let _ = self.unavailable.remove_label_values(&[name]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixed(Option<Value>, Vec<Value>);

    impl Services for Fixed {
        fn service(&self, _: &str, _: &str) -> Option<Arc<Value>> {
            self.0.clone().map(Arc::new)
        }

        fn endpoint_slices(&self, _: &str, _: &str) -> Vec<Arc<Value>> {
            self.1.iter().cloned().map(Arc::new).collect()
        }
    }

    #[test]
    fn unusable_services_are_reported_with_upstreams_reasons() {
        let object = json!({"metadata": {"name": "v1.a"}, "spec": {"group": "a", "version": "v1",
            "service": {"namespace": "ns", "name": "s", "port": 443}, "insecureSkipTLSVerify": true}});
        let remote = ApiService::read(&object, None).remote.unwrap();
        let service = |kind: &str, port: u16| {
            Some(json!({"spec": {"type": kind, "ports": [{"name": "web", "port": port}]}}))
        };
        let slice = |ready: Value, port: &str| json!({"endpoints": [{"conditions": {"ready": ready}}], "ports": [{"name": port, "port": 1}]});
        let missing = "endpointslices for service/s in \"ns\" have no addresses with port name \"web\"";
        for (service, slices, expected) in [
            (None, vec![], Some(("ServiceNotFound", "service/s in \"ns\" is not present"))),
            (
                service("ClusterIP", 80),
                vec![],
                Some(("ServicePortError", "service/s in \"ns\" is not listening on port 443")),
            ),
            (
                service("ClusterIP", 443),
                vec![],
                Some(("EndpointsNotFound", "cannot find endpointslices for service/s in \"ns\"")),
            ),
            (
                service("ClusterIP", 443),
                vec![slice(json!(false), "web")],
                Some(("MissingEndpoints", missing)),
            ),
            (
                service("ClusterIP", 443),
                vec![slice(json!(true), "other")],
                Some(("MissingEndpoints", missing)),
            ),
            (service("ClusterIP", 443), vec![slice(Value::Null, "web")], None),
            (service("ExternalName", 80), vec![], None),
        ] {
            let found = check_service(&Fixed(service, slices), &remote);
            let expected = expected.map(|(reason, message)| Availability::failed(reason, message));
            assert_eq!(found, expected);
        }
    }
}
