//! Unique items of lists of type `set` and `map` (upstream: `apiserver/schema/listtype`).

use std::collections::HashMap;

use nave_machinery::{FieldError, FieldPath, Map, Value};

use crate::excerpt::excerpt;
use crate::node::{ListType, Node};

/// Maximum number of reported duplicates.
const MAX_ERRORS: usize = 100;

/// Adds an error for each duplicate in the lists of an object.
pub(crate) fn validate(node: &Node, object: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !node.has_list_rules {
        return;
    }
    match object {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(below) = node.property(name) {
                    validate(below, value, &path.child(name), errors);
                }
                if let Some(below) = node.additional_schema() {
                    validate(below, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &node.list {
                ListType::Set => duplicates(items.iter().collect::<Vec<_>>().as_slice(), path, errors),
                ListType::Map(keys) => map(keys, items, path, errors),
                ListType::Unset | ListType::Atomic => {}
            }
            if let Some(below) = node.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    validate(below, item, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn map(keys: &[String], items: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some((index, item)) =
        items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null())
    {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(&path.index(index), excerpt(item), why));
        return;
    }
    let identities: Vec<Value> = items.iter().map(|item| Value::Object(identity(keys, item))).collect();
    duplicates(&identities.iter().collect::<Vec<_>>(), path, errors);
}

/// Returns the key fields of an item, without missing ones.
pub(crate) fn identity(keys: &[String], item: &Value) -> Map {
    let own = |key: &String| Some((key.clone(), item.get(key)?.clone()));
    keys.iter().filter_map(own).collect()
}

/// Reports each repeated value once, at its second occurrence.
fn duplicates(values: &[&Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen: HashMap<&Value, usize> = HashMap::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let times = seen.entry(value).or_default();
        *times += 1;
        if *times == 2 && errors.len() < MAX_ERRORS {
            errors.push(FieldError::duplicate(&path.index(index), excerpt(value)));
        }
    }
}
