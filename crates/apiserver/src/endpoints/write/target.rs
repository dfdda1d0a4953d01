//! The target and the body of a write.

use bytes::Bytes;
use nave_admission::Chain;
use nave_codec::negotiate::{ContentType, Format};
use nave_machinery::limits::{self, LimitError};
use nave_machinery::managed_fields;
use nave_machinery::options::FieldValidation;
use nave_machinery::{FieldErrors, Map, Object, Status, Value, meta};
use nave_resources::{Schema, storage_key};

use super::super::response::ObjectResponse;
use super::super::view::View;
use super::super::{Endpoint, decode, versions};
use super::Written;
use crate::context::RequestContext;
use crate::storage::{Attempt, Reservation, ResourceStorage, Update};

/// The target of a write.
#[derive(Clone)]
pub struct Target<'a> {
    /// The request.
    pub context: &'a RequestContext,
    /// The resource.
    pub endpoint: &'a Endpoint,
    /// The view that is written.
    pub view: View,
    /// The namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// The object's name; empty for a create.
    pub name: &'a str,
    /// The admission plugins.
    pub admission: &'a Chain,
}

/// A request body with its content type.
pub struct Payload {
    /// The bytes.
    pub bytes: Bytes,
    /// The content type; `None` if the API does not support it.
    pub content_type: Option<ContentType>,
}

impl Payload {
    /// Returns the format of the object in the body; JSON if the request has no content type.
    ///
    /// # Errors
    /// 415 for other content types.
    pub fn format(&self) -> Result<Format, Status> {
        match self.content_type {
            Some(ContentType::Object(format)) => Ok(format),
            _ => Err(Status::unsupported_media_type(&decode::BODY_TYPES)),
        }
    }
}

