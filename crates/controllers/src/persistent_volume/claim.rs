//! The next step for a claim (upstream: `syncClaim`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use nave_client::record::EventKind;

use super::edit::{BIND_COMPLETED, BOUND_BY_CONTROLLER};
use super::matching::{self, claim_class, namespace_and_name, volume_of};
use super::plugins::{self, Provisioner};
use crate::frame::SyncError;
use crate::pods;
use crate::selectors::label;

/// Annotation: the node that the scheduler selected for the first pod that mounts the claim.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// An event to record on a claim or volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Event {
    pub(super) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Normal, reason, message: message.into() }
    }

    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventKind::Warning, reason, message: message.into() }
    }
}

/// The next step for a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Binds the claim to a volume, or completes or repairs the binding.
    Bind(Box<PersistentVolume>),
    AssignClass(String),
    /// Requests a volume from a provisioner.
    Provision(String),
    /// Sets the phase to `Pending`, with an event.
    Wait(Option<Event>),
    /// Records an event that explains why the claim makes no progress.
    Report(Event),
    /// Records an event and retries soon.
    Retry(Event),
    /// Sets the phase to `Lost`, with an event.
    Lose(Event),
}

/// The cluster state that a step depends on.
pub(super) trait Cluster {
    /// Returns a volume by name.
    fn volume(&self, name: &str) -> Option<PersistentVolume>;
    /// Returns the volumes that refer to a claim, and the free volumes of its class.
    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<PersistentVolume>;
    /// Returns a storage class by name.
    fn class(&self, name: &str) -> Option<StorageClass>;
    /// Returns all storage classes.
    fn classes(&self) -> Vec<StorageClass>;
    /// Returns the pods that mount a claim.
    fn pods(&self, claim: &PersistentVolumeClaim) -> Vec<Pod>;
}

/// Decides the next step for a claim.
///
/// # Errors
/// The selector or class is invalid. Validation rejects such claims.
pub(super) fn next_step(claim: &PersistentVolumeClaim, cluster: &impl Cluster) -> Result<Step, SyncError> {
    if has_annotation(claim, BIND_COMPLETED) {
        return Ok(bound_step(claim, cluster));
    }
    match volume_of(claim) {
        Some(name) => Ok(prebound_step(claim, cluster.volume(name))),
        None => unbound_step(claim, cluster),
    }
}

/// Returns whether a bound claim may keep a volume: the volume refers to the claim or to no claim.
pub(super) fn may_keep(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_none_or(|reference| reference.uid.as_deref() == claim.metadata.uid.as_deref())
}

fn bound_step(claim: &PersistentVolumeClaim, cluster: &impl Cluster) -> Step {
    let lose = |reason, message: &str| Step::Lose(Event::warning(reason, message));
    let Some(name) = volume_of(claim) else {
        let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lose("ClaimLost", message);
    };
    match cluster.volume(name) {
        None => lose("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        Some(volume) if may_keep(claim, &volume) => Step::Bind(Box::new(volume)),
        Some(_) => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            lose("ClaimMisbound", message)
        }
    }
}

/// Decides the step for a claim that names its volume.
fn prebound_step(claim: &PersistentVolumeClaim, volume: Option<PersistentVolume>) -> Step {
    let Some(volume) = volume else { return Step::Wait(None) };
    let name = volume.metadata.name.clone().unwrap_or_default();
    let is_unclaimed = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none());
    if is_unclaimed {
        return match matching::mismatch(&volume, claim) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                Step::Wait(Some(Event::warning("VolumeMismatch", message)))
            }
            None => Step::Bind(Box::new(volume)),
        };
    }
    if matching::is_for(&volume, claim) {
        return Step::Bind(Box::new(volume));
    }
    let message = format!("volume {name:?} already bound to a different claim.");
    let event = Event::warning("FailedBinding", message);
    if has_annotation(claim, BOUND_BY_CONTROLLER) { Step::Retry(event) } else { Step::Wait(Some(event)) }
}

/// Decides the step for a claim without a volume name.
fn unbound_step(claim: &PersistentVolumeClaim, cluster: &impl Cluster) -> Result<Step, SyncError> {
    let class =
        Some(claim_class(claim)).filter(|name| !name.is_empty()).map(|name| (name, cluster.class(name)));
    let waits_for_consumer = match &class {
        Some((name, Some(class))) => waits_for_consumer(name, class)?,
        _ => false,
    };
    if let Some(volume) = matching::best(claim, cluster.candidates(claim), waits_for_consumer)? {
        return Ok(Step::Bind(Box::new(volume)));
    }
    if !matching::has_class(claim)
        && let Some(class) = default_class(cluster.classes())
    {
        return Ok(Step::AssignClass(class));
    }
    if waits_for_consumer && !has_annotation(claim, SELECTED_NODE) {
        return Ok(Step::Wait(Some(consumer_event(&cluster.pods(claim)))));
    }
    Ok(match class {
        None => Step::Wait(Some(Event::normal(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ))),
        Some((name, None)) => {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            Step::Report(Event::warning("ProvisioningFailed", message))
        }
        Some((_, Some(class))) => match plugins::provisioner(&class.provisioner) {
            Provisioner::External(name) => Step::Provision(name.to_owned()),
            Provisioner::Missing(why) => Step::Report(Event::warning("ProvisioningFailed", why)),
        },
    })
}

fn waits_for_consumer(name: &str, class: &StorageClass) -> Result<bool, SyncError> {
    let mode = class
        .volume_binding_mode
        .as_deref()
        .ok_or_else(|| SyncError::Invalid(format!("VolumeBindingMode not set for StorageClass {name:?}")))?;
    Ok(mode == "WaitForFirstConsumer")
}

fn consumer_event(users: &[Pod]) -> Event {
    let mut waiting: Vec<_> = users
        .iter()
        .filter(|pod| !pods::is_terminal(pod) && pods::node_name(pod).is_none())
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    waiting.sort_unstable();
    match waiting[..] {
        [] => {
            Event::normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding")
        }
        [pod] => Event::normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        _ => {
            let message = format!("waiting for pods {} to be scheduled", waiting.join(","));
            Event::normal("WaitForPodScheduled", message)
        }
    }
}

/// Returns the newest default class.
fn default_class(classes: Vec<StorageClass>) -> Option<String> {
    let mut defaults: Vec<_> = classes
        .into_iter()
        .filter(|class| {
            IS_DEFAULT.iter().any(|key| label(class.metadata.annotations.as_ref(), key) == Some("true"))
        })
        .collect();
    let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    defaults.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
    defaults.into_iter().next()?.metadata.name
}

fn has_annotation(claim: &PersistentVolumeClaim, key: &str) -> bool {
    label(claim.metadata.annotations.as_ref(), key).is_some()
}

/// Formats the namespace and name of a claim for messages.
pub(super) fn key(claim: &PersistentVolumeClaim) -> String {
    let (namespace, name) = namespace_and_name(claim);
    [namespace, "/", name].concat()
}
