//! The state of the definitions: their accepted names and the resources that they serve.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use nave_machinery::packed::Packed;
use nave_machinery::{Value, conditions, meta};
use nave_resources::ResourceDef;
use nave_resources::custom::names::{self, Accepted, NamesInUse};
use nave_resources::custom::{self, CLEANUP_FINALIZER, DefinitionText};
use sha2::{Digest, Sha256};

use crate::storage::ResourceStorage;

/// The state of all definitions.
#[derive(Default)]
pub(super) struct State {
    known: HashMap<String, Known>,
    groups: HashMap<String, Group>,
}

/// The state of one definition.
struct Known {
    group: String,
    accepted: Accepted,
    has_conflict: bool,
}

#[derive(Default)]
struct Group {
    in_use: NamesInUse,
    /// The served resources, by name of the definition.
    served: BTreeMap<String, Served>,
}

struct Served {
    /// A hash of the fields that affect how objects are stored and served.
    fingerprint: [u8; 32],
    /// The text that the schemas of `def` are compiled from.
    text: Arc<DefinitionText>,
    def: Arc<ResourceDef>,
    storage: Arc<ResourceStorage>,
}

/// The changes that follow from the new state of some definitions.
#[derive(Default)]
pub(super) struct Plan {
    /// The groups whose served resources change.
    pub groups: BTreeSet<String>,
    /// New storages.
    pub opened: Vec<Arc<ResourceStorage>>,
    /// Storages that are no longer used.
    pub closed: Vec<Arc<ResourceStorage>>,
    /// Definitions with a new status, to be written once the new catalog is served.
    pub writes: Vec<Value>,
    /// The definitions whose objects must be deleted.
    pub deleting: Vec<String>,
    /// The definitions that are left for the next plan.
    pub left: BTreeSet<String>,
}

/// Maximum size of the JSON of the definitions that a plan writes, in bytes, beyond the last one. Their trees are many
/// times larger, and all of them are in memory at once.
const WRITES_BYTES: usize = 512 << 10;

