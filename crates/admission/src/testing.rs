//! An in-memory cluster and admission requests, for tests.

#[cfg(test)]
pub(crate) mod rights;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nave_machinery::options::CreateOptions;
use nave_machinery::user::UserInfo;
use nave_machinery::{GroupResource, GroupVersionKind, Object, Status, Value};
use nave_resources::{Registry, ResourceDef};
use parking_lot::Mutex;

use crate::matching::Matcher;
use crate::objects::StoredObjects;
use crate::{
    Attributes, Cluster, Lister, Mutate, NamespaceCreator, Notes, Operation, Plugin, QuotaStatus,
    RequestOptions, Validate, Writers,
};

/// The objects of one resource. The watch cache may lag behind the store until a live read.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stored: Objects,
    cached: Objects,
    revision: u64,
}

type Objects = BTreeMap<(String, String), Arc<Object>>;

impl Memory {
    /// Stores an object; returns it with its resource version.
    pub fn put(&self, object: impl Into<Value>) -> Arc<Object> {
        let stored = self.put_uncached(object);
        self.catch_up();
        stored
    }

    /// Stores an object that the watch cache does not have yet.
    pub fn put_uncached(&self, object: impl Into<Value>) -> Arc<Object> {
        let mut object = Object::try_from(object.into()).unwrap_or_default();
        let state = &mut *self.state.lock();
        state.revision += 1;
        object.metadata_mut().insert("resourceVersion".to_owned(), state.revision.to_string().into());
        let object = Arc::new(object);
        state.stored.insert(key(&object), Arc::clone(&object));
        object
    }

    /// Removes an object.
    pub fn remove(&self, namespace: &str, name: &str) {
        self.state.lock().stored.remove(&(namespace.to_owned(), name.to_owned()));
        self.catch_up();
    }

    /// Updates the watch cache to the state of the store.
    pub fn catch_up(&self) {
        let state = &mut *self.state.lock();
        state.cached = state.stored.clone();
    }

