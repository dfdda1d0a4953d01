//! The old value that corresponds to a new value in an update (upstream: `apiserver/pkg/cel/common`,
//! `CorrelatedObject`).

use std::collections::HashMap;

use nave_machinery::{Map, Value};

use crate::list_type::identity;
use crate::node::{ListType, Node};

/// An old value with the schema of its structure.
#[derive(Clone, Copy)]
pub(super) struct Old<'o> {
    value: &'o Value,
    node: &'o Node,
}

impl<'o> Old<'o> {
    pub(super) fn new(value: &'o Value, node: &'o Node) -> Self {
        Self { value, node }
    }

    /// Returns the old value of a field, if the schema knows the field.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        Some(Self { value: self.value.as_object()?.get(name)?, node: self.node.field(name)? })
    }

    /// Returns the old items of a list of type map by their keys.
    pub(super) fn items(self) -> Option<OldItems<'o>> {
        let (ListType::Map(keys), Value::Array(items)) = (&self.node.list, self.value) else { return None };
        let node = self.node.items.as_deref()?;
        let mut by_key = HashMap::with_capacity(items.len());
        for item in items {
            by_key.entry(identity(keys, item)).or_insert(item);
        }
        Some(OldItems { keys, node, by_key })
    }

    /// Returns whether the new value equals the old value. Ignores the order of lists of type map.
    pub(super) fn equals(self, new: &Value) -> bool {
        match (self.value, new) {
            (Value::Object(old), Value::Object(new)) => {
                old.len() == new.len()
                    && new.iter().all(|(name, value)| match self.field(name) {
                        Some(old) => old.equals(value),
                        None => old.get(name) == Some(value),
                    })
            }
            (Value::Array(old), Value::Array(new)) => {
                let Some(items) = self.items() else { return old == new };
                old.len() == new.len()
                    && new.iter().all(|item| items.find(item).is_some_and(|old| old.equals(item)))
            }
            (old, new) => old == new,
        }
    }
}

/// The old items of a list of type map.
pub(super) struct OldItems<'o> {
    keys: &'o [String],
    node: &'o Node,
    by_key: HashMap<Map, &'o Value>,
}

impl<'o> OldItems<'o> {
    /// Returns the old item with the same keys as a new item.
    pub(super) fn find(&self, item: &Value) -> Option<Old<'o>> {
        let value = self.by_key.get(&identity(self.keys, item)).copied()?;
        (!value.is_null()).then_some(Old { value, node: self.node })
    }
}
