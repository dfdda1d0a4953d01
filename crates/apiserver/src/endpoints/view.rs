//! The part of an object that a request reads and writes: the object itself, its status, its scale, or the fields of
//! another subresource.

use nave_machinery::{
    FieldError, FieldPath, GroupResource, GroupVersion, GroupVersionKind, Reason, Status, Value, meta,
};
use nave_resources::{ScalePaths, Schema, SubresourceKind, UNSET_REPLICAS, apply_scale, scale_of};
use nave_schema::TypeId;

use super::Endpoint;
use super::encode::encodings;
use crate::negotiation::Encodings;

/// A view of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// The object itself.
    Object,
    /// The object; writes change only the status.
    Status,
    /// The object; writes change only the fields that the strategy allows at this subresource.
    Subresource(String),
    /// An `autoscaling/v1` `Scale`.
    Scale(ScalePaths),
}

impl View {
    /// Returns the view of a subresource of `endpoint`; an empty name selects the object itself.
    ///
    /// # Errors
    /// 404 if the resource has no such subresource, 501 if the subresource is not served.
    pub fn for_subresource(endpoint: &Endpoint, subresource: &str) -> Result<Self, Status> {
        if subresource.is_empty() {
            return Ok(Self::Object);
        }
        let found = endpoint.version().subresource(subresource).ok_or_else(Status::no_such_path)?;
        match &found.kind {
            SubresourceKind::Status => Ok(Self::Status),
            SubresourceKind::RestrictedUpdate => Ok(Self::Subresource(subresource.to_owned())),
            SubresourceKind::Scale(paths) => Ok(Self::Scale(paths.clone())),
            SubresourceKind::Other => {
                Err(Status::not_implemented(format!("{}/{subresource}", endpoint.def.group_resource())))
            }
        }
    }

    /// Returns the subresource's name; empty for the object itself.
    pub fn subresource(&self) -> &str {
        match self {
            Self::Object => "",
            Self::Status => "status",
            Self::Subresource(name) => name,
            Self::Scale(_) => "scale",
        }
    }

    /// Returns the kind of the view.
    pub fn gvk(&self, endpoint: &Endpoint) -> GroupVersionKind {
        match self {
            Self::Object | Self::Status | Self::Subresource(_) => endpoint.gvk(),
            Self::Scale(_) => GroupVersionKind::new("autoscaling", "v1", "Scale"),
        }
    }

    /// Returns the built-in type of the view, if any.
    pub fn type_id(&self, endpoint: &Endpoint) -> Option<TypeId> {
        match self {
            Self::Object | Self::Status | Self::Subresource(_) => endpoint.version().type_id(),
            Self::Scale(_) => nave_schema::builtin().find("io.k8s.api.autoscaling.v1.Scale"),
        }
    }

    /// Returns the encodings of the view.
    pub fn encodings(&self, endpoint: &Endpoint) -> Encodings {
        match self {
            Self::Scale(_) if !endpoint.def.is_custom() => Encodings::All,
            // Upstream serves the scale of custom resources with their encodings.
            Self::Object | Self::Status | Self::Subresource(_) | Self::Scale(_) => encodings(endpoint),
        }
    }

    /// Returns the schema of the view.
    pub fn schema(&self, endpoint: &Endpoint) -> Schema {
        match self {
            Self::Object | Self::Status | Self::Subresource(_) => endpoint.version().schema.clone(),
            Self::Scale(_) => Schema::Builtin(self.type_id(endpoint)),
        }
    }

    /// Converts an object to the served form of this view: a built-in object from its storage version, a custom object
    /// from the served version.
    ///
    /// # Errors
    /// 400 if the object cannot be converted; 500 if a field of a custom object has the wrong type for a scale.
    pub fn to_served(&self, endpoint: &Endpoint, stored: Value) -> Result<Value, Status> {
        match self {
            Self::Scale(paths) => {
                custom_replicas(endpoint, paths, &stored)?;
                Ok(scale_of(paths, &stored))
            }
            Self::Object | Self::Status | Self::Subresource(_) => from_stored(endpoint, stored),
        }
    }

    /// Returns the view that a patch changes. In the scale of a custom object without replicas, they are
    /// [`UNSET_REPLICAS`].
    ///
    /// # Errors
    /// See [`Self::to_served`].
    pub fn to_changed(&self, endpoint: &Endpoint, stored: &Value) -> Result<Value, Status> {
        let mut view = self.to_served(endpoint, stored.clone())?;
        if let Self::Scale(paths) = self
            && endpoint.def.is_custom()
            && custom_replicas(endpoint, paths, stored)?.is_none()
            && let Some(spec) = view.get_mut("spec").and_then(Value::as_object_mut)
        {
            spec.insert("replicas".to_owned(), UNSET_REPLICAS.into());
        }
        Ok(view)
    }

    /// Returns the object to store for a changed view, in the storage version; for a custom object, in the served
    /// version.
    ///
    /// # Errors
    /// 400 if the object cannot be converted, or a scale lacks the replicas; 409 if a scale has another uid; 422 if
    /// its replicas are negative.
    pub fn to_storage(&self, endpoint: &Endpoint, stored: &Value, view: Value) -> Result<Value, Status> {
        match self {
            Self::Scale(paths) => {
                if endpoint.def.is_custom() {
                    check_is_set(paths, &view)?;
                } else {
                    check_scale(endpoint, stored, &view)?;
                }
                let mut object = stored.clone();
                apply_scale(paths, &mut object, &view);
                let version = meta::resource_version(&view).to_owned();
                meta::set(&mut object, "resourceVersion", Value::String(version));
                Ok(object)
            }
            Self::Object | Self::Status | Self::Subresource(_) => to_stored(endpoint, view),
        }
    }
}

