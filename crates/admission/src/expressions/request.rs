//! The request as expressions see it.

use nave_cel::ResourceCheck;
use nave_cel::policies::PolicyInput;
use nave_machinery::{GroupVersionKind, GroupVersionResource, Map, Value};
use serde_json::json;

use crate::attributes::Attributes;
use crate::versioned::VersionedObject;

/// A request in the version that the rules of a webhook or policy matched.
#[derive(Clone, Copy)]
pub struct VersionedRequest<'a> {
    /// The attributes.
    pub attributes: &'a Attributes<'a>,
    /// The kind of the object and the old object.
    pub kind: &'a GroupVersionKind,
    /// The resource that the rules matched.
    pub resource: &'a GroupVersionResource,
    /// The new object; null on a deletion.
    pub object: &'a VersionedObject<'a>,
    /// The old object; null on a create.
    pub old_object: &'a VersionedObject<'a>,
}

impl VersionedRequest<'_> {
    /// Returns the variable `request`: an `AdmissionRequest` without objects (upstream: `CreateAdmissionRequest`).
    /// `resource` is the matched resource, or the requested one for match conditions.
    pub(crate) fn admission_request(&self, resource: &GroupVersionResource) -> Value {
        let attributes = self.attributes;
        let mut request = Map::new();
        let mut set = |name: &str, value: Value| request.insert(name.to_owned(), value);
        set("uid", "".into());
        set("kind", kind(self.kind));
        set("resource", resource_value(resource));
        set("requestKind", kind(attributes.kind));
        set("requestResource", resource_value(&attributes.resource()));
        let texts = [
            ("subResource", attributes.subresource),
            ("requestSubResource", attributes.subresource),
            ("name", attributes.name),
            ("namespace", attributes.request_namespace()),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            set(name, text.into());
        }
        set("operation", attributes.operation.as_str().into());
        set("userInfo", user_info(attributes));
        set("object", Value::Null);
        set("oldObject", Value::Null);
        set("dryRun", attributes.dry_run().into());
        set("options", attributes.options_object());
        Value::Object(request)
    }
}

/// The values of the variables of one evaluation, which borrow the request.
pub(crate) struct Inputs<'a> {
    object: &'a Value,
    old_object: &'a Value,
    request: Value,
    namespace: &'a Value,
    params: Option<&'a Value>,
}

impl<'a> Inputs<'a> {
    /// Creates the inputs of validations, mutations, messages and audit annotations. `params` is `None` if the policy
    /// has no `paramKind`.
    pub(crate) fn new(
        request: &VersionedRequest<'a>,
        namespace: &'a Value,
        params: Option<&'a Value>,
    ) -> Self {
        Self {
            object: request.object.as_value(),
            old_object: request.old_object.as_value(),
            request: request.admission_request(request.resource),
            namespace,
            params,
        }
    }

    /// Creates the inputs of match conditions, in which `namespaceObject` is null.
    pub(crate) fn for_conditions(request: &VersionedRequest<'a>, params: Option<&'a Value>) -> Self {
        let requested = request.attributes.resource();
        Self {
            object: request.object.as_value(),
            old_object: request.old_object.as_value(),
            request: request.admission_request(&requested),
            namespace: &Value::Null,
            params,
        }
    }

    pub(crate) fn input(&self) -> PolicyInput<'_> {
        PolicyInput {
            object: self.object,
            old_object: self.old_object,
            request: &self.request,
            namespace: self.namespace,
            params: self.params,
        }
    }
}

/// Returns `authorizer.requestResource`.
pub(crate) fn request_resource(attributes: &Attributes<'_>) -> ResourceCheck {
    ResourceCheck {
        group: attributes.def.group.clone(),
        resource: attributes.def.resource.clone(),
        subresource: attributes.subresource.to_owned(),
        namespace: attributes.request_namespace().to_owned(),
        name: attributes.name.to_owned(),
        ..ResourceCheck::default()
    }
}

fn kind(kind: &GroupVersionKind) -> Value {
    json!({"group": &*kind.group, "version": &*kind.version, "kind": &*kind.kind})
}

fn resource_value(resource: &GroupVersionResource) -> Value {
    json!({"group": &*resource.group, "version": &*resource.version, "resource": &*resource.resource})
}

fn user_info(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut info = Map::new();
    for (name, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            info.insert(name.to_owned(), text.as_str().into());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}
