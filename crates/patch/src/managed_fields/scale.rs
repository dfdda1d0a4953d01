//! Managed fields of the scale subresource. The owners of the replicas are the same in the scale and in the object
//! (upstream: `apimachinery/pkg/util/managedfields/scalehandler.go`).

use nave_machinery::Value;

use super::entries::{self, EntriesError, Entry, Form, ManagerId, Managers};
use super::fields_v1::FieldsError;
use super::path::PathElement;
use super::set::FieldSet;

/// The version of scales.
const SCALE_VERSION: &str = "autoscaling/v1";

/// A function from a version to the path of its replicas.
pub type ReplicasOf<'a> = Box<dyn Fn(&str) -> Option<&'a [String]> + 'a>;

/// Converts managed fields between an object and its scale.
pub struct ScaleFields<'a> {
    /// The managed fields of the object.
    pub entries: Option<&'a Value>,
    /// The version of the object in the request.
    pub api_version: String,
    /// Returns the path of the replicas in a version of the object, empty if the version has no scale; `None` if the
    /// kind does not have the version.
    pub replicas: ReplicasOf<'a>,
}

/// The error of a failed conversion of managed fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// An entry is malformed.
    #[error(transparent)]
    Entries(#[from] EntriesError),
    /// A set is nested too deeply.
    #[error(transparent)]
    Fields(#[from] FieldsError),
}

impl ScaleFields<'_> {
    /// Returns the managed fields of the scale: the entries of managers that own the replicas.
    ///
    /// # Errors
    /// The entries of the object are malformed.
    pub fn scale_entries(&self) -> Result<Option<Value>, ScaleError> {
        let mut managers = Managers::new();
        for (id, entry) in entries::decode(self.entries)? {
            if self.path(&entry.api_version).is_some_and(|path| owns(&entry, &path)) {
                let id = ManagerId { api_version: version_of(id.applied, SCALE_VERSION), ..id };
                managers.insert(id, Entry::new(SCALE_VERSION, replicas_of_scale(), entry.time));
            }
        }
        Ok(entries::encode(managers, Form::Tree)?)
    }

    /// Returns the managed fields of the object after a write to its scale.
    ///
    /// # Errors
    /// Entries are malformed.
    pub fn object_entries(&self, scale_entries: Option<&Value>) -> Result<Option<Value>, ScaleError> {
        let mut scale = entries::decode(scale_entries)?;
        let mut managers = Managers::new();
        for (id, mut entry) in entries::decode(self.entries)? {
            let Some(path) = self.path(&entry.api_version) else { continue };
            // A write through another version moves the replicas of an update entry to that version.
            let stays = |id: &ManagerId| id.applied || id.api_version == self.api_version;
            if owns(&entry, &path) && !(stays(&id) && remove_scale_entry(&mut scale, &id)) {
                entry.change(|set| set.difference(&FieldSet::from_paths([path.as_slice()])));
            }
            if !entry.set().is_empty() {
                managers.insert(id, entry);
            }
        }
        let path = self.path(&self.api_version).unwrap_or_default();
        for (id, entry) in scale {
            if entry.set().contains(&scale_path()) {
                let id = ManagerId { api_version: version_of(id.applied, &self.api_version), ..id };
                let mut set = FieldSet::from_paths([path.as_slice()]);
                let previous = managers.remove(&id);
                // Only apply entries keep their time. The time of an update entry differs between object and scale.
                let time = previous.as_ref().and_then(|entry| entry.time.clone()).filter(|_| id.applied);
                // Fields that the manager has updated in this version stay its own.
                if let Some(previous) = previous.filter(|_| !id.applied) {
                    set = set.union(previous.set().clone());
                }
                managers.insert(id, Entry::new(&self.api_version, set, time));
            }
        }
        Ok(entries::encode(managers, Form::Tree)?)
    }

    /// Returns the path of the replicas in a version; `None` for an unknown version.
    fn path(&self, api_version: &str) -> Option<Vec<PathElement>> {
        let names = (self.replicas)(api_version)?;
        Some(names.iter().map(|name| PathElement::field(name)).collect())
    }
}

fn owns(entry: &Entry<'_>, path: &[PathElement]) -> bool {
    !path.is_empty() && entry.set().contains(path)
}

/// Removes a manager's entry from the scale; returns whether the entry existed.
fn remove_scale_entry(scale: &mut Managers<'_>, id: &ManagerId) -> bool {
    let id = ManagerId { api_version: version_of(id.applied, SCALE_VERSION), ..id.clone() };
    scale.remove(&id).is_some()
}

/// Returns the version in a manager's identity.
fn version_of(applied: bool, api_version: &str) -> String {
    if applied { String::new() } else { api_version.to_owned() }
}

fn scale_path() -> [PathElement; 2] {
    ["spec", "replicas"].map(PathElement::field)
}

fn replicas_of_scale() -> FieldSet {
    FieldSet::from_paths([scale_path().as_slice()])
}
