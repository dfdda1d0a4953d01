//! The cluster's ranges of cluster IPs, from `ServiceCIDR` objects.

use std::net::IpAddr;
use std::sync::Arc;

use nave_cacher::CachedObject;
use nave_machinery::{Cidr, Status, Value, meta, time};
use serde::Deserialize;
use serde_json::json;

use super::error::AddressError;
use super::range::{Family, ServiceRange, ServiceRanges};
use super::service::null_is_empty;
use crate::storage::{Latest, ResourceStorage, Stored, Update};

/// Name of the default object, which has the ranges of `--service-cluster-ip-range`.
pub(crate) const DEFAULT_SERVICE_CIDR: &str = "kubernetes";

/// The ranges of cluster IPs.
#[derive(Clone)]
pub(super) struct ServiceCidrs {
    objects: Arc<ResourceStorage>,
    default: ServiceRanges,
}

impl ServiceCidrs {
    pub(super) fn new(objects: Arc<ResourceStorage>, default: ServiceRanges) -> Self {
        Self { objects, default }
    }

    /// Returns the ranges of a family that are ready for allocation. Reads all `ServiceCIDR` objects.
    pub(super) fn ready(&self, family: Family) -> Vec<ServiceRange> {
        self.ranges(true).into_iter().filter(|range| range.family() == family).collect()
    }

    /// Returns the ranges of both families that are ready for allocation.
    pub(super) fn all_ready(&self) -> Vec<ServiceRange> {
        self.ranges(true)
    }

    /// Returns whether an address is in any range, ready or not.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.ranges(false).iter().any(|range| range.contains(address))
    }

    /// Checks that an address is in a range that is ready for allocation.
    ///
    /// # Errors
    /// [`AddressError::MismatchedNetwork`], or the error of the store.
    pub(super) async fn check(&self, address: IpAddr) -> Result<(), AddressError> {
        let is_ready =
            || self.ready(Family::from_address(address)).iter().any(|range| range.contains(address));
        if is_ready() {
            return Ok(());
        }
        self.catch_up().await?;
        if is_ready() { Ok(()) } else { Err(AddressError::MismatchedNetwork) }
    }

    /// Waits until the cache has caught up with the store.
    pub(super) async fn catch_up(&self) -> Result<(), Status> {
        self.objects.latest().await.map(drop::<Latest>)
    }

    /// Creates the default object with the initial ranges, or adds the second range to it. Adds a missing Ready
    /// condition (upstream: `kubernetes-service-cidr-controller`).
    ///
    /// # Errors
    /// The error of the store.
    pub(super) async fn sync_default(&self) -> Result<(), Status> {
        if let Some(object) = self.objects.find("", DEFAULT_SERVICE_CIDR) {
            let object: Value = self.objects.codec().parse_cached(&object)?;
            if self.updated_default(&object).is_none() {
                return Ok(());
            }
        }
        let key = nave_resources::storage_key(self.objects.def(), None, DEFAULT_SERVICE_CIDR)
            .map_err(Status::internal)?;
        let mut object = self.new_default();
        let revision = match self.objects.create(&key, DEFAULT_SERVICE_CIDR, &mut object).await {
            Ok(revision) => {
                tracing::info!(cidrs = %self.default, "default ServiceCIDR created");
                revision
            }
            Err(status) if status.code == 409 => {
                let change = |current: &Stored| {
                    let object = current.object.as_value();
                    Ok(match self.updated_default(object) {
                        Some(updated) => Update::Put(updated),
                        None => Update::NoWrite(object.clone()),
                    })
                };
                self.objects.guaranteed_update(&key, DEFAULT_SERVICE_CIDR, change).await?.stored.revision
            }
            Err(status) => return Err(status),
        };
        self.objects.wait_until(revision).await
    }

    fn new_default(&self) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {
                "name": DEFAULT_SERVICE_CIDR,
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": time::now().rfc3339(),
            },
            "spec": {"cidrs": self.default.cidrs()},
            "status": {"conditions": [ready_condition()]},
        })
    }

    /// Returns the updated object; `None` if it is up to date, is being deleted, or has other ranges.
    fn updated_default(&self, object: &Value) -> Option<Value> {
        let view = CidrView::deserialize(object).ok()?;
        let cidrs = self.default.cidrs();
        let mut updated = object.clone();
        if cidrs.len() == 2 && view.spec.cidrs == cidrs[..1] {
            updated["spec"]["cidrs"] = json!(cidrs);
            return Some(updated);
        }
        if meta::deletion_timestamp(object).is_some()
            || view.spec.cidrs != cidrs
            || view.says_ready().is_some()
        {
            return None;
        }
        let conditions = updated.as_object_mut()?.entry("status").or_insert_with(|| json!({}));
        let conditions = conditions.as_object_mut()?.entry("conditions").or_insert_with(|| json!([]));
        let conditions = conditions.as_array_mut()?;
        conditions.retain(|condition| condition.get("type").and_then(Value::as_str) != Some("Ready"));
        conditions.push(ready_condition());
        Some(updated)
    }

    fn ranges(&self, only_ready: bool) -> Vec<ServiceRange> {
        let mut ranges = Vec::new();
        for object in self.objects.cacher().snapshot().range("", None) {
            match CidrView::parse(object) {
                Ok(view) if only_ready && !view.is_ready() => {}
                Ok(view) => ranges.extend(view.ranges()),
                Err(error) => tracing::error!(key = %object.key(), %error, "ServiceCIDR cannot be read"),
            }
        }
        ranges
    }
}

fn ready_condition() -> Value {
    json!({
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": time::now().rfc3339(),
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
    })
}

/// The fields of a `ServiceCIDR` that the allocator reads.
#[derive(Deserialize)]
struct CidrView {
    metadata: MetadataView,
    #[serde(default)]
    spec: SpecView,
    #[serde(default)]
    status: StatusView,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataView {
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
struct SpecView {
    #[serde(default, deserialize_with = "null_is_empty")]
    cidrs: Vec<String>,
}

#[derive(Default, Deserialize)]
struct StatusView {
    #[serde(default, deserialize_with = "null_is_empty")]
    conditions: Vec<ConditionView>,
}

#[derive(Deserialize)]
struct ConditionView {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl CidrView {
    fn parse(object: &CachedObject) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(&object.json())
    }

    /// Returns the status of the Ready condition; `None` if it is missing or `Unknown`.
    fn says_ready(&self) -> Option<bool> {
        let condition = self.status.conditions.iter().find(|condition| condition.kind == "Ready")?;
        (condition.status != "Unknown").then_some(condition.status == "True")
    }

    /// Returns whether addresses may be allocated from the range. A range without a Ready condition is used, because
    /// the controller may not be running.
    fn is_ready(&self) -> bool {
        let condition = self.status.conditions.iter().find(|condition| condition.kind == "Ready");
        self.metadata.deletion_timestamp.is_none()
            && condition.is_none_or(|condition| condition.status == "True")
    }

    fn ranges(&self) -> impl Iterator<Item = ServiceRange> {
        self.spec.cidrs.iter().filter_map(|cidr| ServiceRange::new(cidr.parse::<Cidr>().ok()?))
    }
}
