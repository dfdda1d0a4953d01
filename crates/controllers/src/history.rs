//! The revisions of a stateful set or daemon set: its pod templates, stored as `ControllerRevision`s.
//!
//! A revision holds a strategic merge patch that restores its template. Templates are compared after decoding, so a
//! different spelling of the same value does not create a revision.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use nave_client::{Lister, Object};
use nave_machinery::selector::LabelSelector;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::ignore_not_found;
use crate::frame::SyncError;
use crate::owners::{Claims, controller_reference, is_controlled_by};
use crate::{hash, owned};

/// Label of pods: their revision, as its hash for daemon sets and as its name for stateful sets.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";

/// Name prefixes are truncated to this length so that the name with the hash stays valid.
const PREFIX_MAX: usize = 223;
/// The number of hash collisions with other templates that a sync tolerates.
const COLLISIONS_MAX: usize = 10;

/// The revisions of one owner.
pub(crate) struct History<'a, O> {
    /// Writes revisions and reads the owner.
    pub(crate) client: kube::Client,
    /// The owner.
    pub(crate) owner: &'a O,
    /// The label of a revision that holds its hash.
    pub(crate) hash_label: &'static str,
}

impl<O> History<'_, O>
where
    O: k8s_openapi::Resource
        + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    /// Returns the owner's revisions, oldest first, after adopting and releasing.
    ///
    /// # Errors
    /// The API server's error.
    pub(crate) async fn claim(
        &self,
        revisions: &Lister<ControllerRevision>,
        selector: &LabelSelector,
    ) -> Result<Vec<ControllerRevision>, SyncError> {
        let owner = self.owner.meta();
        let candidates = owned::decode_candidates(revisions, owner, selector, Object::decode)?;
        let claims = Claims::<O, ControllerRevision>::new(&self.client, owner);
        let mut claimed = claims.claim(candidates, selector).await?;
        claimed.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        Ok(claimed)
    }

    /// Returns the revision of `template`, which becomes the newest. An existing revision with this template is reused;
    /// otherwise a revision is created. `collisions` counts the names already taken by other templates.
    ///
    /// # Errors
    /// The API server's error.
    pub(crate) async fn update_revision(
        &self,
        revisions: &mut Vec<ControllerRevision>,
        template: &PodTemplateSpec,
        collisions: &mut i32,
    ) -> Result<ControllerRevision, SyncError> {
        let next = revisions.last().map_or(1, |newest| newest.revision.saturating_add(1));
        let Some(at) =
            revisions.iter().rposition(|revision| template_of(revision).as_ref() == Some(template))
        else {
            let created = self.create(template, next, collisions).await?;
            revisions.push(created.clone());
            return Ok(created);
        };
        if at + 1 == revisions.len() {
            return Ok(revisions[at].clone());
        }
        let mut again = revisions.remove(at);
        again.revision = next;
        let name = again.metadata.name.clone().unwrap_or_default();
        let updated = self.api().replace(&name, &PostParams::default(), &again).await?;
        revisions.push(updated.clone());
        Ok(updated)
    }

    async fn create(
        &self,
        template: &PodTemplateSpec,
        number: i64,
        collisions: &mut i32,
    ) -> Result<ControllerRevision, SyncError> {
        for _ in 0..COLLISIONS_MAX {
            let revision = self.revision(template, number, *collisions);
            let created = self.api().create(&PostParams::default(), &revision).await.map_err(SyncError::from);
            match created {
                Err(error) if error.is_already_exists() => {}
                created => return created,
            }
            let name = revision.metadata.name.as_deref().unwrap_or_default();
            let taken = self.api().get(name).await?;
            if is_controlled_by(&taken.metadata, self.owner.meta())
                && template_of(&taken).as_ref() == Some(template)
            {
                return Ok(taken);
            }
            *collisions = collisions.saturating_add(1);
        }
        Err(SyncError::Stale("the names of new revisions are taken"))
    }

    fn revision(&self, template: &PodTemplateSpec, number: i64, collisions: i32) -> ControllerRevision {
        let owner = self.owner.meta();
        let data = data_of(template);
        let hash =
            hash::name_safe_hash(data.to_string().as_bytes().iter().chain(collisions.to_string().as_bytes()));
        let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        let prefix: String = owner.name.iter().flat_map(|name| name.chars()).take(PREFIX_MAX).collect();
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}-{hash}")),
                namespace: owner.namespace.clone(),
                labels: Some(labels),
                annotations: owner.annotations.clone(),
                owner_references: Some(vec![controller_reference(O::API_VERSION, O::KIND, owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data)),
            revision: number,
        }
    }

    /// Deletes the oldest unused revisions beyond the history limit.
    ///
    /// # Errors
    /// The API server's error.
    pub(crate) async fn truncate(
        &self,
        revisions: &[ControllerRevision],
        in_use: impl Fn(&ControllerRevision) -> bool,
        limit: Option<i32>,
    ) -> Result<(), SyncError> {
        for expired in expired(revisions, in_use, limit) {
            let uid = expired.metadata.uid.clone();
            let preconditions = Some(Preconditions { uid, resource_version: None });
            let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
            let name = expired.metadata.name.as_deref().unwrap_or_default();
            ignore_not_found(self.api().delete(name, &parameters).await)?;
        }
        Ok(())
    }

    fn api(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    fn namespace(&self) -> &str {
        self.owner.meta().namespace.as_deref().unwrap_or_default()
    }
}

