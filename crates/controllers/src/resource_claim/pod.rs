//! The resource claims of a pod.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Pod, PodResourceClaim, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use nave_client::{Action, Lister, ObjectName};
use parking_lot::Mutex;
use serde_json::json;

use super::{BY_POD, api, uses_claims};
use crate::api::ignore_not_found;
use crate::frame::{EventKind, EventRecorder, Reconciler, SyncError, reference_of};
use crate::owners::controller_of;
use crate::pods;
use crate::untyped::{UpdateTarget, update};

/// Annotation of a claim: the name of its entry in the pod's spec.
const CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// The maximum length of a name prefix. It leaves room for the generated suffix.
const NAME_MAX: usize = 57;
/// The maximum number of consumers of a claim.
const RESERVED_MAX: usize = 256;

/// Creates and reserves the claims of pods.
pub(super) struct ClaimMaker {
    pub(super) client: kube::Client,
    pub(super) events: EventRecorder,
    pub(super) pods: Lister<Pod>,
    pub(super) claims: Lister<ResourceClaim>,
    pub(super) templates: Lister<ResourceClaimTemplate>,
    /// The claims created by this controller, by pod. The cache may not have them yet.
    pub(super) created_claims: Mutex<HashMap<ObjectName, Vec<CreatedClaim>>>,
}

/// A claim created for an entry in a pod's spec.
pub(super) struct CreatedClaim {
    uid: String,
    entry: String,
    name: String,
}

impl Reconciler for ClaimMaker {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(found) = self.pods.get_by_key(&key).filter(uses_claims) else {
            self.created_claims.lock().remove(&key);
            return Ok(Action::Done);
        };
        if found.is_being_deleted() {
            return Ok(Action::Done);
        }
        let pod = found.decode()?;
        let mut created_claims = Vec::new();
        for entry in claim_entries(&pod) {
            match self.claim_for(&key, &pod, entry).await {
                Ok(Some(name)) => created_claims.push((entry.name.clone(), name)),
                Ok(None) => {}
                Err(error) => {
                    let message = format!("PodResourceClaim {}: {error}", entry.name);
                    let reference = reference_of(&pod);
                    self.events.record(
                        &reference,
                        EventKind::Warning,
                        "FailedResourceClaimCreation",
                        &message,
                    );
                    return Err(error);
                }
            }
        }
        if !created_claims.is_empty() {
            self.write(&key, &pod, &created_claims).await?;
        } else if pods::node_name(&pod).is_some() {
            self.reserve_all(&key, &pod).await?;
        }
        Ok(Action::Done)
    }
}

