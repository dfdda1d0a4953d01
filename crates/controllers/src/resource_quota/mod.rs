//! Computes the usage of resource quotas (upstream: `resourcequota`). Admission enforces the quotas.

mod changes;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use kube::api::{Api, ListParams, PostParams};
use kube::core::DynamicObject;
use nave_client::{Action, Lister, ObjectName};
use nave_machinery::quantity::Quantity;
use nave_machinery::time;
use nave_resources::quota::{self, Usage, scopes};
use parking_lot::Mutex;

use self::changes::{CountedResources, NamespaceQuotas, on_quota};
use crate::api;
use crate::discovery::DiscoveryCache;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The time for which the counted usage must stay lower, without a charge by admission, before it is written.
/// Admission charges a quota before the object is stored, and the cache has the object even later. A recount in
/// between would return the charge too early.
const LOWER_AFTER: Duration = Duration::from_secs(1);
/// The page size for listing claims.
const PAGE: u32 = 500;

pub(crate) const RESOURCE_QUOTA: Descriptor = Descriptor {
    name: "resourcequota-controller",
    alias: "resourcequota",
    service_account: "resourcequota-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-resource-quota-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("resourcequota_primary");
    let (quotas, pods) = (builder.informer::<ResourceQuota>(), builder.informer::<Pod>());
    let (services, claims) = (builder.informer::<Service>(), builder.informer::<PersistentVolumeClaim>());
    let namespace_quotas = NamespaceQuotas::new(quotas.lister(), builder.queue());
    builder.resync_every(&quotas, context.options.resource_quota_sync_period);
    builder.add_handler(&quotas, on_quota(builder.queue()));
    builder.add_handler(&pods, namespace_quotas.on_pod());
    builder.add_handler(
        &services,
        namespace_quotas.on_usage(|service| Some(quota::service(&service.decode().ok()?))),
    );
    builder
        .add_handler(&claims, namespace_quotas.on_usage(|claim| Some(quota::claim(&claim.decode().ok()?))));
    builder.run(QuotaController {
        client: context.client.clone(),
        discovery: DiscoveryCache::new(context.client.clone()),
        quotas: quotas.lister(),
        pods: pods.lister(),
        services: services.lister(),
        claims: claims.lister(),
        counted_resources: CountedResources::new(context.informers.clone(), namespace_quotas),
        lower: Mutex::default(),
    })
}

struct QuotaController {
    client: kube::Client,
    discovery: DiscoveryCache,
    quotas: Lister<ResourceQuota>,
    pods: Lister<Pod>,
    services: Lister<Service>,
    claims: Lister<PersistentVolumeClaim>,
    counted_resources: CountedResources,
    lower: Mutex<HashMap<ObjectName, LowerUsage>>,
}

/// A counted usage that is lower than the usage in the status.
struct LowerUsage {
    /// The quota's resource version when the lower usage was first counted.
    version: Option<String>,
    since: Instant,
}

impl Reconciler for QuotaController {
    /// Updates the status of a quota.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(quota) = self.quotas.get_by_key(&key) else {
            self.lower.lock().remove(&key);
            return Ok(Action::Done);
        };
        let mut quota = quota.decode()?;
        let spec = quota.spec.clone().unwrap_or_default();
        let hard = spec.hard.clone().unwrap_or_default();
        let used = self.usage(key.namespace(), &spec, &hard).await?;
        let status = ResourceQuotaStatus { used: Some(limited_usage(&hard, &used)), hard: Some(hard) };
        if is_equal(quota.status.as_ref(), &status) {
            self.lower.lock().remove(&key);
            return Ok(Action::Done);
        }
        if is_lower(quota.status.as_ref(), &status) && !self.has_stayed_lower(&key, &quota) {
            return Ok(Action::RequeueAfter(LOWER_AFTER));
        }
        quota.status = Some(status);
        let quotas: Api<ResourceQuota> = Api::namespaced(self.client.clone(), key.namespace());
        api::ignore_not_found(quotas.replace_status(key.name(), &PostParams::default(), &quota).await)?;
        Ok(Action::Done)
    }
}

