//! Reports a default `ServiceCIDR` that differs from the flags (upstream: `kubernetes-service-cidr-controller`). The
//! allocator creates the object at the first start. Its ranges take precedence over a changed flag, except that the
//! flag can add a second range.

use nave_machinery::{GroupVersionResource, Status, Value, meta, time};
use parking_lot::Mutex;
use serde_json::json;

use super::ensure::{core, create};
use crate::allocation::{DEFAULT_SERVICE_CIDR, ServiceRanges};
use crate::endpoints::Resources;

/// Source of the events.
const COMPONENT: &str = "kubernetes-service-cidr-controller";

/// Compares the default `ServiceCIDR` with `--service-cluster-ip-range`.
pub(super) struct DefaultServiceCidr {
    cidrs: Vec<String>,
    /// The last reported problem.
    reported: Mutex<Option<Problem>>,
}

/// A problem of the object, with the reason and message of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    reason: String,
    message: String,
}

impl DefaultServiceCidr {
    pub(super) fn new(ranges: ServiceRanges) -> Self {
        Self { cidrs: ranges.cidrs(), reported: Mutex::default() }
    }

    /// Records an event and logs a warning if the object has a new problem.
    ///
    /// # Errors
    /// The object cannot be read, or the event cannot be stored.
    pub(super) async fn report(&self, resources: &Resources) -> Result<(), Status> {
        let resource = GroupVersionResource::new("networking.k8s.io", "v1", "servicecidrs");
        let catalog = resources.catalog();
        let Some(endpoint) = catalog.endpoint(&resource) else { return Ok(()) };
        let storage = endpoint.storage()?;
        let Some(cached) = storage.find("", DEFAULT_SERVICE_CIDR) else { return Ok(()) };
        let object = storage.codec().parse_cached(&cached)?;
        let Some(problem) = self.problem(&object) else { return Ok(()) };
        if self.reported.lock().replace(problem.clone()).is_some_and(|reported| reported == problem) {
            return Ok(());
        }
        tracing::warn!(reason = problem.reason, "{}", problem.message);
        create(resources, core("events"), "default", event(&object, &problem)).await
    }

    /// Returns the problem of the object, if it has one.
    fn problem(&self, object: &Value) -> Option<Problem> {
        if meta::deletion_timestamp(object).is_some() {
            return None;
        }
        let cidrs = texts(meta::value_at(object, &["spec", "cidrs"]));
        if cidrs != self.cidrs {
            return Some(Problem {
                reason: "KubernetesDefaultServiceCIDRInconsistent".to_owned(),
                message: format!(
                    "The default ServiceCIDR [{}] does not match the controller flag configurations [{}]",
                    cidrs.join(" "),
                    self.cidrs.join(" ")
                ),
            });
        }
        let conditions = meta::value_at(object, &["status", "conditions"])?.as_array()?;
        let text = |condition: &Value, field: &str| {
            condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let ready = conditions.iter().find(|condition| text(condition, "type") == "Ready")?;
        (text(ready, "status") == "False").then(|| Problem {
            reason: text(ready, "reason"),
            message: format!("Configuration matches, but {}", text(ready, "message")),
        })
    }
}

fn texts(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn event(object: &Value, problem: &Problem) -> Value {
    let now = time::now();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!(
                "{DEFAULT_SERVICE_CIDR}.{:x}{:08x}",
                now.unix_seconds(),
                now.subsecond_nanoseconds()
            ),
            "namespace": "default",
        },
        "involvedObject": {
            "apiVersion": meta::api_version(object),
            "kind": meta::kind(object),
            "name": meta::name(object),
            "uid": meta::uid(object),
            "resourceVersion": meta::resource_version(object),
        },
        "type": "Warning",
        "reason": problem.reason,
        "message": problem.message,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": now.rfc3339(),
        "lastTimestamp": now.rfc3339(),
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_ranges_that_differ_and_ranges_that_are_not_ready() {
        let problem = |flag: &str, object: &Value| {
            let reporter = DefaultServiceCidr::new(flag.parse().unwrap());
            reporter.problem(object).map(|problem| (problem.reason, problem.message))
        };
        let object = |cidrs: &[&str], status: &str| {
            json!({
                "metadata": {"name": "kubernetes"},
                "spec": {"cidrs": cidrs},
                "status": {"conditions": [
                    {"type": "Ready", "status": status, "reason": "Terminating", "message": "it is going"},
                ]},
            })
        };
        let one = object(&["10.0.0.0/16"], "True");
        assert_eq!(problem("10.0.0.0/16", &one), None);
        assert_eq!(problem("10.0.0.0/16", &object(&["10.0.0.0/16"], "Unknown")), None);
        let (reason, message) = problem("10.1.0.0/16,fd00::/108", &one).unwrap();
        assert_eq!(reason, "KubernetesDefaultServiceCIDRInconsistent");
        assert_eq!(
            message,
            "The default ServiceCIDR [10.0.0.0/16] does not match the controller flag configurations \
             [10.1.0.0/16 fd00::/108]"
        );
        let (reason, message) = problem("10.0.0.0/16", &object(&["10.0.0.0/16"], "False")).unwrap();
        assert_eq!((&*reason, &*message), ("Terminating", "Configuration matches, but it is going"));
        let mut deleted = object(&["10.9.0.0/16"], "False");
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(problem("10.0.0.0/16", &deleted), None);
    }
}
