//! Processes one object: reads it and its owners live, then deletes it, removes owner references, or removes a
//! finalizer.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::DynamicObject;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::absent::{AbsentOwners, OwnerKey};
use super::graph::{Deletion, Graph, Item, Kind, Observed, Owner, Work};
use super::uid::Uid;
use crate::api;
use crate::discovery::{Discovered, Resource};
use crate::frame::SyncError;

/// The finalizer of foreground deletion.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of orphaning deletion.
const ORPHAN: &str = "orphan";
/// The number of dependents orphaned concurrently.
const ORPHANED_AT_ONCE: usize = 16;

/// The graph, and clients to act on it.
pub(super) struct Collector {
    client: kube::Client,
    graph: Mutex<Graph>,
    absent: Mutex<AbsentOwners>,
    /// The resources that the server serves, from the last discovery.
    discovered: RwLock<Arc<Discovered>>,
    /// Enqueues work.
    queue: Box<dyn Fn(Work) + Send + Sync>,
}

impl Collector {
    /// A collector with an empty graph; `queue` enqueues work.
    pub(super) fn new(client: kube::Client, queue: impl Fn(Work) + Send + Sync + 'static) -> Self {
        Self {
            client,
            graph: Mutex::default(),
            absent: Mutex::default(),
            discovered: RwLock::default(),
            queue: Box::new(queue),
        }
    }

    /// Sets the resources that the server serves.
    pub(super) fn set_discovered(&self, discovered: Arc<Discovered>) {
        *self.discovered.write() = discovered;
    }

    /// Changes the graph and enqueues the resulting work.
    pub(super) fn change(&self, change: impl FnOnce(&mut Graph, &mut Vec<Work>)) {
        let mut work = Vec::new();
        change(&mut self.graph.lock(), &mut work);
        work.into_iter().for_each(&self.queue);
    }

    /// The node of a uid.
    pub(super) fn item(&self, uid: &Uid) -> Option<Item> {
        self.graph.lock().item(uid)
    }

    /// Checks by a live read whether an unobserved object exists.
    pub(super) async fn verify(&self, uid: &Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(uid).filter(|item| !item.observed) else { return Ok(()) };
        self.read_item(uid, &item).await.map(drop)
    }

