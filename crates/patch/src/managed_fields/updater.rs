//! Updates the owners of fields during a change and removes fields that an applier no longer applies (upstream:
//! `structured-merge-diff/merge.Updater`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use nave_machinery::{Value, meta};

use super::compare::Comparison;
use super::conflict::Conflicts;
use super::entries::{Entry, ManagerId, Managers};
use super::field_set::field_set;
use super::merge::merge;
use super::remove::remove_items;
use super::schema::TypeRef;
use super::set::FieldSet;
use super::validate::validate;
use super::value::equal;

/// The versions of a kind. A manager's fields are paths in the version of its last write.
pub trait Versions: Sync {
    /// Returns the type of the kind in a version; `None` for an unknown version.
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>>;

    /// Converts an object to another version known to [`type_of`](Self::type_of).
    ///
    /// # Errors
    /// The object cannot be converted.
    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, String>;

    /// Returns the fields that writes to this subresource never change, as paths in a version.
    fn reset_fields(&self, api_version: &str) -> Option<&FieldSet>;
}

/// The error of a failed apply.
#[derive(Debug)]
pub(super) enum UpdateError {
    Conflicts(Conflicts),
    Failed(String),
}

impl From<String> for UpdateError {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// Updates the owners of fields during a change.
pub(super) struct Updater<'a> {
    pub versions: &'a dyn Versions,
    /// The version of the request.
    pub api_version: &'a str,
}

