//! The catalog: the served resources, their endpoints and storages, and the OpenAPI documents.
//!
//! Invariants: a request uses the same catalog in all stages. A catalog is immutable; a change creates a new catalog,
//! which shares the unchanged parts. Only the `definitions` task replaces the catalog.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use nave_admission::KindResolver;
use nave_cacher::Cacher;
use nave_machinery::{GroupVersionKind, GroupVersionResource};
use nave_resources::{Registry, ResourceDef};
use tokio::sync::watch;

use crate::aggregated_discovery::AggregatedDiscovery;
use crate::allocation::ServiceAllocator;
use crate::endpoints::Endpoint;
use crate::endpoints::watch::WatchStats;
use crate::metrics::RequestLabels;
use crate::openapi::OpenApi;
use crate::request_info::{RequestInfo, Verb};
use crate::storage::{ResourceStorage, Storages};

/// All served resources.
pub struct Catalog {
    storages: Storages,
    endpoints: imbl::HashMap<GroupVersionResource, Arc<Endpoint>>,
    discovery: AggregatedDiscovery,
    openapi: OpenApi,
}

/// The current catalog of a server, which is replaced as a whole. Clones share it.
#[derive(Clone)]
pub struct Catalogs(Arc<Current>);

struct Current {
    catalog: ArcSwap<Catalog>,
    /// Notifies tasks that wait for a resource.
    replaced: watch::Sender<()>,
}

impl Catalog {
    /// Creates the catalog of all resources of the storages. The allocator assigns cluster IPs and node ports of
    /// services.
    pub fn new(storages: Storages, allocator: Option<&Arc<ServiceAllocator>>) -> Self {
        let openapi = OpenApi::new(storages.registry());
        let discovery = AggregatedDiscovery::new(storages.registry());
        let mut catalog = Self { storages, endpoints: imbl::HashMap::new(), discovery, openapi };
        for def in Arc::clone(catalog.registry()).all() {
            let storage = catalog.storages.for_resource(def).cloned();
            let is_services = def.group.is_empty() && def.resource == "services";
            catalog.serve(def, storage.as_ref(), allocator.filter(|_| is_services), |_| None);
        }
        catalog
    }

    /// Returns a copy of the catalog in which the given custom resources, with their storages, replace all custom
    /// resources of the group.
    #[must_use]
    pub fn with_custom(&self, group: &str, custom: &[(Arc<ResourceDef>, Arc<ResourceStorage>)]) -> Self {
        let defs = custom.iter().map(|(def, _)| Arc::clone(def));
        let registry = Arc::new(self.registry().with_custom(group, defs));
        let of_group = self.registry().group(group).into_iter().flat_map(|group| &group.resources);
        let old: Vec<_> = of_group.filter(|def| def.is_custom()).collect();
        let storages_of_old = old.iter().filter_map(|def| self.storages.for_resource(def).cloned());
        let removed: Vec<_> = storages_of_old.collect();
        let openapi = self.openapi.with_group(&registry, group);
        let discovery = self.discovery.with_group(&registry, group);
        let storages = self.storages.with(
            registry,
            &removed,
            custom.iter().map(|(_, storage)| Arc::clone(storage)).collect(),
        );
        let mut catalog = Self { storages, endpoints: self.endpoints.clone(), discovery, openapi };
        for def in old {
            for version in &def.versions {
                catalog.endpoints.remove(&resource_of(def, &version.name));
            }
        }
        for (def, storage) in custom {
            // The registry may have rejected the resource.
            if catalog.registry().serves(def) {
                catalog.serve(def, Some(storage), None, |gvr| {
                    self.endpoint(gvr).map(|it| Arc::clone(&it.watched))
                });
            }
        }
        catalog
    }

    /// Adds the endpoints of a resource. `watched` returns the watch statistics of its previous definition, which are
    /// preserved.
    fn serve(
        &mut self,
        def: &Arc<ResourceDef>,
        storage: Option<&Arc<ResourceStorage>>,
        allocator: Option<&Arc<ServiceAllocator>>,
        watched: impl Fn(&GroupVersionResource) -> Option<Arc<WatchStats>>,
    ) {
        for (version, served) in def.versions.iter().enumerate() {
            let gvr = resource_of(def, &served.name);
            let (def, storage) = (Arc::clone(def), storage.cloned());
            let (watched, allocator) = (watched(&gvr).unwrap_or_default(), allocator.cloned());
            self.endpoints.insert(gvr, Arc::new(Endpoint { def, version, storage, watched, allocator }));
        }
    }

    /// Returns the registry of the resources.
    pub fn registry(&self) -> &Arc<Registry> {
        self.storages.registry()
    }

    /// Returns the storages of the resources.
    pub fn storages(&self) -> &Storages {
        &self.storages
    }

    /// Returns the aggregated discovery documents.
    pub(crate) fn discovery(&self) -> &AggregatedDiscovery {
        &self.discovery
    }

    /// Returns the OpenAPI documents.
    pub fn openapi(&self) -> &OpenApi {
        &self.openapi
    }

