//! The set of an object's fields (upstream: `structured-merge-diff/typed.ToFieldSet`).

use nave_machinery::{Map, Value};

use super::path::PathElement;
use super::schema::{Kind, ListType, MapType, Relation, TypeRef};
use super::set::{FieldSet, Node};

/// Returns the fields of an object: its leaves, list items and map entries. Omits items without a path element.
pub(super) fn field_set(ty: TypeRef<'_>, object: &Value) -> FieldSet {
    Walk { holders: false }.visit(ty, object).1
}

/// Returns all fields below a new value, including the maps and lists that contain them.
pub(super) fn fields_below(ty: TypeRef<'_>, value: &Value) -> FieldSet {
    Walk { holders: true }.visit(ty, value).1
}

#[derive(Clone, Copy)]
struct Walk {
    /// True if structs, maps and lists are included.
    holders: bool,
}

impl Walk {
    /// Returns whether the value itself is a field, and the fields below it.
    fn visit(self, ty: TypeRef<'_>, value: &Value) -> (bool, FieldSet) {
        match ty.kind(Some(value)) {
            Kind::Scalar => (true, FieldSet::default()),
            Kind::List => match (ty.list(), value) {
                (Some(list), _) if list.relation == Relation::Atomic => (true, FieldSet::default()),
                (Some(list), Value::Array(items)) => (self.holders, self.visit_items(list, items)),
                _ => (self.holders, FieldSet::default()),
            },
            Kind::Map => match (ty.map(), value) {
                (Some(map), _) if map.is_atomic => (true, FieldSet::default()),
                (Some(map), Value::Object(fields)) => (self.holders, self.visit_fields(map, fields)),
                _ => (self.holders, FieldSet::default()),
            },
        }
    }

    fn visit_fields(self, map: MapType<'_>, fields: &Map) -> FieldSet {
        let mut nodes = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let declared = map.field_of(name);
            let (is_leaf, children) =
                self.visit(declared.or(map.values()).unwrap_or(TypeRef::Untyped), value);
            let is_empty = || value.is_null() || value.as_object().is_some_and(Map::is_empty);
            let member = is_leaf || declared.is_none() || is_empty();
            nodes.push(Node { element: PathElement::field(name), member, children });
        }
        FieldSet::from_nodes(nodes)
    }

    /// Treats items with the same element as one field without fields below it.
    fn visit_items(self, list: ListType<'_>, items: &[Value]) -> FieldSet {
        let mut found: Vec<(PathElement, Option<&Value>)> =
            items.iter().filter_map(|item| Some((list.element(item).ok()?, Some(item)))).collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = None;
            }
            same
        });
        let nodes = found.into_iter().map(|(element, item)| {
            let children = item.map_or_else(FieldSet::default, |item| self.visit(list.items, item).1);
            Node { element, member: true, children }
        });
        FieldSet::from_nodes(nodes.collect())
    }
}
