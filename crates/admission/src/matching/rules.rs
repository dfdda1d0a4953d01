//! Rules of webhooks and policies: operations on resources.

use nave_machinery::GroupVersionResource;
use serde::Deserialize;

use crate::attributes::{Attributes, Operation};

/// A rule (upstream: `NamedRuleWithOperations`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub(super) api_groups: Vec<String>,
    api_versions: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) operations: Vec<String>,
    scope: Option<String>,
    resource_names: Vec<String>,
}

/// The parts of a request that rules match.
#[derive(Clone, Copy)]
pub(super) struct Requested<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    operation: Operation,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Requested<'a> {
    pub(super) fn new(attributes: &'a Attributes<'_>) -> Self {
        Self {
            group: &attributes.def.group,
            version: attributes.version,
            resource: &attributes.def.resource,
            subresource: attributes.subresource,
            operation: attributes.operation,
            namespace: attributes.request_namespace(),
            name: attributes.name,
        }
    }

    /// Returns the same request for another resource.
    pub(super) fn as_resource<'b>(self, resource: &'b GroupVersionResource) -> Requested<'b>
    where
        'a: 'b,
    {
        Requested { group: &resource.group, version: &resource.version, resource: &resource.resource, ..self }
    }

    fn is_namespaced(&self) -> bool {
        // The namespace of a request for a namespace is the namespace itself, which is a cluster-scoped object.
        let is_namespace = (self.group, self.version, self.resource) == ("", "v1", "namespaces");
        !is_namespace && !self.namespace.is_empty()
    }
}

impl Rule {
    pub(super) fn matches(&self, requested: &Requested<'_>) -> bool {
        self.matches_scope(requested)
            && has(&self.operations, requested.operation.as_str())
            && has(&self.api_groups, requested.group)
            && has(&self.api_versions, requested.version)
            && self.resources.iter().any(|pattern| {
                let (resource, subresource) = split(pattern);
                (resource == "*" || resource == requested.resource)
                    && (subresource == "*" || subresource == requested.subresource)
            })
            // As upstream, a generated name is not known yet and matches no name.
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == requested.name))
    }

    fn matches_scope(&self, requested: &Requested<'_>) -> bool {
        match self.scope.as_deref() {
            None | Some("*") => true,
            Some("Namespaced") => requested.is_namespaced(),
            Some("Cluster") => !requested.is_namespaced(),
            Some(_) => false,
        }
    }
}

/// Splits `pods/status` into resource and subresource.
pub(super) fn split(pattern: &str) -> (&str, &str) {
    pattern.split_once('/').unwrap_or((pattern, ""))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}
