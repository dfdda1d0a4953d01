//! Virtual resources and subresources (reviews, `binding`, `eviction`, `token`). A create returns a computed object,
//! which is not stored.
//!
//! [`VirtualResources`] maps each of them to its implementation. This module decodes, defaults and admits the body in
//! the same way for all of them.

use std::sync::Arc;

use async_trait::async_trait;
use nave_admission::{Attributes, Operation, RequestOptions};
use nave_machinery::options::CreateOptions;
use nave_machinery::{GroupVersionKind, Object, Status, Value, managed_fields, meta};
use nave_resources::{ResourceDef, Schema};

use super::computed_resource::ComputedResource;
use super::response::ObjectResponse;
use super::view::View;
use super::write::{Payload, Target};
use super::{Endpoint, Resources, decode};
use crate::catalog::Catalog;
use crate::context::RequestContext;
use crate::lifecycle;
use crate::request_info::ResourceRequest;

/// Implements the create of a virtual resource or subresource.
#[async_trait]
pub trait VirtualResource: Send + Sync {
    /// Handles a create. `object` is the decoded and admitted body. Returns an object of the same kind, or a `Status`
    /// of success.
    ///
    /// # Errors
    /// The failure for the client.
    async fn create(&self, request: &VirtualRequest<'_>, object: Value) -> Result<Value, Status>;

    /// Sets the defaults that the type does not have.
    fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Returns whether a body with another version of the kind and the same structure is accepted.
    fn accepts(&self, api_version: &str) -> bool {
        let _ = api_version;
        false
    }
}

/// A create of a virtual resource.
#[derive(Clone, Copy)]
pub struct VirtualRequest<'a> {
    /// The served resources.
    pub resources: &'a Resources,
    /// The catalog, for handlers that read or write other objects.
    pub catalog: &'a Catalog,
    /// The resource in the path.
    pub endpoint: &'a Endpoint,
    /// The parsed path: namespace, name, subresource.
    pub resource: &'a ResourceRequest,
    /// The request.
    pub context: &'a RequestContext,
    /// The options of the create.
    pub options: &'a CreateOptions,
}

impl<'a> VirtualRequest<'a> {
    /// Returns the target for a write to an object in the request's namespace.
    pub fn target(&self, endpoint: &'a Endpoint, name: &'a str) -> Target<'a> {
        let &Self { resources, resource, context, .. } = self;
        let (namespace, admission) = (resource.namespace.as_str(), resources.admission());
        Target { context, endpoint, view: View::Object, namespace, name, admission }
    }

    /// Returns the namespace; empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        &self.resource.namespace
    }

    /// Returns the name of the object; empty for a virtual resource.
    pub fn name(&self) -> &str {
        &self.resource.name
    }

    /// Returns the kind of the request and response bodies, and its schema.
    fn kind(&self) -> (GroupVersionKind, Schema) {
        let (own, subresource) = (self.endpoint.gvk(), &self.resource.subresource);
        let Some(found) =
            self.endpoint.version().subresource(subresource).filter(|_| !subresource.is_empty())
        else {
            return (own, self.endpoint.version().schema.clone());
        };
        let gvk = self.endpoint.def.kind_of(self.endpoint.version(), subresource).unwrap_or(own);
        (gvk, Schema::Builtin(found.type_id))
    }
}

/// The virtual resources, by group, resource and subresource (empty for the resource itself).
#[derive(Clone, Default)]
pub struct VirtualResources {
    entries: Vec<Entry>,
    computed: Vec<ComputedEntry>,
}

/// One virtual resource or subresource. They are searched linearly, which is faster than hashing for so few.
#[derive(Clone)]
struct Entry {
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    virtual_resource: Arc<dyn VirtualResource>,
}

/// One resource whose objects are computed.
#[derive(Clone)]
struct ComputedEntry {
    group: &'static str,
    resource: &'static str,
    computed: Arc<dyn ComputedResource>,
}

impl VirtualResources {
    /// Adds a virtual resource or subresource.
    pub fn with(
        mut self,
        group: &'static str,
        resource: &'static str,
        subresource: &'static str,
        virtual_resource: Arc<dyn VirtualResource>,
    ) -> Self {
        self.entries.push(Entry { group, resource, subresource, virtual_resource });
        self
    }

    /// Adds a resource whose objects are computed when they are read.
    pub fn with_computed(
        mut self,
        group: &'static str,
        resource: &'static str,
        computed: Arc<dyn ComputedResource>,
    ) -> Self {
        self.computed.push(ComputedEntry { group, resource, computed });
        self
    }

    /// Returns the implementation of a resource whose objects are computed.
    pub(super) fn find_computed(&self, def: &ResourceDef) -> Option<&Arc<dyn ComputedResource>> {
        let here = |entry: &&ComputedEntry| entry.resource == def.resource && entry.group == def.group;
        self.computed.iter().find(here).map(|entry| &entry.computed)
    }

    /// Returns the implementation of a resource or subresource.
    pub(super) fn find(&self, def: &ResourceDef, subresource: &str) -> Option<&dyn VirtualResource> {
        let here = |entry: &&Entry| {
            entry.subresource == subresource && entry.resource == def.resource && entry.group == def.group
        };
        self.entries.iter().find(here).map(|entry| entry.virtual_resource.as_ref())
    }
}

/// Decodes and admits the body of a request, and returns the computed object.
///
/// # Errors
/// The error of an invalid body, or of the implementation.
pub(super) async fn create(
    virtual_resource: &dyn VirtualResource,
    request: &VirtualRequest<'_>,
    payload: &Payload,
) -> Result<ObjectResponse, Status> {
    let (gvk, schema) = request.kind();
    let mut body = decode::parse(&payload.bytes, payload.format()?, &gvk.kind)?;
    if virtual_resource.accepts(meta::api_version(&body.object)) {
        body.object["apiVersion"] = gvk.group_version().to_string().into();
    }
    let (mut object, warnings) = decode::typed(body, &gvk, &schema, request.options.validation())?;
    for warning in warnings {
        request.context.notes.warn(warning);
    }
    decode::set_defaults(&mut object, &schema)?;
    virtual_resource.default(&mut object);
    if let Some(record) = &request.context.audit {
        record.request_object(&object);
    }
    drop_texts(&mut object);
    lifecycle::ensure_namespace(&mut object, request.namespace())?;
    // If the path has no name, the name is in the object.
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
        verb: request.context.info.attribute_verb(),
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

/// Drops managed fields with `fieldsV1` texts. No field manager has checked them, and the trees that policies see could
/// take a hundred times their memory.
fn drop_texts(object: &mut Value) {
    if managed_fields::has_texts(object) {
        meta::remove(object, "managedFields");
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;
    use serde_json::json;

    use super::*;

    struct Nothing;

    #[async_trait]
    impl VirtualResource for Nothing {
        async fn create(&self, _: &VirtualRequest<'_>, object: Value) -> Result<Value, Status> {
            Ok(object)
        }
    }

    #[test]
    fn texts_of_clients_in_managed_fields_are_dropped() {
        let review =
            |fields: Value| json!({"metadata": {"managedFields": [{"fieldsV1": fields}]}, "spec": {}});
        let mut with_text = review(json!("[{},{}]"));
        drop_texts(&mut with_text);
        assert_eq!(with_text, json!({"metadata": {}, "spec": {}}));
        let tree = review(json!({"f:spec": {}}));
        let mut kept = tree.clone();
        drop_texts(&mut kept);
        assert_eq!(kept, tree);
    }

    #[test]
    fn finds_an_entry_by_resource_and_subresource() {
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
