//! The two forms of `metadata.managedFields[].fieldsV1` in a [`Value`]: a tree of maps, as in JSON, or a string with
//! the JSON text of that tree.
//!
//! The field manager writes the text on every change of an object, and protobuf stores the text unchanged. Building a
//! tree only to encode and drop it would cost a tenth of a create. The text form exists only between the field manager
//! and the encoder of stored objects. Reviews for webhooks are written from the texts, and expressions see trees. Code
//! that sends an object to a client calls [`expand`] first. Objects read from storage have trees. The field manager rejects request bodies that have a string in `fieldsV1`.

use crate::limits::{self, Budget, LimitError};
use crate::{Map, Value, meta};

const ENTRIES: &str = "managedFields";
const FIELDS: &str = "fieldsV1";

/// Replaces each `fieldsV1` text in an object by its tree. Leaves text that is not JSON unchanged.
pub fn expand(object: &mut Value) {
    let entries = object.get_mut("metadata").and_then(|metadata| metadata.get_mut(ENTRIES));
    for entry in entries.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = entry.get_mut(FIELDS)
            && let Value::String(text) = fields
            && let Ok(tree) = serde_json::from_str(text)
        {
            *fields = tree;
        }
    }
}

/// Returns whether an object has a `fieldsV1` text.
pub fn has_texts(object: &Value) -> bool {
    let entries = meta::field(object, ENTRIES).and_then(Value::as_array);
    entries.into_iter().flatten().any(|entry| entry.get(FIELDS).is_some_and(Value::is_string))
}

/// Returns whether two lists of entries are equal, in either form.
pub fn is_same_list(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same_entry(a, b, &[]))
        }
        _ => a == b,
    }
}

/// Returns whether two entries, in either form, are equal except for the `ignored` fields.
pub fn is_same_entry(a: &Value, b: &Value, ignored: &[&str]) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let compared = |map: &Map| map.keys().filter(|name| !ignored.contains(&name.as_str())).count();
    compared(a) == compared(b)
        && a.iter().filter(|(name, _)| !ignored.contains(&name.as_str())).all(|(name, value)| {
            b.get(name).is_some_and(|other| match name.as_str() {
                FIELDS => are_same_fields(value, other),
                _ => value == other,
            })
        })
}

fn are_same_fields(a: &Value, b: &Value) -> bool {
    let is_tree = |text: &str, tree: &Value| serde_json::from_str::<Value>(text).is_ok_and(|it| it == *tree);
    match (a, b) {
        (Value::String(text), tree @ Value::Object(_)) | (tree @ Value::Object(_), Value::String(text)) => {
            is_tree(text, tree)
        }
        _ => a == b,
    }
}

/// Checks an object against the limits of [`limits`], counting `fieldsV1` texts as the trees they represent.
///
/// # Errors
/// The limit that is exceeded.
pub fn check_limits(object: &mut Value) -> Result<(), LimitError> {
    let entries = meta::field(object, ENTRIES).and_then(Value::as_array).into_iter().flatten();
    let texts = entries.filter_map(|entry| entry.get(FIELDS)?.as_str());
    let estimate = texts.map(str::len).sum::<usize>().saturating_mul(TREE_BYTES_PER_BYTE);
    let mut budget = Budget::default();
    let estimated = budget.charge(estimate).and_then(|()| budget.charge_tree(object, limits::MAX_DEPTH));
    if estimated.is_ok() {
        return Ok(());
    }
    expand(object);
    limits::check(object)
}

/// Upper bound of a tree's memory per byte of its text. Each level needs about 700 bytes of memory and has at least
/// eight bytes of text: `"f:":{}` and a comma or a bracket.
const TREE_BYTES_PER_BYTE: usize = 128;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(fields: &Value) -> Value {
        json!({"metadata": {"managedFields": [{"manager": "a", "time": "1", "fieldsV1": fields}]}})
    }

    #[test]
    fn expands_texts_only() {
        let tree = json!({"f:a": {"f:b": {}}});
        for (fields, wanted) in [
            (json!("{\"f:a\":{\"f:b\":{}}}"), &tree),
            (tree.clone(), &tree),
            (json!("{"), &json!("{")),
            (json!(null), &json!(null)),
        ] {
            let mut object = object(&fields);
            expand(&mut object);
            assert_eq!(&object["metadata"]["managedFields"][0]["fieldsV1"], wanted);
            assert_eq!(has_texts(&object), wanted.is_string());
        }
        let mut empty = json!({});
        expand(&mut empty);
        assert_eq!(empty, json!({}));
    }

    #[test]
    fn entries_are_equal_in_both_forms() {
        let entry = |fields: Value, time: &str| json!({"manager": "a", "time": time, "fieldsV1": fields});
        let (tree, text) = (json!({"f:b": {}, "f:a": {}}), json!("{\"f:a\":{},\"f:b\":{}}"));
        assert!(is_same_list(&json!([entry(tree.clone(), "1")]), &json!([entry(text.clone(), "1")])));
        assert!(!is_same_list(&json!([entry(tree.clone(), "1")]), &json!([entry(text.clone(), "2")])));
        assert!(is_same_entry(&entry(tree.clone(), "1"), &entry(text.clone(), "2"), &["time"]));
        assert!(!is_same_entry(&entry(tree, "1"), &json!({"manager": "a"}), &["time"]));
        assert!(!is_same_entry(&entry(json!({"f:a": {}}), "1"), &entry(text, "1"), &[]));
    }

    #[test]
    fn long_texts_count_as_trees() {
        let mut small = object(&json!("{\"f:a\":{}}"));
        assert_eq!(check_limits(&mut small), Ok(()));
        assert!(small["metadata"]["managedFields"][0]["fieldsV1"].is_string());

        // A text whose estimate exceeds the limit is expanded, and its tree fits.
        let name = "n".repeat(limits::MAX_TREE_BYTES / TREE_BYTES_PER_BYTE);
        let mut long = object(&Value::String(format!("{{\"f:{name}\":{{}}}}")));
        assert_eq!(check_limits(&mut long), Ok(()));
        assert!(long["metadata"]["managedFields"][0]["fieldsV1"].is_object());

        let names: Vec<String> = (0..60_000).map(|at| format!("\"f:{at}\":{{\"f:\":{{}}}}")).collect();
        let mut wide = object(&Value::String(format!("{{{}}}", names.join(","))));
        assert_eq!(check_limits(&mut wide), Err(LimitError::TooLarge));
    }
}
