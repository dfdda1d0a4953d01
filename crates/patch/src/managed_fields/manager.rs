//! Updates the managed fields of an object during a write (upstream: `apimachinery/pkg/util/managedfields`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nave_machinery::{Reason, Status, Value, meta};

use super::conflict::Conflicts;
use super::created::{Excluded, MustCompare, created_fields};
use super::entries::{self, EntriesError, Entry, Form, ManagerId, Managers};
use super::last_applied::{self, KUBECTL};
use super::path::PathElement;
use super::set::FieldSet;
use super::updater::{UpdateError, Updater, Versions};
use super::validate::validate;

/// Maximum number of update entries of an object; the oldest are merged into one entry per version.
const MAX_UPDATE_MANAGERS: usize = 10;

/// The manager of the oldest updates after they are merged into one entry.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// The manager of fields that exist before the first apply to an object without managed fields.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The inputs of a write for managed fields.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    /// The versions of the object's kind.
    pub versions: &'a dyn Versions,
    /// The version of the request.
    pub api_version: &'a str,
    /// The kind of the request.
    pub kind: &'a str,
    /// The subresource of the request; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write, RFC 3339 with seconds.
    pub now: &'a str,
    /// An empty object of this kind.
    pub empty: &'a Value,
}

/// The error of a rejected apply.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that the apply would change.
    #[error("the apply conflicts with other managers")]
    Conflicts(Conflicts),
    /// The configuration is invalid for this object.
    #[error("{0}")]
    Invalid(String),
    /// The configuration does not match the type. The status is 500, as upstream: clients recognize these errors by
    /// their text.
    #[error("{0}")]
    Failed(String),
}

impl ApplyError {
    /// Returns the response to the client.
    pub fn into_status(self) -> Status {
        match self {
            Self::Conflicts(conflicts) => conflicts.into_status(),
            Self::Invalid(why) => Status::bad_request(why),
            Self::Failed(why) => Status::failure(500, Reason::Unknown, why),
        }
    }
}

impl From<EntriesError> for ApplyError {
    fn from(error: EntriesError) -> Self {
        Self::Failed(format!("failed to decode managed fields: {error}"))
    }
}

