//! Objects in the versions that webhooks and policies see (upstream: `admission.ObjectInterfaces`).

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
#[cfg(any(test, feature = "testing"))]
use nave_machinery::limits;
use nave_machinery::{Object, Status, Value};
use nave_resources::ResourceDef;

use crate::attributes::Attributes;
use crate::matching::MatchedResource;

/// Converts the objects of a request between the form of built-in plugins (see [`Attributes`]) and the form that a
/// webhook or policy sees, which is the kind of a [`MatchedResource`].
#[async_trait]
pub trait ObjectInterfaces: Send + Sync {
    /// Returns the definition of a resource, if it is served.
    fn definition(&self, group: &str, resource: &str) -> Option<Arc<ResourceDef>>;

    /// Converts an object of the request to the kind of a matched resource. Borrows the object if it has that kind.
    /// `fieldsV1` keeps its form (see [`nave_machinery::managed_fields`]).
    ///
    /// # Errors
    /// The conversion fails.
    async fn versioned<'o>(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: &'o Object,
    ) -> Result<Cow<'o, Value>, Status>;

    /// Checks and defaults a changed object of the kind of a matched resource, as in a request body: drops unknown
    /// fields and sets static defaults.
    ///
    /// # Errors
    /// 500: the object is not of the kind, or exceeds a limit.
    fn decode(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status>;

    /// As [`decode`](Self::decode), for an object of which only the metadata changed since it had the matched kind.
    ///
    /// # Errors
    /// See [`decode`](Self::decode).
    fn decode_metadata(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status> {
        self.decode(attributes, matched, object)
    }

    /// As [`decode`](Self::decode), but an unknown field of a built-in kind is an error.
    ///
    /// # Errors
    /// The object is not of the kind, has an unknown field, or exceeds a limit.
    fn decode_strictly(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status>;

    /// Merges a configuration into an object of the kind of a matched resource, as server-side apply does, but without
    /// owners. Atomic lists and maps cannot be set.
    ///
    /// # Errors
    /// The configuration does not fit the kind. The text is upstream's.
    fn merge(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: &Value,
        configuration: &Value,
    ) -> Result<Value, String>;

    /// Converts a changed object back. `base` is the object from which [`versioned`](Self::versioned) made it.
    ///
    /// # Errors
    /// The conversion fails.
    async fn restore_stored(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
        base: &Object,
    ) -> Result<Object, Status>;
}

/// Objects in their storage version, for tests of plugins that need no conversion.
#[cfg(any(test, feature = "testing"))]
pub(crate) struct StoredObjects(pub(crate) Arc<nave_resources::Registry>);

#[cfg(any(test, feature = "testing"))]
#[async_trait]
impl ObjectInterfaces for StoredObjects {
    fn definition(&self, group: &str, resource: &str) -> Option<Arc<ResourceDef>> {
        self.0.all().find(|def| def.group == group && def.resource == resource).cloned()
    }

    async fn versioned<'o>(
        &self,
        _: &Attributes<'_>,
        _: &MatchedResource,
        object: &'o Object,
    ) -> Result<Cow<'o, Value>, Status> {
        Ok(Cow::Borrowed(object.as_value()))
    }

    fn decode(&self, _: &Attributes<'_>, _: &MatchedResource, object: Value) -> Result<Value, Status> {
        limits::check(&object).map_err(|limit| Status::internal(limit.into_status().message))?;
        Ok(object)
    }

    fn decode_strictly(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status> {
        self.decode(attributes, matched, object)
    }

    fn merge(
        &self,
        attributes: &Attributes<'_>,
        _: &MatchedResource,
        object: &Value,
        configuration: &Value,
    ) -> Result<Value, String> {
        use nave_patch::managed_fields::{TypeRef, merge_configuration};
        let ty = attributes.def.storage.as_ref().and_then(|storage| storage.type_id);
        let ty = ty.map_or(TypeRef::Deduced, |id| TypeRef::Struct(nave_schema::builtin(), id));
        merge_configuration(ty, object, configuration).map_err(|error| error.to_string())
    }

    async fn restore_stored(
        &self,
        _: &Attributes<'_>,
        _: &MatchedResource,
        object: Value,
        _: &Object,
    ) -> Result<Object, Status> {
        Object::try_from(object).map_err(Status::internal)
    }
}
