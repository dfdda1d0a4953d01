//! Pruning: drops the fields that the schema does not specify (upstream: `apiserver/schema/pruning`).

use std::fmt::Write;

use nave_machinery::{Map, Value};

use crate::node::Node;

/// Maximum number of unknown fields reported for one object, as for built-in kinds.
const MAX_REPORTED: usize = 100;

/// Maximum length of a reported path in bytes.
const MAX_PATH_BYTES: usize = 512;

/// The fields that every resource has.
pub(crate) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields from a resource and returns their paths, sorted, at most 100.
pub(crate) fn prune(root: &Node, object: &mut Value) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), unknown: Vec::new() };
    pruner.value(Some(root), object);
    pruner.unknown.sort_unstable();
    pruner.unknown
}

struct Pruner {
    path: String,
    unknown: Vec<String>,
}

impl Pruner {
    fn value(&mut self, node: Option<&Node>, value: &mut Value) {
        match (node, value) {
            (Some(node), value) if node.preserve_unknown => self.preserved(node, value),
            (node, Value::Object(fields)) => self.fields(node, fields),
            (node, Value::Array(items)) => {
                let below = node.and_then(|node| node.items.as_deref());
                self.items(items, |pruner, item| pruner.value(below, item));
            }
            _ => {}
        }
    }

    fn fields(&mut self, node: Option<&Node>, fields: &mut Map) {
        fields.retain(|name, value| {
            let Some(node) = node else {
                self.report(name);
                return false;
            };
            if node.embedded_resource && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let property = node.property(name);
            let is_known = property.is_some() || node.allows_additional();
            if is_known {
                self.field(name, |pruner| pruner.value(property.or(node.additional_schema()), value));
            } else {
                self.report(name);
            }
            is_known
        });
    }

    /// Keeps unknown fields and prunes the values of known fields.
    fn preserved(&mut self, node: &Node, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if node.embedded_resource && META_FIELDS.contains(&name.as_str()) {
                        continue;
                    }
                    let property = node.property(name);
                    if property.is_some() || node.allows_additional() {
                        self.field(name, |pruner| pruner.value(property.or(node.additional_schema()), value));
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = node.items.as_deref() else { return };
                self.items(items, |pruner, item| pruner.preserved(below, item));
            }
            _ => {}
        }
    }

    fn field(&mut self, name: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length < MAX_PATH_BYTES {
            self.path.push_str(if length > 0 { "." } else { "" });
            self.path.push_str(name);
        }
        visit(self);
        self.path.truncate(length);
    }

    fn items(&mut self, items: &mut [Value], mut visit: impl FnMut(&mut Self, &mut Value)) {
        let length = self.path.len();
        for (index, item) in items.iter_mut().enumerate() {
            if length < MAX_PATH_BYTES {
                let _ = write!(self.path, "[{index}]");
            }
            visit(self, item);
            self.path.truncate(length);
        }
    }

    fn report(&mut self, name: &str) {
        if self.unknown.len() >= MAX_REPORTED {
            return;
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format_args!("{}{dot}{name}", self.path);
        self.unknown.push(nave_machinery::limits::clipped(path, MAX_PATH_BYTES));
    }
}
