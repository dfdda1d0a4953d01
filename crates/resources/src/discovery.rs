//! The discovery documents, as functions of the registry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nave_machinery::{GroupVersionKind, Map, Value};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::def::{ResourceDef, Subresource, Verb};
use crate::registry::{Group, Registry};

/// `/api`: the versions of the core group. `server_address` is what clients of any network may reach, `host:port`.
pub fn api_versions(registry: &Registry, server_address: &str) -> Value {
    let versions = registry.group("").map_or(&[][..], |group| &group.versions);
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: all groups but the core group.
pub fn api_group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = named_groups(registry).map(|group| Value::Object(group_fields(group))).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn api_group(group: &Group) -> Value {
    let mut document = group_fields(group);
    document.insert("kind".to_owned(), json!("APIGroup"));
    document.insert("apiVersion".to_owned(), json!("v1"));
    Value::Object(document)
}

/// `/api/<version>` and `/apis/<group>/<version>`: what a version serves, in the form before aggregation.
pub fn api_resource_list(group: &Group, version: &str) -> Value {
    let mut resources = Vec::new();
    for def in served(group, version) {
        resources.push(legacy_resource(def));
        resources.extend(def.subresources.iter().map(|sub| legacy_subresource(def, sub)));
    }
    let mut document = json!({
        "kind": "APIResourceList", "groupVersion": group_version(&group.name, version), "resources": resources,
    });
    // The core group's document has no apiVersion, as it never had.
    if !group.name.is_empty() {
        document["apiVersion"] = json!("v1");
    }
    document
}

/// `/api` in the aggregated form, `apidiscovery.k8s.io/v2`.
pub fn aggregated_core(registry: &Registry) -> Value {
    aggregated(registry.groups().iter().filter(|group| group.name.is_empty()))
}

/// `/apis` in the aggregated form, `apidiscovery.k8s.io/v2`.
pub fn aggregated_groups(registry: &Registry) -> Value {
    aggregated(named_groups(registry))
}

/// What a client compares to learn whether the stored form of a resource changed: a hash of its kind.
pub fn storage_version_hash(stored: &GroupVersionKind) -> String {
    let text = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

fn named_groups(registry: &Registry) -> impl Iterator<Item = &Group> {
    registry.groups().iter().filter(|group| !group.name.is_empty())
}

fn served<'a>(group: &'a Group, version: &'a str) -> impl Iterator<Item = &'a ResourceDef> {
    group.resources.iter().map(AsRef::as_ref).filter(move |def| def.version(version).is_some())
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_fields(group: &Group) -> Map {
    let version =
        |version: &String| json!({"groupVersion": group_version(&group.name, version), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut fields = Map::new();
    fields.insert("name".to_owned(), json!(group.name));
    fields.insert("preferredVersion".to_owned(), versions.first().cloned().unwrap_or_default());
    fields.insert("versions".to_owned(), Value::Array(versions));
    fields
}

fn aggregated<'a>(groups: impl Iterator<Item = &'a Group>) -> Value {
    let items: Vec<Value> = groups.map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(group: &Group) -> Value {
    let version = |version: &String| {
        let resources: Vec<Value> = served(group, version).map(aggregated_resource).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(def: &ResourceDef) -> Value {
    let mut document = json!({
        "resource": def.resource,
        "responseKind": {"group": "", "version": "", "kind": def.kind},
        "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": def.singular,
        "verbs": verbs(def.verbs),
    });
    add_lists(&mut document, def);
    if !def.subresources.is_empty() {
        let subresource = |sub: &Subresource| json!({"subresource": sub.name, "responseKind": &sub.response, "verbs": verbs(sub.verbs)});
        document["subresources"] = def.subresources.iter().map(subresource).collect();
    }
    document
}

fn legacy_resource(def: &ResourceDef) -> Value {
    let mut document = json!({
        "name": def.resource,
        "singularName": def.singular,
        "namespaced": def.namespaced,
        "kind": def.kind,
        "verbs": verbs(def.verbs),
    });
    add_lists(&mut document, def);
    if let Some(storage) = &def.storage {
        document["storageVersionHash"] = json!(storage_version_hash(&storage.version.with_kind(&*def.kind)));
    }
    document
}

fn legacy_subresource(def: &ResourceDef, sub: &Subresource) -> Value {
    let mut document = json!({
        "name": format!("{}/{}", def.resource, sub.name),
        "singularName": "",
        "namespaced": def.namespaced,
        "kind": sub.response.kind,
        "verbs": verbs(sub.verbs),
    });
    if !sub.response.version.is_empty() {
        document["group"] = json!(sub.response.group);
        document["version"] = json!(sub.response.version);
    }
    document
}

fn add_lists(document: &mut Value, def: &ResourceDef) {
    if !def.short_names.is_empty() {
        document["shortNames"] = json!(def.short_names);
    }
    if !def.categories.is_empty() {
        document["categories"] = json!(def.categories);
    }
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}
