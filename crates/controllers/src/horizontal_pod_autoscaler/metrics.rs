//! Client of the metrics APIs: `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io` (upstream:
//! `podautoscaler/metrics`).

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nave_client::escaped;
use nave_machinery::duration;
use nave_machinery::quantity::Quantity;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::discovery::DiscoveryCache;
use crate::frame::SyncError;
use crate::selectors;

const CUSTOM: &str = "custom.metrics.k8s.io";
/// The sampling window if the API does not return one.
const DEFAULT_WINDOW: Duration = Duration::from_mins(1);

/// The error of a metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct MetricError(String);

impl MetricError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// Prepends the operation that failed.
    pub(super) fn context(self, what: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {self}"))
    }
}

/// A sample of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodMetric {
    /// In thousandths.
    pub(super) value: i64,
    /// The end of the sampling window.
    pub(super) at: Timestamp,
    pub(super) window: Duration,
}

/// Samples by the name of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodMetrics {
    pub(super) by_pod: BTreeMap<String, PodMetric>,
}

impl PodMetrics {
    /// Adds an assumed value.
    pub(super) fn insert_value(&mut self, pod: &str, value: i64, now: Timestamp) {
        self.by_pod.insert(pod.to_owned(), PodMetric { value, at: now, window: Duration::ZERO });
    }
}

/// The metrics APIs of a cluster.
pub(super) struct MetricsApi {
    client: kube::Client,
    discovery: DiscoveryCache,
}

#[derive(Deserialize)]
struct Items<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodUsage {
    metadata: Named,
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerUsage>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ContainerUsage {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Option<Named>,
    timestamp: Option<Timestamp>,
    #[serde(alias = "window")]
    window_seconds: Option<u64>,
    value: String,
}

impl MetricsApi {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { discovery: DiscoveryCache::new(client.clone()), client }
    }

    /// The usage of a resource by pods, or by one container of each.
    pub(super) async fn pod_usage(
        &self,
        namespace: &str,
        selector: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<PodMetrics, MetricError> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let query = [("labelSelector", selector)];
        let items: Items<PodUsage> = self
            .get(&path, &query, "pods.metrics.k8s.io")
            .await
            .map_err(|error| error.context("unable to fetch metrics from resource metrics API"))?;
        if items.items.is_empty() {
            return Err(MetricError::new("no metrics returned from resource metrics API"));
        }
        let by_pod = items.items.into_iter().filter_map(|pod| {
            let value = usage(&pod.containers, resource, container)?;
            Some((pod.metadata.name, PodMetric { value, at: pod.timestamp, window: window(&pod.window) }))
        });
        Ok(PodMetrics { by_pod: by_pod.collect() })
    }

    /// A custom metric of pods.
    pub(super) async fn custom_pod_metric(
        &self,
        namespace: &str,
        selector: &str,
        metric: &str,
        of: Option<&LabelSelector>,
    ) -> Result<PodMetrics, MetricError> {
        let path = format!("namespaces/{namespace}/pods/*/{metric}");
        let items = self.custom(&path, Some(selector), metric, of).await?;
        if items.is_empty() {
            return Err(MetricError::new("no metrics returned from custom metrics API"));
        }
        let by_pod = items.into_iter().filter_map(|item| {
            let (value, at) = (milli(&item.value)?, item.timestamp.unwrap_or(Timestamp::MIN));
            let window = item.window_seconds.map_or(DEFAULT_WINDOW, Duration::from_secs);
            Some((item.described_object?.name, PodMetric { value, at, window }))
        });
        Ok(PodMetrics { by_pod: by_pod.collect() })
    }

    /// A custom metric of an object, in thousandths.
    pub(super) async fn custom_object_metric(
        &self,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric: &str,
        of: Option<&LabelSelector>,
    ) -> Result<i64, MetricError> {
        let api_version = object.api_version.as_deref().unwrap_or_default();
        let path = if object.kind == "Namespace" && !api_version.contains('/') {
            format!("namespaces/{namespace}/metrics/{metric}")
        } else {
            let resource = self.resource(api_version, &object.kind).await?;
            format!("namespaces/{namespace}/{resource}/{}/{metric}", object.name)
        };
        let items = self.custom(&path, None, metric, of).await?;
        let [item] = &items[..] else {
            let count = items.len();
            return Err(MetricError::new(format!(
                "unable to fetch metrics from custom metrics API: the custom metrics API server returned {count} results when we asked for exactly one"
            )));
        };
        milli(&item.value).ok_or_else(|| MetricError::new(format!("{:?} is no quantity", item.value)))
    }

