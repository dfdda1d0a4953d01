//! Who asks for what: the input of every authorizer.

use nave_machinery::selector::{FieldRequirement, Requirement};
use nave_machinery::user::UserInfo;

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// What is done: `get`, `list`, …; for other paths the method in lower case.
    pub verb: &'a str,
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The version of the group.
    pub version: &'a str,
    /// The resource, such as `pods`; empty for other paths.
    pub resource: &'a str,
    /// The subresource, such as `status`; empty for none.
    pub subresource: &'a str,
    /// The object's name; empty where the request names none.
    pub name: &'a str,
    /// The namespace; empty for cluster-scoped resources and for all namespaces.
    pub namespace: &'a str,
    /// The path asked for.
    pub path: &'a str,
    /// What a list, a watch or a deletion of a collection asks of fields.
    pub fields: Selected<'a, FieldRequirement>,
    /// What a list, a watch or a deletion of a collection asks of labels.
    pub labels: Selected<'a, Requirement>,
}

/// The requirements of a selector that could be read.
///
/// A requirement that could not be read is left out. That is safe: requirements narrow what is asked for, so without
/// one the question is about more, not less.
#[derive(Debug)]
pub struct Selected<'a, R> {
    /// The requirements.
    pub requirements: &'a [R],
    /// Whether some could not be read.
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
    /// Attributes with all but the user empty.
    pub fn of(user: &'a UserInfo) -> Self {
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

    /// Whether a resource is asked for, not another path.
    pub fn is_resource_request(&self) -> bool {
        !self.resource.is_empty()
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.user.groups.iter().any(|of| of == group)
    }

    /// Whether only objects are asked for whose field has this value.
    pub fn requires_field(&self, path: &str, value: &str) -> bool {
        let required = |it: &FieldRequirement| it.path == path && !it.negated && it.value == value;
        self.fields.requirements.iter().any(required)
    }
}
