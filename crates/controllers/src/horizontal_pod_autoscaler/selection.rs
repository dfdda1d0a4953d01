//! The pods of autoscalers' targets. Pods selected by several autoscalers are rejected.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use nave_client::{Lister, Object, ObjectName};
use nave_machinery::selector::LabelSelector;
use parking_lot::Mutex;

/// The selectors of all autoscalers' targets, as last observed.
pub(super) struct Selections {
    pods: Lister<Pod>,
    selectors: Mutex<HashMap<ObjectName, LabelSelector>>,
}

impl Selections {
    pub(super) fn new(pods: Lister<Pod>) -> Self {
        Self { pods, selectors: Mutex::default() }
    }

    /// Removes an autoscaler.
    pub(super) fn forget(&self, key: &ObjectName) {
        self.selectors.lock().remove(key);
    }

    /// The pods of the target, or the reason why they are ambiguous.
    pub(super) fn pods(&self, key: &ObjectName, selector: &str) -> Result<Vec<Pod>, Rejection> {
        if selector.is_empty() {
            return Err(Rejection {
                event: "SelectorRequired",
                reason: "InvalidSelector",
                why: "selector is required".to_owned(),
                message: "the HPA target's scale is missing a selector".to_owned(),
            });
        }
        let parsed = LabelSelector::parse(selector).map_err(|error| {
            let why =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            Rejection::with_reason("InvalidSelector", why)
        })?;
        let mut pods = self.pods.list_namespace(key.namespace());
        pods.retain(|pod| pod.is_selected_by(&parsed));
        let others = self.others_with(key, parsed, &pods);
        if !others.is_empty() {
            let mut all: Vec<_> = others.iter().chain([key]).collect();
            all.sort_by_key(|key| key.as_str());
            let names: Vec<_> =
                all.iter().map(|key| format!("{{{} {}}}", key.name(), key.namespace())).collect();
            let why =
                format!("pods by selector {selector} are controlled by multiple HPAs: [{}]", names.join(" "));
            return Err(Rejection::with_reason("AmbiguousSelector", why));
        }
        Ok(pods.iter().filter_map(|pod| pod.decode().ok()).collect())
    }

    /// Stores the selector of an autoscaler, and returns the others that select one of these pods.
    fn others_with(
        &self,
        key: &ObjectName,
        selector: LabelSelector,
        pods: &[Object<Pod>],
    ) -> Vec<ObjectName> {
        let mut selectors = self.selectors.lock();
        selectors.insert(key.clone(), selector);
        let others =
            selectors.iter().filter(|(other, _)| *other != key && other.namespace() == key.namespace());
        let selects = |selector: &LabelSelector| pods.iter().any(|pod| pod.is_selected_by(selector));
        others.filter(|(_, selector)| selects(selector)).map(|(other, _)| other.clone()).collect()
    }
}

/// The reason why the pods of a target are unknown.
pub(super) struct Rejection {
    /// The reason of the event.
    pub(super) event: &'static str,
    /// The reason of the condition.
    pub(super) reason: &'static str,
    pub(super) why: String,
    pub(super) message: String,
}

impl Rejection {
    fn with_reason(reason: &'static str, why: String) -> Self {
        Self { event: reason, reason, message: why.clone(), why }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nave_client::Indexer;
    use serde_json::json;

    use super::*;

    #[test]
    fn rejects_pods_of_two_autoscalers() {
        let cache = Arc::new(Indexer::new());
        for (name, app) in [("a", "web"), ("b", "db")] {
            let pod = json!({"metadata": {"name": name, "namespace": "ns", "labels": {"app": app}},
                "spec": {"containers": []}});
            cache.put(Object::from_value(&pod).unwrap());
        }
        let selections = Selections::new(Lister::new(cache));
        let pods = |name: &str, selector: &str| {
            let found = selections.pods(&ObjectName::new("ns", name), selector);
            found.map(|pods| pods.len()).map_err(|refused| (refused.event, refused.why))
        };
        assert_eq!(pods("web", "app=web"), Ok(1));
        assert_eq!(pods("db", "app=db"), Ok(1));
        let why =
            "pods by selector app in (db,web) are controlled by multiple HPAs: [{all ns} {db ns} {web ns}]";
        assert_eq!(pods("all", "app in (db,web)"), Err(("AmbiguousSelector", why.to_owned())));
        selections.forget(&ObjectName::new("ns", "all"));
        assert_eq!(pods("web", "app=web"), Ok(1));
        assert_eq!(pods("web", "").unwrap_err().0, "SelectorRequired");
        assert_eq!(pods("web", "((").unwrap_err().0, "InvalidSelector");
    }
}