impl QuotaController {
    /// Returns whether the usage of this version of the quota has been lower for [`LOWER_AFTER`].
    fn has_stayed_lower(&self, key: &ObjectName, quota: &ResourceQuota) -> bool {
        let version = &quota.metadata.resource_version;
        let mut lower = self.lower.lock();
        match lower.get(key) {
            Some(known) if known.version == *version => known.since.elapsed() >= LOWER_AFTER,
            _ => {
                lower.insert(key.clone(), LowerUsage { version: version.clone(), since: Instant::now() });
                false
            }
        }
    }

    /// Returns the usage of a namespace, by the names that the quota limits.
    async fn usage(
        &self,
        namespace: &str,
        spec: &ResourceQuotaSpec,
        hard: &BTreeMap<String, WrittenQuantity>,
    ) -> Result<Usage, SyncError> {
        let mut used = Usage::new();
        let limits = |is_name: fn(&str) -> bool| hard.keys().any(|name| is_name(name));
        if limits(quota::is_pod_name) {
            let now = time::now();
            for pod in self.pods.list_namespace(namespace) {
                let pod = pod.decode()?;
                if scopes::include_pod(spec, &pod) {
                    quota::add(&mut used, &quota::pod(&pod, now));
                }
            }
            add_zeros(&mut used, hard, quota::is_pod_name);
        }
        let scoped = scopes::is_scoped(spec);
        if limits(quota::is_service_name) {
            for service in self.services.list_namespace(namespace).iter().filter(|_| !scoped) {
                quota::add(&mut used, &quota::service(&service.decode()?));
            }
            add_zeros(&mut used, hard, quota::is_service_name);
        }
        if limits(quota::is_claim_name) {
            for claim in self.claims.list_namespace(namespace) {
                let claim = claim.decode()?;
                if scopes::include_claim(spec, &claim) {
                    quota::add(&mut used, &quota::claim(&claim));
                }
            }
            add_zeros(&mut used, hard, quota::is_claim_name);
        }
        if limits(quota::is_device_name) {
            if !scoped {
                self.count_devices(namespace, &mut used).await?;
            }
            add_zeros(&mut used, hard, quota::is_device_name);
        }
        self.count_others(namespace, scoped, hard, &mut used).await?;
        Ok(used)
    }

    /// Counts resource claims and the devices they request.
    async fn count_devices(&self, namespace: &str, used: &mut Usage) -> Result<(), SyncError> {
        let discovered = self.discovery.get().await?;
        let Some(resource) = discovered.resource("resource.k8s.io", "resourceclaims") else { return Ok(()) };
        self.counted_resources.watch(&resource.resource());
        let claims: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource.api_resource());
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = claims.list(&page).await?;
            for claim in &list.items {
                quota::add(used, &quota::resource_claim(&claim.data));
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Counts objects of resources that are limited only by count.
    async fn count_others(
        &self,
        namespace: &str,
        scoped: bool,
        hard: &BTreeMap<String, WrittenQuantity>,
        used: &mut Usage,
    ) -> Result<(), SyncError> {
        let others: Vec<_> = hard
            .keys()
            .filter(|name| !used.contains_key(*name))
            .filter_map(|name| Some((name, quota::counted_resource(name)?)))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let discovered = self.discovery.get().await?;
        for (name, (plural, group)) in others {
            let Some(resource) = discovered.resource(group, plural).filter(|resource| resource.namespaced)
            else {
                self.counted_resources.forget(group, plural);
                continue;
            };
            self.counted_resources.watch(&resource.resource());
            let objects: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource.api_resource());
            let count = if scoped { 0 } else { count(&objects).await? };
            used.insert(name.clone(), Quantity::from_value(count));
        }
        Ok(())
    }
}

/// Returns the number of objects. Requests a page with one item, which contains the number of remaining items.
async fn count(objects: &Api<DynamicObject>) -> Result<i64, SyncError> {
    let list = objects.list_metadata(&ListParams::default().limit(1)).await?;
    Ok(list.items.len() as i64 + list.metadata.remaining_item_count.unwrap_or_default())
}

/// Adds a zero for each limited name without objects.
fn add_zeros(used: &mut Usage, hard: &BTreeMap<String, WrittenQuantity>, is_name: fn(&str) -> bool) {
    for name in hard.keys().filter(|name| is_name(name)) {
        used.entry(name.clone()).or_insert(Quantity::ZERO);
    }
}

/// Returns the usage of limited names, in the API's format.
fn limited_usage(
    hard: &BTreeMap<String, WrittenQuantity>,
    used: &Usage,
) -> BTreeMap<String, WrittenQuantity> {
    let limited = hard.keys().filter_map(|name| Some((name.clone(), used.get(name)?)));
    limited.map(|(name, amount)| (name, WrittenQuantity(amount.to_string()))).collect()
}

