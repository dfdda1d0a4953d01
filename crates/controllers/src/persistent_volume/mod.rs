//! Persistent volumes: binds claims to matching volumes, requests new volumes from external provisioners, and
//! reclaims released volumes (upstream: `volume/persistentvolume`). CSI drivers create and delete the storage, as
//! there are no built-in volume plugins.
//!
//! | module | contents |
//! | --- | --- |
//! | [`matching`] | matching of volumes with claims |
//! | [`claim`] | the next step for a claim |
//! | [`volume`] | the next step for a volume |
//! | [`edit`] | the changes of objects |
//! | [`write`] | writes the changes |
//! | [`plugins`] | names and messages of upstream's volume plugins |
//! | [`expand`] | the expander, a separate controller |
//!
//! A single worker processes all objects, so that two claims cannot get the same volume from the same cached state.
//! If the cache is stale, the write fails with a conflict.

mod claim;
mod edit;
pub(crate) mod expand;
mod matching;
mod plugins;
#[cfg(test)]
mod tests;
mod volume;
mod write;

use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use nave_client::{Action, Lister, Object, ObjectName, SharedInformer, Workqueue, on_each};

use self::write::Writer;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::pods;

pub(crate) const PERSISTENT_VOLUME_BINDER: Descriptor = Descriptor {
    name: "persistentvolume-binder-controller",
    alias: "persistentvolume-binder",
    service_account: "persistent-volume-binder",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

/// The event source.
const COMPONENT: &str = "persistentvolume-controller";

/// Index of volumes by the claim they refer to.
const BY_CLAIM: &str = "pv-claim";
/// Index of available volumes by class.
const FREE_BY_CLASS: &str = "pv-free-class";
/// Index of claims by the volume they name.
const BY_VOLUME: &str = "pvc-volume";
/// Index of unbound claims by class.
const UNBOUND_BY_CLASS: &str = "pvc-unbound-class";

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, claims) = context.controller_for::<PersistentVolumeClaim>("pv-binder");
    let volumes = builder.informer::<PersistentVolume>();
    let (classes, pods) = (builder.informer::<StorageClass>(), builder.informer::<Pod>());
    add_indexes(&claims, &volumes, &pods);
    builder.enqueue_objects(&volumes);
    let (queue, lister) = (builder.queue(), volumes.lister());
    builder.add_handler(
        &claims,
        on_each(move |claim: &Object<PersistentVolumeClaim>| {
            let named = edit::text_at(claim, &["spec", "volumeName"]);
            if let Some(name) = named {
                queue.add(ObjectName::new("", &name));
            }
            add_all(&queue, &by_index(&lister, BY_CLAIM, claim.key().as_str()));
        }),
    );
    let (queue, lister) = (builder.queue(), claims.lister());
    builder.add_handler(
        &volumes,
        on_each(move |volume: &Object<PersistentVolume>| {
            if let Some(key) = claim_named_by(volume) {
                queue.add(key);
            }
            add_all(&queue, &by_index(&lister, BY_VOLUME, volume.name()));
            for class in free_class(volume) {
                add_all(&queue, &by_index(&lister, UNBOUND_BY_CLASS, &class));
            }
        }),
    );
    let client = context.client.clone();
    builder.run(Binder {
        caches: Caches {
            claims: claims.lister(),
            volumes: volumes.lister(),
            classes: classes.lister(),
            pods: pods.lister(),
        },
        writer: Writer { client, events: context.events.with_component(COMPONENT) },
        provisions: context.options.dynamic_provisioning,
        sync_period: context.options.claim_binder_sync_period,
    })
}

/// Adds the indexes of claims and volumes.
fn add_indexes(
    claims: &SharedInformer<PersistentVolumeClaim>,
    volumes: &SharedInformer<PersistentVolume>,
    pods: &SharedInformer<Pod>,
) {
    volumes.add_index(BY_CLAIM, |volume| {
        claim_named_by(volume).map(|key| key.as_str().to_owned()).into_iter().collect()
    });
    volumes.add_index(FREE_BY_CLASS, free_class);
    claims.add_index(BY_VOLUME, |claim| edit::text_at(claim, &["spec", "volumeName"]).into_iter().collect());
    claims.add_index(UNBOUND_BY_CLASS, |claim| {
        let is_bound = claim.annotation(edit::BIND_COMPLETED).is_some()
            || edit::text_at(claim, &["spec", "volumeName"]).is_some();
        if is_bound { Vec::new() } else { vec![matching::class_in(claim)] }
    });
    pods::index_by_volume_claim(pods);
}

/// Returns the claim that a volume refers to.
fn claim_named_by(volume: &Object<PersistentVolume>) -> Option<ObjectName> {
    let name = edit::text_at(volume, &["spec", "claimRef", "name"])?;
    Some(ObjectName::new(&edit::text_at(volume, &["spec", "claimRef", "namespace"])?, &name))
}

/// Returns the class of a volume if the volume is available.
fn free_class(volume: &Object<PersistentVolume>) -> Vec<String> {
    let is_free = edit::text_at(volume, &["status", "phase"]).as_deref() == Some("Available")
        && volume.json_at(&["spec", "claimRef"]).is_none();
    if is_free { vec![matching::class_in(volume)] } else { Vec::new() }
}

fn add_all<K>(queue: &Workqueue, objects: &[Object<K>]) {
    for object in objects {
        queue.add(object.key());
    }
}

fn by_index<K>(lister: &Lister<K>, index: &str, value: &str) -> Vec<Object<K>>
where
    K: 'static,
{
    lister.by_index(index, value).unwrap_or_default()
}

