//! Compares the registry with a recorded kube-apiserver, if the recording is available.

#![allow(clippy::expect_used, reason = "a test may fail")]

use std::path::PathBuf;

use nave_machinery::{GroupVersion, GroupVersionResource, Value};
use nave_resources::{Registry, Verb, discovery};
use nave_schema::SchemaSet;
use serde_json::json;

/// Reads a file of the recording. If it is missing, prints that the check is skipped.
fn reference(file: &str) -> Option<Value> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    let folder = std::env::var_os("NAVE_REFERENCE").map_or(default, PathBuf::from);
    let path = folder.join(file);
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    };
    Some(serde_json::from_slice(&text).expect("the recording is JSON"))
}

fn builtin() -> Registry {
    Registry::builtin(&SchemaSet::default())
}

#[test]
fn aggregated_discovery_matches_the_recording() {
    let Some(recorded) = reference("discovery.json") else { return };
    let registry = builtin();
    for (path, is_core) in [("/api", true), ("/apis", false)] {
        let groups = registry.groups().iter().filter(|group| group.name.is_empty() == is_core);
        let groups: Vec<Vec<u8>> =
            groups.map(|group| serde_json::to_vec(&discovery::aggregated_group(group)).unwrap()).collect();
        let document = discovery::aggregated(groups.iter().map(Vec::as_slice));
        let ours: Value = serde_json::from_slice(&document).unwrap();
        let theirs = &recorded[path];
        assert_eq!(ours["items"].as_array().map(Vec::len), theirs["items"].as_array().map(Vec::len));
        for (ours, theirs) in
            ours["items"].as_array().unwrap().iter().zip(theirs["items"].as_array().unwrap())
        {
            assert_eq!(ours, theirs, "{path}");
        }
        assert_eq!(&ours, theirs);
    }
}

#[test]
fn table_columns_match_the_recording() {
    let Some(recorded) = reference("table-columns.json") else { return };
    let registry = builtin();
    let recorded = recorded.as_object().unwrap();
    for (path, theirs) in recorded {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let resource = match parts[..] {
            ["api", version, resource] => GroupVersionResource::new("", version, resource),
            ["apis", group, version, resource] => GroupVersionResource::new(group, version, resource),
            _ => panic!("{path} is not a list path"),
        };
        let def = registry.lookup(&resource).unwrap_or_else(|| panic!("{path} is not served"));
        let ours: Value = def.versions[0]
            .columns
            .iter()
            .map(|it| json!({"name": it.name, "type": it.kind, "format": it.format, "priority": it.priority}))
            .collect();
        assert_eq!(&ours, theirs, "{path}");
    }
    let listed =
        registry.all().filter(|def| def.serves(Verb::List)).map(|def| def.versions.len()).sum::<usize>();
    assert_eq!(listed, recorded.len());
}

#[test]
fn deletes_return_the_documented_type() {
    let Some(recorded) = reference("openapi-v2-structure.json") else { return };
    let registry = builtin();
    for def in registry.all().filter(|def| def.serves(Verb::Delete)) {
        let version = &def.versions[0].name;
        let root = if def.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", def.group)
        };
        let scope = if def.namespaced { "/namespaces/{namespace}" } else { "" };
        let path = format!("{root}{scope}/{}/{{name}}", def.resource);
        let answer = &recorded["paths"][&path]["delete"]["responses"]["200"]["schema"]["$ref"];
        let documented = answer.as_str().unwrap_or_else(|| panic!("{path} has no DELETE"));
        // Upstream documents that deleting a namespace returns a Status, but its custom DELETE returns the namespace.
        let object = !documented.ends_with(".Status") || def.resource == "namespaces";
        assert_eq!(def.rules.returns_deleted, object, "{path}: {documented}");
    }
}

#[test]
fn every_served_kind_is_documented() {
    let Some(recorded) = reference("openapi-v2-structure.json") else { return };
    for def in builtin().all() {
        for version in &def.versions {
            assert!(
                recorded["definitions"].get(&version.type_name).is_some(),
                "{} is unknown",
                version.type_name
            );
        }
    }
}

#[test]
fn columns_describe_existing_fields() {
    let Some(recorded) = reference("openapi-v2-structure.json") else { return };
    for def in builtin().all() {
        for column in def.versions[0].columns.iter() {
            let nave_resources::Description::OfField { type_name, field } = &column.description else {
                continue;
            };
            let known = recorded["definitions"][type_name]["properties"].get(field).is_some();
            assert!(known, "{}: column {}: {type_name}.{field}", def.resource, column.name);
        }
    }
}

#[test]
fn cells_match_the_recording() {
    let Some(recorded) = reference("../conformance/expected.json") else { return };
    // Replaces the placeholder for UIDs with a valid label value.
    let recorded: Value = serde_json::from_str(&recorded.to_string().replace("<uid>", "uid")).unwrap();
    let registry = builtin();
    let now = nave_machinery::time::now();
    let mut compared = 0;
    // These scenarios read an object and then its table.
    for (scenario, steps) in
        recorded.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("kinds."))
    {
        let mut last = &Value::Null;
        for step in steps.as_array().unwrap() {
            let body = &step["body"];
            if body["kind"] != "Table" {
                last = if body["metadata"]["name"].is_string() { body } else { last };
                continue;
            }
            let Some((def, mut object)) = in_storage_version(&registry, last) else { continue };
            let theirs = &body["rows"][0]["cells"];
            if theirs[0] != object["metadata"]["name"] {
                continue;
            }
            object["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
            let version = &def.versions[0];
            for (index, (column, ours)) in version
                .columns
                .iter()
                .zip(nave_resources::table::row(&version.columns, &object, now))
                .enumerate()
            {
                // Times are not recorded.
                if !["Age", "Created At"].contains(&&*column.name) {
                    assert_eq!(ours, theirs[index], "{scenario}: {}", column.name);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "only {compared} cells were compared");
}

fn in_storage_version(
    registry: &Registry,
    object: &Value,
) -> Option<(std::sync::Arc<nave_resources::ResourceDef>, Value)> {
    let version = GroupVersion::parse(object["apiVersion"].as_str()?)?;
    let def = registry.by_kind(&version.with_kind(object["kind"].as_str()?))?.clone();
    let mut object = object.clone();
    nave_resources::convert(&def, &mut object, &version, &def.storage.as_ref()?.version).ok()?;
    Some((def, object))
}