/// Returns whether two statuses have equal amounts, regardless of notation.
fn is_equal(old: Option<&ResourceQuotaStatus>, new: &ResourceQuotaStatus) -> bool {
    let read = |list: Option<&BTreeMap<String, WrittenQuantity>>| -> HashMap<String, Option<Quantity>> {
        let amounts = list.into_iter().flatten();
        amounts.map(|(name, amount)| (name.clone(), Quantity::parse(&amount.0).ok())).collect()
    };
    let amounts = |status: &ResourceQuotaStatus| (read(status.hard.as_ref()), read(status.used.as_ref()));
    let equal = |a: &HashMap<String, Option<Quantity>>, b: &HashMap<String, Option<Quantity>>| {
        a.len() == b.len()
            && a.iter().all(|(name, a)| match (a, b.get(name)) {
                (Some(a), Some(Some(b))) => a.partial_cmp(b) == Some(std::cmp::Ordering::Equal),
                _ => false,
            })
    };
    let Some(old) = old.filter(|old| old.hard.is_some() && old.used.is_some()) else { return false };
    let ((old_hard, old_used), (new_hard, new_used)) = (amounts(old), amounts(new));
    equal(&old_hard, &new_hard) && equal(&old_used, &new_used)
}

/// Returns whether any usage is lower than the usage in the status.
fn is_lower(old: Option<&ResourceQuotaStatus>, new: &ResourceQuotaStatus) -> bool {
    let amount = |used: Option<&WrittenQuantity>| used.and_then(|used| Quantity::parse(&used.0).ok());
    let before = old.and_then(|status| status.used.as_ref()).into_iter().flatten();
    before.into_iter().any(|(name, used)| {
        let counted_resources = new.used.as_ref().and_then(|used| used.get(name));
        // Ignores names that the quota no longer limits.
        counted_resources
            .is_some_and(|counted_resources| amount(Some(counted_resources)) < amount(Some(used)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(hard: &serde_json::Value, used: &serde_json::Value) -> ResourceQuotaStatus {
        serde_json::from_value(json!({"hard": hard, "used": used})).unwrap()
    }

    #[test]
    fn usage_is_lower_if_any_amount_is() {
        let hard = json!({"cpu": "2", "pods": "3"});
        let old = status(&hard, &json!({"cpu": "1", "pods": "2"}));
        for (used, expected) in [
            (json!({"cpu": "1", "pods": "2"}), false),
            (json!({"cpu": "1500m", "pods": "3"}), false),
            (json!({"cpu": "1500m", "pods": "1"}), true),
            (json!({"cpu": "999m", "pods": "2"}), true),
            (json!({"pods": "2"}), false),
        ] {
            assert_eq!(is_lower(Some(&old), &status(&hard, &used)), expected, "{used}");
        }
        assert!(!is_lower(None, &old));
    }

    #[test]
    fn compares_statuses_by_amount() {
        let old = status(&json!({"cpu": "1"}), &json!({"cpu": "500m"}));
        assert!(is_equal(Some(&old), &status(&json!({"cpu": "1000m"}), &json!({"cpu": "0.5"}))));
        assert!(!is_equal(Some(&old), &status(&json!({"cpu": "1"}), &json!({"cpu": "501m"}))));
        assert!(!is_equal(Some(&old), &status(&json!({"cpu": "1", "pods": "1"}), &json!({"cpu": "500m"}))));
        assert!(!is_equal(None, &old) && !is_equal(Some(&ResourceQuotaStatus::default()), &old));
    }

    #[test]
    fn reports_limited_names_only() {
        let hard: BTreeMap<_, _> =
            ["cpu", "pods", "unknown"].map(|name| (name.to_owned(), WrittenQuantity("9".to_owned()))).into();
        let mut used = Usage::from([
            ("cpu".to_owned(), Quantity::from_milli(1500)),
            ("memory".to_owned(), Quantity::ZERO),
        ]);
        add_zeros(&mut used, &hard, quota::is_pod_name);
        let told = serde_json::to_value(limited_usage(&hard, &used)).unwrap();
        assert_eq!(told, json!({"cpu": "1500m", "pods": "0"}));
    }
}
