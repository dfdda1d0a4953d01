//! Typed server-side apply (KEP-555; upstream: client-go's `Apply` and `ApplyStatus`).
//!
//! The configuration has the object's own type. The manager owns the fields that the configuration sets, and gives
//! up the fields that it set before and that are now missing.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The options of an apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyOptions {
    field_manager: String,
    force: bool,
    dry_run: bool,
}

impl ApplyOptions {
    /// Creates options for a field manager. Fields that other managers own with different values cause conflicts.
    pub fn new(field_manager: &str) -> Self {
        Self { field_manager: field_manager.to_owned(), force: false, dry_run: false }
    }

    /// Takes ownership of conflicting fields from their managers, as controllers do.
    #[must_use]
    pub fn force(self) -> Self {
        Self { force: true, ..self }
    }

    /// Returns the result without storing it.
    #[must_use]
    pub fn dry_run(self) -> Self {
        Self { dry_run: true, ..self }
    }

    fn parameters(&self) -> PatchParams {
        let parameters = PatchParams::apply(&self.field_manager);
        PatchParams { force: self.force, dry_run: self.dry_run, ..parameters }
    }
}

/// The reasons why an apply failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The configuration has no name.
    #[error("an applied configuration needs a name")]
    NoName,
    /// Other managers own fields of the configuration with different values. The object is not changed.
    #[error("{source}")]
    Conflict {
        /// The fields and their managers. Empty if the conflict is about the resource version or the UID.
        fields: Vec<FieldConflict>,
        /// The response.
        source: kube::Error,
    },
    /// Any other failure.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// A field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConflict {
    /// The path of the field, such as `.spec.replicas`.
    pub field: String,
    /// The server's message, which names the manager: `conflict with "kubectl"`.
    pub message: String,
}

/// Applies a configuration, creates the object if it does not exist, and returns the object.
///
/// # Errors
/// The configuration has no name, conflicts, or is rejected.
pub async fn apply<K>(api: &Api<K>, configuration: &K, options: &ApplyOptions) -> Result<K, ApplyError>
where
    K: kube::Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let name = name_of(configuration)?;
    let applied = api.patch(name, &options.parameters(), &Patch::Apply(configuration)).await;
    applied.map_err(ApplyError::from_response)
}

/// Applies a configuration to the status of an existing object, and returns the object.
///
/// # Errors
/// The errors of [`apply`], and 404 if the object does not exist.
pub async fn apply_status<K>(api: &Api<K>, configuration: &K, options: &ApplyOptions) -> Result<K, ApplyError>
where
    K: kube::Resource + Serialize + DeserializeOwned + Clone + Debug,
{
    let name = name_of(configuration)?;
    let applied = api.patch_status(name, &options.parameters(), &Patch::Apply(configuration)).await;
    applied.map_err(ApplyError::from_response)
}

fn name_of<K: kube::Resource>(configuration: &K) -> Result<&str, ApplyError> {
    configuration.meta().name.as_deref().filter(|name| !name.is_empty()).ok_or(ApplyError::NoName)
}

impl ApplyError {
    fn from_response(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Api(error) };
        if status.code != CONFLICT {
            return Self::Api(error);
        }
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let causes = causes.filter(|cause| cause.reason == FIELD_MANAGER_CONFLICT);
        let fields =
            causes.map(|cause| FieldConflict { field: cause.field.clone(), message: cause.message.clone() });
        let fields = fields.collect();
        Self::Conflict { fields, source: error }
    }
}

/// The HTTP status code of a conflict.
const CONFLICT: u16 = 409;
/// The reason of a status cause that names a conflicting field.
const FIELD_MANAGER_CONFLICT: &str = "FieldManagerConflict";