impl State {
    /// Returns the names of all known definitions.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.known.keys().cloned()
    }

    /// Returns the served custom resources of a group, with their storages.
    pub(super) fn served(&self, group: &str) -> Vec<(Arc<ResourceDef>, Arc<ResourceStorage>)> {
        let served = self.groups.get(group).into_iter().flat_map(|group| group.served.values());
        served.map(|served| (Arc::clone(&served.def), Arc::clone(&served.storage))).collect()
    }

    /// Returns the storage of the resource that a definition serves.
    pub(super) fn storage(&self, name: &str) -> Option<Arc<ResourceStorage>> {
        let known = self.known.get(name)?;
        Some(Arc::clone(&self.groups.get(&known.group)?.served.get(name)?.storage))
    }

    /// Updates the state from the named definitions, until the writes of the plan are large enough. `find` reads a
    /// definition and its packed JSON, `is_reserved` returns whether a key prefix belongs to a built-in resource, and
    /// `open` opens a storage.
    pub(super) fn plan(
        &mut self,
        mut names: BTreeSet<String>,
        now: &str,
        find: impl Fn(&str) -> Option<(Value, Arc<Packed>)>,
        is_reserved: impl Fn(&str) -> bool,
        open: impl Fn(Arc<ResourceDef>) -> Option<Arc<ResourceStorage>>,
    ) -> Plan {
        let (mut plan, mut bytes) = (Plan::default(), 0);
        while bytes < WRITES_BYTES
            && let Some(name) = names.pop_first()
        {
            let found = find(&name);
            let group = found.as_ref().map(|(found, _)| text(found, &["spec", "group"]).to_owned());
            let is_same = |known: &Known| Some(&known.group) == group.as_ref();
            if self.known.get(&name).is_some_and(|known| !is_same(known)) {
                names.extend(self.forget(&name, &mut plan));
            }
            let (Some((stored, json)), Some(group)) = (found, group) else { continue };
            let prefix = custom::storage_prefix(&group, text(&stored, &["spec", "names", "plural"]));
            let is_reserved = is_reserved(&prefix);
            let writes = plan.writes.len();
            let released = self.take(&name, &group, (&stored, &json), is_reserved, now, &open, &mut plan);
            names.extend(released);
            bytes += json.len() * (plan.writes.len() - writes);
        }
        plan.left = names;
        self.groups.retain(|_, group| !group.in_use.is_empty() || !group.served.is_empty());
        plan
    }

    /// Removes a deleted definition; returns the definitions with conflicts, which may now use its names.
    fn forget(&mut self, name: &str, plan: &mut Plan) -> Vec<String> {
        let Some(known) = self.known.remove(name) else { return Vec::new() };
        let Some(group) = self.groups.get_mut(&known.group) else { return Vec::new() };
        group.in_use.remove(&known.accepted);
        if let Some(served) = group.served.remove(name) {
            plan.closed.push(served.storage);
            plan.groups.insert(known.group.clone());
        }
        self.with_conflicts(&known.group)
    }

    fn with_conflicts(&self, group: &str) -> Vec<String> {
        let waits = |(_, known): &(&String, &Known)| known.has_conflict && known.group == group;
        self.known.iter().filter(waits).map(|(name, _)| name.clone()).collect()
    }

    /// Updates the state from one definition; returns the definitions with conflicts if it released names.
    #[allow(clippy::too_many_arguments, reason = "the definition and what is known about it")]
    fn take(
        &mut self,
        name: &str,
        group_name: &str,
        (stored, json): (&Value, &Arc<Packed>),
        is_reserved: bool,
        now: &str,
        open: impl Fn(Arc<ResourceDef>) -> Option<Arc<ResourceStorage>>,
        plan: &mut Plan,
    ) -> Vec<String> {
        let group = self.groups.entry(group_name.to_owned()).or_default();
        let held = Accepted::by(stored);
        let before = self.known.remove(name).map(|known| known.accepted);
        if let Some(before) = &before {
            group.in_use.remove(before);
        }
        group.in_use.add(&held);
        let is_deleted = meta::deletion_timestamp(stored).is_some();
        let has_finalizer = meta::finalizers(stored).contains(&CLEANUP_FINALIZER);
        let changed = if is_deleted {
            (has_finalizer && !conditions::is_true(stored, "Terminating")).then(|| terminating(stored, now))
        } else {
            names::status(stored, &group.in_use, is_reserved, now)
        };
        if is_deleted && has_finalizer && changed.is_none() {
            plan.deleting.push(name.to_owned());
        }
        let definition = changed.as_ref().unwrap_or(stored);
        let accepted = Accepted::by(definition);
        group.in_use.remove(&held);
        group.in_use.add(&accepted);
        let old = group.served.get(name);
        let was = old.map(|old| (old.fingerprint, old.def.rules.refuses_creates));
        let is_terminating = conditions::is_true(definition, "Terminating");
        // Never serve the keys of a built-in resource, whatever the condition says. Otherwise, deleting the definition
        // would delete the built-in objects.
        let is_served = conditions::is_true(definition, "Established") && !is_reserved;
        let wanted = is_served.then(|| (fingerprint(definition), is_terminating));
        // The form of the objects is unchanged.
        let same = old.filter(|old| wanted.is_some_and(|(fingerprint, _)| old.fingerprint == fingerprint));
        if let Some(same) = same {
            same.text.replace(Arc::clone(json));
        }
        if wanted != was {
            let served = wanted.and_then(|(fingerprint, _)| {
                let text = same.map(|old| Arc::clone(&old.text));
                let text = text.unwrap_or_else(|| DefinitionText::new(Arc::clone(json)));
                let def = custom::resource_with_text(definition, &text)
                    .map_err(|error| tracing::error!(definition = name, %error, "cannot be served"))
                    .ok()?;
                let def = Arc::new(def);
                // Keep the storage and its watches.
                let storage = if let Some(same) = same {
                    Arc::clone(&same.storage)
                } else {
                    let storage = open(Arc::clone(&def))?;
                    plan.opened.push(Arc::clone(&storage));
                    storage
                };
                Some(Served { fingerprint, text, def, storage })
            });
            let kept = served.as_ref().map(|served| Arc::clone(&served.storage));
            let old = match served {
                Some(served) => group.served.insert(name.to_owned(), served),
                None => group.served.remove(name),
            };
            let is_kept =
                |old: &Arc<ResourceStorage>| kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, old));
            plan.closed.extend(old.map(|old| old.storage).filter(|old| !is_kept(old)));
            plan.groups.insert(group_name.to_owned());
        }
        let has_conflict = !conditions::is_true(definition, "NamesAccepted");
        let is_released = before.is_some_and(|before| before != accepted);
        let group = group_name.to_owned();
        let released = if is_released { self.with_conflicts(&group) } else { Vec::new() };
        plan.writes.extend(changed);
        self.known.insert(name.to_owned(), Known { group, accepted, has_conflict });
        released
    }
}

/// Returns the definition with the condition `Terminating`.
fn terminating(stored: &Value, now: &str) -> Value {
    let mut definition = stored.clone();
    let message = "CustomResource deletion is in progress";
    names::set(&mut definition, "Terminating", true, "InstanceDeletionInProgress", message, now);
    definition
}

/// Hashes the fields that affect how the objects of a definition are stored and served.
fn fingerprint(definition: &Value) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(meta::uid(definition));
    for part in [&["spec"][..], &["status", "acceptedNames"]] {
        digest.update(meta::value_at(definition, part).map(Value::to_string).unwrap_or_default());
    }
    digest.finalize().into()
}

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    meta::value_at(object, path).and_then(Value::as_str).unwrap_or_default()
}
