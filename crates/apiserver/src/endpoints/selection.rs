//! From a list's or watch's options to the filter that the watch cache works with.

use nave_cacher::{FieldRef, FieldTerm, Filter};
use nave_machinery::Status;
use nave_machinery::options::ListOptions;
use nave_resources::ResourceDef;

use crate::request_info::ResourceRequest;

/// The objects a request is about: its namespace, its name (a watch of one object), its selectors.
///
/// # Errors
/// 400 for a field that cannot be selected by.
pub fn filter(def: &ResourceDef, request: &ResourceRequest, options: &ListOptions) -> Result<Filter, Status> {
    let mut filter = Filter::all().with_labels(options.label_selector.clone());
    if def.namespaced && !request.namespace.is_empty() {
        filter = filter.in_namespace(&request.namespace);
    }
    if !request.name.is_empty() {
        filter = filter.named(&request.name);
    }
    for requirement in options.field_selector.requirements() {
        let field = field_ref(def, &requirement.path)
            .ok_or_else(|| Status::bad_request(format!("field label not supported: {}", requirement.path)))?;
        let value = requirement.value.as_str().into();
        filter = filter.with_term(FieldTerm { field, negated: requirement.negated, value });
    }
    Ok(filter)
}

fn field_ref(def: &ResourceDef, path: &str) -> Option<FieldRef> {
    match path {
        "metadata.name" => Some(FieldRef::Name),
        "metadata.namespace" if def.namespaced => Some(FieldRef::Namespace),
        _ => def.fields.iter().position(|field| field.path == path).map(FieldRef::Declared),
    }
}