impl ClaimMaker {
    /// Returns the claim to record for an entry of the pod: an existing claim or a new one. `None` if no claim
    /// needs to be recorded.
    async fn claim_for(
        &self,
        key: &ObjectName,
        pod: &Pod,
        entry: &PodResourceClaim,
    ) -> Result<Option<String>, SyncError> {
        let Some(template) = &entry.resource_claim_template_name else { return Ok(None) };
        match status_entry(pod, &entry.name).map(|status| &status.resource_claim_name) {
            // The entry needs no claim.
            Some(None) => return Ok(None),
            Some(Some(name)) => {
                let claim = self.claims.get(key.namespace(), name);
                let is_there =
                    claim.is_some_and(|claim| belongs_to(&claim.metadata().unwrap_or_default(), pod));
                if is_there || self.is_live(key, name, pod).await? {
                    return Ok(None);
                }
            }
            None => {}
        }
        if let Some(name) = self.remembered(key, pod, &entry.name)
            && self.is_live(key, &name, pod).await?
        {
            return Ok(Some(name));
        }
        if let Some(found) = self.existing_claim(pod, &entry.name) {
            return Ok(Some(found));
        }
        let Some(found) = self.templates.get(key.namespace(), template) else {
            return Err(SyncError::Invalid(format!(
                "resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io {template:?} not found"
            )));
        };
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), key.namespace());
        let created = claims
            .create(&PostParams::default(), &new_claim(pod, &entry.name, &found.decode()?))
            .await
            .map_err(|error| {
                SyncError::Invalid(format!("create ResourceClaim : {}", SyncError::from(error)))
            })?;
        let name = created.metadata.name.unwrap_or_default();
        self.remember(key, pod, &entry.name, &name);
        Ok(Some(name))
    }

    /// Reads a claim live, and returns whether it belongs to the pod.
    async fn is_live(&self, key: &ObjectName, name: &str, pod: &Pod) -> Result<bool, SyncError> {
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), key.namespace());
        Ok(claims.get_opt(name).await?.is_some_and(|claim| belongs_to(&claim.metadata, pod)))
    }

    fn remember(&self, key: &ObjectName, pod: &Pod, entry: &str, name: &str) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut all = self.created_claims.lock();
        let created_claims = all.entry(key.clone()).or_default();
        created_claims.retain(|claim| claim.uid == uid && claim.entry != entry);
        created_claims.push(CreatedClaim { uid, entry: entry.to_owned(), name: name.to_owned() });
    }

    fn remembered(&self, key: &ObjectName, pod: &Pod, entry: &str) -> Option<String> {
        let all = self.created_claims.lock();
        let uid = pod.metadata.uid.as_ref();
        let claim = all.get(key)?.iter().find(|claim| Some(&claim.uid) == uid && claim.entry == entry)?;
        Some(claim.name.clone())
    }

    fn existing_claim(&self, pod: &Pod, entry: &str) -> Option<String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let own = self.claims.by_index(BY_POD, uid).unwrap_or_default();
        let found = own.iter().find(|claim| claim.annotation(CLAIM_NAME).as_deref() == Some(entry))?;
        Some(found.name().to_owned())
    }

    /// Records the names of claims in the pod's status. The event of this write triggers the next sync.
    async fn write(
        &self,
        key: &ObjectName,
        pod: &Pod,
        created_claims: &[(String, String)],
    ) -> Result<(), SyncError> {
        let is_new = |name: &str| created_claims.iter().any(|(entry, _)| entry == name);
        let recorded =
            pod.status.iter().filter_map(|status| status.resource_claim_statuses.as_ref()).flatten();
        let kept = recorded.filter(|status| !is_new(&status.name)).map(|status| json!(status));
        let new =
            created_claims.iter().map(|(entry, name)| json!({"name": entry, "resourceClaimName": name}));
        let statuses: Vec<_> = kept.chain(new).collect();
        let patch =
            json!({"metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": statuses}});
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace());
        ignore_not_found(pods.patch_status(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    /// Reserves the claims of a pod that was bound without the scheduler.
    async fn reserve_all(&self, key: &ObjectName, pod: &Pod) -> Result<(), SyncError> {
        for entry in claim_entries(pod) {
            let Some(name) = claim_name(pod, entry) else { continue };
            let Some(claim) = self.claims.get(key.namespace(), name) else { return Ok(()) };
            let must_own = entry.resource_claim_template_name.is_some();
            if must_own && !belongs_to(&claim.metadata()?, pod) {
                let (namespace, pod) = (key.namespace(), key.name());
                return Err(SyncError::Invalid(format!(
                    "ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{pod} (Pod is not owner)"
                )));
            }
            if needs_reservation(&claim.decode()?, pod) {
                let consumer = json!({"resource": "pods", "name": key.name(), "uid": pod.metadata.uid});
                let api = api(&self.client, key.namespace());
                update(&api, claim, UpdateTarget::Status, |claim| reserve(claim, consumer)).await?;
            }
        }
        Ok(())
    }
}

/// Returns the claim entries in a pod's spec.
fn claim_entries(pod: &Pod) -> impl Iterator<Item = &PodResourceClaim> {
    pod.spec.iter().filter_map(|spec| spec.resource_claims.as_ref()).flatten()
}

/// Returns the status of a claim entry. The status may state that the entry needs no claim.
fn status_entry<'a>(pod: &'a Pod, entry: &str) -> Option<&'a PodResourceClaimStatus> {
    let statuses = pod.status.as_ref()?.resource_claim_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == entry)
}

/// Returns the name of the claim for an entry, if it is known.
pub(super) fn claim_name<'a>(pod: &'a Pod, entry: &'a PodResourceClaim) -> Option<&'a str> {
    entry
        .resource_claim_name
        .as_deref()
        .or_else(|| status_entry(pod, &entry.name)?.resource_claim_name.as_deref())
}

