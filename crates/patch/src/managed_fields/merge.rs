//! Merges an applied configuration into an object (upstream: `structured-merge-diff/typed.Merge`).

use std::collections::{BTreeMap, VecDeque};

use nave_machinery::{Map, Value};

use super::path::PathElement;
use super::schema::{Kind, ListType, MapType, Relation, TypeRef};

/// Merges the applied value into the live one. Removes no fields; applied leaves replace live ones.
///
/// # Errors
/// An item of a list cannot be identified, or is applied twice.
pub(super) fn merge(ty: TypeRef<'_>, live: &Value, applied: &Value) -> Result<Value, String> {
    merge_values(ty, Some(live), Some(applied)).map(Option::unwrap_or_default)
}

/// Returns `None` if the result is empty.
fn merge_values(
    ty: TypeRef<'_>,
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, String> {
    let leaf = || Ok(applied.or(live).cloned());
    match ty.kind(applied.or(live)) {
        Kind::Scalar => leaf(),
        Kind::List => {
            let items = |value: Option<&Value>| {
                value.and_then(Value::as_array).is_some_and(|items| !items.is_empty())
            };
            match ty.list() {
                Some(list) if list.relation != Relation::Atomic && (items(live) || items(applied)) => {
                    merge_items(list, live, applied)
                }
                _ => leaf(),
            }
        }
        Kind::Map => {
            let (live_fields, applied_fields) = (fields(live), fields(applied));
            let is_empty = |fields: Option<&Map>| fields.is_none_or(Map::is_empty);
            match ty.map() {
                Some(map) if !(map.is_atomic || is_empty(live_fields) && is_empty(applied_fields)) => {
                    merge_fields(map, live_fields, applied_fields)
                }
                _ => leaf(),
            }
        }
    }
}

fn fields(value: Option<&Value>) -> Option<&Map> {
    value.and_then(Value::as_object)
}

fn merge_fields(
    map: MapType<'_>,
    live: Option<&Map>,
    applied: Option<&Map>,
) -> Result<Option<Value>, String> {
    // Merges common entries without copying them. A copy at each level would make deep objects quadratic.
    let mut merged = Vec::new();
    let mut lives = live.into_iter().flatten().peekable();
    for (name, value) in applied.into_iter().flatten() {
        while let Some((kept, value)) = lives.next_if(|(other, _)| *other < name) {
            merged.push((kept.clone(), value.clone()));
        }
        let live = lives.next_if(|(other, _)| *other == name).map(|(_, live)| live);
        let ty = map.entry(name).unwrap_or(TypeRef::Untyped);
        merged.extend(merge_values(ty, live, Some(value))?.map(|value| (name.clone(), value)));
    }
    merged.extend(lives.map(|(kept, value)| (kept.clone(), value.clone())));
    Ok((!merged.is_empty()).then(|| Value::Object(merged.into_iter().collect())))
}

/// The items of a list by element.
struct Items<'v> {
    elements: Vec<PathElement>,
    values: &'v [Value],
    by_element: BTreeMap<PathElement, usize>,
}

impl<'v> Items<'v> {
    fn new(list: ListType<'_>, value: Option<&'v Value>) -> Result<Self, String> {
        let values = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut elements = Vec::with_capacity(values.len());
        let mut by_element = BTreeMap::new();
        for (at, item) in values.iter().enumerate() {
            let element = list.element(item).map_err(|why| format!("element {at}: {why}"))?;
            // Duplicate items are not merged.
            by_element.entry(element.clone()).and_modify(|at| *at = usize::MAX).or_insert(at);
            elements.push(element);
        }
        Ok(Self { elements, values, by_element })
    }

    /// Returns the item with this element; null if several items have it.
    fn get(&self, element: &PathElement) -> Option<&'v Value> {
        const NULL: &Value = &Value::Null;
        self.by_element.get(element).map(|&at| self.values.get(at).unwrap_or(NULL))
    }

    fn has(&self, element: &PathElement) -> bool {
        self.by_element.contains_key(element)
    }
}

/// Merges the items of an associative list. Items in both lists follow the applied order. Live-only items keep their
/// position between them.
fn merge_items(
    list: ListType<'_>,
    live: Option<&Value>,
    applied: Option<&Value>,
) -> Result<Option<Value>, String> {
    let (live, applied) = (Items::new(list, live)?, Items::new(list, applied)?);
    if let Some(element) =
        applied.elements.iter().find(|element| applied.by_element.get(element) == Some(&usize::MAX))
    {
        return Err(format!("duplicate entries for key {element}"));
    }
    let mut shared: VecDeque<&PathElement> =
        applied.elements.iter().filter(|element| live.has(element)).collect();
    let mut merged = Vec::with_capacity(live.values.len().max(applied.values.len()));
    let mut push = |live: Option<&Value>, applied: Option<&Value>| {
        merged.extend(merge_values(list.items, live, applied)?);
        Ok::<(), String>(())
    };
    let mut lives = live.elements.iter().zip(live.values).peekable();
    let mut next_live = || lives.next();
    let mut current = next_live();
    for element in &applied.elements {
        // Live-only items before the next common item come first.
        while let Some((ahead, item)) = current {
            if ahead == element {
                break;
            }
            let is_applied = applied.has(ahead);
            if is_applied && shared.front() == Some(&ahead) {
                break;
            }
            if !is_applied {
                push(Some(item), None)?;
            }
            current = next_live();
            // After the last common item, applied items come before the remaining live-only items.
            if is_applied && shared.is_empty() {
                break;
            }
        }
        push(live.get(element), applied.get(element))?;
        if current.is_some_and(|(ahead, _)| ahead == element) {
            current = next_live();
        }
        if shared.front() == Some(&element) {
            shared.pop_front();
        }
    }
    while let Some((element, item)) = current {
        if !applied.has(element) {
            push(Some(item), None)?;
        }
        current = next_live();
    }
    Ok((!merged.is_empty()).then_some(Value::Array(merged)))
}
