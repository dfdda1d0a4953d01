//! The rules of a schema as a tree.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::rule::{CompiledRule, Rule};
use crate::schema::Decl;

/// The rules of a value and of the values inside it.
#[derive(Debug)]
pub(super) struct RuleNode {
    pub(super) decl: Option<Decl>,
    pub(super) rules: Vec<CompiledRule>,
    /// The schema's type, which errors show instead of values.
    pub(super) type_name: String,
    /// The keys of a list of type `map`.
    pub(super) list_keys: Option<Vec<String>>,
    pub(super) items: Option<Box<RuleNode>>,
    pub(super) values: Option<Box<RuleNode>>,
    pub(super) properties: BTreeMap<String, RuleNode>,
}

const MAX_DEPTH: usize = 120;

impl RuleNode {
    /// Compiles the rules of a schema; `None` if the schema has no rules.
    pub(super) fn new(schema: &Json, is_root: bool) -> Option<Self> {
        Self::build(schema, is_root, 0)
    }

    fn build(schema: &Json, is_resource: bool, depth: usize) -> Option<Self> {
        if depth > MAX_DEPTH {
            return None;
        }
        let embedded = |schema: &Json| {
            schema.get("x-kubernetes-embedded-resource").and_then(Json::as_bool) == Some(true)
        };
        let below = |name: &str| {
            let below = schema.get(name).filter(|it| it.is_object())?;
            Self::build(below, embedded(below), depth + 1).map(Box::new)
        };
        let mut properties = BTreeMap::new();
        for (name, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            if let Some(below) = Self::build(property, embedded(property), depth + 1) {
                properties.insert(name.clone(), below);
            }
        }
        let own = Rule::read_all(schema);
        let (items, values) = (below("items"), below("additionalProperties"));
        if own.is_empty() && items.is_none() && values.is_none() && properties.is_empty() {
            return None;
        }
        let decl = Decl::from_schema(schema, is_resource);
        let rules = match &decl {
            Some(decl) => own.into_iter().map(|rule| rule.compile(schema, decl)).collect(),
            None => Vec::new(),
        };
        let type_name = schema.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
        let list_keys = list_keys(schema);
        Some(Self { decl, rules, type_name, list_keys, items, values, properties })
    }

    pub(super) fn uses_old_self(&self) -> bool {
        self.rules.iter().any(|rule| rule.uses_old_self)
    }
}

/// Returns the keys of a list of type `map`.
pub(super) fn list_keys(schema: &Json) -> Option<Vec<String>> {
    if schema.get("x-kubernetes-list-type")?.as_str()? != "map" {
        return None;
    }
    let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
    Some(keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect())
}

/// Returns the list item with the same key values as `item`.
pub(super) fn correlated<'a>(list: &'a [Json], item: &Json, keys: &[String]) -> Option<&'a Json> {
    let item = item.as_object()?;
    list.iter().find(|old| old.is_object() && keys.iter().all(|key| old.get(key) == item.get(key)))
}
