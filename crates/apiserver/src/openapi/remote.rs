//! The OpenAPI 2 documents of aggregated servers (upstream: `kube-openapi/pkg/aggregator`).

use std::collections::{BTreeMap, BTreeSet};

use nave_machinery::{Map, Value};

/// The part of a server's document that describes one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RemoteDocument {
    pub(super) paths: Map,
    /// The definitions that the paths refer to.
    pub(super) definitions: Map,
    pub(super) parameters: Map,
    /// The hash of all of it.
    pub(crate) hash: String,
    /// The estimated memory, in bytes.
    pub(crate) memory: usize,
}

/// The memory of a document for each byte of its JSON: objects are maps, and texts are allocated one by one.
const MEMORY_PER_BYTE: usize = 8;

/// The prefixes of references.
const SECTIONS: [&str; 2] = ["definitions", "parameters"];

impl RemoteDocument {
    /// Returns an empty document that counts as this much memory.
    #[cfg(test)]
    pub(crate) fn with_memory(memory: usize) -> Self {
        Self { memory, ..Self::default() }
    }

    /// Reads the paths of a version, and what they refer to.
    ///
    /// # Errors
    /// The document is invalid.
    pub(crate) fn read(document: &[u8], version_path: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let is_own = |path: &str| {
            path.strip_prefix(version_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let paths = document["paths"].as_object().into_iter().flatten();
        let paths: Map =
            paths.filter(|(path, _)| is_own(path)).map(|(path, it)| (path.clone(), it.clone())).collect();
        let mut read = Self { paths, ..Self::default() };
        let mut seen = BTreeSet::new();
        let mut open = Vec::new();
        let mut follow = |value: &Value, open: &mut Vec<_>| {
            let mut found = BTreeSet::new();
            references(value, &mut found);
            open.extend(found.into_iter().filter(|reference| seen.insert(reference.clone())));
        };
        read.paths.values().for_each(|item| follow(item, &mut open));
        while let Some((section, name)) = open.pop() {
            if let Some(found) = document[section].get(&name) {
                follow(found, &mut open);
                read.section(section).insert(name, found.clone());
            }
        }
        let parts = read.sections().map(|part| serde_json::to_vec(part).unwrap_or_default());
        read.memory = MEMORY_PER_BYTE * parts.iter().map(Vec::len).sum::<usize>();
        read.hash = super::hash_of(&parts.each_ref().map(Vec::as_slice));
        Ok(read)
    }

    /// Returns whether the version has no paths.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    fn section(&mut self, section: &str) -> &mut Map {
        if section == "definitions" { &mut self.definitions } else { &mut self.parameters }
    }

    /// Returns the sections, in the order of [`SECTIONS`](super::joined_v2::SECTIONS).
    pub(super) fn sections(&self) -> [&Map; 3] {
        [&self.paths, &self.definitions, &self.parameters]
    }
}

/// Returns the reference to a field of a section.
pub(super) fn reference(section: &str, name: &str) -> String {
    // RFC 6901, section 3.
    format!("#/{section}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Collects the definitions and parameters that a value refers to.
fn references(value: &Value, found: &mut BTreeSet<(&'static str, String)>) {
    match value {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                for section in SECTIONS {
                    let name = target
                        .strip_prefix("#/")
                        .and_then(|rest| rest.strip_prefix(section)?.strip_prefix('/'));
                    found.extend(name.map(|name| (section, name.replace("~1", "/").replace("~0", "~"))));
                }
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Returns whether a value has one of the references.
pub(super) fn refers(value: &Value, to: &BTreeMap<String, String>) -> bool {
    match value {
        Value::Object(fields) => {
            let target = fields.get("$ref").and_then(Value::as_str);
            target.is_some_and(|target| to.contains_key(target)) || fields.values().any(|it| refers(it, to))
        }
        Value::Array(items) => items.iter().any(|item| refers(item, to)),
        _ => false,
    }
}

/// Replaces references.
pub(super) fn rename(value: &mut Value, renamed: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref")
                && let Some(new) = renamed.get(target)
            {
                target.clone_from(new);
            }
            fields.values_mut().for_each(|value| rename(value, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> RemoteDocument {
        RemoteDocument::read(document.to_string().as_bytes(), "/apis/a.example/v1").unwrap()
    }

    #[test]
    fn only_the_version_and_what_it_refers_to_is_read() {
        let to = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let document = read(&json!({
            "paths": {"/apis/a.example/v1/things": {"get": to("List")}, "/apis/apps/v1/": {}, "/apis/a.example/v10/": {}},
            "definitions": {"List": {"items": to("Thing")}, "Thing": {"again": to("Thing"), "x": to("Missing")}, "Other": {}},
        }));
        assert_eq!(document.paths.keys().collect::<Vec<_>>(), ["/apis/a.example/v1/things"]);
        assert_eq!(document.definitions.keys().collect::<Vec<_>>(), ["List", "Thing"]);
        assert!(RemoteDocument::read(b"[", "/apis/a.example/v1").is_err());
        assert!(read(&json!([])).is_empty());
    }

    #[test]
    fn the_cost_is_linear_in_the_references() {
        // A quadratic search would take minutes.
        let to = |name: usize| json!({"$ref": format!("#/definitions/{name}")});
        let all: Vec<Value> = (0..20_000).map(to).collect();
        let chain: Map = (0..20_000).map(|name| (name.to_string(), to(name + 1))).collect();
        let document = read(&json!({"paths": {"/apis/a.example/v1": all}, "definitions": chain}));
        assert_eq!(document.definitions.len(), 20_000);
    }
}
