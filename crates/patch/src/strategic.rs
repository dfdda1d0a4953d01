//! Strategic merge patch (upstream: `apimachinery/pkg/util/strategicpatch`).
//!
//! A merge patch that uses the type of the object. Lists are merged if their field declares it: lists of structs by the
//! declared key, lists of scalars as sets. Directives in the patch express changes that a merge cannot:
//!
//! | directive | position | meaning |
//! | --- | --- | --- |
//! | `$patch: replace` | a struct, or an item of a merged list | the patch replaces the old value |
//! | `$patch: delete` | a struct, or an item with its key | removes it |
//! | `$patch: merge` | a struct | merges, the default |
//! | `$retainKeys: [a, b]` | a struct | first removes the object's other fields |
//! | `$setElementOrder/x: […]` | next to a merged list `x` | sets the order of the list's items |
//! | `$deleteFromPrimitiveList/x: […]` | next to a merged list of scalars | removes these |
//!
//! Below a field of unknown type, patches are plain merge patches and replace lists.
//!
//! List items are looked up by a hash of their key, so the cost is linear in the sizes of object and patch, except for
//! sorting.

use std::collections::{HashMap, HashSet};

use nave_machinery::{Map, Value};
use nave_schema::{Field, SchemaSet, Shape, TypeId};

use crate::{PatchError, check_patched};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

const INVALID_RETAIN_KEYS: &str = "invalid patch format of retainKeys";

/// Applies a strategic merge patch to an object of the type `id`.
///
/// # Errors
/// The patch is not an object, a directive is unknown, an item of a merged list lacks its key, or the object is too
/// deep or too large.
pub fn apply(set: &SchemaSet, id: TypeId, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let patch = match patch {
        // Go's decoder reads null as an empty map.
        Value::Null => return Ok(()),
        Value::Object(patch) => patch,
        _ => return Err(malformed("a strategic merge patch is an object")),
    };
    let Value::Object(fields) = target else { return Err(malformed("only an object can be patched")) };
    merge_struct(Type { set, id: Some(id) }, fields, patch.clone())?;
    check_patched(target)
}

/// The type of a struct or a map. Without an ID, the fields are unknown.
#[derive(Clone, Copy)]
struct Type<'s> {
    set: &'s SchemaSet,
    id: Option<TypeId>,
}

impl<'s> Type<'s> {
    fn field(self, name: &str) -> Option<&'s Field> {
        self.set.get(self.id?).field(name)
    }

    /// Returns the type of a field or of its items.
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

    /// Returns the merge key of the list in a field (empty for scalars); `None` if the list is not merged.
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
            match without_directives(change) {
                Some(change) => fields.insert(name.to_owned(), change),
                None => fields.remove(name),
            };
            Ok(())
        }
    }
}

/// The value of `$patch` in a struct.
enum Directive {
    Replace,
    Delete,
}

fn directive(patch: &mut Map) -> Result<Option<Directive>, PatchError> {
    match patch.remove(PATCH).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => Ok(None),
        Some(Some("replace")) => Ok(Some(Directive::Replace)),
        Some(Some("delete")) => Ok(Some(Directive::Delete)),
        Some(other) => Err(failed(&format!("unknown patch type: {}", other.unwrap_or("not a text")))),
    }
}

/// Removes the fields that are not in `$retainKeys`; the patch must not set such fields.
fn retain_keys(fields: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(kept) = kept else { return Err(malformed(INVALID_RETAIN_KEYS)) };
    let kept: HashSet<&str> = kept.iter().filter_map(Value::as_str).collect();
    let is_kept = |name: &str| kept.contains(name);
    // Directives for other fields may be next to this one.
    if patch.iter().any(|(name, change)| !change.is_null() && !is_kept(name) && !is_directive(name)) {
        return Err(malformed(INVALID_RETAIN_KEYS));
    }
    fields.retain(|name, _| is_kept(name));
    Ok(())
}

/// Merges and orders the lists that have a `$setElementOrder`.
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
            Some(_) => Err(failed(&format!("{name} is not a list"))),
        };
        let (had, change) = (list_of(fields.remove(&name))?, list_of(patch.remove(&name))?);
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let before = ItemIndex::new(had.as_deref().unwrap_or_default(), key);
        let merged = match (had, change) {
            (None, None) => continue,
            (Some(had), None) => had,
            (None, Some(change)) => change.into_iter().filter_map(without_directives).collect(),
            (Some(had), Some(change)) => match ty.merged_list(&name) {
                Some(key) => merge_list(ty.within(&name), had, change, key)?,
                None => change,
            },
        };
        fields.insert(name, Value::Array(in_order(merged, &ItemIndex::new(&order, key), &before)));
    }
    Ok(())
}

/// Checks that the items of a patch's list occur in its `$setElementOrder` in the same order.
fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let identity = |item: &'_ Value| match item {
        Value::Object(fields) if !key.is_empty() => identity_of(fields, key).cloned(),
        other => Ok(other.clone()),
    };
    let mut order = order.iter();
    for item in change.iter().filter(|item| item.get(PATCH).is_none()) {
        let wanted = identity(item)?;
        let mut found = false;
        for position in order.by_ref() {
            if identity(position)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            return Err(failed("the order of a list in the patch does not match its $setElementOrder"));
        }
    }
    Ok(())
}

