//! Objects in the versions that webhooks and policies see.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use nave_admission::matching::MatchedResource;
use nave_admission::{Attributes, ObjectInterfaces};
use nave_machinery::limits::{self, LimitError};
use nave_machinery::options::FieldValidation;
use nave_machinery::{GroupVersion, Object, Reason, Status, Value};
use nave_patch::managed_fields::merge_configuration;
use nave_resources::{ResourceDef, Schema};

use crate::catalog::{Catalog, Catalogs};
use crate::endpoints::Endpoint;
use crate::endpoints::decode::{self, Body, Refusal};
use crate::endpoints::versions;
use crate::endpoints::view::View;
use crate::endpoints::write::{type_ref, typed_object, view_type, with_changed_metadata};

/// Converts objects by the current catalog.
pub(super) struct CatalogObjects(pub(super) Catalogs);

/// The form in which a matched resource shows an object.
enum Form<'a> {
    /// A view of a stored object.
    View(&'a Endpoint, View),
    /// The object of a virtual resource or subresource, which has one form.
    Only(Schema),
}

impl<'a> Form<'a> {
    fn new(
        catalog: &'a Catalog,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
    ) -> Result<Self, Status> {
        let unknown = || Status::internal(format!("unable to convert to {}: unknown kind", matched.kind));
        let endpoint = catalog.endpoint(&matched.resource).ok_or_else(unknown)?;
        let subresource = attributes.subresource;
        Ok(match View::for_subresource(endpoint, subresource) {
            Ok(view) if endpoint.def.storage.is_some() => Self::View(endpoint, view),
            _ => Self::Only(match endpoint.version().subresource(subresource) {
                Some(subresource) => Schema::Builtin(subresource.type_id),
                None => endpoint.version().schema.clone(),
            }),
        })
    }
}

impl CatalogObjects {
    fn decode_as(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        let body = Body { object, ..Body::default() };
        let catalog = self.0.load();
        let decoded = match Form::new(&catalog, attributes, matched)? {
            Form::View(endpoint, view) => typed_object(endpoint, &view, body, validation),
            Form::Only(schema) => {
                decode::typed(body, &matched.kind, &schema, validation).and_then(|(mut object, _)| {
                    decode::set_defaults(&mut object, &schema)?;
                    limits::check(&object).map_err(LimitError::into_status)?;
                    Ok((object, Vec::new()))
                })
            }
        };
        decoded.map(|(object, _)| object).map_err(undecodable)
    }
}

/// Returns the error for the client if a changed object is not of the kind.
fn undecodable(Refusal { status, why }: Refusal) -> Status {
    match why {
        // As upstream, where the conversion at the end of admission fails.
        Some(why) if why.starts_with("converting ") => Status::failure(500, Reason::Unknown, why),
        Some(why) => Status::internal(why),
        None => Status::internal(status.message),
    }
}

/// Returns whether a view shows an object of a request without a conversion.
fn is_shown_as_is(endpoint: &Endpoint, view: &View, object: &Object) -> bool {
    let served = endpoint.gvk().group_version();
    let found = match &endpoint.def.storage {
        Some(storage) if !endpoint.def.is_custom() => storage.version.clone(),
        _ => GroupVersion::parse(object.api_version()).unwrap_or_default(),
    };
    !matches!(view, View::Scale(_)) && found == served
}

#[async_trait]
impl ObjectInterfaces for CatalogObjects {
    fn definition(&self, group: &str, resource: &str) -> Option<Arc<ResourceDef>> {
        let catalog = self.0.load();
        let group = catalog.registry().group(group)?;
        group.resources.iter().find(|def| def.resource == resource).cloned()
    }

    async fn versioned<'o>(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: &'o Object,
    ) -> Result<Cow<'o, Value>, Status> {
        let catalog = self.0.load();
        match Form::new(&catalog, attributes, matched)? {
            Form::View(endpoint, view) if !is_shown_as_is(endpoint, &view, object) => {
                let version = endpoint.gvk().group_version();
                let object = versions::convert_custom(endpoint, object.as_value().clone(), &version).await?;
                view.to_served(endpoint, object).map(Cow::Owned)
            }
            Form::View(..) | Form::Only(_) => Ok(Cow::Borrowed(object.as_value())),
        }
    }

    fn decode(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status> {
        self.decode_as(attributes, matched, object, FieldValidation::Ignore)
    }

    fn decode_metadata(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status> {
        let catalog = self.0.load();
        match Form::new(&catalog, attributes, matched)? {
            Form::View(endpoint, view) if matches!(view.schema(endpoint), Schema::Builtin(_)) => {
                with_changed_metadata(endpoint, &view, object).map_err(undecodable)
            }
            _ => self.decode(attributes, matched, object),
        }
    }

    fn decode_strictly(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
    ) -> Result<Value, Status> {
        // Upstream decodes custom resources without their schema.
        let is_custom = attributes.def.is_custom();
        let validation = if is_custom { FieldValidation::Ignore } else { FieldValidation::Strict };
        self.decode_as(attributes, matched, object, validation)
    }

    fn merge(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: &Value,
        configuration: &Value,
    ) -> Result<Value, String> {
        let catalog = self.0.load();
        let form = Form::new(&catalog, attributes, matched).map_err(|status| status.message)?;
        let unknown = || format!("no type for {}", matched.kind);
        let ty = match &form {
            Form::View(endpoint, view) => view_type(endpoint, view).ok_or_else(unknown)?,
            Form::Only(Schema::Builtin(type_id)) => type_ref(*type_id),
            Form::Only(Schema::Custom(_)) => return Err(unknown()),
        };
        merge_configuration(ty, object, configuration).map_err(|error| error.to_string())
    }

    async fn restore_stored(
        &self,
        attributes: &Attributes<'_>,
        matched: &MatchedResource,
        object: Value,
        base: &Object,
    ) -> Result<Object, Status> {
        let catalog = self.0.load();
        let object = match Form::new(&catalog, attributes, matched)? {
            Form::View(endpoint, view) if endpoint.def.is_custom() => {
                let requested = GroupVersion::parse(base.api_version()).unwrap_or_default();
                let version = endpoint.gvk().group_version();
                let base = versions::convert_custom(endpoint, base.as_value().clone(), &version).await?;
                let object = view.to_storage(endpoint, &base, object)?;
                versions::convert_custom(endpoint, object, &requested).await?
            }
            Form::View(endpoint, view) => view.to_storage(endpoint, base.as_value(), object)?,
            Form::Only(_) => object,
        };
        Object::try_from(object).map_err(Status::internal)
    }
}