impl FieldManager<'_> {
    /// Updates the managed fields of a created or updated object. `live` is the stored object; `None` for a create. If
    /// the stored object has no managed fields, the new object gets none. After an error, the object loses its managed
    /// fields: managed fields never cause an update to be rejected.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let requested = meta::remove(new, "managedFields");
        let managers = self.managers_for_update(live, requested);
        if live.is_some() && managers.is_empty() {
            return;
        }
        let entries = self.created_entries(live, new, &managers, manager).or_else(|MustCompare| {
            let updated = self.update_managers(live.unwrap_or(self.empty), new, managers, manager);
            updated
                .and_then(|managers| entries::encode(managers, Form::Text).map_err(|error| error.to_string()))
        });
        let entries = entries.ok().flatten();
        if let Some(entries) = entries {
            meta::set(new, "managedFields", entries);
        }
    }

    /// Merges an applied configuration into the object, or creates the object if `live` is `None`. The result includes
    /// managed fields. The caller decodes, defaults and validates it like any request body.
    ///
    /// # Errors
    /// The configuration is malformed or conflicts with other managers.
    pub fn apply(
        &self,
        live: Option<&Value>,
        applied: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApplyError> {
        let live = live.unwrap_or(self.empty);
        let stored = entries::decode(meta::field(live, "managedFields"))?;
        self.check_configuration(applied)?;
        let managers = if stored.is_empty() {
            self.update_managers(self.empty, live, stored, BEFORE_FIRST_APPLY).map_err(ApplyError::Failed)?
        } else {
            stored
        };
        // Only kubectl gets a second attempt, after a migration from client-side apply.
        let again = (manager == KUBECTL).then(|| managers.clone());
        let (mut object, managers) = match (self.merge(live, applied, managers, manager, force), again) {
            (Err(ApplyError::Conflicts(conflicts)), Some(managers)) => {
                let ty = self.versions.type_of(self.api_version);
                let unchanged = ty.and_then(|ty| last_applied::unchanged_fields(ty, live));
                let Some(unchanged) = unchanged else { return Err(ApplyError::Conflicts(conflicts)) };
                let conflicts = conflicts.without(&unchanged);
                if !conflicts.is_empty() {
                    return Err(ApplyError::Conflicts(conflicts));
                }
                self.merge(live, applied, managers, manager, true)?
            }
            (outcome, _) => outcome?,
        };
        if manager == KUBECTL && last_applied::last_applied(&object).is_some() {
            last_applied::set_last_applied(&mut object, applied);
        }
        let encoded =
            entries::encode(managers, Form::Tree).map_err(|error| ApplyError::Failed(error.to_string()))?;
        match encoded {
            Some(entries) => meta::set(&mut object, "managedFields", entries),
            None => drop(meta::remove(&mut object, "managedFields")),
        }
        Ok(object)
    }

    /// Returns the entries before an update. Uses the entries of the request, or those of the live object if the
    /// request is for a subresource or its entries are missing or invalid.
    fn managers_for_update<'v>(&self, live: Option<&'v Value>, requested: Option<Value>) -> Managers<'v> {
        let stored = live.and_then(|live| meta::field(live, "managedFields"));
        let from_stored = || entries::decode(stored).unwrap_or_default();
        let Some(requested) = requested.filter(|_| self.subresource.is_empty()) else { return from_stored() };
        if stored == Some(&requested) {
            return entries::decode_copy(requested).unwrap_or_default();
        }
        if is_reset(&requested) {
            return Managers::new();
        }
        match entries::decode_request(&requested) {
            Ok(managers) if !managers.is_empty() => managers,
            _ => from_stored(),
        }
    }

    /// Returns the entries of a created object with only one manager; `None` if it owns no fields.
    ///
    /// # Errors
    /// There are other managers, or the objects must be compared.
    fn created_entries(
        &self,
        live: Option<&Value>,
        new: &Value,
        managers: &Managers<'_>,
        manager: &str,
    ) -> Result<Option<Value>, MustCompare> {
        if live.is_some() || !managers.is_empty() {
            return Err(MustCompare);
        }
        let ty = self.versions.type_of(self.api_version).ok_or(MustCompare)?;
        let excluded =
            Excluded { reset: self.versions.reset_fields(self.api_version), never: Some(&NEVER_OWNED) };
        let text = created_fields(ty, self.empty, new, excluded)?;
        let id = self.manager_id(manager, false);
        Ok(text.map(|text| Value::Array(vec![entries::new_entry(id, self.now, text)])))
    }

    fn update_managers<'v>(
        &self,
        live: &Value,
        new: &Value,
        mut managers: Managers<'v>,
        manager: &str,
    ) -> Result<Managers<'v>, String> {
        let updater = Updater { versions: self.versions, api_version: self.api_version };
        let set = match updater.update(live, new, &mut managers) {
            Ok(set) => set.difference(&NEVER_OWNED),
            Err(UpdateError::Failed(why)) => return Err(why),
            Err(UpdateError::Conflicts(_)) => return Err("an update has no conflicts".to_owned()),
        };
        if !set.is_empty() {
            let id = self.manager_id(manager, false);
            let time = Some(self.now.to_owned());
            let set = match managers.remove(&id) {
                Some(previous) => set.union(previous.into_set()),
                None => set,
            };
            managers.insert(id, Entry::new(self.api_version, set, time));
        }
        cap_update_managers(&mut managers);
        Ok(managers)
    }

    fn merge<'v>(
        &self,
        live: &Value,
        applied: &Value,
        mut managers: Managers<'v>,
        manager: &str,
        force: bool,
    ) -> Result<(Value, Managers<'v>), ApplyError> {
        let updater = Updater { versions: self.versions, api_version: self.api_version };
        let id = self.manager_id(manager, true);
        let merged = match updater.apply(live, applied, &mut managers, &id, force) {
            Ok(merged) => merged,
            Err(UpdateError::Conflicts(conflicts)) => return Err(ApplyError::Conflicts(conflicts)),
            Err(UpdateError::Failed(why)) => return Err(ApplyError::Failed(why)),
        };
        if let Some(mut entry) = managers.remove(&id) {
            entry.change(|set| set.difference(&NEVER_OWNED));
            if merged.is_some() {
                entry.time = Some(self.now.to_owned());
            }
            if !entry.set().is_empty() {
                managers.insert(id, entry);
            }
        }
        Ok((merged.unwrap_or_else(|| live.clone()), managers))
    }

    fn check_configuration(&self, applied: &Value) -> Result<(), ApplyError> {
        let gvk = shown_kind(applied);
        if meta::api_version(applied) != self.api_version || meta::kind(applied) != self.kind {
            return Err(ApplyError::Invalid(format!("invalid object type: {gvk}")));
        }
        if meta::field(applied, "managedFields").is_some_and(Value::is_array) {
            return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
        }
        let ty = self.versions.type_of(self.api_version);
        let ty = ty.ok_or_else(|| ApplyError::Failed(format!("no type of {gvk}")))?;
        validate(ty, applied).map_err(|why| {
            let (namespace, name) = (meta::namespace(applied), meta::name(applied));
            ApplyError::Failed(format!(
                "failed to create typed patch object ({namespace}/{name}; {gvk}): {why}"
            ))
        })
    }

    fn manager_id(&self, manager: &str, applied: bool) -> ManagerId {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        ManagerId::new(manager, applied, self.api_version, self.subresource)
    }
}

