//! Converts the options of a list or watch to a filter of the watch cache.

use nave_cacher::{FieldRef, FieldTerm, Filter};
use nave_machinery::Status;
use nave_machinery::options::ListOptions;
use nave_resources::{ResourceDef, ResourceVersion};

use super::Endpoint;
use super::served_selector::ServedSelector;
use crate::request_info::ResourceRequest;

/// The selectors of a list or watch.
pub(super) struct Selection {
    /// The requirements that the watch cache decides.
    pub(super) cached: Filter,
    /// The requirements on fields that only a converted object has.
    pub(super) served: ServedSelector,
}

impl Selection {
    /// Reads the selectors of a request.
    ///
    /// # Errors
    /// 400 if a selector uses a field that the resource does not support.
    pub(super) fn new(
        endpoint: &Endpoint,
        request: &ResourceRequest,
        options: &ListOptions,
    ) -> Result<Self, Status> {
        let filter = filter(&endpoint.def, endpoint.version(), request, options)?;
        if endpoint.converter().is_none() {
            return Ok(Self { cached: filter, served: ServedSelector::default() });
        }
        let (cached, declared) = filter.without_declared();
        Ok(Self { cached, served: ServedSelector::new(declared) })
    }
}

/// Returns the filter of a request: namespace, name (to watch one object) and selectors.
///
/// # Errors
/// 400 if a selector uses a field that the resource does not support.
pub fn filter(
    def: &ResourceDef,
    version: &ResourceVersion,
    request: &ResourceRequest,
    options: &ListOptions,
) -> Result<Filter, Status> {
    let mut filter = Filter::all().with_labels(options.label_selector.clone());
    if def.namespaced && !request.namespace.is_empty() {
        filter = filter.in_namespace(&request.namespace);
    }
    if !request.name.is_empty() {
        filter = filter.named(&request.name);
    }
    for requirement in options.field_selector.requirements() {
        let field = field_ref(def, version, &requirement.path)
            .ok_or_else(|| Status::bad_request(unsupported(def, version, &requirement.path)))?;
        let value = requirement.value.as_str().into();
        filter = filter.with_term(FieldTerm { field, negated: requirement.negated, value });
    }
    Ok(filter)
}

fn field_ref(def: &ResourceDef, version: &ResourceVersion, path: &str) -> Option<FieldRef> {
    match path {
        "metadata.name" => Some(FieldRef::Name),
        // As upstream, only cluster-scoped kinds with fields of their own refuse it.
        "metadata.namespace" if def.namespaced || (def.fields.is_empty() && !def.is_custom()) => {
            Some(FieldRef::Namespace)
        }
        _ if version.selectable.iter().any(|known| known == path) => {
            def.fields.iter().position(|field| field.path == path).map(FieldRef::Declared)
        }
        _ => None,
    }
}

/// Returns the error for a field that cannot be selected. Upstream's kinds with fields of their own have their own text.
fn unsupported(def: &ResourceDef, version: &ResourceVersion, path: &str) -> String {
    match def.kind.as_str() {
        "Job" if !def.is_custom() => format!("field label {path:?} not supported for Job"),
        "ResourceSlice" if !def.is_custom() => {
            let gv = format!("{}/{}", def.group, version.name);
            format!("field label not supported for {gv}, Kind=ResourceSlice: {path}")
        }
        _ if def.is_custom() || !def.fields.is_empty() => format!("field label not supported: {path}"),
        _ => {
            format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;

    use super::*;

    #[test]
    fn rejects_fields_that_are_not_selectable() {
        const UNKNOWN: &str =
            "\"x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
        let registry = Registry::builtin(nave_schema::builtin());
        for (group, resource, selector, error) in [
            ("", "pods", "spec.nodeName=n", None),
            ("", "pods", "metadata.namespace!=a,metadata.name=b", None),
            ("", "pods", "spec.hostname=h", Some("field label not supported: spec.hostname")),
            ("", "nodes", "metadata.name=n", None),
            ("", "nodes", "metadata.namespace=a", Some("field label not supported: metadata.namespace")),
            ("storage.k8s.io", "storageclasses", "metadata.namespace=a", None),
            ("", "configmaps", "x=a", Some(UNKNOWN)),
            ("apps", "deployments", "x=a", Some(UNKNOWN)),
            ("apps", "replicasets", "status.replicas=1", Some(&*UNKNOWN.replace('x', "status.replicas"))),
            ("", "replicationcontrollers", "status.replicas=1", None),
            ("batch", "jobs", "x=a", Some("field label \"x\" not supported for Job")),
            (
                "resource.k8s.io",
                "resourceslices",
                "x=a",
                Some("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: x"),
            ),
        ] {
            let def = registry.lookup(&GroupVersionResource::new(group, "v1", resource)).unwrap();
            let query = [("fieldSelector".to_owned(), selector.to_owned())];
            let options = ListOptions::parse(&query).unwrap();
            let found = filter(def, &def.versions[0], &ResourceRequest::default(), &options);
            let found = found.err().map(|status| (status.code, status.message));
            assert_eq!(found, error.map(|error| (400, error.to_owned())), "{resource} {selector}");
        }
    }
}
