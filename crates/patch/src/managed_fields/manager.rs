//! The managed fields of an object through a write (upstream: `apimachinery/pkg/util/managedfields`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nave_machinery::{Reason, Status, Value, meta};

use super::conflict::Conflicts;
use super::entries::{self, EntriesError, Entry, Form, ManagerId, Managers, Origin};
use super::last_applied::{self, KUBECTL};
use super::path::PathElement;
use super::set::FieldSet;
use super::updater::{UpdateError, Updater, Versions};
use super::validate::validate;

/// How many entries of updates an object has at most; the oldest become one entry a version.
const MAX_UPDATE_MANAGERS: usize = 10;

/// The manager of what was updated so long ago that it is not told apart any more.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// The manager of what an object without managed fields has when it is applied to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// A write to an object, as its managed fields see it.
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
    /// An object of the kind without any value.
    pub empty: &'a Value,
}

/// Why an apply is refused.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that it would change.
    #[error("the apply conflicts with other managers")]
    Conflicts(Conflicts),
    /// The configuration is not one that can be applied here.
    #[error("{0}")]
    Invalid(String),
    /// The configuration does not fit the type. Upstream answers such errors with 500, and so does this server:
    /// clients tell them by their text.
    #[error("{0}")]
    Failed(String),
}

impl ApplyError {
    /// The answer to the client.
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
    /// Brings the managed fields of a created or updated object up to date. `live` is the object as it is stored, or
    /// `None` where it is new. Fields without an owner stay so in an object that has no managed fields. Where something
    /// fails the object loses its managed fields: they never are a reason to refuse an update.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str) {
        let requested = meta::remove(new, "managedFields");
        let managers = self.managers_for_update(live, requested.as_ref());
        if live.is_some() && managers.is_empty() {
            return;
        }
        let updated = self.update_managers(live.unwrap_or(self.empty), new, managers, manager);
        let entries = updated.ok().and_then(|managers| entries::encode(managers, Form::Text).ok()).flatten();
        if let Some(entries) = entries {
            meta::set(new, "managedFields", entries);
        }
    }

    /// Merges an applied configuration into the object, or creates it where `live` is `None`. The outcome has its
    /// managed fields; it is yet to be decoded, defaulted and validated as any body is.
    ///
    /// # Errors
    /// The configuration is malformed, or conflicts with other managers.
    pub fn apply(
        &self,
        live: Option<&Value>,
        applied: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, ApplyError> {
        let live = live.unwrap_or(self.empty);
        let stored = entries::decode(meta::field(live, "managedFields"), Origin::Stored)?;
        self.check_configuration(applied)?;
        let managers = if stored.is_empty() {
            self.update_managers(self.empty, live, stored, BEFORE_FIRST_APPLY).map_err(ApplyError::Failed)?
        } else {
            stored
        };
        let (mut object, managers) = match self.merge(live, applied, managers.clone(), manager, force) {
            Err(ApplyError::Conflicts(conflicts)) if manager == KUBECTL => {
                let ty = self.versions.type_of(self.api_version);
                let unchanged = ty.and_then(|ty| last_applied::unchanged_fields(ty, live));
                let Some(unchanged) = unchanged else { return Err(ApplyError::Conflicts(conflicts)) };
                let conflicts = conflicts.without(&unchanged);
                if !conflicts.is_empty() {
                    return Err(ApplyError::Conflicts(conflicts));
                }
                self.merge(live, applied, managers, manager, true)?
            }
            outcome => outcome?,
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

    /// The entries that an update begins with: those of the request, unless it has none that can be read, or writes to a
    /// subresource.
    fn managers_for_update<'v>(&self, live: Option<&'v Value>, requested: Option<&'v Value>) -> Managers<'v> {
        let stored = live.and_then(|live| meta::field(live, "managedFields"));
        let from_stored = || entries::decode(stored, Origin::Stored).unwrap_or_default();
        if !self.subresource.is_empty() || requested == stored {
            return from_stored();
        }
        if requested.is_some_and(is_reset) {
            return Managers::new();
        }
        match entries::decode(requested, Origin::Request) {
            Ok(managers) if !managers.is_empty() => managers,
            _ => from_stored(),
        }
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

/// The version and kind of an object, as errors show them.
fn shown_kind(object: &Value) -> String {
    let api_version = meta::api_version(object);
    let no_group = if api_version.contains('/') { "" } else { "/" };
    format!("{no_group}{api_version}, Kind={}", meta::kind(object))
}

/// The list that clients reset managed fields with: empty, or with one empty entry.
fn is_reset(requested: &Value) -> bool {
    let Value::Array(list) = requested else { return false };
    match list.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

/// Entries of updates that become one.
struct Bucket {
    sets: Vec<FieldSet>,
    /// The time of the latest.
    time: Option<String>,
}

/// Puts the oldest entries of updates together, those of a version in one, until there are no more than may be. A
/// client may send thousands of entries, so the sets of a bucket are united once, when all of them are known.
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

/// Takes what a manager owns, or all that is in a bucket.
fn take_sets(
    buckets: &mut BTreeMap<ManagerId, Bucket>,
    managers: &mut Managers<'_>,
    id: &ManagerId,
) -> Option<Vec<FieldSet>> {
    let bucket = buckets.remove(id).map(|bucket| bucket.sets);
    bucket.or_else(|| managers.remove(id).map(|entry| vec![entry.into_set()]))
}

/// The fields that the server sets or that identify the object, which no manager owns.
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