    /// Returns the endpoint of a resource.
    pub fn endpoint(&self, gvr: &GroupVersionResource) -> Option<&Endpoint> {
        self.endpoints.get(gvr).map(AsRef::as_ref)
    }

    /// Returns whether a resource is served in this version, or in any version.
    pub(crate) fn serves(&self, group: &str, version: Option<&str>, resource: &str) -> bool {
        let is_served = |gvr: &GroupVersionResource| {
            gvr.group == group && gvr.resource == resource && version.is_none_or(|it| gvr.version == it)
        };
        self.endpoints.keys().any(is_served)
    }

    /// Returns the served groups and versions, sorted.
    pub(crate) fn group_versions(&self) -> BTreeSet<(String, String)> {
        self.endpoints.keys().map(|gvr| (gvr.group.clone(), gvr.version.clone())).collect()
    }

    /// Returns the watch statistics of each resource and version.
    pub(crate) fn watched(&self) -> Vec<(GroupVersionResource, Arc<WatchStats>)> {
        let mut watched: Vec<_> =
            self.endpoints.iter().map(|(gvr, it)| (gvr.clone(), Arc::clone(&it.watched))).collect();
        watched.sort_by(|(one, _), (other, _)| one.cmp(other));
        watched
    }

    /// Returns the metric labels of a request, as upstream's. They contain only names of known resources and paths, so
    /// that clients cannot create new label values.
    pub(crate) fn labels(&self, info: &RequestInfo, headers: &HeaderMap) -> RequestLabels<'_> {
        let known =
            info.resource.as_ref().and_then(|resource| Some((resource, self.endpoint(&resource.gvr)?)));
        let Some((resource, endpoint)) = known else {
            let verb = info.verb.metric_label();
            return RequestLabels { verb, subresource: known_path(info), ..RequestLabels::default() };
        };
        let is_apply = || {
            let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
            content_type.starts_with(b"application/apply-patch+")
        };
        let verb = match info.verb {
            _ if info.is_connection() => "CONNECT",
            Verb::Patch if is_apply() => "APPLY",
            Verb::DeleteCollection => "DELETE",
            verb => verb.metric_label(),
        };
        let subresource =
            endpoint.version().subresource(&resource.subresource).map_or("", |known| known.name.as_str());
        let scope = match (resource.name.is_empty(), resource.namespace.is_empty()) {
            (true, _) if info.verb == Verb::Create => "resource",
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        RequestLabels {
            verb,
            group: endpoint.def.group.as_str(),
            version: endpoint.version().name.as_str(),
            resource: &endpoint.def.resource,
            subresource,
            scope,
            component: "apiserver",
            dry_run: if info.query.get("dryRun").is_some() { "All" } else { "" },
            is_deprecated: endpoint.version().deprecation.is_some(),
        }
    }
}

/// Returns the label of a path that is no resource: as upstream, that of health checks and of OpenAPI version 3.
fn known_path(info: &RequestInfo) -> &'static str {
    if info.resource.is_some() {
        return "";
    }
    let mut segments = info.path.trim_start_matches('/').split('/');
    match (segments.next(), segments.next()) {
        (Some("healthz"), _) => "/healthz",
        (Some("livez"), _) => "/livez",
        (Some("readyz"), _) => "/readyz",
        (Some("openapi"), Some("v3")) => "openapi/v3",
        _ => "",
    }
}

fn resource_of(def: &ResourceDef, version: &str) -> GroupVersionResource {
    GroupVersionResource::new(&*def.group, version, &*def.resource)
}

impl Catalogs {
    /// Creates the holder of the first catalog and its replacements.
    pub fn new(catalog: Catalog) -> Self {
        Self(Arc::new(Current { catalog: ArcSwap::from_pointee(catalog), replaced: watch::Sender::new(()) }))
    }

    /// Returns the current catalog.
    pub fn load(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    /// Replaces the catalog.
    pub(crate) fn store(&self, catalog: Catalog) {
        self.0.catalog.store(Arc::new(catalog));
        self.0.replaced.send_replace(());
    }

    /// Waits until a catalog serves a resource, and returns it.
    pub(crate) async fn wait_until_served(&self, gvr: &GroupVersionResource) -> Option<Arc<Catalog>> {
        let mut replaced = self.0.replaced.subscribe();
        loop {
            let catalog = self.load();
            if catalog.endpoint(gvr).is_some() {
                return Some(catalog);
            }
            replaced.changed().await.ok()?;
        }
    }

    /// Returns the watch cache of a resource, which all its versions share.
    pub fn cacher(&self, gvr: &GroupVersionResource) -> Option<Arc<Cacher>> {
        self.load().storages.get(gvr).map(|storage| Arc::clone(storage.cacher()))
    }
}

impl KindResolver for Catalogs {
    fn resource_of(&self, kind: &GroupVersionKind) -> Option<GroupVersionResource> {
        KindResolver::resource_of(&**self.load().registry(), kind)
    }
}
