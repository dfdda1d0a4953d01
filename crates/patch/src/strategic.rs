//! Strategic merge patch (upstream: `apimachinery/pkg/util/strategicpatch`).
//!
//! A merge patch that knows the type it changes: lists whose field declares it are merged, lists of structs by the
//! declared key, lists of scalars as sets. Directives in the patch say what a merge alone cannot:
//!
//! | directive | in | meaning |
//! | --- | --- | --- |
//! | `$patch: replace` | a struct, or an item of a merged list | the patch takes the place of what is there |
//! | `$patch: delete` | a struct, or an item with its key | it is removed |
//! | `$patch: merge` | a struct | merge, as without it |
//! | `$retainKeys: [a, b]` | a struct | other fields of the object are removed first |
//! | `$setElementOrder/x: […]` | beside a merged list `x` | the order of the list's items |
//! | `$deleteFromPrimitiveList/x: […]` | beside a merged list of scalars | these are removed |
//!
//! Below a field without a known type everything is a plain merge, and lists are replaced.

use nave_machinery::{Map, Value};
use nave_schema::{Field, SchemaSet, Shape, TypeId};

use crate::PatchError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of the type `id`.
///
/// # Errors
/// A patch that is no object, an unknown directive, or an item of a merged list without its key.
pub fn apply(set: &SchemaSet, id: TypeId, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else { return Err(malformed("a strategic merge patch is an object")) };
    let Value::Object(fields) = target else { return Err(malformed("only an object can be patched")) };
    merge_struct(Type { set, id: Some(id) }, fields, patch.clone())
}

/// The type of a struct or a map; without an id nothing is known of its fields.
#[derive(Clone, Copy)]
struct Type<'s> {
    set: &'s SchemaSet,
    id: Option<TypeId>,
}

impl<'s> Type<'s> {
    fn field(self, name: &str) -> Option<&'s Field> {
        self.set.get(self.id?).field(name)
    }

    /// The type of what a field, or its items, hold.
    fn within(self, name: &str) -> Self {
        let id = self.field(name).and_then(|field| match &field.shape {
            Shape::Struct(id) => Some(*id),
            Shape::List { items, .. } => match items.as_ref() {
                Shape::Struct(id) => Some(*id),
                _ => None,
            },
            _ => None,
        });
        Self { set: self.set, id }
    }

    /// Whether the list in a field is merged, and the key of its items (empty for scalars).
    fn merged_list(self, name: &str) -> Option<&'s str> {
        let patch = &self.field(name)?.patch;
        patch.merge.then(|| patch.merge_key.as_deref().unwrap_or_default())
    }
}

fn merge_struct(ty: Type<'_>, fields: &mut Map, mut patch: Map) -> Result<(), PatchError> {
    match directive(&mut patch)? {
        Some(Directive::Replace) => {
            *fields = patch;
            return Ok(());
        }
        Some(Directive::Delete) => {
            fields.clear();
            return Ok(());
        }
        None => {}
    }
    retain_keys(fields, &mut patch)?;
    order_lists(ty, fields, &mut patch)?;
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            delete_from_list(fields, list, &change)?;
        } else if change.is_null() {
            fields.remove(&name);
        } else {
            merge_field(ty, fields, &name, change)?;
        }
    }
    Ok(())
}

fn merge_field(ty: Type<'_>, fields: &mut Map, name: &str, change: Value) -> Result<(), PatchError> {
    match (fields.get_mut(name), change) {
        (Some(Value::Object(inner)), Value::Object(change)) => merge_struct(ty.within(name), inner, change),
        (Some(Value::Array(list)), Value::Array(change)) if ty.merged_list(name).is_some() => {
            let key = ty.merged_list(name).unwrap_or_default();
            let merged = merge_list(ty.within(name), std::mem::take(list), change, key)?;
            *list = merged;
            Ok(())
        }
        (_, change) => {
            fields.insert(name.to_owned(), without_directives(change));
            Ok(())
        }
    }
}

/// What `$patch` says of a struct.
enum Directive {
    Replace,
    Delete,
}

fn directive(patch: &mut Map) -> Result<Option<Directive>, PatchError> {
    match patch.remove(PATCH).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => Ok(None),
        Some(Some("replace")) => Ok(Some(Directive::Replace)),
        Some(Some("delete")) => Ok(Some(Directive::Delete)),
        Some(other) => Err(malformed(&format!("unknown patch type: {}", other.unwrap_or("not a text")))),
    }
}

/// Removes the fields that `$retainKeys` does not list; the patch itself may have no others.
fn retain_keys(fields: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(kept) = kept else { return Err(malformed("the value of $retainKeys is not a list")) };
    let is_kept = |name: &str| kept.iter().any(|kept| kept.as_str() == Some(name));
    if let Some(stray) = patch.iter().find(|(name, change)| !change.is_null() && !is_kept(name)) {
        return Err(malformed(&format!("the field {:?} of the patch is not in $retainKeys", stray.0)));
    }
    fields.retain(|name, _| is_kept(name));
    Ok(())
}