/// The template that a revision restores.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    PodTemplateSpec::deserialize(template).ok()
}

/// The patch that restores a template.
fn data_of(template: &PodTemplateSpec) -> Value {
    // Cannot fail: the template was decoded from JSON.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// Sorts revisions by number, then age, then name.
fn sort_key(revision: &ControllerRevision) -> impl Ord + '_ {
    (revision.revision, revision.metadata.creation_timestamp.as_ref(), revision.metadata.name.as_deref())
}

/// The oldest unused revisions beyond the limit.
fn expired(
    revisions: &[ControllerRevision],
    in_use: impl Fn(&ControllerRevision) -> bool,
    limit: Option<i32>,
) -> impl Iterator<Item = &ControllerRevision> {
    let unused: Vec<_> = revisions.iter().filter(|revision| !in_use(revision)).collect();
    // A negative limit, which validation rejects, keeps all revisions.
    let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(usize::MAX);
    let excess = unused.len().saturating_sub(limit);
    unused.into_iter().take(excess)
}

/// The API's default of `revisionHistoryLimit`.
const DEFAULT_LIMIT: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        let template = json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image}]}});
        serde_json::from_value(template).unwrap()
    }

    fn revision(name: &str, number: i64) -> ControllerRevision {
        ControllerRevision {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some(RawExtension(data_of(&template(name)))),
            revision: number,
        }
    }

    #[test]
    fn revision_restores_its_template() {
        let revision = revision("x", 1);
        assert_eq!(template_of(&revision), Some(template("x")));
        assert_eq!(revision.data.unwrap().0["spec"]["template"]["$patch"], "replace");
    }

    #[test]
    fn equal_values_written_differently_are_the_same_template() {
        let mut data = data_of(&template("x"));
        data["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        let revision = ControllerRevision { data: Some(RawExtension(data)), ..ControllerRevision::default() };
        assert_eq!(template_of(&revision), Some(template("x")));
    }

    #[test]
    fn revision_without_a_template_is_ignored() {
        for data in [json!(null), json!({"spec": {}}), json!({"spec": {"template": 4}})] {
            let revision =
                ControllerRevision { data: Some(RawExtension(data)), ..ControllerRevision::default() };
            assert_eq!(template_of(&revision), None);
        }
    }

    #[test]
    fn oldest_unused_revisions_beyond_the_limit_expire() {
        let all = ["a", "b", "c", "d"].map(|name| revision(name, 1));
        let expired = |limit, used: &str| -> Vec<String> {
            let in_use =
                |revision: &ControllerRevision| used.contains(revision.metadata.name.as_ref().unwrap());
            expired(&all, in_use, limit).map(|revision| revision.metadata.name.clone().unwrap()).collect()
        };
        assert_eq!(expired(Some(1), "ad"), ["b"]);
        assert_eq!(expired(Some(0), "ad"), ["b", "c"]);
        assert_eq!(expired(Some(2), "ad"), [""; 0]);
        assert_eq!(expired(Some(-1), ""), [""; 0]);
        assert_eq!(expired(None, ""), [""; 0]);
    }

    #[test]
    fn revisions_are_ordered_by_number_then_name() {
        let mut all = [revision("c", 2), revision("b", 1), revision("a", 2)];
        all.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        assert_eq!(all.map(|it| it.metadata.name.unwrap()), ["b", "a", "c"]);
    }
}
