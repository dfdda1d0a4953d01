//! Reads and writes the quotas of a namespace.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use nave_machinery::quantity::Quantity;
use nave_machinery::{Map, Object, Status, Value};
use nave_resources::quota::Usage;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::plugins::live::Recent;
use crate::{Lister, QuotaStatus};

/// The maximum number of remembered writes. At the limit all are dropped, which costs one conflict per quota.
const MAX_WRITTEN: usize = 4096;

/// A quota.
#[derive(Clone)]
pub(super) struct Quota {
    object: Arc<Object>,
    pub(super) spec: ResourceQuotaSpec,
    /// The limits in the status.
    pub(super) hard: Usage,
    /// The usage in the status.
    pub(super) used: Usage,
}

impl Quota {
    fn new(object: Arc<Object>) -> Self {
        let amounts = |field: &str| -> Usage {
            let amounts = object.map_at(&["status", field]).into_iter().flatten();
            amounts
                .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?)))
                .collect()
        };
        let (hard, used) = (amounts("hard"), amounts("used"));
        // A spec that cannot be parsed counts as empty. Validation refuses such specs.
        let spec = object.get("spec").and_then(|spec| ResourceQuotaSpec::deserialize(spec).ok());
        Self { spec: spec.unwrap_or_default(), hard, used, object }
    }

    pub(super) fn name(&self) -> &str {
        self.object.name()
    }

    /// The scopes of the quota, as requirements.
    pub(super) fn scopes(&self) -> impl Iterator<Item = ScopedResourceSelectorRequirement> {
        let exists = |name: &String| ScopedResourceSelectorRequirement {
            scope_name: name.clone(),
            operator: "Exists".to_owned(),
            values: None,
        };
        let selected =
            self.spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
        self.spec.scopes.iter().flatten().map(exists).chain(selected.cloned())
    }

    /// Returns the object with this usage in its status.
    pub(super) fn object_with(&self, used: &Usage) -> Object {
        let mut object = Object::clone(&self.object);
        let amounts: Map =
            used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
        object.map_mut("status").insert("used".to_owned(), Value::Object(amounts));
        object
    }

    fn version(&self) -> u64 {
        self.object.resource_version().parse().unwrap_or_default()
    }
}

/// Reads and writes quotas.
pub(super) struct Quotas {
    lister: Arc<dyn Lister>,
    status: Arc<dyn QuotaStatus>,
    /// Namespaces that had no quota at their last live read.
    empty: Recent,
    /// Quotas as last written, because the watch cache may be older.
    written: Mutex<HashMap<(String, String), Quota>>,
}

impl Quotas {
    pub(super) fn new(lister: Arc<dyn Lister>, status: Arc<dyn QuotaStatus>) -> Self {
        Self { lister, status, empty: Recent::default(), written: Mutex::default() }
    }

    /// The quotas of a namespace.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn of_namespace(&self, namespace: &str) -> Result<Vec<Quota>, Status> {
        let found = self.lister.list(Some(namespace))?;
        // The cache may lag: a new quota must apply to the first object created after it.
        if !found.is_empty() || self.empty.contains(namespace) {
            return Ok(self.newest(namespace, found));
        }
        let found = self.lister.list_live(Some(namespace)).await?;
        if found.is_empty() {
            self.empty.insert(namespace);
        }
        Ok(self.newest(namespace, found))
    }

    /// The quotas of a namespace in the current state of the store.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn live_in_namespace(&self, namespace: &str) -> Result<Vec<Quota>, Status> {
        Ok(self.newest(namespace, self.lister.list_live(Some(namespace)).await?))
    }

    fn newest(&self, namespace: &str, found: Vec<Arc<Object>>) -> Vec<Quota> {
        let quotas = found.into_iter().map(Quota::new);
        let mut written = self.written.lock();
        if written.is_empty() {
            return quotas.collect();
        }
        quotas
            .map(|quota| {
                let key = (namespace.to_owned(), quota.name().to_owned());
                match written.get(&key) {
                    Some(newer)
                        if newer.version() > quota.version() && newer.object.uid() == quota.object.uid() =>
                    {
                        newer.clone()
                    }
                    Some(_) => {
                        written.remove(&key);
                        quota
                    }
                    None => quota,
                }
            })
            .collect()
    }

    /// Writes a quota's usage if the stored quota has not changed.
    ///
    /// # Errors
    /// 409 if it has changed, or the store fails.
    pub(super) async fn write(&self, namespace: &str, quota: &Quota, used: &Usage) -> Result<(), Status> {
        let stored = self.status.update_status(quota.object_with(used)).await?;
        let key = (namespace.to_owned(), quota.name().to_owned());
        let mut written = self.written.lock();
        if written.len() >= MAX_WRITTEN {
            written.clear();
        }
        written.insert(key, Quota::new(stored));
        Ok(())
    }
}
