//! The request as expressions see it.

use std::collections::BTreeMap;

use nave_cel::ResourceCheck;
use nave_cel::policies::PolicyInput;
use nave_machinery::{GroupVersionKind, GroupVersionResource, Value};
use serde::Serialize;

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
    /// Returns the fields of an `AdmissionRequest` except the objects. `resource` is the matched resource, or the
    /// requested one for match conditions.
    pub(crate) fn fields<'f>(
        &'f self,
        uid: &'f str,
        resource: &'f GroupVersionResource,
    ) -> RequestFields<'f> {
        let Attributes { def, kind, version, subresource, name, operation, user, .. } = self.attributes;
        RequestFields {
            uid,
            kind: self.kind,
            resource,
            request_kind: kind,
            request_resource: ResourceFields { group: &def.group, version, resource: &def.resource },
            sub_resource: subresource,
            request_sub_resource: subresource,
            name,
            namespace: self.attributes.request_namespace(),
            operation: operation.as_str(),
            user_info: UserFields {
                username: &user.name,
                uid: &user.uid,
                groups: &user.groups,
                extra: &user.extra,
            },
            dry_run: self.attributes.dry_run(),
            options: self.attributes.options_object(),
        }
    }

    /// Returns the variable `request`: an `AdmissionRequest` with objects that are null (upstream:
    /// `CreateAdmissionRequest`).
    pub(crate) fn admission_request(&self, resource: &GroupVersionResource) -> Value {
        // Fields of these types always have a JSON form.
        let mut request = serde_json::to_value(self.fields("", resource)).unwrap_or_default();
        if let Value::Object(fields) = &mut request {
            fields.extend(["object", "oldObject"].map(|name| (name.to_owned(), Value::Null)));
        }
        request
    }
}

/// The fields of an `AdmissionRequest` except the objects.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestFields<'a> {
    uid: &'a str,
    kind: &'a GroupVersionKind,
    resource: &'a GroupVersionResource,
    request_kind: &'a GroupVersionKind,
    request_resource: ResourceFields<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'a str,
    user_info: UserFields<'a>,
    dry_run: bool,
    options: Value,
}

#[derive(Serialize)]
struct ResourceFields<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
}

#[derive(Serialize)]
struct UserFields<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
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
