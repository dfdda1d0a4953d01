//! Sets defaults, and drops `null` where the schema does not allow it (upstream: `apiserver/schema/defaulting`).

use nave_machinery::limits::{Budget, LimitError, cost};
use nave_machinery::{Map, Value};

use crate::node::{Node, Property};

/// Drops each `null` that the schema neither allows nor replaces by a default.
pub(crate) fn drop_nulls(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| match node.field(name) {
            None => true,
            Some(below) if value.is_null() => below.nullable || below.default.is_some(),
            Some(below) => {
                drop_nulls(below, value);
                true
            }
        }),
        Value::Array(items) => {
            let Some(below) = node.items.as_deref() else { return };
            for item in items {
                drop_nulls(below, item);
            }
        }
        _ => {}
    }
}

/// Sets the defaults of absent fields, and of `null` where it is not allowed. Defaults apply inside defaults, too.
///
/// # Errors
/// The defaults exceed the memory limit of an object.
pub(crate) fn apply(node: &Node, value: &mut Value, added: &mut Budget) -> Result<(), LimitError> {
    if !node.has_defaults {
        return Ok(());
    }
    match value {
        Value::Object(fields) => object(node, fields, added),
        Value::Array(items) => {
            let Some(below) = node.items.as_deref() else { return Ok(()) };
            items.iter_mut().try_for_each(|item| replace_null(below, item, added))
        }
        _ => Ok(()),
    }
}

fn object(node: &Node, fields: &mut Map, added: &mut Budget) -> Result<(), LimitError> {
    for Property { name, node: below } in &node.properties {
        let Some(default) = below.default.as_deref() else { continue };
        if fields.get(&**name).is_none_or(|value| value.is_null() && !below.nullable) {
            let first = if fields.is_empty() { cost::OBJECT } else { 0 };
            added.charge(first + cost::FIELD + cost::text(name.len()))?;
            added.charge_tree(default, usize::MAX)?;
            fields.insert((**name).to_owned(), default.clone());
        }
    }
    for (name, value) in fields {
        if let Some(below) = node.property(name) {
            apply(below, value, added)?;
        } else if let Some(below) = node.additional_schema() {
            replace_null(below, value, added)?;
        }
    }
    Ok(())
}

/// Replaces an item of a list or a value of a map by the default if it is a `null` that is not allowed.
fn replace_null(node: &Node, value: &mut Value, added: &mut Budget) -> Result<(), LimitError> {
    if value.is_null()
        && !node.nullable
        && let Some(default) = node.default.as_deref()
    {
        added.charge_tree(default, usize::MAX)?;
        default.clone_into(value);
    }
    apply(node, value, added)
}
