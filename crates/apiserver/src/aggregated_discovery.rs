//! The aggregated discovery documents, `/api` and `/apis` in the form `apidiscovery.k8s.io/v2`.
//!
//! Invariants: the part of a group is encoded once, whatever the number of changes of other groups. A document is joined
//! from the parts at the first request after a change.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::HeaderValue;
use nave_codec::json;
use nave_resources::{Group, Registry, discovery};

use crate::raw_response;

/// The documents of a registry.
pub(crate) struct AggregatedDiscovery {
    registry: Arc<Registry>,
    /// The JSON of each group.
    groups: imbl::HashMap<String, Arc<OnceLock<Bytes>>>,
    core: OnceLock<Document>,
    named: OnceLock<Document>,
}

/// An encoded document and its ETag.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) json: Bytes,
    pub(crate) etag: HeaderValue,
}

impl AggregatedDiscovery {
    /// Creates the documents of a registry.
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        let groups = registry.groups().iter().map(|group| (group.name.clone(), Arc::default())).collect();
        Self::from_parts(registry, groups)
    }

    /// Returns the documents of a registry in which only this group differs.
    #[must_use]
    pub(crate) fn with_group(&self, registry: &Arc<Registry>, group: &str) -> Self {
        let mut groups = self.groups.clone();
        match registry.group(group) {
            Some(_) => drop(groups.insert(group.to_owned(), Arc::default())),
            None => drop(groups.remove(group)),
        }
        Self::from_parts(registry, groups)
    }

    fn from_parts(registry: &Arc<Registry>, groups: imbl::HashMap<String, Arc<OnceLock<Bytes>>>) -> Self {
        let registry = Arc::clone(registry);
        Self { registry, groups, core: OnceLock::new(), named: OnceLock::new() }
    }

    /// Returns the document at `/api`.
    pub(crate) fn core(&self) -> &Document {
        self.core.get_or_init(|| self.join(|group| group.name.is_empty()))
    }

    /// Returns the document at `/apis`.
    pub(crate) fn named(&self) -> &Document {
        self.named.get_or_init(|| self.join(|group| !group.name.is_empty()))
    }

    fn join(&self, includes: impl Fn(&Group) -> bool) -> Document {
        let groups = self.registry.groups().iter().filter(|group| includes(group));
        let parts: Vec<Bytes> = groups.map(|group| self.part(group)).collect();
        let json = Bytes::from(discovery::aggregated(parts.iter().map(AsRef::as_ref)));
        Document { etag: raw_response::etag(&json), json }
    }

    /// Returns the JSON of a group.
    pub(crate) fn part(&self, group: &Group) -> Bytes {
        let encode = || Bytes::from(json::encode(&discovery::aggregated_group(group)));
        self.groups.get(&group.name).map_or_else(encode, |part| part.get_or_init(encode).clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn custom(group: &str, plural: &str) -> Arc<nave_resources::ResourceDef> {
        let names = json!({"plural": plural, "kind": "Thing", "singular": "thing", "listKind": "ThingList"});
        let versions = json!([{"name": "v1", "served": true, "storage": true}]);
        let definition = json!({"spec": {"group": group, "scope": "Namespaced", "versions": versions},
            "status": {"acceptedNames": names}});
        Arc::new(nave_resources::custom::resource(&definition).unwrap())
    }

    fn resources(documents: &AggregatedDiscovery) -> Vec<String> {
        let document: Value = serde_json::from_slice(&documents.named().json).unwrap();
        let groups = document["items"].as_array().unwrap().iter();
        let resource =
            |group: &Value| group["versions"][0]["resources"][0]["resource"].as_str().unwrap().to_owned();
        groups
            .filter(|group| group["metadata"]["name"].as_str().unwrap().ends_with(".example.com"))
            .map(resource)
            .collect()
    }

    #[test]
    fn a_change_of_one_group_keeps_the_parts_of_others() {
        let registry = Arc::new(Registry::builtin(nave_schema::builtin()));
        let empty = AggregatedDiscovery::new(&registry);
        let registry = Arc::new(registry.with_custom("a.example.com", [custom("a.example.com", "ants")]));
        let first = empty.with_group(&registry, "a.example.com");
        assert_eq!((resources(&empty), resources(&first)), (vec![], vec!["ants".to_owned()]));
        assert_ne!(empty.named().etag, first.named().etag);
        assert_eq!(empty.core().etag, first.core().etag);

        let registry = Arc::new(registry.with_custom("b.example.com", [custom("b.example.com", "bees")]));
        let second = first.with_group(&registry, "b.example.com");
        assert_eq!(resources(&second), ["ants", "bees"]);
        let part =
            |documents: &AggregatedDiscovery, group: &str| documents.groups[group].get().unwrap().as_ptr();
        for group in ["a.example.com", "apps", ""] {
            first.core();
            second.core();
            assert_eq!(part(&first, group), part(&second, group), "{group}");
        }
        let registry = Arc::new(registry.with_custom("b.example.com", []));
        let third = second.with_group(&registry, "b.example.com");
        assert_eq!(third.named().json, first.named().json);
        assert_eq!(third.named().etag, first.named().etag);
    }
}
