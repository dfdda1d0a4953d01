//! The annotation of client-side apply. It lets `kubectl` migrate to server-side apply and back without conflicts
//! (upstream: `apimachinery/pkg/util/managedfields/internal/lastapplied*.go`).

use nave_machinery::{Value, meta};

use super::compare::Comparison;
use super::field_set::field_set;
use super::schema::TypeRef;
use super::set::FieldSet;
use super::validate::validate;

/// The annotation with the configuration that was last applied client-side.
pub(super) const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager that may use both kinds of apply without conflicts between them.
pub(super) const KUBECTL: &str = "kubectl";

/// Returns the annotation of an object.
pub(super) fn last_applied(object: &Value) -> Option<&str> {
    let text = object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// Returns the fields that client-side apply set and that still have their values; `None` if the annotation cannot be
/// parsed.
pub(super) fn unchanged_fields(ty: TypeRef<'_>, live: &Value) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(last_applied(live)?).ok()?;
    if meta::api_version(&applied) != meta::api_version(live) {
        return None;
    }
    validate(ty, live).ok()?;
    validate(ty, &applied).ok()?;
    let Comparison { added, modified, removed } = Comparison::between(ty, &applied, live).ok()?;
    Some(field_set(ty, &applied).difference(&modified).difference(&added).difference(&removed))
}

/// Sets the annotation to an applied configuration.
pub(super) fn set_last_applied(object: &mut Value, applied: &Value) {
    let mut applied = applied.clone();
    if let Some(annotations) = annotations_mut(&mut applied) {
        annotations.remove(ANNOTATION);
    }
    if let Some(annotations) = annotations_mut(object) {
        // Go's encoder adds a line break.
        annotations.insert(ANNOTATION.to_owned(), Value::String(format!("{applied}\n")));
    }
}

fn annotations_mut(object: &mut Value) -> Option<&mut nave_machinery::Map> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