fn delete_from_list(fields: &mut Map, name: &str, deleted: &Value) -> Result<(), PatchError> {
    let Value::Array(deleted) = deleted else {
        return Err(malformed(&format!("the value of {DELETE_FROM_PRIMITIVE_LIST}{name} is not a list")));
    };
    if let Some(Value::Array(list)) = fields.get_mut(name) {
        let deleted: HashSet<&Value> = deleted.iter().collect();
        list.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

/// Merges a list: of scalars as a set, of structs by key.
fn merge_list(
    ty: Type<'_>,
    had: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let structs = had.iter().chain(&change).any(Value::is_object);
    if !structs {
        let (before, order) = (ItemIndex::new(&had, ""), ItemIndex::new(&change, ""));
        let mut seen = HashSet::with_capacity(had.len() + change.len());
        let merged = had.iter().chain(&change).filter(|item| seen.insert(*item)).cloned().collect();
        return Ok(in_order(merged, &order, &before));
    }
    let (mut merged, change) = apply_item_directives(had, change, key)?;
    // After a replacement this is the order of the new list.
    let before = ItemIndex::new(&merged, key);
    let order = ItemIndex::new(&change, key);
    let mut positions: HashMap<Value, usize> = HashMap::with_capacity(merged.len());
    for (position, item) in merged.iter().enumerate() {
        if let Some(identity) = item.get(key) {
            positions.entry(identity.clone()).or_insert(position);
        }
    }
    for item in change {
        let Value::Object(item) = item else {
            return Err(failed("the items of a merged list are of one kind"));
        };
        let identity = identity_of(&item, key)?;
        if let Some(Value::Object(old)) =
            positions.get(identity).and_then(|position| merged.get_mut(*position))
        {
            merge_struct(ty, old, item)?;
        } else {
            positions.insert(identity.clone(), merged.len());
            merged.extend(without_directives(Value::Object(item)));
        }
    }
    Ok(in_order(merged, &order, &before))
}

/// Returns the value of an item's key. Null is an error, because it would remove the key from the item.
fn identity_of<'i>(item: &'i Map, key: &str) -> Result<&'i Value, PatchError> {
    match item.get(key) {
        None => Err(missing_key(key)),
        Some(Value::Null) => Err(PatchError::Unfit(format!("the merge key {key} of an item is null"))),
        Some(identity) => Ok(identity),
    }
}

/// Applies `$patch` in the items of a patch's list. Returns the items that remain to be merged.
fn apply_item_directives(
    mut had: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut rest = Vec::with_capacity(change.len());
    let mut deleted = HashSet::new();
    let mut replaced = false;
    for item in change {
        match item.get(PATCH).map(Value::as_str) {
            None => rest.push(item),
            Some(Some("delete")) => {
                deleted.insert(item.get(key).ok_or_else(|| missing_key(key))?.clone());
            }
            Some(Some("replace")) => replaced = true,
            Some(Some("merge")) => {
                return Err(failed("merging lists cannot yet be specified in the patch"));
            }
            Some(other) => {
                return Err(failed(&format!("unknown patch type: {}", other.unwrap_or("not a text"))));
            }
        }
    }
    if replaced {
        // The other items of the patch form the new list.
        return Ok((rest, Vec::new()));
    }
    had.retain(|old| !old.get(key).is_some_and(|identity| deleted.contains(identity)));
    Ok((had, rest))
}

/// Positions of a list's items by identity: the value of the merge key, or the item itself in a list of scalars.
struct ItemIndex<'k> {
    key: &'k str,
    first: HashMap<Value, usize>,
}

impl<'k> ItemIndex<'k> {
    fn new(list: &[Value], key: &'k str) -> Self {
        let mut positions = Self { key, first: HashMap::with_capacity(list.len()) };
        for (position, item) in list.iter().enumerate() {
            let identity = positions.identity(item).clone();
            positions.first.entry(identity).or_insert(position);
        }
        positions
    }

    fn identity<'i>(&self, item: &'i Value) -> &'i Value {
        if self.key.is_empty() { item } else { item.get(self.key).unwrap_or(&Value::Null) }
    }

    /// Returns the first position of an item with the same identity.
    fn position(&self, item: &Value) -> Option<usize> {
        self.first.get(self.identity(item)).copied()
    }
}

/// Returns the items in the patch's order. Items that are not in the patch keep their relative position.
fn in_order(merged: Vec<Value>, order: &ItemIndex<'_>, before: &ItemIndex<'_>) -> Vec<Value> {
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let stood = before.position(&item);
        match order.position(&item) {
            Some(position) => named.push((position, stood, item)),
            None => others.push((stood.unwrap_or(usize::MAX), stood, item)),
        }
    }
    named.sort_by_key(|(position, ..)| *position);
    others.sort_by_key(|(position, ..)| *position);
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some((_, one, _)), Some((_, other, _))) = (named.peek(), others.peek()) {
        let earlier = matches!((other, one), (Some(other), Some(one)) if other < one);
        sorted.extend(if earlier { others.next() } else { named.next() }.map(|(.., item)| item));
    }
    sorted.extend(named.chain(others).map(|(.., item)| item));
    sorted
}

/// Removes directives from a value of the patch that has no counterpart in the object. Drops a struct with `$patch`,
/// because it has no target to replace or delete.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(PATCH) => None,
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(name, value)| !is_directive(name) && !value.is_null());
            let rest = fields.filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Some(Value::Object(rest.collect()))
        }
        Value::Array(list) => Some(list.into_iter().filter_map(without_directives).collect()),
        other => Some(other),
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH
        || name == RETAIN_KEYS
        || name.starts_with(SET_ELEMENT_ORDER)
        || name.starts_with(DELETE_FROM_PRIMITIVE_LIST)
}

fn missing_key(key: &str) -> PatchError {
    failed(&format!("map does not contain declared merge key: {key}"))
}

fn failed(text: &str) -> PatchError {
    PatchError::Failed(text.to_owned())
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

#[cfg(test)]
mod tests;
