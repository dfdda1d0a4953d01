//! What is done about an object: reads it and its owners live, then deletes it, changes its references, or lets it go
//! on.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::DynamicObject;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::absent::{AbsentOwners, Place};
use super::graph::{Deletion, Graph, Item, Kind, Observed, Owner, Work};
use super::uid::Uid;
use crate::api;
use crate::discovery::{Discovered, Resource};
use crate::frame::SyncError;

/// The finalizer of an object that waits for its dependents to go.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object that waits for its dependents to be orphaned.
const ORPHAN: &str = "orphan";
/// Dependents orphaned at a time.
const ORPHANED_AT_ONCE: usize = 16;

/// The graph, and all that is needed to act on it.
pub(super) struct Collector {
    client: kube::Client,
    graph: Mutex<Graph>,
    absent: Mutex<AbsentOwners>,
    /// What the server serves, as of the last time it was asked.
    discovered: RwLock<Arc<Discovered>>,
    /// Where work goes.
    queue: Box<dyn Fn(Work) + Send + Sync>,
}

impl Collector {
    /// A collector that knows nothing yet; work is told to `queue`.
    pub(super) fn new(client: kube::Client, queue: impl Fn(Work) + Send + Sync + 'static) -> Self {
        Self {
            client,
            graph: Mutex::default(),
            absent: Mutex::default(),
            discovered: RwLock::default(),
            queue: Box::new(queue),
        }
    }

    /// What the server serves.
    pub(super) fn set_discovered(&self, discovered: Arc<Discovered>) {
        *self.discovered.write() = discovered;
    }

    /// Changes the graph and queues what comes of it.
    pub(super) fn change(&self, change: impl FnOnce(&mut Graph, &mut Vec<Work>)) {
        let mut work = Vec::new();
        change(&mut self.graph.lock(), &mut work);
        work.into_iter().for_each(&self.queue);
    }

    /// The node of a uid.
    pub(super) fn item(&self, uid: &Uid) -> Option<Item> {
        self.graph.lock().item(uid)
    }

    /// Sees by a live read whether an object exists that has not been observed.
    pub(super) async fn verify(&self, uid: &Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(uid).filter(|item| !item.observed) else { return Ok(()) };
        self.read_item(uid, &item).await.map(drop)
    }