/// Returns the replicas of a custom object (upstream: `scaleFromCustomResource`); `None` for built-in ones.
fn custom_replicas(endpoint: &Endpoint, paths: &ScalePaths, object: &Value) -> Result<Option<i64>, Status> {
    if !endpoint.def.is_custom() {
        return Ok(None);
    }
    paths.checked_replicas(object).map_err(|error| Status::failure(500, Reason::Unknown, error.to_string()))
}

/// Checks that a change of a scale has set the replicas that the custom object lacks.
fn check_is_set(paths: &ScalePaths, scale: &Value) -> Result<(), Status> {
    if scale.pointer("/spec/replicas").and_then(Value::as_i64) != Some(UNSET_REPLICAS) {
        return Ok(());
    }
    let path = paths.spec_replicas.join(".");
    Err(Status::bad_request(format!("the spec replicas field \".{path}\" cannot be empty")))
}

/// Checks the scale of a built-in object, before the object itself is validated.
fn check_scale(endpoint: &Endpoint, stored: &Value, scale: &Value) -> Result<(), Status> {
    let name = meta::name(stored);
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let at = FieldPath::new("spec").child("replicas");
        let error = FieldError::invalid(&at, replicas, "must be greater than or equal to 0");
        let kind = GroupVersionKind::new("autoscaling", "v1", "Scale").group_kind();
        return Err(Status::invalid(&kind, name, &[error]));
    }
    let (wanted, found) = (meta::uid(scale), meta::uid(stored));
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    let GroupResource { group, resource } = endpoint.resource();
    let resource = GroupResource::new(&group, format!("{resource}/scale"));
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}");
    Err(Status::conflict(&resource, name, &why))
}

/// Converts a built-in object from its storage version to the served version. Custom objects have been read in the
/// served version.
fn from_stored(endpoint: &Endpoint, object: Value) -> Result<Value, Status> {
    match builtin_storage(endpoint) {
        Some(stored) => convert(endpoint, object, stored, &endpoint.gvk().group_version()),
        None => Ok(object),
    }
}

/// Converts a built-in object from the served version to the storage version. Custom objects are converted when they
/// are stored.
fn to_stored(endpoint: &Endpoint, object: Value) -> Result<Value, Status> {
    match builtin_storage(endpoint) {
        Some(stored) => convert(endpoint, object, &endpoint.gvk().group_version(), stored),
        None => Ok(object),
    }
}

fn builtin_storage(endpoint: &Endpoint) -> Option<&GroupVersion> {
    let storage = endpoint.def.storage.as_ref().filter(|_| !endpoint.def.is_custom())?;
    Some(&storage.version)
}

fn convert(
    endpoint: &Endpoint,
    mut object: Value,
    from: &GroupVersion,
    to: &GroupVersion,
) -> Result<Value, Status> {
    if from != to {
        let converted = endpoint.def.strategy.convert(&mut object, from, to);
        converted.map_err(|error| Status::bad_request(error.to_string()))?;
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;
    use serde_json::json;

    use super::*;

    fn endpoint(group: &str, resource: &str) -> Endpoint {
        let registry = Registry::builtin(nave_schema::builtin());
        let def = Arc::clone(registry.lookup(&GroupVersionResource::new(group, "v1", resource)).unwrap());
        Endpoint { def, version: 0, storage: None, watched: Arc::default(), allocator: None }
    }

    #[test]
    fn subresources_are_views_or_not_served() {
        let pods = endpoint("", "pods");
        let view = |subresource| View::for_subresource(&pods, subresource).map_err(|status| status.code);
        assert_eq!(view(""), Ok(View::Object));
        assert_eq!(view("status"), Ok(View::Status));
        assert_eq!(view("resize"), Ok(View::Subresource("resize".to_owned())));
        assert_eq!(view("log"), Err(501));
        assert_eq!(view("unknown"), Err(404));
    }

    #[test]
    fn a_scale_reads_and_changes_only_the_replicas() {
        let deployments = endpoint("apps", "deployments");
        let view = View::for_subresource(&deployments, "scale").unwrap();
        let stored = json!({"metadata": {"name": "d", "resourceVersion": "7"},
            "spec": {"replicas": 2, "paused": true, "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 1}});
        let mut scale = view.to_served(&deployments, stored.clone()).unwrap();
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
        scale["spec"]["replicas"] = json!(5);
        let mut wanted = stored.clone();
        wanted["spec"]["replicas"] = json!(5);
        assert_eq!(view.to_storage(&deployments, &stored, scale).unwrap(), wanted);
    }

    #[test]
    fn a_scale_has_the_uid_of_its_object_and_no_negative_replicas() {
        let deployments = endpoint("apps", "deployments");
        let view = View::for_subresource(&deployments, "scale").unwrap();
        let stored = json!({"metadata": {"name": "d", "uid": "u"}, "spec": {"replicas": 2}});
        let change = |uid: &str, replicas: i64| {
            let scale = json!({"metadata": {"uid": uid}, "spec": {"replicas": replicas}});
            view.to_storage(&deployments, &stored, scale).map_err(|status| (status.code, status.message))
        };
        assert!(change("u", 1).is_ok() && change("", 1).is_ok());
        assert_eq!(
            change("v", 1),
            Err((
                409,
                "Operation cannot be fulfilled on deployments/scale.apps \"d\": Precondition failed: UID in precondition: v, UID in object meta: u"
                    .to_owned()
            ))
        );
        let (code, message) = change("v", -1).unwrap_err();
        assert!(
            code == 422 && message.starts_with("Scale.autoscaling \"d\" is invalid: spec.replicas: "),
            "{message}"
        );
    }
}