impl Target<'_> {
    /// Returns the storage.
    ///
    /// # Errors
    /// 501 for a virtual resource.
    pub fn storage(&self) -> Result<&ResourceStorage, Status> {
        let virtual_resource = || Status::not_implemented(self.endpoint.resource());
        self.endpoint.storage.as_deref().ok_or_else(virtual_resource)
    }

    /// Returns the storage key of an object.
    ///
    /// # Errors
    /// 400 for a name that cannot be part of a key.
    pub(crate) fn key(&self, name: &str) -> Result<String, Status> {
        let namespace = self.endpoint.def.namespaced.then_some(self.namespace);
        storage_key(&self.endpoint.def, namespace, name)
            .map_err(|error| Status::bad_request(error.to_string()))
    }

    pub(super) fn decode(&self, payload: &Payload, validation: FieldValidation) -> Result<Value, Status> {
        let (expected, format) = (self.view.gvk(self.endpoint).kind, payload.format()?);
        // Custom objects have no protobuf encoding.
        if format == Format::Protobuf && matches!(self.view.schema(self.endpoint), Schema::Custom(_)) {
            return Err(Status::unsupported_media_type(&decode::BODY_TYPES[..2]));
        }
        Ok(self.typed(decode::parse(&payload.bytes, format, &expected)?, validation)?)
    }

    /// Decodes and defaults the object in a body, and records it for audit.
    pub(super) fn decode_recorded(
        &self,
        payload: &Payload,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        let object = self.decode(payload, validation)?;
        if let Some(record) = &self.context.audit {
            record.request_object(&object);
        }
        Ok(object)
    }

    /// Converts a body to a defaulted object of the view's kind. If the field validation is `Warn`, errors of strict
    /// decoding become warnings.
    ///
    /// # Errors
    /// 400 if the body is not an object of the kind, or violates strict decoding.
    pub fn typed(
        &self,
        body: decode::Body<'_>,
        validation: FieldValidation,
    ) -> Result<Value, decode::Refusal> {
        let mut body = body;
        keep_reset_of_managed_fields(&mut body.object);
        let (object, warnings) = typed_object(self.endpoint, &self.view, body, validation)?;
        self.warn(warnings);
        Ok(object)
    }

    /// Adds warnings for the client.
    pub(in crate::endpoints) fn warn(&self, warnings: Vec<String>) {
        for warning in warnings {
            self.context.notes.warn(warning);
        }
    }

    /// Reserves the addresses and ports that the object needs in addition to those of `old`. Does nothing for the
    /// status subresource.
    pub(super) async fn allocate(
        &self,
        object: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        let allocator = self.endpoint.allocator.as_ref().filter(|_| self.view != View::Status);
        let Some(allocator) = allocator else { return Ok(None) };
        // Boxed to keep the futures of other resources' writes small.
        Ok(Some(Box::new(Box::pin(allocator.begin(object, old, dry_run)).await?)))
    }

    /// Returns the attempt that deletes an object and releases the allocations of its stored state after the commit.
    pub(super) fn deletion(&self, object: Value, stored: &Value) -> Attempt {
        let reservation = self
            .endpoint
            .allocator
            .as_ref()
            .map(|allocator| -> Box<dyn Reservation> { Box::new(allocator.begin_deletion(stored)) });
        Attempt { update: Update::Delete(object), reservation }
    }

    pub(super) fn check_name(&self, object: &Value) -> Result<(), Status> {
        let name = meta::name(object);
        if name == self.name {
            return Ok(());
        }
        if name.is_empty() {
            let text = "undeterminable: name must be provided";
            return Err(Status::bad_request(format!(
                "the name of the object ({} based on URL) was {text}",
                self.name
            )));
        }
        let text =
            format!("the name of the object ({name}) does not match the name on the URL ({})", self.name);
        Err(Status::bad_request(text))
    }

    /// Checks the uid of an update, if it has one, so that it cannot change another object with the same name.
    pub(super) fn check_uid(&self, object: &Value, old: &Object) -> Result<(), Status> {
        self.check_precondition("UID", meta::uid(object), old.uid())
    }

    /// Checks a precondition on the stored object. An empty `wanted` matches any object.
    ///
    /// # Errors
    /// 409 with the message of upstream's storage.
    pub(crate) fn check_precondition(&self, what: &str, wanted: &str, found: &str) -> Result<(), Status> {
        if wanted.is_empty() || wanted == found {
            return Ok(());
        }
        let key = self.key(self.name)?;
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
        );
        Err(Status::conflict(&self.endpoint.resource(), self.name, &why))
    }

    /// Returns 409 because another writer was faster.
    pub(super) fn modified(&self) -> Status {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(&self.endpoint.resource(), self.name, why)
    }

    /// Returns 409 because the name of a new object is taken.
    pub(super) fn already_exists(&self, name: &str, current: &Object) -> Status {
        let mut status = Status::already_exists(&self.endpoint.resource(), name);
        if current.deletion_timestamp().is_some() {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }

    /// Returns 422 with the errors of validation.
    pub(super) fn invalid(&self, name: &str, errors: &FieldErrors) -> Status {
        Status::invalid_object(&self.endpoint.def.group_kind(), name, errors)
    }

    /// Builds the response with a written object, in the request's version.
    pub(super) async fn answer(&self, code: u16, written: Written) -> Result<ObjectResponse, Status> {
        let Written { object, version, .. } = written;
        // As upstream, the response is the stored object as read in the request's version.
        let mut object = versions::read(self.endpoint, object).await?;
        match version {
            Some(version) if !matches!(self.view, View::Scale(_)) => {
                let object = self.view.to_served(self.endpoint, object)?;
                Ok(ObjectResponse::written(self.endpoint, code, object, version))
            }
            _ => {
                managed_fields::expand(&mut object);
                let object = self.view.to_served(self.endpoint, object)?;
                Ok(ObjectResponse::object(self.endpoint, code, object))
            }
        }
    }
}

