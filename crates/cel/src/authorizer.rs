//! The authorizer that expressions can call.

use std::sync::Arc;

use crate::kinds::Type;

/// The decision of an authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// True if the request is allowed.
    pub allowed: bool,
    /// The reason; may be empty.
    pub reason: String,
    /// The error, if any.
    pub error: Option<String>,
}

/// The user of an authorization check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The namespace and the name of a service account; `None` for the user of the request.
    pub service_account: Option<(String, String)>,
}

impl Subject {
    pub(crate) fn service_account(namespace: &str, name: &str) -> Self {
        Self { service_account: Some((namespace.to_owned(), name.to_owned())) }
    }
}

/// An authorization check for a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathCheck {
    /// The user.
    pub subject: Arc<Subject>,
    /// The path.
    pub path: String,
}

/// An authorization check for an API group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupCheck {
    pub(crate) subject: Arc<Subject>,
    pub(crate) group: String,
}

/// An authorization check for a resource. Unset fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceCheck {
    /// The user.
    pub subject: Arc<Subject>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The field selector.
    pub field_selector: String,
    /// The label selector.
    pub label_selector: String,
}

/// Authorizes requests. Called while an expression is evaluated.
pub trait Authorizer: Sync {
    /// Authorizes access to a path.
    fn check_path(&self, check: &PathCheck, verb: &str) -> Decision;
    /// Authorizes access to a resource.
    fn check_resource(&self, check: &ResourceCheck, verb: &str) -> Decision;
}

/// An authorizer that has no opinion on any request.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAuthorizer;

impl Authorizer for NoAuthorizer {
    fn check_path(&self, _: &PathCheck, _: &str) -> Decision {
        Decision::default()
    }

    fn check_resource(&self, _: &ResourceCheck, _: &str) -> Decision {
        Decision::default()
    }
}

/// Returns the type of `authorizer`.
pub(crate) fn authorizer_type() -> Type {
    Type::object("kubernetes.authorization.Authorizer", [])
}

/// Returns the type of `authorizer.requestResource`.
pub(crate) fn resource_check_type() -> Type {
    Type::object("kubernetes.authorization.ResourceCheck", [])
}
