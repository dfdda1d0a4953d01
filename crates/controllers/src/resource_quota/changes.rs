//! Events that trigger a recount of quotas (upstream: `resource_quota_monitor.go`, `quota/v1/install`).

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use nave_client::{
    EventHandler, Lister, Object, PartialObjectMetadata, Registration, SharedInformerFactory, Workqueue,
    on_change, on_change_or_delete, on_delete,
};
use nave_machinery::quantity::Quantity;
use nave_machinery::{GroupVersionResource, time};
use nave_resources::quota::{self, Usage};
use parking_lot::Mutex;

/// One sync handles all changes in a namespace within this time.
const BATCH: Duration = Duration::from_millis(100);
/// The delay between a charge by admission and the recount of the quota. The recount returns the charge if the
/// object was rejected later.
const AFTER_CHARGE: Duration = Duration::from_secs(30);

/// Recounts a quota when its spec changes. Changes of only the status come from admission or from this controller.
pub(super) fn on_quota(queue: Workqueue) -> impl EventHandler<ResourceQuota> {
    let charged = queue.clone();
    on_change(
        move |old: &Object<ResourceQuota>, new: &Object<ResourceQuota>| {
            let has_other_spec = old.json_at(&["spec"]) != new.json_at(&["spec"]);
            if !has_other_spec && old.json_at(&["status"]) != new.json_at(&["status"]) {
                charged.add_after(new.key(), AFTER_CHARGE);
            }
            has_other_spec
        },
        move |quota| queue.add(quota.key()),
    )
}

/// Recounts the quotas of a namespace when resources in it are freed. Admission charges added resources.
#[derive(Clone)]
pub(super) struct NamespaceQuotas {
    quotas: Lister<ResourceQuota>,
    queue: Workqueue,
}

impl NamespaceQuotas {
    pub(super) fn new(quotas: Lister<ResourceQuota>, queue: Workqueue) -> Self {
        Self { quotas, queue }
    }

    fn enqueue_quotas<K>(&self, object: &Object<K>) {
        for quota in self.quotas.list_namespace(object.namespace()) {
            self.queue.add_after(quota.key(), BATCH);
        }
    }

    fn has_quotas(&self, namespace: &str) -> bool {
        !self.quotas.list_namespace(namespace).is_empty()
    }

    /// Creates a handler for objects whose usage does not change after creation.
    fn on_delete<K: 'static>(&self) -> impl EventHandler<K> + use<K> {
        let namespace_quotas = self.clone();
        on_delete(move |object: &Object<K>| namespace_quotas.enqueue_quotas(object))
    }

    /// Creates a handler for objects whose usage can change without admission. `used` returns the usage. Decodes
    /// objects only in namespaces with quotas.
    pub(super) fn on_usage<K, F>(&self, used: F) -> impl EventHandler<K> + use<K, F>
    where
        K: 'static,
        F: Fn(&Object<K>) -> Option<Usage> + Send + Sync + 'static,
    {
        let (judge, namespace_quotas) = (self.clone(), self.clone());
        on_change_or_delete(
            move |old: &Object<K>, new: &Object<K>| {
                let is_same =
                    ["spec", "status"].iter().all(|part| old.json_at(&[part]) == new.json_at(&[part]));
                !is_same && judge.has_quotas(new.namespace()) && used(old) != used(new)
            },
            move |object: &Object<K>| namespace_quotas.enqueue_quotas(object),
        )
    }

    /// Creates a handler for pods. Pods can change scope and terminate.
    pub(super) fn on_pod(&self) -> impl EventHandler<Pod> + use<> {
        self.on_usage(|pod| {
            let pod = pod.decode().ok()?;
            let mut used = quota::pod(&pod, time::now());
            let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
            used.insert("deadline".to_owned(), Quantity::from_value(deadline.map_or(0, |_| 1)));
            Some(used)
        })
    }
}

/// The resources that quotas limit by object count. A resource is watched once a quota limits it.
pub(super) struct CountedResources {
    informers: SharedInformerFactory,
    namespace_quotas: NamespaceQuotas,
    handlers: Mutex<HashMap<GroupVersionResource, Registration>>,
}

impl CountedResources {
    pub(super) fn new(informers: SharedInformerFactory, namespace_quotas: NamespaceQuotas) -> Self {
        Self { informers, namespace_quotas, handlers: Mutex::default() }
    }

