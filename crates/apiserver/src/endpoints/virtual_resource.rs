//! Creates whose answer is computed: the reviews, and subresources with a meaning of their own (`binding`,
//! `eviction`, `token`).
//!
//! What is computed where is one table, filled where the server is put together; the body is decoded, defaulted and
//! admitted here, for all alike.

use std::sync::Arc;

use async_trait::async_trait;
use nave_admission::{Attributes, Operation, RequestOptions};
use nave_machinery::options::CreateOptions;
use nave_machinery::{GroupVersionKind, Object, Status, Value, meta};
use nave_resources::ResourceDef;
use nave_schema::TypeId;

use super::response::ObjectResponse;
use super::view::View;
use super::write::{Payload, Target};
use super::{Endpoint, Resources, decode};
use crate::context::RequestContext;
use crate::lifecycle;
use crate::request_info::ResourceRequest;

/// What answers the creates of one resource or subresource.
#[async_trait]
pub trait VirtualResource: Send + Sync {
    /// Answers a create; `object` is the decoded and admitted body, the outcome an object of the same kind, or a
    /// `Status` that is a success.
    ///
    /// # Errors
    /// What the client is told instead.
    async fn create(&self, request: &VirtualRequest<'_>, object: Value) -> Result<Value, Status>;

    /// Returns whether a body of another version of the kind is taken, which has the same form.
    fn accepts(&self, api_version: &str) -> bool {
        let _ = api_version;
        false
    }
}

/// What a create is about.
#[derive(Clone, Copy)]
pub struct VirtualRequest<'a> {
    /// All resources served, for what reads or writes other objects.
    pub resources: &'a Resources,
    /// The resource in the path.
    pub endpoint: &'a Endpoint,
    /// The parts of the path: namespace, name, subresource.
    pub resource: &'a ResourceRequest,
    /// The request.
    pub context: &'a RequestContext,
    /// The options of the create.
    pub options: &'a CreateOptions,
}

impl<'a> VirtualRequest<'a> {
    /// The target of a write to an object in the request's namespace.
    pub fn target(&self, endpoint: &'a Endpoint, name: &'a str) -> Target<'a> {
        let &Self { resources, resource, context, .. } = self;
        let (namespace, admission) = (resource.namespace.as_str(), resources.admission());
        Target { context, endpoint, view: View::Object, namespace, name, admission }
    }

    /// The namespace; empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        &self.resource.namespace
    }

    /// The object's name; empty where a virtual resource itself is asked.
    pub fn name(&self) -> &str {
        &self.resource.name
    }

    /// The kind that is taken and answered with, and its type.
    fn kind(&self) -> (GroupVersionKind, Option<TypeId>) {
        let (own, subresource) = (self.endpoint.gvk(), &self.resource.subresource);
        let Some(found) = self.endpoint.def.subresource(subresource).filter(|_| !subresource.is_empty())
        else {
            return (own, self.endpoint.version().type_id);
        };
        let GroupVersionKind { group, version, kind } = &found.response;
        let gvk = if version.is_empty() {
            GroupVersionKind::new(&own.group, &own.version, kind)
        } else {
            GroupVersionKind::new(group, version, kind)
        };
        (gvk, found.type_id)
    }
}

/// What is computed where: by group, resource and subresource (empty for the resource itself).
#[derive(Clone, Default)]
pub struct VirtualResources {
    places: Vec<Place>,
}

/// One of a handful: a walk over them is cheaper than a hash.
#[derive(Clone)]
struct Place {
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    virtual_resource: Arc<dyn VirtualResource>,
}

impl VirtualResources {
    /// The same table with one more place.
    pub fn with(
        mut self,
        group: &'static str,
        resource: &'static str,
        subresource: &'static str,
        virtual_resource: Arc<dyn VirtualResource>,
    ) -> Self {
        self.places.push(Place { group, resource, subresource, virtual_resource });
        self
    }

    /// What answers at a place.
    pub(super) fn find(&self, def: &ResourceDef, subresource: &str) -> Option<&dyn VirtualResource> {
        let here = |place: &&Place| {
            place.subresource == subresource && place.resource == def.resource && place.group == def.group
        };
        self.places.iter().find(here).map(|place| place.virtual_resource.as_ref())
    }
}

/// Decodes and admits a body, and answers what is computed from it.
///
/// # Errors
/// What is wrong with the body, or what the computation says.
pub(super) async fn create(
    virtual_resource: &dyn VirtualResource,
    request: &VirtualRequest<'_>,
    payload: &Payload,
) -> Result<ObjectResponse, Status> {
    let (gvk, type_id) = request.kind();
    let mut body = decode::parse(&payload.bytes, payload.format()?, &gvk.kind)?;
    if virtual_resource.accepts(meta::api_version(&body.object)) {
        body.object["apiVersion"] = gvk.group_version().to_string().into();
    }
    let (mut object, warnings) = decode::typed(body, &gvk, type_id, request.options.validation())?;
    for warning in warnings {
        request.context.notes.warn(warning);
    }
    decode::set_defaults(&mut object, type_id)?;
    lifecycle::ensure_namespace(&mut object, request.namespace())?;
    // A create without a name in its path is of the object's name.
    let name =
        if request.name().is_empty() { meta::name(&object).to_owned() } else { request.name().to_owned() };
    let attributes = Attributes {
        def: &request.endpoint.def,
        kind: &gvk,
        version: &request.endpoint.version().name,
        subresource: &request.resource.subresource,
        namespace: request.namespace(),
        name: &name,
        operation: Operation::Create,
        old: None,
        options: RequestOptions::Write(request.options),
        user: request.context.user(),
        deadline: request.context.work_deadline(),
        notes: &request.context.notes,
    };
    let admission = request.resources.admission();
    let mut object = Object::try_from(object).map_err(Status::internal)?;
    admission.mutate(&attributes, Some(&mut object)).await?;
    admission.validate(&attributes, Some(&object)).await?;
    let answer = virtual_resource.create(request, object.into_value()).await?;
    Ok(ObjectResponse::document(201, answer))
}

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;

    use super::*;

    struct Nothing;

    #[async_trait]
    impl VirtualResource for Nothing {
        async fn create(&self, _: &VirtualRequest<'_>, object: Value) -> Result<Value, Status> {
            Ok(object)
        }
    }

    #[test]
    fn a_place_is_of_one_resource_and_subresource() {
        let registry = Registry::builtin(nave_schema::builtin());
        let def = |resource| registry.lookup(&GroupVersionResource::new("", "v1", resource)).unwrap();
        let table = VirtualResources::default().with("", "pods", "binding", Arc::new(Nothing));
        for (resource, subresource, found) in [
            ("pods", "binding", true),
            ("pods", "", false),
            ("pods", "eviction", false),
            ("services", "binding", false),
        ] {
            assert_eq!(table.find(def(resource), subresource).is_some(), found, "{resource}/{subresource}");
        }
    }
}
