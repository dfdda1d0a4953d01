//! Volume expander: records an event on claims that request more storage (upstream: `volume/expand`). The external
//! resizer of the CSI driver expands the volume, as there are no built-in volume plugins.

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use nave_client::{Action, Lister, Object, ObjectName, on_change};

use super::edit::{PRE_RESIZE_CAPACITY, text_at};
use super::matching::{self, requested, storage};
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};
use crate::selectors::label;

pub(crate) const PERSISTENT_VOLUME_EXPANDER: Descriptor = Descriptor {
    name: "persistentvolume-expander-controller",
    alias: "persistentvolume-expander",
    service_account: "expand-controller",
    on_by_default: true,
    workers: Workers::fixed(10),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("volume_expand");
    let (claims, volumes) =
        (builder.informer::<PersistentVolumeClaim>(), builder.informer::<PersistentVolume>());
    let queue = builder.queue();
    let has_size_change = |old: &Object<PersistentVolumeClaim>, new: &Object<PersistentVolumeClaim>| {
        let paths = [["spec", "resources"], ["status", "capacity"], ["status", "phase"]];
        paths.iter().any(|path| old.json_at(path) != new.json_at(path))
    };
    builder.add_handler(
        &claims,
        on_change(has_size_change, move |claim| {
            if text_at(claim, &["status", "phase"]).as_deref() == Some("Bound") {
                queue.add(claim.key());
            }
        }),
    );
    builder.run(Expander {
        events: context.events.with_component("volume_expand"),
        claims: claims.lister(),
        volumes: volumes.lister(),
    })
}

struct Expander {
    events: EventRecorder,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
}

impl Reconciler for Expander {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(claim) = self.claims.get_by_key(&key) else { return Ok(Action::Done) };
        let claim = claim.decode()?;
        let Some(name) = matching::volume_of(&claim) else { return Ok(Action::Done) };
        let volume = self.volumes.get("", name).ok_or(SyncError::Stale("the volume of a claim"))?.decode()?;
        if matching::bound_to(&volume).map(|bound| bound.uid) != claim.metadata.uid.as_deref() {
            let message = format!("persistent Volume is not bound to PVC being updated : {key}");
            return Err(SyncError::Invalid(message));
        }
        if needs_expansion(&claim, &volume) {
            let message = "waiting for an external controller to expand this PVC";
            self.events.record(&reference_of(&claim), EventKind::Normal, "ExternalExpanding", message);
        }
        Ok(Action::Done)
    }
}

/// Returns whether a claim requests more storage than it has, or its file system has not been expanded yet.
fn needs_expansion(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let has = storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
    requested(claim) > has || label(volume.metadata.annotations.as_ref(), PRE_RESIZE_CAPACITY).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn detects_expansion_requests() {
        let claim = |wants: &str, has: Value| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "spec": {"resources": {"requests": {"storage": wants}}}, "status": {"capacity": has}}))
            .unwrap()
        };
        let volume = |annotations: Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap()
        };
        let grown = volume(json!({}));
        assert!(needs_expansion(&claim("2Gi", json!({"storage": "1Gi"})), &grown));
        assert!(needs_expansion(&claim("2Gi", json!({})), &grown));
        assert!(!needs_expansion(&claim("1Gi", json!({"storage": "1Gi"})), &grown));
        assert!(!needs_expansion(&claim("1Gi", json!({"storage": "2Gi"})), &grown));
        let growing = volume(json!({PRE_RESIZE_CAPACITY: "1Gi"}));
        assert!(needs_expansion(&claim("1Gi", json!({"storage": "1Gi"})), &growing));
    }
}
