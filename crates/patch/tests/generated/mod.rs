//! Generated objects of every built-in kind.

use std::collections::BTreeMap;

use nave_machinery::{Map, Value};
use nave_schema::{Field, ListTopology, Scalar, Shape, StructType, TypeId, builtin};
use serde_json::json;

/// Maximum depth of generated objects.
pub(crate) const DEPTH: usize = 9;
/// Only a few texts, so that two objects share keys and items.
const TEXTS: [&str; 4] = ["a", "b", "c", "d/e"];

/// Returns the types of objects that have a name.
pub(crate) fn kinds() -> Vec<TypeId> {
    let is_named = |field: &Field| matches!(&field.shape, Shape::Struct(id) if builtin().get(*id).field("name").is_some());
    let is_kind = |ty: &StructType| ty.field("kind").is_some() && ty.field("metadata").is_some_and(is_named);
    let kinds = builtin().types().iter().filter(|ty| is_kind(ty));
    kinds.filter_map(|ty| builtin().find(&ty.name)).collect()
}

/// Bytes that determine the generated object; zeros follow them.
pub(crate) struct Choices<'b>(pub(crate) &'b [u8]);

impl Choices<'_> {
    /// Returns a number less than `below`.
    pub(crate) fn next(&mut self, below: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % below
    }

    fn text(&mut self) -> String {
        TEXTS[self.next(TEXTS.len())].to_owned()
    }

    /// Returns an object of a type.
    pub(crate) fn object(&mut self, id: TypeId, depth: usize) -> Map {
        let fields = &builtin().get(id).fields;
        let mut object = Map::new();
        if fields.is_empty() {
            return object;
        }
        // Prefers fields with a merge rule of their own.
        let ruled: Vec<&Field> = fields.iter().filter(|field| has_rule(field)).collect();
        for _ in 0..self.next(5) {
            let field = match ruled.len() {
                0 => &fields[self.next(fields.len())],
                _ if self.next(2) == 0 => &fields[self.next(fields.len())],
                count => ruled[self.next(count)],
            };
            if let Some(value) = self.field(field, depth) {
                object.insert(field.name.clone(), value);
            }
        }
        object
    }

    fn field(&mut self, field: &Field, depth: usize) -> Option<Value> {
        let Shape::List { items, topology } = &field.shape else { return self.value(&field.shape, depth) };
        let keys: Vec<&str> = match (topology, &field.patch.merge_key) {
            (ListTopology::Map(keys), _) => keys.iter().map(String::as_str).collect(),
            (_, Some(key)) if field.patch.merge => vec![key],
            (ListTopology::Set, _) => Vec::new(),
            _ if field.patch.merge => Vec::new(),
            _ => return self.value(&field.shape, depth),
        };
        let mut list = BTreeMap::new();
        for _ in 0..self.next(4) {
            let mut item = self.value(items, depth.checked_sub(1)?)?;
            if let (Shape::Struct(id), Some(fields)) = (items.as_ref(), item.as_object_mut()) {
                for key in &keys {
                    fields
                        .insert((*key).to_owned(), self.value(&builtin().get(*id).field(key)?.shape, depth)?);
                }
            }
            // Both kinds of merge must be able to find the items.
            let identity = match (&field.patch.merge_key, keys.as_slice()) {
                (Some(key), _) => item[key].to_string(),
                (None, []) => item.to_string(),
                (None, keys) => json!(keys.iter().map(|key| &item[*key]).collect::<Vec<_>>()).to_string(),
            };
            list.insert(identity, item);
        }
        let mut list: Vec<Value> = list.into_values().collect();
        if !list.is_empty() {
            let start = self.next(list.len());
            list.rotate_left(start);
        }
        Some(Value::Array(list))
    }

    fn value(&mut self, shape: &Shape, depth: usize) -> Option<Value> {
        Some(match shape {
            Shape::Scalar(Scalar::Bool) => json!(self.next(2) == 0),
            Shape::Scalar(Scalar::Int32 | Scalar::Int64) => json!(self.next(3)),
            Shape::Scalar(Scalar::Double) => json!(0.5),
            Shape::Scalar(Scalar::IntOrString | Scalar::Quantity) if self.next(2) == 0 => json!(self.next(3)),
            Shape::Scalar(_) => json!(self.text()),
            Shape::Struct(id) => Value::Object(self.object(*id, depth.checked_sub(1)?)),
            Shape::List { items, .. } => {
                (0..self.next(3)).filter_map(|_| self.value(items, depth.checked_sub(1)?)).collect()
            }
            Shape::Map { values, .. } => {
                let mut map = Map::new();
                for _ in 0..self.next(3) {
                    map.insert(self.text(), self.value(values, depth.checked_sub(1)?)?);
                }
                Value::Object(map)
            }
            Shape::Any => match self.next(3) {
                0 => json!(self.text()),
                1 => json!([self.text(), { self.text(): self.text() }]),
                _ => json!({ self.text(): { self.text(): self.next(3) } }),
            },
        })
    }
}

fn has_rule(field: &Field) -> bool {
    field.patch.merge || field.patch.retain_keys || matches!(field.shape, Shape::Struct(_))
}
