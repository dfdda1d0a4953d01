//! Managed fields of an object, as its scale shows them, and back: the replicas of a scale are a field of the object
//! (upstream: `apimachinery/pkg/util/managedfields/scalehandler.go`).

use nave_machinery::Value;

use super::entries::{self, EntriesError, Entry, Form, ManagerId, Managers, Origin};
use super::fields_v1::FieldsError;
use super::path::PathElement;
use super::set::FieldSet;

/// The version of scales.
const SCALE_VERSION: &str = "autoscaling/v1";

/// The managed fields of an object between it and its scale.
pub struct ScaleFields<'a> {
    /// The managed fields of the object.
    pub entries: Option<&'a Value>,
    /// The object's version in the request.
    pub api_version: String,
    /// The place of the replicas in the object, in all versions of it.
    pub replicas: &'a [String],
    /// True if a version is one of the object's.
    pub is_version: Box<dyn Fn(&str) -> bool + 'a>,
}

/// Why managed fields cannot be carried over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// Entries that are malformed.
    #[error(transparent)]
    Entries(#[from] EntriesError),
    /// A set that is too deep.
    #[error(transparent)]
    Fields(#[from] FieldsError),
}

impl ScaleFields<'_> {
    /// The entries that a scale has: who owns the replicas.
    ///
    /// # Errors
    /// The object's entries are malformed.
    pub fn of_scale(&self) -> Result<Option<Value>, ScaleError> {
        let path = self.path();
        let mut managers = Managers::new();
        for (id, entry) in entries::decode(self.entries, Origin::Stored)? {
            if (self.is_version)(&entry.api_version) && entry.set().contains(&path) {
                let id = ManagerId { api_version: version_of(id.applied, SCALE_VERSION), ..id };
                managers.insert(id, Entry::new(SCALE_VERSION, replicas_of_scale(), entry.time));
            }
        }
        Ok(entries::encode(managers, Form::Tree)?)
    }

    /// The entries of the object after its scale got these.
    ///
    /// # Errors
    /// Entries are malformed.
    pub fn of_object(&self, of_scale: Option<&Value>) -> Result<Option<Value>, ScaleError> {
        let path = self.path();
        let replicas = FieldSet::from_paths([path.as_slice()]);
        let mut scale = entries::decode(of_scale, Origin::Stored)?;
        let mut managers = Managers::new();
        for (id, mut entry) in entries::decode(self.entries, Origin::Stored)? {
            if !(self.is_version)(&entry.api_version) {
                continue;
            }
            if entry.set().contains(&path) && !take(&mut scale, &id) {
                entry.change(|set| set.difference(&replicas));
            }
            if !entry.set().is_empty() {
                managers.insert(id, entry);
            }
        }
        for (id, entry) in scale {
            if entry.set().contains(&scale_path()) {
                let id = ManagerId { api_version: version_of(id.applied, &self.api_version), ..id };
                // An updater's entry has no time: it is another one in the object than in the scale.
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

/// Takes the entry of a manager of the object out of those of its scale; returns whether there is one.
fn take(scale: &mut Managers<'_>, id: &ManagerId) -> bool {
    let id = ManagerId { api_version: version_of(id.applied, SCALE_VERSION), ..id.clone() };
    scale.remove(&id).is_some()
}

/// The version in the identity of a manager.
fn version_of(applied: bool, api_version: &str) -> String {
    if applied { String::new() } else { api_version.to_owned() }
}

fn scale_path() -> [PathElement; 2] {
    ["spec", "replicas"].map(PathElement::field)
}

fn replicas_of_scale() -> FieldSet {
    FieldSet::from_paths([scale_path().as_slice()])
}