/// Merges the lists that have an order beside them, and puts them into it.
fn order_lists(ty: Type<'_>, fields: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let ordered: Vec<String> =
        patch.keys().filter_map(|key| key.strip_prefix(SET_ELEMENT_ORDER)).map(str::to_owned).collect();
    for name in ordered {
        let Some(Value::Array(order)) = patch.remove(&format!("{SET_ELEMENT_ORDER}{name}")) else {
            return Err(malformed(&format!("the value of {SET_ELEMENT_ORDER}{name} is not a list")));
        };
        let key = ty.merged_list(&name).unwrap_or_default();
        let list_of = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(malformed(&format!("{name} is not a list"))),
        };
        let (had, change) = (list_of(fields.remove(&name))?, list_of(patch.remove(&name))?);
        let before = had.clone().unwrap_or_default();
        let merged = match (had, change) {
            (None, None) => continue,
            (Some(had), None) => had,
            (None, Some(change)) => {
                change.into_iter().filter(|item| !is_deletion(item)).map(without_directives).collect()
            }
            (Some(had), Some(change)) => match ty.merged_list(&name) {
                Some(key) => merge_list(ty.within(&name), had, change, key)?,
                None => change,
            },
        };
        fields.insert(name, Value::Array(in_order(merged, &order, &before, key)));
    }
    Ok(())
}

fn delete_from_list(fields: &mut Map, name: &str, deleted: &Value) -> Result<(), PatchError> {
    let Value::Array(deleted) = deleted else {
        return Err(malformed(&format!("the value of {DELETE_FROM_PRIMITIVE_LIST}{name} is not a list")));
    };
    if let Some(Value::Array(list)) = fields.get_mut(name) {
        list.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

/// Merges a list: of scalars as a set, of structs by their key.
fn merge_list(
    ty: Type<'_>,
    had: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let before = had.clone();
    let structs = had.iter().chain(&change).any(Value::is_object);
    if !structs {
        let mut merged: Vec<Value> = Vec::with_capacity(had.len() + change.len());
        for item in had.into_iter().chain(change.iter().cloned()) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return Ok(in_order(merged, &change, &before, ""));
    }
    let (mut merged, change) = apply_item_directives(had, change, key)?;
    let order = change.clone();
    for item in change {
        let Value::Object(item) = item else {
            return Err(malformed("the items of a merged list are of one kind"));
        };
        let wanted = item.get(key).ok_or_else(|| missing_key(key))?;
        match merged.iter_mut().find(|old| old.get(key) == Some(wanted)) {
            Some(Value::Object(old)) => merge_struct(ty, old, item)?,
            _ => merged.push(without_directives(Value::Object(item))),
        }
    }
    Ok(in_order(merged, &order, &before, key))
}

/// Carries out `$patch` in the items of a patch's list; what is left is to be merged.
fn apply_item_directives(
    mut had: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(change.len());
    let mut replaced = false;
    for item in change {
        match item.get(PATCH).map(Value::as_str) {
            None => rest.push(item),
            Some(Some("delete")) => {
                let gone = item.get(key).ok_or_else(|| missing_key(key))?;
                had.retain(|old| old.get(key) != Some(gone));
            }
            Some(Some("replace")) => replaced = true,
            Some(Some("merge")) => {
                return Err(malformed("merging of an item cannot be asked for, it happens anyway"));
            }
            Some(other) => {
                return Err(malformed(&format!("unknown patch type: {}", other.unwrap_or("not a text"))));
            }
        }
    }
    if replaced {
        // The other items of the patch are the new list.
        return Ok((rest, Vec::new()));
    }
    Ok((had, rest))
}

/// The items in the patch's order, with those that the patch does not name kept where they stood among the others.
fn in_order(merged: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Vec<Value> {
    let identity = |item: &Value| -> Value {
        if key.is_empty() { item.clone() } else { item.get(key).cloned().unwrap_or_default() }
    };
    let place =
        |list: &[Value], item: &Value| list.iter().position(|other| identity(other) == identity(item));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(before, item).unwrap_or(usize::MAX));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(one), Some(other)) = (named.peek(), others.peek()) {
        let earlier =
            matches!((place(before, other), place(before, one)), (Some(other), Some(one)) if other < one);
        sorted.extend(if earlier { others.next() } else { named.next() });
    }
    sorted.extend(named.chain(others));
    sorted
}

fn is_deletion(item: &Value) -> bool {
    item.get(PATCH).and_then(Value::as_str) == Some("delete")
}

/// A value of the patch that has nothing to be merged with: its directives have had their say.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(name, value)| !is_directive(name) && !value.is_null())
                .map(|(name, value)| (name, without_directives(value)))
                .collect(),
        ),
        Value::Array(list) => {
            let is_pure_directive = |item: &Value| item.get(PATCH).is_some();
            list.into_iter().filter(|item| !is_pure_directive(item)).map(without_directives).collect()
        }
        other => other,
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(SET_ELEMENT_ORDER)
        || name.starts_with(DELETE_FROM_PRIMITIVE_LIST)
}

