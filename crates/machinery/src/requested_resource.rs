//! The resource of a request, as flow schemas and audit policies match it.

/// The resource of a request. Parts that are absent are empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestedResource<'a> {
    /// The API group.
    pub group: &'a str,
    /// The API version.
    pub version: &'a str,
    /// The resource, in plural.
    pub resource: &'a str,
    /// The subresource.
    pub subresource: &'a str,
    /// The namespace.
    pub namespace: &'a str,
    /// The name of the object.
    pub name: &'a str,
}