    /// Starts watching a resource.
    pub(super) fn watch(&self, resource: &GroupVersionResource) {
        let mut handlers = self.handlers.lock();
        if handlers.contains_key(resource) {
            return;
        }
        let informer = self.informers.metadata_for_resource(resource);
        let handler = informer.add_event_handler(self.namespace_quotas.on_delete::<PartialObjectMetadata>());
        handlers.insert(resource.clone(), handler);
        self.informers.start();
    }

    /// Stops watching a resource that is no longer served. If it is served again, it is watched again.
    pub(super) fn forget(&self, group: &str, plural: &str) {
        let mut handlers = self.handlers.lock();
        for (_, handler) in handlers.extract_if(|known, _| known.group == group && known.resource == plural) {
            handler.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nave_client::{Indexer, ObjectName};
    use serde_json::{Value, json};

    use super::*;

    fn namespace_quotas() -> NamespaceQuotas {
        let cache = Arc::new(Indexer::new());
        let quota = json!({"metadata": {"name": "q", "namespace": "ns"}});
        cache.put(Object::from_value(&quota).unwrap());
        NamespaceQuotas::new(Lister::new(cache), Workqueue::new())
    }

    fn pod(namespace: &str, change: &Value) -> Object<Pod> {
        let mut pod = json!({"metadata": {"name": "p", "namespace": namespace},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running"}});
        for (part, fields) in change.as_object().unwrap() {
            let fields = fields.as_object().unwrap();
            fields.iter().for_each(|(key, value)| pod[part][key] = value.clone());
        }
        Object::from_value(&pod).unwrap()
    }

    /// Returns whether a change of a pod triggers a recount of the quotas.
    async fn counts(namespace: &str, before: &Value, after: &Value) -> bool {
        let namespace_quotas = namespace_quotas();
        namespace_quotas.on_pod().on_update(&pod(namespace, before), &pod(namespace, after));
        tokio::time::timeout(BATCH * 2, namespace_quotas.queue.get()).await
            == Ok(Some(ObjectName::new("ns", "q")))
    }

    #[tokio::test(start_paused = true)]
    async fn recounts_when_pod_terminates_or_its_usage_changes() {
        let none = json!({});
        let resized =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
        assert!(counts("ns", &none, &json!({"status": {"phase": "Succeeded"}})).await);
        assert!(counts("ns", &none, &resized).await);
        assert!(counts("ns", &none, &json!({"spec": {"activeDeadlineSeconds": 5}})).await);
        assert!(!counts("ns", &none, &json!({"status": {"podIP": "10.0.0.1"}})).await);
        assert!(!counts("ns", &none, &json!({"metadata": {"labels": {"a": "b"}}})).await);
        assert!(!counts("other", &none, &json!({"status": {"phase": "Succeeded"}})).await);
    }

    #[tokio::test(start_paused = true)]
    async fn recounts_for_deletions_only() {
        let namespace_quotas = namespace_quotas();
        let handler = namespace_quotas.on_pod();
        handler.on_add(&pod("ns", &json!({})), false);
        assert!(tokio::time::timeout(BATCH * 2, namespace_quotas.queue.get()).await.is_err());
        handler.on_delete(&nave_client::Deleted::Known(pod("ns", &json!({}))));
        assert!(tokio::time::timeout(BATCH * 2, namespace_quotas.queue.get()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn recounts_at_once_for_spec_and_delayed_for_charge() {
        let queue = Workqueue::new();
        let handler = on_quota(queue.clone());
        let quota = |hard: &str, used: &str| {
            let quota = json!({"metadata": {"name": "q", "namespace": "ns"},
                "spec": {"hard": {"pods": hard}}, "status": {"used": {"pods": used}}});
            Object::from_value(&quota).unwrap()
        };
        handler.on_update(&quota("1", "0"), &quota("1", "1"));
        assert!(tokio::time::timeout(AFTER_CHARGE / 2, queue.get()).await.is_err());
        let key = tokio::time::timeout(AFTER_CHARGE, queue.get()).await.unwrap().unwrap();
        queue.done(&key);
        handler.on_update(&quota("1", "1"), &quota("2", "1"));
        assert!(tokio::time::timeout(BATCH, queue.get()).await.is_ok());
    }
}
