//! The versions that are never passed on to peers: those of custom resources and of aggregated servers (upstream:
//! `GVExclusionManager`).
//!
//! All servers of a cluster serve them, and the documents of a peer may be older than the deletion of a definition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nave_machinery::GroupVersion;
use nave_resources::Registry;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::aggregator::directory::ApiServices;

/// Time for which a version is excluded after its last definition was deleted, as upstream.
const GRACE: Duration = Duration::from_mins(5);
/// Maximum number of deleted versions.
const MAX_DELETED: usize = 16_384;

/// The excluded versions, each with the time of its deletion; `None` while it is served.
pub(super) type Excluded = HashMap<GroupVersion, Option<Instant>>;

/// The current exclusions.
#[derive(Default)]
pub(super) struct Exclusions {
    excluded: ArcSwap<Excluded>,
    /// The states that were observed last.
    observed: Mutex<Option<(Arc<Registry>, Arc<ApiServices>)>>,
}

impl Exclusions {
    /// Returns the current state.
    pub(super) fn load(&self) -> Arc<Excluded> {
        self.excluded.load_full()
    }

    /// Returns whether requests for a version are not passed on.
    pub(super) fn contains(&self, group: &str, version: &str) -> bool {
        let version = GroupVersion { group: group.to_owned(), version: version.to_owned() };
        self.excluded.load().contains_key(&version)
    }

    /// Takes over the definitions and APIServices of the cluster.
    pub(super) fn observe(&self, registry: &Arc<Registry>, services: &Arc<ApiServices>) {
        let mut observed = self.observed.lock();
        let is_same = observed.as_ref().is_some_and(|(last_registry, last_services)| {
            Arc::ptr_eq(last_registry, registry) && Arc::ptr_eq(last_services, services)
        });
        let now = Instant::now();
        let is_over = |deleted: &Option<Instant>| deleted.is_some_and(|at| now.duration_since(at) > GRACE);
        let old = self.load();
        if is_same && !old.values().any(is_over) {
            return;
        }
        let custom = registry.all().filter(|def| def.is_custom()).flat_map(|def| {
            let group = def.group.clone();
            let version = move |name: &str| GroupVersion { group: group.clone(), version: name.to_owned() };
            def.versions.iter().map(move |served| version(&served.name))
        });
        let aggregated = services
            .remotes()
            .map(|service| GroupVersion { group: service.group.clone(), version: service.version.clone() });
        let mut excluded: Excluded = custom.chain(aggregated).map(|version| (version, None)).collect();
        let deleted: Vec<_> = old
            .iter()
            .filter(|(version, deleted)| !excluded.contains_key(version) && !is_over(deleted))
            .take(MAX_DELETED)
            .map(|(version, deleted)| (version.clone(), Some(deleted.unwrap_or(now))))
            .collect();
        excluded.extend(deleted);
        self.excluded.store(Arc::new(excluded));
        *observed = Some((Arc::clone(registry), Arc::clone(services)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deleted_versions_stay_excluded_for_a_while() {
        let names = json!({"plural": "ants", "kind": "Ant", "singular": "ant", "listKind": "AntList"});
        let versions = json!([{"name": "v1", "served": true, "storage": true}]);
        let definition = json!({"spec": {"group": "a.example", "scope": "Cluster", "versions": versions},
            "status": {"acceptedNames": names}});
        let def = Arc::new(nave_resources::custom::resource(&definition).unwrap());
        let builtin = Arc::new(Registry::builtin(nave_schema::builtin()));
        let with = Arc::new(builtin.with_custom("a.example", [def]));
        let services = Arc::new(ApiServices::default());
        let exclusions = Exclusions::default();
        let is_excluded = || exclusions.contains("a.example", "v1");

        exclusions.observe(&builtin, &services);
        assert!(!is_excluded() && !exclusions.contains("apps", "v1"));
        exclusions.observe(&with, &services);
        assert!(is_excluded() && !exclusions.contains("a.example", "v2"));
        exclusions.observe(&builtin, &services);
        tokio::time::advance(GRACE).await;
        exclusions.observe(&builtin, &services);
        assert!(is_excluded());
        tokio::time::advance(Duration::from_secs(1)).await;
        exclusions.observe(&builtin, &services);
        assert!(!is_excluded());
        // A version that is defined again is not over.
        exclusions.observe(&with, &services);
        exclusions.observe(&builtin, &services);
        exclusions.observe(&with, &services);
        tokio::time::advance(GRACE * 2).await;
        exclusions.observe(&with, &services);
        assert!(is_excluded());
    }
}