fn belongs_to(claim: &ObjectMeta, pod: &Pod) -> bool {
    controller_of(claim).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

fn needs_reservation(claim: &ResourceClaim, pod: &Pod) -> bool {
    let Some(status) = &claim.status else { return false };
    let reserved = status.reserved_for.as_deref().unwrap_or_default();
    let has_pod = reserved.iter().any(|consumer| Some(&consumer.uid) == pod.metadata.uid.as_ref());
    status.allocation.is_some() && !has_pod && reserved.len() < RESERVED_MAX
}

fn reserve(claim: &mut serde_json::Value, consumer: serde_json::Value) {
    match claim["status"]["reservedFor"].as_array_mut() {
        Some(reserved) => reserved.push(consumer),
        None => claim["status"]["reservedFor"] = json!([consumer]),
    }
}

/// Creates a claim from a template, owned by the pod.
fn new_claim(pod: &Pod, entry: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let metadata = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(CLAIM_NAME.to_owned(), entry.to_owned());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: name.to_owned(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(name, entry)),
            owner_references: Some(vec![owner]),
            annotations: Some(annotations),
            labels: metadata.labels,
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Returns the name prefix of a generated claim. Truncates both parts of a long name in proportion.
fn generate_name(pod: &str, entry: &str) -> String {
    let name = format!("{pod}-{entry}-");
    let cut = |part: &str| part.chars().take(part.len() * NAME_MAX / name.len()).collect::<String>();
    if name.len() <= NAME_MAX { name } else { format!("{}-{}", cut(pod), cut(entry)) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(status: &Value) -> Pod {
        let spec = json!({"containers": [], "resourceClaims": [
            {"name": "shared", "resourceClaimName": "c"}, {"name": "own", "resourceClaimTemplateName": "t"}]});
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec, "status": status});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn claim_name_comes_from_spec_or_status() {
        let names = |status: &Value| {
            let pod = pod(status);
            claim_entries(&pod).map(|it| claim_name(&pod, it).map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(names(&json!({})), [Some("c".to_owned()), None]);
        let status_entry =
            json!({"resourceClaimStatuses": [{"name": "own", "resourceClaimName": "p-own-x"}]});
        assert_eq!(names(&status_entry), [Some("c".to_owned()), Some("p-own-x".to_owned())]);
        assert_eq!(names(&json!({"resourceClaimStatuses": [{"name": "own"}]}))[1], None);
    }

    #[test]
    fn creates_claim_from_template() {
        let template = json!({"spec": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}});
        let claim = new_claim(&pod(&json!({})), "own", &serde_json::from_value(template).unwrap());
        let claim = serde_json::to_value(claim).unwrap();
        assert_eq!(claim["metadata"]["generateName"], "p-own-");
        assert_eq!(claim["metadata"]["annotations"], json!({"c": "d", CLAIM_NAME: "own"}));
        assert_eq!(claim["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(claim["spec"]["devices"]["requests"][0]["name"], "r");
        let long = generate_name(&"p".repeat(60), &"e".repeat(20));
        assert_eq!(long, format!("{}-{}", "p".repeat(41), "e".repeat(13)));
    }

    #[test]
    fn reserves_allocated_claim_once() {
        let claim = |status: Value| {
            serde_json::from_value::<ResourceClaim>(json!({"metadata": {}, "spec": {}, "status": status}))
                .unwrap()
        };
        let other = json!([{"resource": "pods", "name": "o", "uid": "v"}]);
        let own = json!([{"resource": "pods", "name": "p", "uid": "u"}]);
        assert!(needs_reservation(&claim(json!({"allocation": {}})), &pod(&json!({}))));
        assert!(needs_reservation(&claim(json!({"allocation": {}, "reservedFor": other})), &pod(&json!({}))));
        assert!(!needs_reservation(&claim(json!({"allocation": {}, "reservedFor": own})), &pod(&json!({}))));
        assert!(!needs_reservation(&claim(json!({})), &pod(&json!({}))));
        let mut value = json!({"status": {"reservedFor": other}});
        reserve(&mut value, own[0].clone());
        assert_eq!(value["status"]["reservedFor"].as_array().unwrap().len(), 2);
    }
}
