//! The fields in which two states of an object differ (upstream: `structured-merge-diff/typed.Compare`).

use std::collections::BTreeMap;

use nave_machinery::{Map, Value};

use super::field_set::fields_below;
use super::path::PathElement;
use super::schema::{Kind, ListType, MapType, Relation, TypeRef};
use super::set::{FieldSet, Node};
use super::value::equal;

/// The fields in which a new state differs from an old one. The sets are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    /// Compares two states of an object.
    ///
    /// # Errors
    /// An item of a list cannot be identified.
    pub(super) fn between(ty: TypeRef<'_>, old: &Value, new: &Value) -> Result<Self, String> {
        let Difference { below, .. } = compare(ty, Some(old), Some(new))?;
        Ok(below)
    }

    /// Removes fields, and all fields below them, from the comparison.
    #[must_use]
    pub(super) fn excluding(self, fields: Option<&FieldSet>) -> Self {
        let Some(fields) = fields else { return self };
        Self {
            added: self.added.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            removed: self.removed.recursive_difference(fields),
        }
    }
}

/// The differences in a value: the value itself and the fields below it.
#[derive(Default)]
struct Difference {
    own: Own,
    below: Comparison,
}

#[derive(Clone, Copy, Default)]
struct Own {
    added: bool,
    modified: bool,
    removed: bool,
}

impl Difference {
    fn own(own: Own) -> Self {
        Self { own, below: Comparison::default() }
    }

    fn is_none(&self) -> bool {
        let Own { added, modified, removed } = self.own;
        let Comparison { added: more, modified: other, removed: less } = &self.below;
        !(added || modified || removed) && more.is_empty() && other.is_empty() && less.is_empty()
    }
}

fn compare(ty: TypeRef<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Difference, String> {
    match (old, new) {
        (None, Some(new)) => {
            let below = Comparison { added: fields_below(ty, new), ..Comparison::default() };
            Ok(Difference { own: Own { added: true, ..Own::default() }, below })
        }
        (Some(old), None) => {
            let below = Comparison { removed: fields_below(ty, old), ..Comparison::default() };
            Ok(Difference { own: Own { removed: true, ..Own::default() }, below })
        }
        // A value whose kind changes is changed as a whole, with everything below it.
        (Some(old), Some(new)) if ty.kinds_differ(old, new) => {
            let first = compare_as(ty, ty.kind(Some(old)), Some(old), Some(new))?;
            let second = compare_as(ty, ty.kind(Some(new)), Some(old), Some(new))?;
            Ok(first.merge(second))
        }
        _ => compare_as(ty, ty.kind(new.or(old)), old, new),
    }
}

fn compare_as(
    ty: TypeRef<'_>,
    kind: Kind,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<Difference, String> {
    let below = match kind {
        Kind::Scalar => return Ok(compare_leaves(old, new)),
        Kind::List => {
            let (old_items, new_items) = (items(old), items(new));
            match ty.list() {
                Some(list)
                    if list.relation != Relation::Atomic
                        && !(old_items.is_empty() && new_items.is_empty()) =>
                {
                    if old_items == new_items {
                        Comparison::default()
                    } else {
                        compare_items(list, old_items, new_items)?
                    }
                }
                _ => return Ok(compare_leaves(old, new)),
            }
        }
        Kind::Map => {
            let (old_fields, new_fields) = (fields(old), fields(new));
            let is_empty = |fields: Option<&Map>| fields.is_none_or(Map::is_empty);
            match ty.map() {
                Some(map) if !(map.is_atomic || is_empty(old_fields) && is_empty(new_fields)) => {
                    compare_fields(map, old_fields, new_fields)?
                }
                _ => return Ok(compare_leaves(old, new)),
            }
        }
    };
    Ok(Difference { own: Own { added: old.is_none(), modified: false, removed: new.is_none() }, below })
}

fn compare_leaves(old: Option<&Value>, new: Option<&Value>) -> Difference {
    let modified = old.zip(new).is_some_and(|(old, new)| !equal(old, new));
    Difference::own(Own { added: old.is_none(), modified, removed: new.is_none() })
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn fields(value: Option<&Value>) -> Option<&Map> {
    value.and_then(Value::as_object)
}

fn compare_fields(map: MapType<'_>, old: Option<&Map>, new: Option<&Map>) -> Result<Comparison, String> {
    let mut found = Differences::default();
    let mut olds = old.into_iter().flatten().peekable();
    let mut visit = |name: &String, old: Option<&Value>, new: Option<&Value>| {
        if old.zip(new).is_some_and(|(old, new)| is_same(old, new)) {
            return Ok(());
        }
        let difference = compare(map.entry(name).unwrap_or(TypeRef::Untyped), old, new)?;
        if !difference.is_none() {
            found.push(difference, PathElement::field(name));
        }
        Ok::<(), String>(())
    };
    for (name, new) in new.into_iter().flatten() {
        while let Some((gone, old)) = olds.next_if(|(other, _)| *other < name) {
            visit(gone, Some(old), None)?;
        }
        let old = olds.next_if(|(other, _)| *other == name).map(|(_, old)| old);
        visit(name, old, Some(new))?;
    }
    for (gone, old) in olds {
        visit(gone, Some(old), None)?;
    }
    Ok(found.finish())
}

/// Returns whether two values are equal without using their type. Compares only scalars and empty values. Most fields
/// do not change, so this avoids most type lookups.
fn is_same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => old.is_empty() && new.is_empty(),
        (Value::Array(old), Value::Array(new)) => old.is_empty() && new.is_empty(),
        (old, new) => old == new,
    }
}

/// The list items with the same element, in the old and the new state.
#[derive(Default)]
struct Same<'v> {
    old: Vec<&'v Value>,
    new: Vec<&'v Value>,
}

