//! Converts the options of a list or watch to a filter of the watch cache.

use nave_cacher::{FieldRef, FieldTerm, Filter};
use nave_machinery::Status;
use nave_machinery::options::ListOptions;
use nave_resources::{ResourceDef, ResourceVersion};

use crate::request_info::ResourceRequest;

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
            .ok_or_else(|| Status::bad_request(format!("field label not supported: {}", requirement.path)))?;
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

#[cfg(test)]
mod tests {
    use nave_machinery::GroupVersionResource;
    use nave_resources::Registry;

    use super::*;

    #[test]
    fn rejects_fields_that_are_not_selectable() {
        let registry = Registry::builtin(nave_schema::builtin());
        for (group, resource, selector, is_known) in [
            ("", "pods", "spec.nodeName=n", true),
            ("", "pods", "metadata.namespace!=a,metadata.name=b", true),
            ("", "pods", "spec.hostname=h", false),
            ("", "nodes", "metadata.name=n", true),
            ("", "nodes", "metadata.namespace=a", false),
            ("storage.k8s.io", "storageclasses", "metadata.namespace=a", true),
        ] {
            let def = registry.lookup(&GroupVersionResource::new(group, "v1", resource)).unwrap();
            let query = [("fieldSelector".to_owned(), selector.to_owned())];
            let options = ListOptions::parse(&query).unwrap();
            let found = filter(def, &def.versions[0], &ResourceRequest::default(), &options);
            assert_eq!(found.is_ok(), is_known, "{resource} {selector}");
            if let Err(status) = found {
                assert!(status.code == 400 && status.message.starts_with("field label not supported: "));
            }
        }
    }
}