    /// Deletes an object that has no owners left, or advances its deletion (upstream: `attemptToDeleteItem`).
    pub(super) async fn attempt_to_delete(&self, uid: &Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(uid) else { return Ok(()) };
        let Some((resource, live)) = self.read_item(uid, &item).await? else { return Ok(()) };
        match deletion_state(&live) {
            Deletion::None => {}
            Deletion::Foreground => return self.continue_foreground(uid, &resource, &live).await,
            Deletion::Begun | Deletion::Orphan => return Ok(()),
        }
        let owners = live.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(());
        }
        let mut found = OwnersByState::default();
        for owner in owners {
            match self.owner_state(&owner, &live).await? {
                State::Solid => found.solid.push(owner),
                State::Waiting => found.waiting.push(owner),
                State::Dangling => found.dangling.push(owner),
                State::Unresolvable => return Ok(()),
            }
        }
        if !found.solid.is_empty() {
            if found.waiting.is_empty() && found.dangling.is_empty() {
                return Ok(());
            }
            // Another owner keeps the object, so the waiting owners do not need to wait for it.
            return self.write(&resource, &live, json!({"ownerReferences": found.solid})).await;
        }
        if !found.waiting.is_empty() && item.has_dependents {
            if self.has_waiting_dependents(uid) && blocks(&live) {
                // The object and its dependents block each other, so the object stops blocking its owners.
                self.stop_blocking(&resource, &live).await?;
                (self.queue)(Work::Attempt(uid.clone()));
                return Ok(());
            }
            return self.delete(&resource, &live, PropagationPolicy::Foreground).await;
        }
        self.delete(&resource, &live, propagation_policy(&live)).await
    }

    /// Removes the reference to an owner from its dependents, then the owner's finalizer.
    pub(super) async fn orphan_dependents(&self, uid: &Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(uid) else { return Ok(()) };
        let Some((resource, live)) = self.read_item(uid, &item).await? else { return Ok(()) };
        if deletion_state(&live) != Deletion::Orphan {
            return Ok(());
        }
        let dependents = self.graph.lock().dependents(uid);
        stream::iter(dependents)
            .map(|dependent| self.remove_owner(uid, dependent.uid))
            .buffer_unordered(ORPHANED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.remove_finalizer(&resource, &live, ORPHAN).await
    }

    /// Removes the reference to an owner from one dependent.
    async fn remove_owner(&self, owner: &Uid, dependent: Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(&dependent) else { return Ok(()) };
        let Some((resource, live)) = self.read_item(&dependent, &item).await? else { return Ok(()) };
        let owners = live.owner_references.iter().flatten();
        let (gone, kept): (Vec<_>, Vec<_>) = owners.partition(|reference| Uid::new(&reference.uid) == *owner);
        if gone.is_empty() {
            return Ok(());
        }
        self.write(&resource, &live, json!({"ownerReferences": kept})).await
    }

    /// Removes the finalizer of foreground deletion if no dependents are left, or processes the dependents that
    /// block it.
    async fn continue_foreground(
        &self,
        uid: &Uid,
        resource: &Resource,
        live: &ObjectMeta,
    ) -> Result<(), SyncError> {
        let mut blocking = self.graph.lock().dependents(uid);
        // An object that owns itself does not block itself.
        blocking.retain(|dependent| dependent.blocking && dependent.uid != *uid);
        if blocking.is_empty() {
            return self.remove_finalizer(resource, live, FOREGROUND).await;
        }
        // Dependents in foreground deletion are processed when one of their own dependents changes.
        blocking.retain(|dependent| dependent.deletion != Deletion::Foreground);
        for dependent in blocking {
            (self.queue)(Work::Attempt(dependent.uid));
        }
        Ok(())
    }

    fn has_waiting_dependents(&self, uid: &Uid) -> bool {
        let dependents = self.graph.lock().dependents(uid);
        dependents.iter().any(|dependent| dependent.deletion == Deletion::Foreground)
    }

    /// Reads the object of a node live. Removes the object from the graph if it does not exist.
    async fn read_item(&self, uid: &Uid, item: &Item) -> Result<Option<(Resource, ObjectMeta)>, SyncError> {
        let resource = self.resource(&item.kind.api_version, &item.kind.kind)?;
        let live = self.read(&resource, &item.namespace, &item.name).await?;
        let Some(live) = live.filter(|live| live.uid.as_deref().map(Uid::new).as_ref() == Some(uid)) else {
            let namespace = if resource.namespaced { item.namespace.clone() } else { String::new() };
            self.absent.lock().insert(OwnerKey {
                uid: uid.clone(),
                api_version: item.kind.api_version.clone(),
                kind: item.kind.kind.clone(),
                namespace,
                name: item.name.clone(),
            });
            self.change(|graph, work| graph.remove(uid, work));
            return Ok(None);
        };
        self.observe(&item.kind, &live);
        Ok(Some((resource, live)))
    }

    /// Determines the state of an owner that an object refers to.
    async fn owner_state(&self, owner: &OwnerReference, object: &ObjectMeta) -> Result<State, SyncError> {
        let resource = self.resource(&owner.api_version, &owner.kind)?;
        let namespace = object.namespace.as_deref().unwrap_or_default();
        if resource.namespaced && namespace.is_empty() {
            tracing::warn!(
                object = object.name,
                owner = owner.name,
                "a cluster-scoped object names a namespaced owner"
            );
            return Ok(State::Unresolvable);
        }
        let place = OwnerKey {
            uid: Uid::new(&owner.uid),
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: if resource.namespaced { namespace.to_owned() } else { String::new() },
            name: owner.name.clone(),
        };
        if self.absent.lock().contains(&place) {
            return Ok(State::Dangling);
        }
        let live = self.read(&resource, namespace, &owner.name).await?;
        let Some(live) = live.filter(|live| live.uid.as_deref() == Some(&owner.uid)) else {
            self.absent.lock().insert(place);
            return Ok(State::Dangling);
        };
        let kind = Kind { api_version: owner.api_version.clone(), kind: owner.kind.clone() };
        self.observe(&Arc::new(kind), &live);
        let waits = deletion_state(&live) == Deletion::Foreground;
        Ok(if waits { State::Waiting } else { State::Solid })
    }

    fn observe(&self, kind: &Arc<Kind>, live: &ObjectMeta) {
        let owners: Vec<_> = live.owner_references.iter().flatten().map(graph_owner).collect();
        let object = Observed {
            kind,
            namespace: live.namespace.as_deref().unwrap_or_default(),
            name: live.name.as_deref().unwrap_or_default(),
            uid: Uid::new(live.uid.as_deref().unwrap_or_default()),
            owners: &owners,
            deletion: deletion_state(live),
            cached: None,
        };
        self.change(|graph, work| graph.observe(&object, work));
    }

    fn resource(&self, api_version: &str, kind: &str) -> Result<Resource, SyncError> {
        let found = self.discovered.read().kind(api_version, kind).cloned();
        found.ok_or_else(|| {
            SyncError::Invalid(format!("no resource of kind {kind} in {api_version} is served"))
        })
    }

    async fn read(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMeta>, SyncError> {
        // No object has an empty name.
        if name.is_empty() {
            return Ok(None);
        }
        Ok(self.api(resource, namespace).get_metadata_opt(name).await?.map(|live| live.metadata))
    }

    /// Deletes an object if it has not changed since it was read.
    async fn delete(
        &self,
        resource: &Resource,
        live: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> Result<(), SyncError> {
        let preconditions =
            Preconditions { uid: live.uid.clone(), resource_version: live.resource_version.clone() };
        let parameters = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let objects = self.api(resource, live.namespace.as_deref().unwrap_or_default());
        api::ignore_not_found(objects.delete(live.name.as_deref().unwrap_or_default(), &parameters).await)
    }

    async fn remove_finalizer(
        &self,
        resource: &Resource,
        live: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), SyncError> {
        let kept: Vec<_> = live.finalizers.iter().flatten().filter(|it| *it != finalizer).collect();
        self.write(resource, live, json!({"finalizers": kept})).await
    }

    async fn stop_blocking(&self, resource: &Resource, live: &ObjectMeta) -> Result<(), SyncError> {
        let mut owners = live.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        self.write(resource, live, json!({"ownerReferences": owners})).await
    }

    /// Patches metadata if the object has not changed since it was read.
    async fn write(
        &self,
        resource: &Resource,
        live: &ObjectMeta,
        mut metadata: Value,
    ) -> Result<(), SyncError> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let objects = self.api(resource, live.namespace.as_deref().unwrap_or_default());
        let name = live.name.as_deref().unwrap_or_default();
        api::ignore_not_found(objects.patch_metadata(name, &PatchParams::default(), &patch).await)
    }

    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        let kind = resource.api_resource();
        if resource.namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &kind)
        } else {
            Api::all_with(self.client.clone(), &kind)
        }
    }
}

