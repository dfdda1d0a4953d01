//! The attributes of a request: the input of every authorizer.

use nave_machinery::selector::{FieldRequirement, Requirement};
use nave_machinery::user::UserInfo;

/// The attributes of a request.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The user who makes the request.
    pub user: &'a UserInfo,
    /// The API verb: `get`, `list`, …; for non-resource requests the HTTP method in lower case.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version of the group.
    pub version: &'a str,
    /// The resource, such as `pods`; empty for non-resource requests.
    pub resource: &'a str,
    /// The subresource, such as `status`; empty for the resource itself.
    pub subresource: &'a str,
    /// The object's name; empty if the request does not name an object.
    pub name: &'a str,
    /// The namespace; empty for cluster-scoped resources and for all namespaces.
    pub namespace: &'a str,
    /// The request path.
    pub path: &'a str,
    /// The field selector of a list, a watch or a deletion of a collection.
    pub fields: Selected<'a, FieldRequirement>,
    /// The label selector of a list, a watch or a deletion of a collection.
    pub labels: Selected<'a, Requirement>,
}

/// The parsed requirements of a selector.
///
/// Requirements that cannot be parsed are omitted. This is safe: requirements narrow a request, so the authorizer
/// decides about a broader request.
#[derive(Debug)]
pub struct Selected<'a, R> {
    /// The requirements.
    pub requirements: &'a [R],
    /// True if some requirements could not be parsed.
    pub incomplete: bool,
}

impl<R> Selected<'_, R> {
    /// No requirements.
    pub const NONE: Self = Self { requirements: &[], incomplete: false };
}

impl<R> Clone for Selected<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Selected<'_, R> {}

impl<'a> Attributes<'a> {
    /// Creates attributes with this user; all other fields are empty.
    pub fn for_user(user: &'a UserInfo) -> Self {
        let none = "";
        Self {
            user,
            verb: none,
            group: none,
            version: none,
            resource: none,
            subresource: none,
            name: none,
            namespace: none,
            path: none,
            fields: Selected::NONE,
            labels: Selected::NONE,
        }
    }

    /// Returns whether the request is for a resource and not for a non-resource path.
    pub fn is_resource_request(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Returns whether the user is a member of a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.user.groups.iter().any(|of| of == group)
    }

    /// Returns whether the field selector requires this value of a field.
    pub fn requires_field(&self, path: &str, value: &str) -> bool {
        let required = |it: &FieldRequirement| it.path == path && !it.negated && it.value == value;
        self.fields.requirements.iter().any(required)
    }
}
