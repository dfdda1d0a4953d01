//! The fields of a created object as `fieldsV1` text, written without building a set.
//!
//! On a create without managed fields, the only manager owns all fields that differ from an empty object. The result is
//! the same as from a comparison (`compare`), which is several times slower; tests compare both.

use nave_machinery::limits::MAX_DEPTH;
use nave_machinery::{Map, Value};

use super::element_json::push_quoted;
use super::fields_v1::LEVELS_ABOVE;
use super::path::PathElement;
use super::schema::{Kind, ListType, MapType, Relation, TypeRef};
use super::set::{FieldSet, Node};
use super::value::equal;

/// Capacity of a new text; longer texts are rare.
const USUAL_BYTES: usize = 2048;

/// Sets of fields that the manager does not own.
#[derive(Clone, Copy)]
pub(super) struct Excluded<'s> {
    /// These fields and all fields below them.
    pub reset: Option<&'s FieldSet>,
    /// These fields only.
    pub never: Option<&'s FieldSet>,
}

impl<'s> Excluded<'s> {
    /// Returns whether a field itself is excluded, and the sets below it; `None` if all of it is excluded.
    fn below(self, find: impl Fn(&'s FieldSet) -> Option<&'s Node>) -> Option<(bool, Self)> {
        let [reset, never] = [self.reset, self.never].map(|set| set.and_then(&find));
        if reset.is_some_and(|node| node.member) {
            return None;
        }
        let children = |node: &'s Node| Some(&node.children).filter(|set| !set.is_empty());
        let below = Self { reset: reset.and_then(children), never: never.and_then(children) };
        Some((never.is_some_and(|node| node.member), below))
    }
}

/// The text could not be written directly, so the objects must be compared.
pub(super) struct MustCompare;

/// Returns the text of the fields that a create sets: those in which `new` differs from an empty object. Returns `None`
/// if there are none.
///
/// # Errors
/// The empty object is not as empty as expected, or the new object is invalid.
pub(super) fn created_fields(
    ty: TypeRef<'_>,
    empty: &Value,
    new: &Value,
    excluded: Excluded<'_>,
) -> Result<Option<String>, MustCompare> {
    let mut writer = Writer { text: String::with_capacity(USUAL_BYTES), scratch: String::new() };
    writer.text.push('{');
    let (_, below) = parts(ty, Some(empty), new)?;
    let is_any = writer.below(below, excluded, true, LEVELS_ABOVE + 1)?;
    writer.text.push('}');
    Ok(is_any.then_some(writer.text))
}

struct Writer {
    text: String,
    /// A reusable buffer for keys.
    scratch: String,
}

/// The values below a value that the create may set.
#[derive(Clone, Copy)]
enum Below<'t, 'v> {
    Nothing,
    /// The fields of a struct or map, and its fields in the empty object.
    Fields(MapType<'t>, Option<&'v Map>, &'v Map),
    Items(ListType<'t>, &'v [Value]),
}

/// Returns whether a create sets the value itself, and the values below it. `old` is the value in the empty object.
fn parts<'t, 'v>(
    ty: TypeRef<'t>,
    old: Option<&'v Value>,
    new: &'v Value,
) -> Result<(bool, Below<'t, 'v>), MustCompare> {
    let is_changed = |old: &Value| (!equal(old, new), Below::Nothing);
    match (ty.kind(Some(new)), old) {
        (_, Some(old)) if ty.kinds_differ(old, new) => Err(MustCompare),
        (Kind::Scalar, old) => Ok(old.map_or((true, Below::Nothing), is_changed)),
        (Kind::List, old) => {
            let (old_items, items) = (old.map_or(&[][..], items), items(new));
            let list = ty.list().filter(|list| list.relation != Relation::Atomic);
            match (list, old) {
                (Some(_), _) if !old_items.is_empty() => Err(MustCompare),
                (Some(list), _) if !items.is_empty() => Ok((old.is_none(), Below::Items(list, items))),
                (_, Some(old)) => Ok(is_changed(old)),
                (_, None) => Ok((true, Below::Nothing)),
            }
        }
        (Kind::Map, old) => {
            let (old_fields, fields) = (old.and_then(Value::as_object), new.as_object());
            let is_empty = |fields: Option<&Map>| fields.is_none_or(Map::is_empty);
            let map = ty.map().filter(|map| !map.is_atomic);
            match (map, old) {
                (Some(map), _) if !(is_empty(old_fields) && is_empty(fields)) => {
                    let below = fields.map(|fields| Below::Fields(map, old_fields, fields));
                    Ok((old.is_none(), below.unwrap_or(Below::Nothing)))
                }
                (_, Some(old)) => Ok(is_changed(old)),
                (_, None) => Ok((true, Below::Nothing)),
            }
        }
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns the items of a list by path element, in order. An element that several items have is returned once, without
/// an item.
fn elements<'v>(
    list: ListType<'_>,
    items: &'v [Value],
) -> Result<Vec<(PathElement, Option<&'v Value>)>, MustCompare> {
    let identified = items.iter().map(|item| Ok((list.element(item).map_err(|_| MustCompare)?, Some(item))));
    let mut elements: Vec<(PathElement, Option<&Value>)> = identified.collect::<Result<_, _>>()?;
    if !elements.is_sorted_by(|(one, _), (other, _)| one < other) {
        elements.sort_by(|(one, _), (other, _)| one.cmp(other));
        elements.dedup_by(|(next, _), (kept, item)| {
            let is_same = next == kept;
            if is_same {
                *item = None;
            }
            is_same
        });
    }
    Ok(elements)
}

impl Writer {
    /// Writes the fields below a value, at this level of an object. `is_first` is false after another field of the
    /// value. Returns whether there are any.
    fn below(
        &mut self,
        below: Below<'_, '_>,
        excluded: Excluded<'_>,
        is_first: bool,
        level: usize,
    ) -> Result<bool, MustCompare> {
        let mut needs_comma = !is_first;
        let start = self.text.len();
        match below {
            Below::Nothing => {}
            Below::Fields(map, olds, fields) => {
                for (name, new) in fields {
                    let old = olds.and_then(|olds| olds.get(name));
                    let Some(excluded) = excluded.below(|set| set.get_field(name)) else { continue };
                    if old == Some(new) {
                        continue;
                    }
                    let declared = map.field_of(name);
                    let parts = parts(declared.or(map.values()).unwrap_or(TypeRef::Untyped), old, new)?;
                    let before = self.text.len();
                    self.separate(needs_comma);
                    match declared {
                        // Names of built-in fields need no escapes.
                        Some(TypeRef::Shape(..)) => self.text.extend(["\"f:", name, "\""]),
                        _ => push_quoted(&mut self.text, "\"f:", name),
                    }
                    needs_comma |= self.node(before, parts, excluded, level)?;
                }
            }
            Below::Items(list, items) => {
                for (element, item) in elements(list, items)? {
                    let Some(excluded) = excluded.below(|set| set.get(&element)) else { continue };
                    let parts =
                        item.map_or(Ok((true, Below::Nothing)), |item| parts(list.items, None, item))?;
                    let before = self.text.len();
                    self.separate(needs_comma);
                    element.push_serialized(&mut self.text, &mut self.scratch);
                    needs_comma |= self.node(before, parts, excluded, level)?;
                }
            }
        }
        Ok(self.text.len() > start)
    }

    fn separate(&mut self, needs_comma: bool) {
        if needs_comma {
            self.text.push(',');
        }
    }

    /// Writes what follows a field's name. If the manager owns neither the field nor fields below it, cuts the text to
    /// its length before the name and returns false.
    fn node(
        &mut self,
        before: usize,
        (is_set, below): (bool, Below<'_, '_>),
        (is_excluded, excluded): (bool, Excluded<'_>),
        level: usize,
    ) -> Result<bool, MustCompare> {
        if level >= MAX_DEPTH {
            return Err(MustCompare);
        }
        let is_member = is_set && !is_excluded;
        let name_end = self.text.len();
        if !matches!(below, Below::Nothing) {
            self.text.push_str(if is_member { WITH_SELF } else { ":{" });
            if self.below(below, excluded, !is_member, level + 1)? {
                self.text.push('}');
                return Ok(true);
            }
        }
        self.text.truncate(if is_member { name_end } else { before });
        if is_member {
            self.text.push_str(":{}");
        }
        Ok(is_member)
    }
}

/// The beginning of the fields below a field that the manager owns, too.
const WITH_SELF: &str = ":{\".\":{}";
