//! The objects of a request in the version that a webhook or policy sees.

use nave_machinery::{Object, Status, Value};

use crate::attributes::Attributes;
use crate::expressions::VersionedRequest;
use crate::matching::MatchedResource;
use crate::objects::ObjectInterfaces;

/// The new and the old object in the kind of a matched resource (upstream: `VersionedAttributes`).
#[derive(Clone, Debug)]
pub(crate) struct Versioned {
    pub(crate) matched: MatchedResource,
    /// The new object; null if the request has none.
    pub(crate) object: Value,
    /// The old object; null if the request has none.
    pub(crate) old_object: Value,
}

impl Versioned {
    /// Converts the objects of a request.
    ///
    /// # Errors
    /// A conversion fails.
    pub(crate) async fn new(
        interfaces: &dyn ObjectInterfaces,
        attributes: &Attributes<'_>,
        matched: MatchedResource,
        object: Option<&Object>,
    ) -> Result<Self, Status> {
        let mut converted = [Value::Null, Value::Null];
        for (place, object) in converted.iter_mut().zip([object, attributes.old]) {
            if let Some(object) = object {
                *place = interfaces.versioned(attributes, &matched, object).await?;
            }
        }
        let [object, old_object] = converted;
        Ok(Self { matched, object, old_object })
    }

    /// Returns the request in this version.
    pub(crate) fn request<'a>(&'a self, attributes: &'a Attributes<'a>) -> VersionedRequest<'a> {
        VersionedRequest {
            attributes,
            kind: &self.matched.kind,
            resource: &self.matched.resource,
            object: &self.object,
            old_object: &self.old_object,
        }
    }
}