impl<'a> Updater<'a> {
    fn type_of(&self, api_version: &str) -> Result<TypeRef<'a>, String> {
        self.versions.type_of(api_version).ok_or_else(|| format!("no type of version {api_version}"))
    }

    /// Removes the fields that an update changes from all other owners. Returns the fields that the update owns.
    pub(super) fn update(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut Managers<'_>,
    ) -> Result<FieldSet, UpdateError> {
        self.reconcile(managers);
        let changes = self.take_over(live, new, managers, None, true)?;
        let set = changes.modified.union(changes.added);
        Ok(self.without_reset_fields(set))
    }

    /// Merges an applied configuration. Returns `None` if the object does not change.
    pub(super) fn apply(
        &self,
        live: &Value,
        applied: &Value,
        managers: &mut Managers<'_>,
        applier: &ManagerId,
        force: bool,
    ) -> Result<Option<Value>, UpdateError> {
        self.reconcile(managers);
        let ty = self.type_of(self.api_version)?;
        let merged = merge(ty, live, applied).map_err(|why| format!("failed to merge config: {why}"))?;
        let set = self.without_reset_fields(field_set(ty, applied));
        let entry = Entry::new(self.api_version, set, None);
        let last = managers.insert(applier.clone(), entry);
        if let (Some(last), Some(entry)) = (&last, managers.get_mut(applier)) {
            entry.time.clone_from(&last.time);
        }
        let new = match last {
            Some(last) if !last.set().is_empty() => self.prune(merged, managers, last)?,
            _ => merged,
        };
        self.take_over(live, &new, managers, Some(applier), force)?;
        Ok((!equal(live, &new)).then_some(new))
    }

    fn reconcile(&self, managers: &mut Managers<'_>) {
        managers.retain(|_, entry| match self.versions.type_of(&entry.api_version) {
            Some(ty) => {
                entry.reconcile(ty);
                true
            }
            // The fields of an unknown version are dropped.
            None => false,
        });
    }

    fn without_reset_fields(&self, set: FieldSet) -> FieldSet {
        match self.versions.reset_fields(self.api_version) {
            Some(fields) => set.recursive_difference(fields),
            None => set,
        }
    }

    /// Removes changed and deleted fields from all managers except one. Returns the changes, in the version of the
    /// request.
    fn take_over(
        &self,
        live: &Value,
        new: &Value,
        managers: &mut Managers<'_>,
        applier: Option<&ManagerId>,
        force: bool,
    ) -> Result<Comparison, UpdateError> {
        let mut changes =
            BTreeMap::from([(self.api_version.to_owned(), self.changes(self.api_version, live, new)?)]);
        let mut conflicts = Conflicts::default();
        for (id, entry) in managers.iter_mut().filter(|(id, _)| applier != Some(id)) {
            if !changes.contains_key(&entry.api_version) {
                let (live, new) = (
                    self.convert_for_manager("old", live, &entry.api_version)?,
                    self.convert_for_manager("new", new, &entry.api_version)?,
                );
                changes.insert(entry.api_version.clone(), self.changes(&entry.api_version, &live, &new)?);
            }
            let Some(Comparison { added, modified, removed }) = changes.get(&entry.api_version) else {
                continue;
            };
            let is_changed = entry.set().intersects(modified) || entry.set().intersects(added);
            if is_changed && !force {
                conflicts.add(id, entry.set().intersection(modified).union(entry.set().intersection(added)));
            } else if is_changed || entry.set().intersects(removed) {
                entry.change(|set| set.difference(modified).difference(added).difference(removed));
            }
        }
        if !conflicts.is_empty() {
            return Err(UpdateError::Conflicts(conflicts));
        }
        managers.retain(|_, entry| !entry.set().is_empty());
        Ok(changes.remove(self.api_version).unwrap_or_default())
    }

    fn changes(&self, api_version: &str, live: &Value, new: &Value) -> Result<Comparison, String> {
        let comparison = Comparison::between(self.type_of(api_version)?, live, new)
            .map_err(|why| format!("failed to compare objects: {why}"))?;
        Ok(comparison.excluding(self.versions.reset_fields(api_version)))
    }

    fn convert<'v>(&self, object: &'v Value, api_version: &str) -> Result<Cow<'v, Value>, String> {
        if meta::api_version(object) == api_version {
            return Ok(Cow::Borrowed(object));
        }
        self.versions.convert(object, api_version).map(Cow::Owned)
    }

    /// Converts an object into the version of a manager. Without a webhook, a custom object may keep fields that only
    /// another version has; upstream rejects them.
    fn convert_for_manager<'v>(
        &self,
        state: &str,
        object: &'v Value,
        api_version: &str,
    ) -> Result<Cow<'v, Value>, String> {
        let converted = self.convert(object, api_version)?;
        if let ty @ TypeRef::Custom(_) = self.type_of(api_version)? {
            validate(ty, &converted).map_err(|why| format!("failed to convert {state} object: {why}"))?;
        }
        Ok(converted)
    }

    /// Removes fields that the applier owned but no longer applies, unless another manager owns them.
    fn prune(&self, merged: Value, managers: &Managers<'_>, last: Entry<'_>) -> Result<Value, String> {
        let Some(ty) = self.versions.type_of(&last.api_version) else { return Ok(merged) };
        let version = last.api_version.clone();
        let merged = self.convert(&merged, &version)?.into_owned();
        let last = last.into_set().with_named_fields(ty);
        let pruned = remove_items(ty, merged.clone(), &last);
        let pruned = self.add_back_owned(&merged, pruned, &version, managers)?;
        // Removes only fields that were owned before.
        let pruned = self.convert(&pruned, &version)?;
        let kept = field_set(ty, &pruned).with_named_fields(ty);
        let gone = field_set(ty, &merged).with_named_fields(ty).difference(&kept).intersection(&last);
        let result = remove_items(ty, merged, &gone);
        Ok(self.convert(&result, self.api_version)?.into_owned())
    }

    /// Restores pruned values that a manager owns, in the version of each manager. Starts with the version of the
    /// applier's last configuration, because other conversions may need the restored values.
    fn add_back_owned(
        &self,
        merged: &Value,
        mut pruned: Value,
        first: &str,
        managers: &Managers<'_>,
    ) -> Result<Value, String> {
        let mut owned: BTreeMap<&str, Vec<FieldSet>> = BTreeMap::new();
        for entry in managers.values() {
            owned.entry(&entry.api_version).or_default().push(entry.set().clone());
        }
        let firsts = owned.remove_entry(first);
        let mut merged = Cow::Borrowed(merged);
        for (version, owned) in firsts.into_iter().chain(owned) {
            let Some(ty) = self.versions.type_of(version) else { continue };
            merged = Cow::Owned(self.convert(&merged, version)?.into_owned());
            pruned = self.convert(&pruned, version)?.into_owned();
            let owned = FieldSet::union_all(owned).with_named_fields(ty);
            let kept = field_set(ty, &pruned).with_named_fields(ty).union(owned);
            let gone = field_set(ty, &merged).with_named_fields(ty).difference(&kept);
            pruned = remove_items(ty, merged.clone().into_owned(), &gone);
        }
        Ok(pruned)
    }
}