    /// Sees whether an object has to go, or can go on with its deletion.
    pub(super) async fn attempt(&self, uid: &Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(uid) else { return Ok(()) };
        let Some((resource, live)) = self.read_item(uid, &item).await? else { return Ok(()) };
        match deletion_of(&live) {
            Deletion::None => {}
            Deletion::Foreground => return self.continue_foreground(uid, &resource, &live).await,
            Deletion::Begun | Deletion::Orphan => return Ok(()),
        }
        let owners = live.owner_references.clone().unwrap_or_default();
        if owners.is_empty() {
            return Ok(());
        }
        let mut found = Found::default();
        for owner in owners {
            match self.look_for(&owner, &live).await? {
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
            // Owners that wait for this object need not: others have it.
            return self.write(&resource, &live, json!({"ownerReferences": found.solid})).await;
        }
        if !found.waiting.is_empty() && item.has_dependents {
            if self.dependents_wait(uid) && blocks(&live) {
                // The object and what it owns wait for each other: nobody has to wait for it, then.
                self.stop_blocking(&resource, &live).await?;
                (self.queue)(Work::Attempt(uid.clone()));
                return Ok(());
            }
            return self.delete(&resource, &live, PropagationPolicy::Foreground).await;
        }
        self.delete(&resource, &live, policy_of(&live)).await
    }

    /// Takes an owner that is being deleted out of its dependents, and lets it go.
    pub(super) async fn orphan(&self, uid: &Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(uid) else { return Ok(()) };
        let Some((resource, live)) = self.read_item(uid, &item).await? else { return Ok(()) };
        if deletion_of(&live) != Deletion::Orphan {
            return Ok(());
        }
        let dependents = self.graph.lock().dependents(uid);
        stream::iter(dependents)
            .map(|dependent| self.release(uid, dependent.uid))
            .buffer_unordered(ORPHANED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.drop_finalizer(&resource, &live, ORPHAN).await
    }

    /// Takes an owner out of one dependent.
    async fn release(&self, owner: &Uid, dependent: Uid) -> Result<(), SyncError> {
        let Some(item) = self.graph.lock().item(&dependent) else { return Ok(()) };
        let Some((resource, live)) = self.read_item(&dependent, &item).await? else { return Ok(()) };
        let owners = live.owner_references.iter().flatten();
        let (gone, kept): (Vec<_>, Vec<_>) = owners.partition(|reference| Uid::new(&reference.uid) == *owner);
        if gone.is_empty() {
            return Ok(());
        }
        self.write(&resource, &live, json!({"ownerReferences": kept})).await
    }

    /// Lets an object go whose dependents are gone, or sees to those that it waits for.
    async fn continue_foreground(
        &self,
        uid: &Uid,
        resource: &Resource,
        live: &ObjectMeta,
    ) -> Result<(), SyncError> {
        let mut blocking = self.graph.lock().dependents(uid);
        // What owns itself does not wait for itself.
        blocking.retain(|dependent| dependent.blocking && dependent.uid != *uid);
        if blocking.is_empty() {
            return self.drop_finalizer(resource, live, FOREGROUND).await;
        }
        // Those that wait themselves are looked at whenever something changes for them.
        blocking.retain(|dependent| dependent.deletion != Deletion::Foreground);
        for dependent in blocking {
            (self.queue)(Work::Attempt(dependent.uid));
        }
        Ok(())
    }

    fn dependents_wait(&self, uid: &Uid) -> bool {
        let dependents = self.graph.lock().dependents(uid);
        dependents.iter().any(|dependent| dependent.deletion == Deletion::Foreground)
    }

    /// Reads the object of a node live. One that is not there any more leaves the graph.
    async fn read_item(&self, uid: &Uid, item: &Item) -> Result<Option<(Resource, ObjectMeta)>, SyncError> {
        let resource = self.resource(&item.kind.api_version, &item.kind.kind)?;
        let live = self.read(&resource, &item.namespace, &item.name).await?;
        let Some(live) = live.filter(|live| live.uid.as_deref().map(Uid::new).as_ref() == Some(uid)) else {
            let namespace = if resource.namespaced { item.namespace.clone() } else { String::new() };
            self.absent.lock().insert(Place {
                uid: uid.clone(),
                api_version: item.kind.api_version.clone(),
                kind: item.kind.kind.clone(),
                namespace,
                name: item.name.clone(),
            });
            self.change(|graph, work| graph.vanished(uid, work));
            return Ok(None);
        };
        self.observe(&item.kind, &live);
        Ok(Some((resource, live)))
    }

    /// What has become of an owner that an object names.
    async fn look_for(&self, owner: &OwnerReference, object: &ObjectMeta) -> Result<State, SyncError> {
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
        let place = Place {
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
        let waits = deletion_of(&live) == Deletion::Foreground;
        Ok(if waits { State::Waiting } else { State::Solid })
    }

    fn observe(&self, kind: &Arc<Kind>, live: &ObjectMeta) {
        let owners: Vec<_> = live.owner_references.iter().flatten().map(owner).collect();
        let object = Observed {
            kind,
            namespace: live.namespace.as_deref().unwrap_or_default(),
            name: live.name.as_deref().unwrap_or_default(),
            uid: Uid::new(live.uid.as_deref().unwrap_or_default()),
            owners: &owners,
            deletion: deletion_of(live),
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
        // A name that no path can have is nobody's.
        if name.is_empty() {
            return Ok(None);
        }
        Ok(self.api(resource, namespace).get_metadata_opt(name).await?.map(|live| live.metadata))
    }

    /// Deletes an object, if it is still as it was read.
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
        api::gone_is_fine(objects.delete(live.name.as_deref().unwrap_or_default(), &parameters).await)
    }

    async fn drop_finalizer(
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

    /// Writes metadata, if the object is still as it was read.
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
        api::gone_is_fine(objects.patch_metadata(name, &PatchParams::default(), &patch).await)
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

/// What has become of an owner.
enum State {
    /// It is there.
    Solid,
    /// It is not there.
    Dangling,
    /// It is being deleted, and waits for its dependents.
    Waiting,
    /// It cannot be where the object says.
    Unresolvable,
}

#[derive(Default)]
struct Found {
    solid: Vec<OwnerReference>,
    waiting: Vec<OwnerReference>,
    dangling: Vec<OwnerReference>,
}

/// An owner as the graph is told of it.
pub(super) fn owner(reference: &OwnerReference) -> Owner<'_> {
    Owner {
        api_version: &reference.api_version,
        kind: &reference.kind,
        name: &reference.name,
        uid: &reference.uid,
        blocking: reference.block_owner_deletion == Some(true),
    }
}

fn deletion_of(meta: &ObjectMeta) -> Deletion {
    let finalizers = meta.finalizers.iter().flatten().map(String::as_str);
    deletion(meta.deletion_timestamp.is_some(), finalizers)
}

/// How far the deletion of an object with these finalizers is.
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

/// Returns whether an owner that waits for its dependents waits for this one.
fn blocks(meta: &ObjectMeta) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.block_owner_deletion == Some(true))
}

/// How an object without owners is deleted: as its finalizers ask for.
fn policy_of(meta: &ObjectMeta) -> PropagationPolicy {
    let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|it| it == finalizer);
    if has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    }
}