    /// Returns a stored object.
    pub fn stored(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.state.lock().stored.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

fn key(object: &Object) -> (String, String) {
    (object.namespace().to_owned(), object.name().to_owned())
}

#[async_trait]
impl Lister for Memory {
    fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        Ok(self.state.lock().cached.get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    fn list(&self, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, Status> {
        let state = self.state.lock();
        let all = state.cached.values();
        Ok(all.filter(|object| namespace.is_none_or(|of| of == object.namespace())).cloned().collect())
    }

    async fn get_live(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        self.catch_up();
        self.get(namespace, name)
    }

    async fn list_live(&self, namespace: Option<&str>) -> Result<Vec<Arc<Object>>, Status> {
        self.catch_up();
        self.list(namespace)
    }
}

#[async_trait]
impl QuotaStatus for Memory {
    async fn update_status(&self, quota: Object) -> Result<Arc<Object>, Status> {
        let resource = GroupResource::new("", "resourcequotas");
        // Lets other tasks run between the read and the write, as a real store does.
        tokio::task::yield_now().await;
        let stored = self.stored(quota.namespace(), quota.name());
        let Some(stored) = stored else { return Err(Status::not_found(&resource, quota.name())) };
        if stored.resource_version() != quota.resource_version() {
            return Err(Status::conflict(&resource, quota.name(), "the object has been modified"));
        }
        Ok(self.put_uncached(quota))
    }
}

#[async_trait]
impl NamespaceCreator for Memory {
    async fn create(&self, namespace: Object) -> Result<(), Status> {
        if self.stored("", namespace.name()).is_some() {
            return Err(Status::already_exists(&GroupResource::new("", "namespaces"), namespace.name()));
        }
        self.put_uncached(namespace);
        Ok(())
    }
}

/// An in-memory cluster.
#[derive(Clone, Default)]
#[allow(missing_docs, reason = "each field is named after its resource")]
pub struct MemoryCluster {
    pub namespaces: Arc<Memory>,
    pub pods: Arc<Memory>,
    pub nodes: Arc<Memory>,
    pub service_accounts: Arc<Memory>,
    pub limit_ranges: Arc<Memory>,
    pub resource_quotas: Arc<Memory>,
    pub priority_classes: Arc<Memory>,
    pub runtime_classes: Arc<Memory>,
    pub storage_classes: Arc<Memory>,
    pub ingress_classes: Arc<Memory>,
    pub persistent_volume_claims: Arc<Memory>,
    pub persistent_volumes: Arc<Memory>,
    pub csi_drivers: Arc<Memory>,
    pub roles: Arc<Memory>,
    pub cluster_roles: Arc<Memory>,
    pub validating_admission_policies: Arc<Memory>,
    pub mutating_admission_policies: Arc<Memory>,
}

impl MemoryCluster {
    /// Returns a matcher by these namespaces, for resources that need no conversion.
    pub fn matcher(&self, registry: &Arc<Registry>) -> Matcher {
        Matcher::new(Arc::clone(&self.namespaces) as _, Arc::new(StoredObjects(Arc::clone(registry))))
    }

    /// The cluster as plugins see it, with the kinds of `registry`.
    pub fn cluster(&self, registry: &Arc<Registry>) -> Cluster {
        let lister = |memory: &Arc<Memory>| Arc::clone(memory) as Arc<dyn Lister>;
        Cluster {
            namespaces: lister(&self.namespaces),
            pods: lister(&self.pods),
            nodes: lister(&self.nodes),
            service_accounts: lister(&self.service_accounts),
            limit_ranges: lister(&self.limit_ranges),
            resource_quotas: lister(&self.resource_quotas),
            priority_classes: lister(&self.priority_classes),
            runtime_classes: lister(&self.runtime_classes),
            storage_classes: lister(&self.storage_classes),
            ingress_classes: lister(&self.ingress_classes),
            persistent_volume_claims: lister(&self.persistent_volume_claims),
            persistent_volumes: lister(&self.persistent_volumes),
            csi_drivers: lister(&self.csi_drivers),
            roles: lister(&self.roles),
            cluster_roles: lister(&self.cluster_roles),
            validating_admission_policies: lister(&self.validating_admission_policies),
            mutating_admission_policies: lister(&self.mutating_admission_policies),
            writers: Writers {
                quota_status: Arc::clone(&self.resource_quotas) as _,
                namespace_creator: Arc::clone(&self.namespaces) as _,
            },
            kinds: Arc::clone(registry) as _,
        }
    }
}

#[cfg(test)]
struct NoServices;

#[cfg(test)]
impl nave_webhook::Services for NoServices {
    fn service(&self, _: &str, _: &str) -> Option<Arc<Value>> {
        None
    }

    fn endpoint_slices(&self, _: &str, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

#[cfg(test)]
impl MemoryCluster {
    /// The dependencies of plugins, with this authorizer and no roles.
    pub(crate) fn parts(&self, authorizer: nave_authz::Chain) -> crate::Parts {
        use nave_webhook::{ClientManager, Routing, ServiceResolver};
        let interfaces = Arc::new(StoredObjects(Arc::clone(registry())));
        crate::Parts {
            cluster: self.cluster(registry()),
            matcher: self.matcher(registry()),
            interfaces,
            webhooks: Arc::new(ClientManager::new(ServiceResolver::new(
                Arc::new(NoServices),
                Routing::ClusterIp,
                None,
            ))),
            programs: crate::expressions::Programs::default(),
            params: Arc::new(Params(Arc::clone(&self.pods))),
            authorizer,
            rbac: Arc::default(),
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
        }
    }
}

/// Parameters of policies: all kinds of the core group are namespaced and kept in one place.
#[cfg(test)]
struct Params(Arc<Memory>);

#[cfg(test)]
#[async_trait]
impl crate::ParamKinds for Params {
    fn is_namespaced(&self, kind: &GroupVersionKind) -> Option<bool> {
        kind.group.is_empty().then_some(true)
    }

    async fn get(
        &self,
        _: &GroupVersionKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, Status> {
        Lister::get(&*self.0, namespace, name)
    }

    async fn list(
        &self,
        _: &GroupVersionKind,
        namespace: &str,
        selector: &nave_machinery::selector::LabelSelector,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let mut objects = Lister::list(&*self.0, Some(namespace))?;
        objects.retain(|object| selector.matches(|key| object.label(key)));
        Ok(objects)
    }
}

/// An admission request, with the warnings and annotations that plugins add.
pub struct Request<'r> {
    def: &'r ResourceDef,
    kind: GroupVersionKind,
    /// The subresource.
    pub subresource: &'r str,
    /// The namespace.
    pub namespace: &'r str,
    /// The name; if empty, it is taken from the object.
    pub name: &'r str,
    /// The operation.
    pub operation: Operation,
    /// The new object; null for a deletion.
    pub object: Value,
    /// The stored object; null if it does not exist.
    pub old: Value,
    /// The options.
    pub options: CreateOptions,
    /// The user.
    pub user: UserInfo,
    /// The warnings and audit annotations.
    pub notes: Notes,
}

impl<'r> Request<'r> {
    /// Creates a request for a built-in resource: a create without an old object, a deletion without a new object, an
    /// update with both.
    pub fn new(registry: &'r Registry, group: &str, resource: &str, object: Value, old: Value) -> Self {
        let def = registry.all().find(|def| def.group == group && def.resource == resource);
        Self::for_resource(
            def.unwrap_or_else(|| unreachable!("{resource} of {group:?} is built in")),
            object,
            old,
        )
    }

    /// Creates a request for a resource; see [`new`](Self::new).
    pub fn for_resource(def: &'r ResourceDef, object: Value, old: Value) -> Self {
        let version = def.versions.first().map_or("v1", |version| &version.name);
        let operation = match (object.is_null(), old.is_null()) {
            (false, true) => Operation::Create,
            (true, _) => Operation::Delete,
            (false, false) => Operation::Update,
        };
        Self {
            def,
            kind: GroupVersionKind::new(&*def.group, version, &*def.kind),
            subresource: "",
            namespace: if def.namespaced { "ns" } else { "" },
            name: "",
            operation,
            object,
            old,
            options: CreateOptions::default(),
            user: UserInfo::default(),
            notes: Notes::default(),
        }
    }

    /// Sets the user and its groups.
    pub fn by(mut self, user: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.user = UserInfo { name: user.to_owned(), groups, ..UserInfo::default() };
        self
    }

    /// Sets the subresource.
    pub fn with_subresource(mut self, subresource: &'r str) -> Self {
        self.subresource = subresource;
        self
    }

    /// Runs the mutating phase of a plugin, if it handles the request.
    ///
    /// # Errors
    /// The plugin's refusal.
    pub async fn mutate(&mut self, plugin: &dyn Mutate) -> Result<(), Status> {
        let mut object = Object::try_from(self.object.clone()).ok();
        let old = Object::try_from(self.old.clone()).ok();
        let name = self.name().to_owned();
        let attributes = self.attributes(&name, old.as_ref());
        if plugin.handles(&attributes) {
            plugin.admit(&attributes, object.as_mut()).await?;
        }
        if let Some(object) = object {
            self.object = object.into_value();
        }
        Ok(())
    }

    /// Runs the validating phase of a plugin, if it handles the request.
    ///
    /// # Errors
    /// The plugin's refusal.
    pub async fn validate(&self, plugin: &dyn Validate) -> Result<(), Status> {
        let object = Object::try_from(self.object.clone()).ok();
        let old = Object::try_from(self.old.clone()).ok();
        let attributes = self.attributes(self.name(), old.as_ref());
        if plugin.handles(&attributes) {
            plugin.validate(&attributes, object.as_ref()).await?;
        }
        Ok(())
    }

    /// Runs both phases of a plugin.
    ///
    /// # Errors
    /// The plugin's refusal.
    pub async fn admit(&mut self, plugin: &Plugin) -> Result<(), Status> {
        if let Some(plugin) = &plugin.mutate {
            self.mutate(plugin.as_ref()).await?;
        }
        if let Some(plugin) = &plugin.validate {
            self.validate(plugin.as_ref()).await?;
        }
        Ok(())
    }

    /// The attributes of the request.
    pub fn attributes<'a>(&'a self, name: &'a str, old: Option<&'a Object>) -> Attributes<'a> {
        Attributes {
            def: self.def,
            kind: &self.kind,
            version: &self.kind.version,
            subresource: self.subresource,
            namespace: self.namespace,
            name,
            operation: self.operation,
            verb: match self.operation {
                Operation::Create => "create",
                Operation::Update => "update",
                Operation::Delete => "delete",
                Operation::Connect => "connect",
            },
            old,
            options: RequestOptions::Write(&self.options),
            user: &self.user,
            deadline: Instant::now() + Duration::from_secs(30),
            notes: &self.notes,
        }
    }

    fn name(&self) -> &str {
        let object_name = nave_machinery::meta::name;
        [self.name, object_name(&self.object), object_name(&self.old)]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    }
}

/// The registry of built-in resources, for tests.
#[cfg(test)]
pub(crate) fn registry() -> &'static Arc<Registry> {
    static REGISTRY: std::sync::OnceLock<Arc<Registry>> = std::sync::OnceLock::new();
    REGISTRY.get_or_init(|| Arc::new(Registry::builtin(nave_schema::builtin())))
}

/// The result of a request: `Ok`, or the code and message of the refusal.
#[cfg(test)]
pub(crate) fn outcome(result: Result<(), Status>) -> Result<(), (u16, String)> {
    result.map_err(|status| (status.code, status.message))
}
