//! The rules of a schema as a tree.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::rule::{CompiledRule, Purpose, Rule, RuleCompiler};
use crate::schema::Decl;

/// The rules of a value and of the values inside it.
#[derive(Debug)]
pub(super) struct RuleNode {
    /// `None` if expressions cannot use values of the schema, although it has rules or contains schemas with rules.
    pub(super) decl: Option<Decl>,
    pub(super) has_rules: bool,
    pub(super) rules: Vec<CompiledRule>,
    /// The schema's type, which errors show instead of values.
    pub(super) type_name: String,
    /// The keys of a list of type `map`.
    pub(super) list_keys: Option<Vec<String>>,
    pub(super) items: Option<Box<RuleNode>>,
    pub(super) values: Option<Box<RuleNode>>,
    pub(super) properties: BTreeMap<String, RuleNode>,
    /// The rules in `allOf`. New definitions cannot have them; old stored definitions can.
    pub(super) all_of: Vec<RuleNode>,
}

pub(super) const MAX_DEPTH: usize = 120;

impl RuleNode {
    /// Compiles the rules of a schema; `None` if the schema has no rules outside `allOf`, as upstream.
    pub(super) fn new(schema: &Json, is_root: bool, purpose: Purpose<'_>) -> Option<Self> {
        if has_rules(schema, 0) { Self::build(schema, schema, is_root, purpose, 0) } else { None }
    }

    /// Compiles the rules in `validation` for the values of `schema`. These are the same schema, except inside
    /// `allOf`, where `validation` lacks types.
    fn build(
        validation: &Json,
        schema: &Json,
        is_resource: bool,
        purpose: Purpose<'_>,
        depth: usize,
    ) -> Option<Self> {
        if depth > MAX_DEPTH {
            return None;
        }
        let below = |name: &str| {
            let [inner, schema] = [validation, schema].map(|it| it.get(name).filter(|it| it.is_object()));
            let (inner, schema) = inner.zip(schema)?;
            Self::build(inner, schema, is_embedded(schema), purpose, depth + 1).map(Box::new)
        };
        let (items, values) = (below("items"), below("additionalProperties"));
        let mut properties = BTreeMap::new();
        for (name, inner) in object(validation, "properties") {
            let Some(schema) = schema.get("properties").and_then(|it| it.get(name)) else { continue };
            let below = Self::build(inner, schema, is_embedded(schema), purpose, depth + 1);
            // Properties that expressions cannot use are not validated.
            if let Some(below) = below.filter(|below| below.decl.is_some()) {
                properties.insert(name.clone(), below);
            }
        }
        let all_of = validation.get("allOf").and_then(Json::as_array).into_iter().flatten();
        let all_of: Vec<Self> =
            all_of.filter_map(|inner| Self::build(inner, schema, is_resource, purpose, depth + 1)).collect();
        let own = Rule::read_all(validation);
        let is_empty = items.is_none() && values.is_none() && properties.is_empty() && all_of.is_empty();
        if own.is_empty() && is_empty {
            return None;
        }
        let decl = Decl::from_schema(schema, is_resource);
        if decl.is_none() {
            properties.clear();
        }
        let has_rules = !own.is_empty();
        let rules = match &decl {
            Some(decl) if has_rules => {
                let compiler = RuleCompiler::new(decl, purpose);
                own.into_iter().map(|rule| rule.compile(schema, &compiler)).collect()
            }
            _ => Vec::new(),
        };
        let type_name = schema.get("type").and_then(Json::as_str).unwrap_or_default().to_owned();
        let list_keys = list_keys(schema);
        Some(Self { decl, has_rules, rules, type_name, list_keys, items, values, properties, all_of })
    }

    pub(super) fn uses_old_self(&self) -> bool {
        self.rules.iter().any(|rule| rule.uses_old_self)
    }
}

/// Returns whether a schema or a schema inside it has rules. Does not look into `allOf`.
fn has_rules(schema: &Json, depth: usize) -> bool {
    let below = ["items", "additionalProperties"].into_iter().filter_map(|name| schema.get(name));
    let mut below = below.chain(object(schema, "properties").map(|(_, property)| property));
    depth <= MAX_DEPTH
        && (!Rule::read_all(schema).is_empty() || below.any(|schema| has_rules(schema, depth + 1)))
}

fn object<'a>(schema: &'a Json, name: &str) -> impl Iterator<Item = (&'a String, &'a Json)> + use<'a> {
    schema.get(name).and_then(Json::as_object).into_iter().flatten()
}

/// Returns whether the values of a schema are resources.
pub(super) fn is_embedded(schema: &Json) -> bool {
    schema.get("x-kubernetes-embedded-resource").and_then(Json::as_bool) == Some(true)
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
