//! Access of plugins to the cluster: reads, and a small set of writes.

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{GroupResource, GroupVersionKind, GroupVersionResource, Object, Status};
use nave_resources::Registry;

/// Reads the objects of one resource.
///
/// Objects are in the resource's storage version. `get` and `list` read the watch cache without waiting; the cache may
/// lag behind the store. The `_live` variants first wait until the cache has caught up with the store.
#[async_trait]
pub trait Lister: Send + Sync {
    /// Returns an object. The namespace is empty for cluster-scoped resources.
    ///
    /// # Errors
    /// The cached object cannot be parsed.
    fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status>;

    /// Returns the objects of a namespace, or of all namespaces, ordered by key.
    ///
    /// # Errors
    /// A cached object cannot be parsed.
    fn list(&self, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, Status>;

    /// Returns an object in the current state of the store.
    ///
    /// # Errors
    /// The store fails.
    async fn get_live(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status>;

    /// Returns the objects of a namespace, or of all namespaces, in the current state of the store.
    ///
    /// # Errors
    /// The store fails.
    async fn list_live(&self, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, Status>;
}

/// Writes the status of resource quotas.
#[async_trait]
pub trait QuotaStatus: Send + Sync {
    /// Writes the `status` of a quota, if the stored quota still has the same `metadata.resourceVersion`. Returns the
    /// stored quota.
    ///
    /// # Errors
    /// 409 if the stored quota is newer, 404 if it does not exist, or the store fails.
    async fn update_status(&self, quota: Object) -> Result<Arc<Object>, Status>;
}

/// Creates namespaces.
#[async_trait]
pub trait NamespaceCreator: Send + Sync {
    /// Creates a namespace.
    ///
    /// # Errors
    /// 409 if it exists, or the store fails.
    async fn create(&self, namespace: Object) -> Result<(), Status>;
}

/// Maps kinds to resources.
pub trait KindResolver: Send + Sync {
    /// Returns the resource of a kind, if it is served.
    fn resource_of(&self, kind: &GroupVersionKind) -> Option<GroupVersionResource>;
}

impl KindResolver for Registry {
    fn resource_of(&self, kind: &GroupVersionKind) -> Option<GroupVersionResource> {
        let def = self.by_kind(kind)?;
        Some(GroupVersionResource::new(&*kind.group, &*kind.version, &*def.resource))
    }
}

/// The writes that plugins make.
#[derive(Clone)]
pub struct Writers {
    /// Used by ResourceQuota.
    pub quota_status: Arc<dyn QuotaStatus>,
    /// Used by NamespaceAutoProvision.
    pub namespace_creator: Arc<dyn NamespaceCreator>,
}

/// The error for a resource that plugins need and the server does not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("admission plugins need {0}, which is not served")]
pub struct MissingResource(pub GroupResource);

/// The cluster as plugins access it.
#[derive(Clone)]
#[allow(missing_docs, reason = "each lister is named after its resource")]
pub struct Cluster {
    pub namespaces: Arc<dyn Lister>,
    pub pods: Arc<dyn Lister>,
    pub nodes: Arc<dyn Lister>,
    pub service_accounts: Arc<dyn Lister>,
    pub limit_ranges: Arc<dyn Lister>,
    pub resource_quotas: Arc<dyn Lister>,
    pub priority_classes: Arc<dyn Lister>,
    pub runtime_classes: Arc<dyn Lister>,
    pub storage_classes: Arc<dyn Lister>,
    pub ingress_classes: Arc<dyn Lister>,
    pub persistent_volume_claims: Arc<dyn Lister>,
    pub persistent_volumes: Arc<dyn Lister>,
    pub csi_drivers: Arc<dyn Lister>,
    pub roles: Arc<dyn Lister>,
    pub cluster_roles: Arc<dyn Lister>,
    pub validating_admission_policies: Arc<dyn Lister>,
    pub mutating_admission_policies: Arc<dyn Lister>,
    pub writers: Writers,
    /// Maps the kinds of owners to resources.
    pub kinds: Arc<dyn KindResolver>,
}

impl Cluster {
    /// Creates a cluster. Calls `lister` for each group and resource that plugins read.
    ///
    /// # Errors
    /// A resource that plugins need has no lister.
    pub fn new(
        lister: impl Fn(&GroupResource) -> Option<Arc<dyn Lister>>,
        writers: Writers,
        kinds: Arc<dyn KindResolver>,
    ) -> Result<Self, MissingResource> {
        const RBAC: &str = "rbac.authorization.k8s.io";
        const POLICIES: &str = "admissionregistration.k8s.io";
        const STORAGE: &str = "storage.k8s.io";
        let lister = |group: &str, resource: &str| {
            let resource = GroupResource::new(group, resource);
            lister(&resource).ok_or(MissingResource(resource))
        };
        Ok(Self {
            namespaces: lister("", "namespaces")?,
            pods: lister("", "pods")?,
            nodes: lister("", "nodes")?,
            service_accounts: lister("", "serviceaccounts")?,
            limit_ranges: lister("", "limitranges")?,
            resource_quotas: lister("", "resourcequotas")?,
            priority_classes: lister("scheduling.k8s.io", "priorityclasses")?,
            runtime_classes: lister("node.k8s.io", "runtimeclasses")?,
            storage_classes: lister(STORAGE, "storageclasses")?,
            ingress_classes: lister("networking.k8s.io", "ingressclasses")?,
            persistent_volume_claims: lister("", "persistentvolumeclaims")?,
            persistent_volumes: lister("", "persistentvolumes")?,
            csi_drivers: lister(STORAGE, "csidrivers")?,
            roles: lister(RBAC, "roles")?,
            cluster_roles: lister(RBAC, "clusterroles")?,
            validating_admission_policies: lister(POLICIES, "validatingadmissionpolicies")?,
            mutating_admission_policies: lister(POLICIES, "mutatingadmissionpolicies")?,
            writers,
            kinds,
        })
    }
}