fn missing_key(key: &str) -> PatchError {
    malformed(&format!("map does not contain key: {key}"))
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: &Value) -> Result<Value, PatchError> {
        let set = nave_schema::builtin();
        let id = set.find("io.k8s.api.apps.v1.Deployment").unwrap();
        apply(set, id, &mut target, patch).map(|()| target)
    }

    fn containers(list: &Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    }

    #[test]
    fn containers_are_merged_by_name() {
        let object =
            containers(&json!([{"name": "c", "image": "i:1", "env": [{"name": "A", "value": "1"}]}]));
        let cases = [
            (
                json!([{"name": "c", "image": "i:2"}, {"name": "side", "image": "s"}]),
                json!([{"name": "c", "image": "i:2", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "s"}]),
            ),
            (
                json!([{"name": "c", "env": [{"name": "B", "value": "2"}]}]),
                json!([{"name": "c", "image": "i:1", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]),
            ),
            (json!([{"name": "c", "$patch": "delete"}]), json!([])),
            (
                json!([{"name": "n", "image": "n"}, {"$patch": "replace"}]),
                json!([{"name": "n", "image": "n"}]),
            ),
            (
                json!([{"name": "c", "image": null}]),
                json!([{"name": "c", "env": [{"name": "A", "value": "1"}]}]),
            ),
            (json!([{"$patch": "replace", "name": "c", "image": "x"}]), json!([])),
        ];
        for (change, wanted) in cases {
            assert_eq!(patched(object.clone(), &containers(&change)), Ok(containers(&wanted)), "{change}");
        }
    }

    #[test]
    fn the_order_of_items_can_be_set() {
        let object = containers(&json!([{"name": "n"}, {"name": "m"}]));
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "z"}, {"name": "n"}], "containers": [{"name": "z", "image": "z"}]}}}});
        let wanted = containers(&json!([{"name": "z", "image": "z"}, {"name": "n"}, {"name": "m"}]));
        assert_eq!(patched(object, &patch), Ok(wanted));
    }

    #[test]
    fn fields_can_be_retained_and_structs_replaced() {
        let object =
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(patched(object.clone(), &patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
        let patch = json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}});
        assert_eq!(patched(object.clone(), &patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
        let patch = json!({"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}});
        assert_eq!(patched(object, &patch).unwrap_err().into_status().code, 400);
    }

    #[test]
    fn lists_of_scalars_are_sets_where_the_field_says_so() {
        let object = json!({"metadata": {"finalizers": ["a/x"]}});
        let patch = json!({"metadata": {"finalizers": ["a/x", "b/y"]}});
        let both = json!({"metadata": {"finalizers": ["a/x", "b/y"]}});
        assert_eq!(patched(object, &patch), Ok(both.clone()));
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x"]}});
        assert_eq!(patched(both, &patch), Ok(json!({"metadata": {"finalizers": ["b/y"]}})));
    }

    #[test]
    fn lists_that_are_not_merged_are_replaced() {
        let object = containers(&json!([{"name": "c", "command": ["a", "b"]}]));
        let change = containers(&json!([{"name": "c", "command": ["z"]}]));
        assert_eq!(patched(object, &change), Ok(change));
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let object = containers(&json!([{"name": "c"}]));
        for change in [
            json!([{"image": "x"}]),
            json!([{"$patch": "delete"}]),
            json!([{"name": "c", "$patch": "zap"}]),
            json!([1, {"name": "c"}]),
        ] {
            assert_eq!(
                patched(object.clone(), &containers(&change)).unwrap_err().into_status().code,
                400,
                "{change}"
            );
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            "[a-c]".prop_map(Value::from),
            Just(json!("delete")),
            Just(json!("replace"))
        ];
        leaf.prop_recursive(6, 48, 4, |inner| {
            let name = "spec|template|containers|env|name|metadata|finalizers|\\$patch|\\$retainKeys|\\$setElementOrder/containers";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_panics(target in value(), patch in value()) {
            let _ = patched(target, &patch);
        }

        #[test]
        fn an_empty_patch_changes_nothing(target in value()) {
            if target.is_object() {
                prop_assert_eq!(patched(target.clone(), &json!({})), Ok(target));
            }
        }
    }
}