    /// The values of an external metric, in thousandths.
    pub(super) async fn external(
        &self,
        namespace: &str,
        metric: &str,
        of: Option<&LabelSelector>,
    ) -> Result<Vec<i64>, MetricError> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
        let selector = selector_text(of)?;
        let query = [("labelSelector", selector.as_str())];
        let items: Items<MetricValue> = self
            .get(&path, &query, &format!("{metric}.external.metrics.k8s.io"))
            .await
            .map_err(|error| error.context("unable to fetch metrics from external metrics API"))?;
        if items.items.is_empty() {
            return Err(MetricError::new("no metrics returned from external metrics API"));
        }
        Ok(items.items.iter().filter_map(|item| milli(&item.value)).collect())
    }

    async fn custom(
        &self,
        path: &str,
        selector: Option<&str>,
        metric: &str,
        of: Option<&LabelSelector>,
    ) -> Result<Vec<MetricValue>, MetricError> {
        let get = async || {
            let discovered = self.discovery.get().await.map_err(|error| metric_error(error, metric))?;
            let version = discovered
                .version_of(CUSTOM)
                .ok_or_else(|| MetricError::new(format!("no custom metrics API ({CUSTOM}) registered")))?;
            let of = selector_text(of)?;
            let query =
                [("labelSelector", selector.unwrap_or_default()), ("metricLabelSelector", of.as_str())];
            let path = format!("/apis/{CUSTOM}/{version}/{path}");
            self.get::<Items<MetricValue>>(&path, &query, &format!("{metric}.{CUSTOM}")).await
        };
        let items = get().await;
        Ok(items.map_err(|error| error.context("unable to fetch metrics from custom metrics API"))?.items)
    }

    /// The name of a kind's resource in paths of custom metrics.
    async fn resource(&self, api_version: &str, kind: &str) -> Result<String, MetricError> {
        let discovered = self.discovery.get().await.map_err(|error| metric_error(error, kind))?;
        let resource = discovered.kind(api_version, kind).ok_or_else(|| {
            let version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            MetricError::new(format!(
                "unable to fetch metrics from custom metrics API: no matches for kind {kind:?} in version {:?}",
                if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
            ))
        })?;
        let (plural, group) = (&resource.plural, &resource.group);
        Ok(if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        what: &str,
    ) -> Result<T, MetricError> {
        let parameters: Vec<_> = query
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={}", escaped(value)))
            .collect();
        let request = Request::get(format!("{path}?{}", parameters.join("&")))
            .body(Vec::new())
            .map_err(|error| MetricError::new(error.to_string()))?;
        self.client.request(request).await.map_err(|error| metric_error(error, what))
    }
}

/// An API error, with client-go's message if the server sent none.
fn metric_error(error: kube::Error, what: &str) -> MetricError {
    let has_details =
        |status: &kube::core::Status| status.details.as_ref().is_some_and(|details| !details.kind.is_empty());
    match &error {
        kube::Error::Api(status) if status.code == 404 && !has_details(status) => {
            MetricError::new(format!("the server could not find the requested resource (get {what})"))
        }
        kube::Error::Api(status) if status.code == 503 && !has_details(status) => {
            MetricError::new(format!("the server is currently unable to handle the request (get {what})"))
        }
        _ => MetricError::new(SyncError::from(error).to_string()),
    }
}

/// The usage of a pod or of one of its containers; `None` if the usage of any counted container is unknown.
fn usage(containers: &[ContainerUsage], resource: &str, container: Option<&str>) -> Option<i64> {
    let of = |it: &ContainerUsage| milli(it.usage.get(resource)?);
    match container {
        Some(name) => of(containers.iter().find(|it| it.name == name)?),
        None if containers.is_empty() => None,
        None => containers.iter().map(of).try_fold(0_i64, |sum, value| sum.checked_add(value?)),
    }
}

fn milli(written: &str) -> Option<i64> {
    Quantity::parse(written).ok().map(Quantity::milli_value)
}

fn window(written: &str) -> Duration {
    let nanos = duration::parse_nanos(written).ok().and_then(|nanos| u64::try_from(nanos).ok());
    nanos.map_or(DEFAULT_WINDOW, Duration::from_nanos)
}

/// The selector in query format; empty without a selector.
fn selector_text(selector: Option<&LabelSelector>) -> Result<String, MetricError> {
    let Some(selector) = selector else { return Ok(String::new()) };
    selectors::parse(selector)
        .map(|selector| selector.to_string())
        .map_err(|error| MetricError::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_requires_metrics_of_all_containers() {
        let containers: Vec<ContainerUsage> = serde_json::from_value(json!([
            {"name": "a", "usage": {"cpu": "100m", "memory": "1Mi"}}, {"name": "b", "usage": {"cpu": "0.25"}}]))
        .unwrap();
        for (resource, container, expected) in [
            ("cpu", None, Some(350)),
            ("cpu", Some("b"), Some(250)),
            ("memory", None, None),
            ("memory", Some("a"), Some(1024 * 1024 * 1000)),
            ("cpu", Some("c"), None),
        ] {
            assert_eq!(usage(&containers, resource, container), expected, "{resource} {container:?}");
        }
        assert_eq!(usage(&[], "cpu", None), None);
    }

    #[test]
    fn decodes_both_versions_of_custom_metrics() {
        for item in [
            json!({"describedObject": {"kind": "Pod", "name": "p"}, "metric": {"name": "m"},
                   "timestamp": "2026-01-01T00:00:00Z", "windowSeconds": 30, "value": "1500m"}),
            json!({"describedObject": {"kind": "Pod", "name": "p"}, "metricName": "m",
                   "timestamp": "2026-01-01T00:00:00Z", "window": 30, "value": "1500m"}),
        ] {
            let item: MetricValue = serde_json::from_value(item).unwrap();
            assert_eq!((item.window_seconds, milli(&item.value)), (Some(30), Some(1500)));
        }
        assert_eq!((window("1m30s"), window("soon")), (Duration::from_secs(90), DEFAULT_WINDOW));
    }

    #[test]
    fn missing_api_has_the_message_of_client_go() {
        let status = |code: u16, details: serde_json::Value| {
            let status = json!({"status": "Failure", "code": code, "message": "m", "reason": "NotFound",
                "details": details});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        assert_eq!(
            metric_error(status(404, json!({})), "pods.metrics.k8s.io").to_string(),
            "the server could not find the requested resource (get pods.metrics.k8s.io)"
        );
        assert_eq!(metric_error(status(404, json!({"kind": "pods", "name": "x"})), "x").to_string(), "m");
    }
}