/// The state of an owner.
enum State {
    /// It exists.
    Solid,
    /// It does not exist.
    Dangling,
    /// It is in foreground deletion and waits for its dependents.
    Waiting,
    /// The object cannot refer to it: a namespaced owner of a cluster-scoped object.
    Unresolvable,
}

#[derive(Default)]
struct OwnersByState {
    solid: Vec<OwnerReference>,
    waiting: Vec<OwnerReference>,
    dangling: Vec<OwnerReference>,
}

/// An owner reference in the form of the graph.
pub(super) fn graph_owner(reference: &OwnerReference) -> Owner<'_> {
    Owner {
        api_version: &reference.api_version,
        kind: &reference.kind,
        name: &reference.name,
        uid: &reference.uid,
        blocking: reference.block_owner_deletion == Some(true),
    }
}

fn deletion_state(meta: &ObjectMeta) -> Deletion {
    let finalizers = meta.finalizers.iter().flatten().map(String::as_str);
    deletion(meta.deletion_timestamp.is_some(), finalizers)
}

/// The deletion state of an object with these finalizers. `begun` is true if the object is being deleted.
pub(super) fn deletion<'a>(begun: bool, mut finalizers: impl Iterator<Item = &'a str>) -> Deletion {
    if !begun {
        return Deletion::None;
    }
    let waiting = finalizers.find_map(|finalizer| match finalizer {
        FOREGROUND => Some(Deletion::Foreground),
        ORPHAN => Some(Deletion::Orphan),
        _ => None,
    });
    waiting.unwrap_or(Deletion::Begun)
}

/// Returns whether an owner reference of the object blocks the owner's foreground deletion.
fn blocks(meta: &ObjectMeta) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.block_owner_deletion == Some(true))
}

/// The propagation policy for the deletion of an object without owners, by its finalizers.
fn propagation_policy(meta: &ObjectMeta) -> PropagationPolicy {
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|it| it == finalizer);
    if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}
