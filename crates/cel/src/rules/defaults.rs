//! Rules for the defaults in a schema.

use serde_json::Value as Json;

use super::error::{Path, RuleError};
use super::node::{MAX_DEPTH, RuleNode};
use super::ratchet::Ratchet;
use super::rule::Purpose;
use super::validate::{Ended, Run};

/// Applies the rules of a schema at `path` to the defaults in it, as to unchanged values and as to new values. The
/// defaults must be valid without rules. Upstream: `apiserver/schema/defaulting`.
pub fn check_defaults(schema: &Json, path: &str) -> Vec<RuleError> {
    if !has_defaults(schema, 0) {
        return Vec::new();
    }
    let mut run = Run::new();
    if let Some(node) = RuleNode::new(schema, true, Purpose::Validate(None)) {
        // Exhaustion of the budget is one of the errors.
        let _ = run.defaults(schema, &node, &Path(path.to_owned()));
    }
    run.validation.errors
}

fn has_defaults(schema: &Json, depth: usize) -> bool {
    let properties = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
    let mut below = schema.get("items").into_iter().chain(properties.map(|(_, property)| property));
    depth <= MAX_DEPTH && (default(schema).is_some() || below.any(|schema| has_defaults(schema, depth + 1)))
}

fn default(schema: &Json) -> Option<&Json> {
    schema.get("default").filter(|default| !default.is_null())
}

impl Run {
    fn defaults(&mut self, schema: &Json, node: &RuleNode, path: &Path) -> Result<(), Ended> {
        if let Some(default) = default(schema) {
            let path = path.child("default");
            let (budget, before) = (self.budget, self.validation.errors.len());
            self.node(node, &path, default, Some(default), Ratchet::default())?;
            if self.validation.errors.len() == before {
                let rest = std::mem::replace(&mut self.budget, budget);
                self.node(node, &path, default, None, Ratchet::default())?;
                self.budget = self.budget.min(rest);
            }
        }
        if let (Some(items), Some(node)) = (schema.get("items"), &node.items) {
            self.defaults(items, node, &path.child("items"))?;
        }
        for (name, node) in &node.properties {
            if let Some(property) = schema.get("properties").and_then(|it| it.get(name)) {
                self.defaults(property, node, &path.child("properties").key(name))?;
            }
        }
        Ok(())
    }
}