/// Converts a body to a defaulted object of a view's kind. Also returns the warnings for the client.
///
/// # Errors
/// 400 if the body is not an object of the kind, or violates strict decoding.
pub fn typed_object(
    endpoint: &Endpoint,
    view: &View,
    body: decode::Body<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), decode::Refusal> {
    let schema = view.schema(endpoint);
    let (object, warnings) = decode::typed(body, &view.gvk(endpoint), &schema, validation)?;
    Ok((defaulted(endpoint, view, &schema, object)?, warnings))
}

/// As [`typed_object`], for an object of which only the metadata changed since it was an object of the kind.
///
/// # Errors
/// See [`typed_object`].
pub fn with_changed_metadata(
    endpoint: &Endpoint,
    view: &View,
    object: Value,
) -> Result<Value, decode::Refusal> {
    let schema = view.schema(endpoint);
    let (mut changed, mut rest) = (Map::new(), Map::new());
    if let Value::Object(fields) = object {
        (changed, rest) = fields
            .into_iter()
            .partition(|(name, _)| matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    }
    let body = decode::Body { object: Value::Object(changed), ..decode::Body::default() };
    let (mut object, _) = decode::typed(body, &view.gvk(endpoint), &schema, FieldValidation::Ignore)?;
    if let Value::Object(fields) = &mut object {
        fields.append(&mut rest);
    }
    defaulted(endpoint, view, &schema, object)
}

/// Sets the defaults of an object of a view's kind.
fn defaulted(
    endpoint: &Endpoint,
    view: &View,
    schema: &Schema,
    mut object: Value,
) -> Result<Value, decode::Refusal> {
    decode::set_defaults(&mut object, schema)?;
    if !matches!(view, View::Scale(_)) {
        endpoint.def.strategy.default(&mut object, &endpoint.version().name);
    }
    limits::check(&object).map_err(LimitError::into_status)?;
    Ok(object)
}

/// Replaces an empty list of managed fields by a list with one empty entry, which also requests their removal. The
/// empty list would be lost in decoding.
fn keep_reset_of_managed_fields(object: &mut Value) {
    let entries = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("managedFields"));
    if let Some(Value::Array(entries)) =
        entries.filter(|entries| entries.as_array().is_some_and(Vec::is_empty))
    {
        entries.push(Value::Object(Map::new()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;
    use serde_json::json;

    use super::*;

    #[test]
    fn changed_metadata_is_decoded_as_the_whole_object_is() {
        let registry = Registry::builtin(nave_schema::builtin());
        let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]);
        for (group, resource, spec) in [
            ("", "pods", json!({"containers": containers})),
            ("", "services", json!({"ports": [{"port": 80}]})),
            ("apps", "deployments", json!({"template": {"spec": {"containers": containers}}})),
            ("", "configmaps", Value::Null),
        ] {
            let def = registry.lookup(&GroupVersionResource::new(group, "v1", resource)).unwrap();
            let endpoint = Endpoint {
                def: Arc::clone(def),
                version: 0,
                storage: None,
                watched: Arc::default(),
                allocator: None,
            };
            let whole = |object: Value| {
                let body = decode::Body { object, ..decode::Body::default() };
                let typed = typed_object(&endpoint, &View::Object, body, FieldValidation::Ignore);
                typed.map(|(object, _)| object).map_err(|refusal| refusal.status.message)
            };
            let base = whole(json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": spec})).unwrap();
            for (field, value) in [
                ("labels", json!({"a": "b"})),
                ("labels", json!({})),
                ("labels", Value::Null),
                ("annotations", json!({"a": 1})),
                ("creationTimestamp", json!("2026-01-01T00:00:00.5Z")),
                ("generation", json!(0)),
                ("unknown", json!({"a": []})),
                ("ownerReferences", json!([{}])),
                ("finalizers", json!("x")),
            ] {
                let mut object = base.clone();
                object["metadata"][field] = value;
                let changed = with_changed_metadata(&endpoint, &View::Object, object.clone());
                let changed = changed.map_err(|refusal| refusal.status.message);
                assert_eq!(changed, whole(object), "{resource} {field}");
            }
        }
    }
}
