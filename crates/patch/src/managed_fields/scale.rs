//! Managed fields of the scale subresource. The owners of the replicas are the same in the scale and in the object
//! (upstream: `apimachinery/pkg/util/managedfields/scalehandler.go`).

use nave_machinery::Value;

use super::entries::{self, EntriesError, Entry, Form, ManagerId, Managers};
use super::fields_v1::FieldsError;
use super::path::PathElement;
use super::set::FieldSet;

/// The version of scales.
const SCALE_VERSION: &str = "autoscaling/v1";

/// Converts managed fields between an object and its scale.
pub struct ScaleFields<'a> {
    /// The managed fields of the object.
    pub entries: Option<&'a Value>,
    /// The version of the object in the request.
    pub api_version: String,
    /// The path of the replicas in the object. All versions use the same path.
    pub replicas: &'a [String],
    /// Returns whether the kind has this version.
    pub is_version: Box<dyn Fn(&str) -> bool + 'a>,
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
        let path = self.path();
        let mut managers = Managers::new();
        for (id, entry) in entries::decode(self.entries)? {
            if (self.is_version)(&entry.api_version) && entry.set().contains(&path) {
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
        let path = self.path();
        let replicas = FieldSet::from_paths([path.as_slice()]);
        let mut scale = entries::decode(scale_entries)?;
        let mut managers = Managers::new();
        for (id, mut entry) in entries::decode(self.entries)? {
            if !(self.is_version)(&entry.api_version) {
                continue;
            }
            if entry.set().contains(&path) && !remove_scale_entry(&mut scale, &id) {
                entry.change(|set| set.difference(&replicas));
            }
            if !entry.set().is_empty() {
                managers.insert(id, entry);
            }
        }
        for (id, entry) in scale {
            if entry.set().contains(&scale_path()) {
                let id = ManagerId { api_version: version_of(id.applied, &self.api_version), ..id };
                // Only apply entries keep their time. The time of an update entry differs between object and scale.
                let time = managers.remove(&id).and_then(|entry| entry.time).filter(|_| id.applied);
                managers.insert(id, Entry::new(&self.api_version, replicas.clone(), time));
            }
        }
        Ok(entries::encode(managers, Form::Tree)?)
    }

    fn path(&self) -> Vec<PathElement> {
        self.replicas.iter().map(|name| PathElement::field(name)).collect()
    }
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