struct Binder {
    caches: Caches,
    writer: Writer,
    /// True if claims are provisioned dynamically (`--enable-dynamic-provisioning`).
    provisions: bool,
    /// The interval between retries of unbound claims.
    sync_period: Duration,
}

impl Reconciler for Binder {
    /// Takes the next step for a claim or a volume. The key of a volume has no namespace.
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let outcome = if key.namespace().is_empty() {
            self.sync_volume(&key).await
        } else {
            self.sync_claim(&key).await
        };
        match outcome {
            // The deletion triggers an event.
            Err(error) if error.is_not_found() => Ok(Action::Done),
            outcome => outcome,
        }
    }
}

impl Binder {
    async fn sync_claim(&self, key: &ObjectName) -> Result<Action, SyncError> {
        let Some(seen) = self.caches.claims.get_by_key(key) else { return Ok(Action::Done) };
        let claim = seen.decode()?;
        match claim::next_step(&claim, &self.caches)? {
            claim::Step::Bind(volume) => {
                let volume = self.caches.volume_object(&volume)?;
                self.writer.bind(volume, seen).await?;
                return Ok(Action::Done);
            }
            claim::Step::Lose(event) => {
                if !self.is_lost_by_live_read(&claim).await? {
                    return Err(SyncError::Stale("the volume of a claim"));
                }
                self.writer.lose(seen, &event).await?;
                return Ok(Action::Done);
            }
            claim::Step::AssignClass(class) => {
                self.writer.assign_class(seen, &class).await?;
                return Ok(Action::Done);
            }
            claim::Step::Provision(_) if !self.provisions => {}
            claim::Step::Provision(provisioner) => self.writer.provision(seen, &provisioner).await?,
            claim::Step::Wait(event) => self.writer.wait(seen, event).await?,
            claim::Step::Report(event) => self.writer.record(&claim, &event),
            claim::Step::Retry(event) => {
                self.writer.record(&claim, &event);
                return Err(SyncError::Invalid(event.message));
            }
        }
        Ok(Action::RequeueAfter(self.sync_period))
    }

    async fn sync_volume(&self, key: &ObjectName) -> Result<Action, SyncError> {
        let Some(seen) = self.caches.volumes.get_by_key(key) else { return Ok(Action::Done) };
        let volume = seen.decode()?;
        let claim = self.claim_of(&volume).await?;
        match volume::next_step(&volume, claim.as_ref()) {
            volume::Step::Phase(phase) => self.writer.phase(seen, phase, "").await.map(drop)?,
            volume::Step::Unbind => self.writer.unbind(seen).await?,
            volume::Step::Release(reclaim) => self.writer.release(seen, &volume, reclaim).await?,
            // The event that triggered this sync also enqueues the claim.
            volume::Step::AwaitClaim(events) => {
                for (object, event) in events {
                    self.writer.record_on(&object, &event);
                }
            }
        }
        Ok(Action::Done)
    }

    /// Returns the claim that a volume is bound to, if the claim still exists. Confirms its absence with a live
    /// read before the volume is released, as the claim cache may be older than the volume cache.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<PersistentVolumeClaim>, SyncError> {
        let Some(bound) = matching::bound_to(volume) else { return Ok(None) };
        let has_bound_uid = |claim: &PersistentVolumeClaim| claim.metadata.uid.as_deref() == Some(bound.uid);
        let cached = self.caches.claims.get(bound.namespace, bound.name);
        match cached.map(|claim| claim.decode()).transpose()? {
            Some(claim) if has_bound_uid(&claim) => Ok(Some(claim)),
            None if volume::is_released(volume) => Ok(None),
            _ => Ok(self.writer.live_claim(bound.namespace, bound.name).await?.filter(has_bound_uid)),
        }
    }

    /// Reads the claim's volume live, and returns whether it does not exist or belongs to another claim.
    async fn is_lost_by_live_read(&self, claim: &PersistentVolumeClaim) -> Result<bool, SyncError> {
        let Some(name) = matching::volume_of(claim) else { return Ok(true) };
        let volume = self.writer.live_volume(name).await?;
        Ok(volume.is_none_or(|volume| !claim::may_keep(claim, &volume)))
    }
}

/// The caches that a step depends on.
struct Caches {
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    classes: Lister<StorageClass>,
    pods: Lister<Pod>,
}

impl Caches {
    fn volume_object(&self, volume: &PersistentVolume) -> Result<Object<PersistentVolume>, SyncError> {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        self.volumes.get("", name).ok_or(SyncError::Stale("a volume that was found"))
    }
}

impl claim::Cluster for Caches {
    fn volume(&self, name: &str) -> Option<PersistentVolume> {
        self.volumes.get("", name)?.decode().ok()
    }

    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<PersistentVolume> {
        let (namespace, name) = matching::namespace_and_name(claim);
        let naming = by_index(&self.volumes, BY_CLAIM, ObjectName::new(namespace, name).as_str());
        let free = by_index(&self.volumes, FREE_BY_CLASS, matching::claim_class(claim));
        naming.iter().chain(&free).filter_map(|volume| volume.decode().ok()).collect()
    }

    fn class(&self, name: &str) -> Option<StorageClass> {
        self.classes.get("", name)?.decode().ok()
    }

    fn classes(&self) -> Vec<StorageClass> {
        self.classes.list().iter().filter_map(|class| class.decode().ok()).collect()
    }

    fn pods(&self, claim: &PersistentVolumeClaim) -> Vec<Pod> {
        let (namespace, name) = matching::namespace_and_name(claim);
        let pods = pods::mounting(&self.pods, &ObjectName::new(namespace, name));
        pods.iter().filter_map(|pod| pods::read(pod).ok()).collect()
    }
}