fn compare_items(list: ListType<'_>, old: &[Value], new: &[Value]) -> Result<Comparison, String> {
    let mut pairs: BTreeMap<PathElement, Same<'_>> = BTreeMap::new();
    for (at, item) in old.iter().enumerate() {
        let element = list.element(item).map_err(|why| format!("element {at}: {why}"))?;
        pairs.entry(element).or_default().old.push(item);
    }
    for (at, item) in new.iter().enumerate() {
        let element = list.element(item).map_err(|why| format!("element {at}: {why}"))?;
        pairs.entry(element).or_default().new.push(item);
    }
    let mut found = Differences::default();
    for (element, Same { old, new }) in pairs {
        let difference = match (old.as_slice(), new.as_slice()) {
            // Most items do not change.
            ([old], [new]) if old == new => continue,
            ([] | [_], [] | [_]) => compare(list.items, old.first().copied(), new.first().copied())?,
            // Duplicate items are compared as one value.
            ([_, _, ..], [_, _, ..]) => {
                let same = old.len() == new.len() && old.iter().zip(&new).all(|(old, new)| equal(old, new));
                Difference::own(Own { modified: !same, ..Own::default() })
            }
            ([_, _, ..], rest) => {
                let mut difference = match rest {
                    [item] => compare(list.items, None, Some(item))?,
                    _ => Difference::default(),
                };
                difference.own.removed = true;
                difference
            }
            (rest, _) => {
                let mut difference = match rest {
                    [item] => compare(list.items, Some(item), None)?,
                    _ => Difference::default(),
                };
                difference.own.added = true;
                difference
            }
        };
        found.push(difference, element);
    }
    Ok(found.finish())
}

impl Difference {
    fn merge(self, other: Self) -> Self {
        let own = Own {
            added: self.own.added || other.own.added,
            modified: self.own.modified || other.own.modified,
            removed: self.own.removed || other.own.removed,
        };
        let below = Comparison {
            added: self.below.added.union(other.below.added),
            modified: self.below.modified.union(other.below.modified),
            removed: self.below.removed.union(other.below.removed),
        };
        Self { own, below }
    }
}

/// The differences in the entries of a map or list.
#[derive(Default)]
struct Differences {
    added: Vec<Node>,
    modified: Vec<Node>,
    removed: Vec<Node>,
}

impl Differences {
    fn push(&mut self, difference: Difference, element: PathElement) {
        let Difference { own, below } = difference;
        // Usually at most one of the three sets needs the element, so it is rarely cloned.
        let mut element = Some(element);
        let parts = [
            (&mut self.added, own.added, below.added),
            (&mut self.modified, own.modified, below.modified),
            (&mut self.removed, own.removed, below.removed),
        ];
        let mut left = parts.iter().filter(|(_, member, children)| *member || !children.is_empty()).count();
        for (nodes, member, children) in parts {
            if !member && children.is_empty() {
                continue;
            }
            left -= 1;
            let element = if left == 0 { element.take() } else { element.clone() };
            nodes.extend(element.map(|element| Node { element, member, children }));
        }
    }

    fn finish(self) -> Comparison {
        Comparison {
            added: FieldSet::from_nodes(self.added),
            modified: FieldSet::from_nodes(self.modified),
            removed: FieldSet::from_nodes(self.removed),
        }
    }
}