/// Formats the version and kind of an object for errors.
fn shown_kind(object: &Value) -> String {
    let api_version = meta::api_version(object);
    let no_group = if api_version.contains('/') { "" } else { "/" };
    format!("{no_group}{api_version}, Kind={}", meta::kind(object))
}

/// Returns whether a list of entries requests a reset of managed fields: an empty list or one empty entry.
fn is_reset(requested: &Value) -> bool {
    let Value::Array(list) = requested else { return false };
    match list.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// The update entries to merge into one.
struct Bucket {
    sets: Vec<FieldSet>,
    /// The latest time.
    time: Option<String>,
}

/// Merges the oldest update entries into one per version until the limit is met. Collects the sets of each bucket first
/// and unites them once, because a client may send thousands of entries.
fn cap_update_managers(managers: &mut Managers<'_>) {
    let count = managers.keys().filter(|id| !id.applied).count();
    let Some(mut surplus) = count.checked_sub(MAX_UPDATE_MANAGERS).filter(|surplus| *surplus > 0) else {
        return;
    };
    let mut updaters: Vec<(Option<String>, ManagerId)> = managers
        .iter()
        .filter(|(id, _)| !id.applied)
        .map(|(id, entry)| (entry.time.clone(), id.clone()))
        .collect();
    updaters.sort();
    let mut firsts: BTreeMap<String, ManagerId> = BTreeMap::new();
    let mut buckets: BTreeMap<ManagerId, Bucket> = BTreeMap::new();
    for (time, id) in updaters {
        if surplus == 0 {
            break;
        }
        let Some(first) = firsts.get(&id.api_version) else {
            firsts.insert(id.api_version.clone(), id);
            continue;
        };
        let bucket = ManagerId::new(ANCIENT_CHANGES, false, &id.api_version, "");
        let mut take = |id| take_sets(&mut buckets, managers, id);
        let Some(mut newer) = take(&id) else { continue };
        let mut sets = take(&bucket).or_else(|| take(first)).unwrap_or_default();
        sets.append(&mut newer);
        buckets.insert(bucket, Bucket { sets, time });
        surplus -= 1;
    }
    for (id, Bucket { sets, time }) in buckets {
        let entry = Entry::new(&id.api_version, FieldSet::union_all(sets), time);
        managers.insert(id, entry);
    }
}

/// Takes the set of a manager, or all sets of a bucket.
fn take_sets(
    buckets: &mut BTreeMap<ManagerId, Bucket>,
    managers: &mut Managers<'_>,
    id: &ManagerId,
) -> Option<Vec<FieldSet>> {
    let bucket = buckets.remove(id).map(|bucket| bucket.sets);
    bucket.or_else(|| managers.remove(id).map(|entry| vec![entry.into_set()]))
}

/// Fields that the server sets or that identify the object. Managers never own them.
static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let field = PathElement::field;
    let mut set = FieldSet::from_paths(
        [[field("apiVersion")], [field("kind")], [field("metadata")]].iter().map(<[_; 1]>::as_slice),
    );
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
});
