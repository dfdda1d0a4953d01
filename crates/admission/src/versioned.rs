//! The objects of a request in the version that a webhook or policy sees.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use nave_machinery::{Object, Status, Value, managed_fields};

use crate::attributes::Attributes;
use crate::expressions::VersionedRequest;
use crate::matching::MatchedResource;
use crate::objects::ObjectInterfaces;

/// An object in the version that a webhook or policy sees. It is borrowed from the request if it needs no conversion.
#[derive(Clone, Debug, Default)]
pub struct VersionedObject<'o> {
    /// The object; null if the request has none. `fieldsV1` has either form of [`managed_fields`].
    object: Cow<'o, Value>,
    /// The object without `fieldsV1` texts, made when an expression needs it.
    expanded: OnceLock<Value>,
}

impl<'o> VersionedObject<'o> {
    /// Creates the object from a value whose `fieldsV1` has either form of [`managed_fields`].
    pub fn new(object: Cow<'o, Value>) -> Self {
        Self { object, expanded: OnceLock::new() }
    }

    /// Returns the object for an encoder of both forms of `fieldsV1`.
    pub(crate) fn packed(&self) -> &Value {
        &self.object
    }

    /// Returns the object with trees in `fieldsV1`.
    pub(crate) fn as_value(&self) -> &Value {
        if !managed_fields::has_texts(&self.object) {
            return &self.object;
        }
        self.expanded.get_or_init(|| {
            let mut object = Value::clone(&self.object);
            managed_fields::expand(&mut object);
            object
        })
    }

    /// Returns the object with trees in `fieldsV1`.
    pub(crate) fn into_value(self) -> Value {
        self.expanded.into_inner().unwrap_or_else(|| {
            let mut object = self.object.into_owned();
            managed_fields::expand(&mut object);
            object
        })
    }

    fn is_borrowed(&self) -> bool {
        matches!(self.object, Cow::Borrowed(_))
    }
}

impl From<Value> for VersionedObject<'static> {
    fn from(object: Value) -> Self {
        Self::new(Cow::Owned(object))
    }
}

/// The new and the old object in the kind of a matched resource (upstream: `VersionedAttributes`).
#[derive(Clone, Debug)]
pub(crate) struct Versioned<'o> {
    pub(crate) matched: MatchedResource,
    /// The new object; null if the request has none.
    pub(crate) object: VersionedObject<'o>,
    /// The old object; null if the request has none.
    pub(crate) old_object: VersionedObject<'o>,
}

impl<'o> Versioned<'o> {
    /// Converts the objects of a request.
    ///
    /// # Errors
    /// A conversion fails.
    pub(crate) async fn new(
        interfaces: &dyn ObjectInterfaces,
        attributes: &Attributes<'o>,
        matched: MatchedResource,
        object: Option<&'o Object>,
    ) -> Result<Self, Status> {
        let mut converted = [VersionedObject::default(), VersionedObject::default()];
        for (place, object) in converted.iter_mut().zip([object, attributes.old]) {
            if let Some(object) = object {
                *place = VersionedObject::new(interfaces.versioned(attributes, &matched, object).await?);
            }
        }
        let [object, old_object] = converted;
        Ok(Self { matched, object, old_object })
    }

    /// Returns the objects as their own copies.
    pub(crate) fn into_owned(self) -> Versioned<'static> {
        let [object, old_object] = [self.object, self.old_object].map(|it| it.into_value().into());
        Versioned { matched: self.matched, object, old_object }
    }

    /// Returns whether the new object is borrowed, because it has the version of the request.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.object.is_borrowed()
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

/// The versions of the objects of a request, each converted once.
pub(crate) struct Versions<'a> {
    interfaces: &'a dyn ObjectInterfaces,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Object>,
    made: Vec<Arc<Versioned<'a>>>,
}

impl<'a> Versions<'a> {
    pub(crate) fn new(
        interfaces: &'a dyn ObjectInterfaces,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Object>,
    ) -> Self {
        Self { interfaces, attributes, object, made: Vec::new() }
    }

    /// Returns the objects in the kind of a matched resource.
    ///
    /// # Errors
    /// A conversion fails.
    pub(crate) async fn get(&mut self, matched: &MatchedResource) -> Result<Arc<Versioned<'a>>, Status> {
        if let Some(made) = self.made.iter().find(|it| it.matched == *matched) {
            return Ok(Arc::clone(made));
        }
        let made = Versioned::new(self.interfaces, self.attributes, matched.clone(), self.object).await?;
        let made = Arc::new(made);
        self.made.push(Arc::clone(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(fields: &Value) -> Value {
        json!({"metadata": {"managedFields": [{"fieldsV1": fields}]}})
    }

    #[test]
    fn expressions_see_trees_and_encoders_see_texts() {
        let (packed, tree) = (object(&json!("{\"f:a\":{}}")), object(&json!({"f:a": {}})));
        let versioned = VersionedObject::new(Cow::Borrowed(&packed));
        assert!(versioned.is_borrowed());
        assert_eq!((versioned.packed(), versioned.as_value()), (&packed, &tree));
        assert_eq!(versioned.into_value(), tree);
        let versioned = VersionedObject::new(Cow::Borrowed(&tree));
        assert!(std::ptr::eq(versioned.as_value(), &raw const tree));
        assert_eq!(VersionedObject::from(packed).into_value(), tree);
        assert_eq!(VersionedObject::default().into_value(), Value::Null);
    }
}
