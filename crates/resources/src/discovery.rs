//! The discovery documents, computed from the registry.
//!
//! The documents are structs to keep upstream's field order, because tools and users search the documents as text.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nave_machinery::GroupVersionKind;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::def::{ResourceDef, ResourceVersion, Schema, Subresource, Verb};
use crate::registry::{Group, Registry};

/// The document at `/api`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiVersions {
    kind: &'static str,
    versions: Vec<String>,
    #[serde(rename = "serverAddressByClientCIDRs")]
    server_addresses: Vec<ServerAddress>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerAddress {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    server_address: String,
}

/// The document at `/apis`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiGroupList {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<ApiGroup>,
}

/// The document at `/apis/<group>`. An entry of `/apis` has no kind.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiGroup {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'static str,
    name: String,
    versions: Vec<ServedVersion>,
    preferred_version: ServedVersion,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServedVersion {
    group_version: String,
    version: String,
}

/// The document at `/api/<version>` and `/apis/<group>/<version>`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiResourceList {
    kind: &'static str,
    /// Upstream's document of the core group lacks this field.
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'static str,
    group_version: String,
    resources: Vec<ApiResource>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource {
    name: String,
    singular_name: String,
    namespaced: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version: String,
    kind: String,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

/// A group in the document at `/api` and `/apis` in the aggregated form, `apidiscovery.k8s.io/v2`.
#[derive(Debug, Serialize)]
pub struct ApiGroupDiscovery {
    metadata: BTreeMap<&'static str, String>,
    versions: Vec<ApiVersionDiscovery>,
}

#[derive(Debug, Serialize)]
struct ApiVersionDiscovery {
    version: String,
    resources: Vec<ApiResourceDiscovery>,
    freshness: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResourceDiscovery {
    resource: String,
    response_kind: GroupVersionKind,
    scope: &'static str,
    singular_resource: String,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<ApiSubresourceDiscovery>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiSubresourceDiscovery {
    subresource: String,
    response_kind: GroupVersionKind,
    verbs: Vec<&'static str>,
}

/// `/api`: the versions of the core group. `server_address` (`host:port`) is served to clients in all networks.
pub fn api_versions(registry: &Registry, server_address: &str) -> ApiVersions {
    let versions = registry.group("").map(|group| group.versions.clone()).unwrap_or_default();
    let everywhere = ServerAddress { client_cidr: "0.0.0.0/0", server_address: server_address.to_owned() };
    ApiVersions { kind: "APIVersions", versions, server_addresses: vec![everywhere] }
}

/// `/apis`: all groups except the core group, with their versions in order of preference.
pub fn api_group_list(groups: impl IntoIterator<Item = (String, Vec<String>)>) -> ApiGroupList {
    let listed =
        |(name, versions): (_, Vec<_>)| ApiGroup { kind: "", api_version: "", ..api_group(name, &versions) };
    let groups = groups.into_iter().map(listed).collect();
    ApiGroupList { kind: "APIGroupList", api_version: "v1", groups }
}

/// `/apis/<group>`: a group with its versions in order of preference.
pub fn api_group(name: String, versions: &[String]) -> ApiGroup {
    let version = |version: &String| ServedVersion {
        group_version: group_version(&name, version),
        version: version.clone(),
    };
    let versions: Vec<_> = versions.iter().map(version).collect();
    ApiGroup {
        kind: "APIGroup",
        api_version: "v1",
        name,
        preferred_version: versions.first().cloned().unwrap_or_default(),
        versions,
    }
}

/// `/api/<version>` and `/apis/<group>/<version>`: the resources of a version in the unaggregated form.
pub fn api_resource_list(group: &Group, version: &str) -> ApiResourceList {
    let mut resources = Vec::new();
    for (def, version) in served(group, version) {
        resources.push(legacy_resource(def));
        resources.extend(version.subresources.iter().map(|sub| legacy_subresource(def, sub)));
    }
    ApiResourceList {
        kind: "APIResourceList",
        api_version: if group.name.is_empty() { "" } else { "v1" },
        group_version: group_version(&group.name, version),
        resources,
    }
}

/// `/api` and `/apis` in the aggregated form, `apidiscovery.k8s.io/v2`, from the JSON of each
/// [group](aggregated_group).
pub fn aggregated<'a>(groups: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut json =
        br#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":["#
            .to_vec();
    for (at, group) in groups.into_iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(group);
    }
    json.extend_from_slice(b"]}");
    json
}

/// Returns a hash of the stored kind. Clients compare it to detect a change of the storage version.
pub fn storage_version_hash(stored: &GroupVersionKind) -> String {
    let text = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    STANDARD.encode(&Sha256::digest(text.as_bytes())[..8])
}

fn served<'a>(
    group: &'a Group,
    version: &'a str,
) -> impl Iterator<Item = (&'a ResourceDef, &'a ResourceVersion)> {
    group.resources.iter().filter_map(move |def| Some((def.as_ref(), def.version(version)?)))
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A group with all its versions and resources, in the aggregated form.
pub fn aggregated_group(group: &Group) -> ApiGroupDiscovery {
    let version = |version: &String| ApiVersionDiscovery {
        version: version.clone(),
        resources: served(group, version).map(|(def, version)| aggregated_resource(def, version)).collect(),
        freshness: "Current",
    };
    let name = Some(group.name.clone()).filter(|name| !name.is_empty());
    ApiGroupDiscovery {
        metadata: name.map(|name| ("name", name)).into_iter().collect(),
        versions: group.versions.iter().map(version).collect(),
    }
}

fn aggregated_resource(def: &ResourceDef, version: &ResourceVersion) -> ApiResourceDiscovery {
    // As in upstream, built-in kinds omit their group and version.
    let own_kind = |kind: &str| match version.schema {
        Schema::Builtin(_) => GroupVersionKind::new("", "", kind),
        Schema::Custom(_) => GroupVersionKind::new(&*def.group, &*version.name, kind),
    };
    let subresource = |sub: &Subresource| ApiSubresourceDiscovery {
        subresource: sub.name.clone(),
        response_kind: if sub.response.version.is_empty() {
            own_kind(&sub.response.kind)
        } else {
            sub.response.clone()
        },
        verbs: verbs(sub.verbs),
    };
    ApiResourceDiscovery {
        resource: def.resource.clone(),
        response_kind: own_kind(&def.kind),
        scope: if def.namespaced { "Namespaced" } else { "Cluster" },
        singular_resource: def.singular.clone(),
        verbs: verbs_of_resource(def),
        short_names: def.short_names.clone(),
        categories: def.categories.clone(),
        subresources: version.subresources.iter().map(subresource).collect(),
    }
}

fn legacy_resource(def: &ResourceDef) -> ApiResource {
    let hash = |storage: &crate::Storage| storage_version_hash(&storage.version.with_kind(&*def.kind));
    ApiResource {
        name: def.resource.clone(),
        singular_name: def.singular.clone(),
        namespaced: def.namespaced,
        kind: def.kind.clone(),
        verbs: verbs_of_resource(def),
        short_names: def.short_names.clone(),
        categories: def.categories.clone(),
        storage_version_hash: def.storage.as_ref().map(hash),
        ..ApiResource::default()
    }
}

fn legacy_subresource(def: &ResourceDef, sub: &Subresource) -> ApiResource {
    let GroupVersionKind { group, version, kind } = sub.response.clone();
    ApiResource {
        name: format!("{}/{}", def.resource, sub.name),
        namespaced: def.namespaced,
        group,
        version,
        kind,
        verbs: verbs(sub.verbs),
        ..ApiResource::default()
    }
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

/// Returns the verbs of a resource. While its definition is being deleted, a custom resource supports only reads and
/// deletes.
fn verbs_of_resource(def: &ResourceDef) -> Vec<&'static str> {
    let is_listed = |verb: &&Verb| {
        !def.rules.refuses_creates || !matches!(verb, Verb::Create | Verb::Patch | Verb::Update)
    };
    def.verbs.iter().filter(is_listed).map(|verb| verb.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(registry: &Registry) -> impl Iterator<Item = (String, Vec<String>)> {
        let named = registry.groups().iter().filter(|group| !group.name.is_empty());
        named.map(|group| (group.name.clone(), group.versions.clone()))
    }

    /// Returns the field names of an object, in serialized order.
    fn order(document: &impl Serialize, object: &str) -> Vec<String> {
        order_in(&serde_json::to_string(document).unwrap(), object)
    }

    fn order_in(text: &str, object: &str) -> Vec<String> {
        let mut rest = &text[text.find(object).unwrap()..];
        let (mut depth, mut names, mut key) = (0, Vec::new(), true);
        while let Some(next) = rest.chars().next() {
            match next {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                ',' => key = depth == 1,
                ':' => key = false,
                '"' => {
                    let end = rest[1..].find('"').unwrap();
                    if key && depth == 1 {
                        names.push(rest[1..=end].to_owned());
                    }
                    rest = &rest[end + 1..];
                }
                _ => {}
            }
            rest = &rest[next.len_utf8()..];
            if depth == 0 {
                break;
            }
        }
        names
    }

    #[test]
    fn fields_have_the_order_of_upstream() {
        let registry = Registry::builtin(nave_schema::builtin());
        let core = registry.group("").unwrap();
        let apps = registry.group("apps").unwrap();
        let resources = api_resource_list(core, "v1");
        let group = serde_json::to_vec(&aggregated_group(core)).unwrap();
        let aggregated = String::from_utf8(aggregated([&*group])).unwrap();
        let expected: &[(Vec<String>, &[&str])] = &[
            (order(&resources, "{"), &["kind", "groupVersion", "resources"]),
            (
                order(&resources, "{\"name\":\"pods\""),
                &[
                    "name",
                    "singularName",
                    "namespaced",
                    "kind",
                    "verbs",
                    "shortNames",
                    "categories",
                    "storageVersionHash",
                ],
            ),
            (
                order(&resources, "{\"name\":\"pods/eviction\""),
                &["name", "singularName", "namespaced", "group", "version", "kind", "verbs"],
            ),
            (
                order(&api_resource_list(apps, "v1"), "{"),
                &["kind", "apiVersion", "groupVersion", "resources"],
            ),
            (
                order(&api_group(apps.name.clone(), &apps.versions), "{"),
                &["kind", "apiVersion", "name", "versions", "preferredVersion"],
            ),
            (order(&api_group_list(named(&registry)), "{"), &["kind", "apiVersion", "groups"]),
            (
                order(&api_group_list(named(&registry)), "{\"name\""),
                &["name", "versions", "preferredVersion"],
            ),
            (order(&api_versions(&registry, "a"), "{"), &["kind", "versions", "serverAddressByClientCIDRs"]),
            (order_in(&aggregated, "{"), &["kind", "apiVersion", "metadata", "items"]),
            (order_in(&aggregated, "{\"version\""), &["version", "resources", "freshness"]),
            (
                order_in(&aggregated, "{\"resource\":\"pods\""),
                &[
                    "resource",
                    "responseKind",
                    "scope",
                    "singularResource",
                    "verbs",
                    "shortNames",
                    "categories",
                    "subresources",
                ],
            ),
            (order_in(&aggregated, "{\"subresource\""), &["subresource", "responseKind", "verbs"]),
        ];
        for (found, expected) in expected {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn group_in_a_list_has_no_kind() {
        let registry = Registry::builtin(nave_schema::builtin());
        let alone =
            serde_json::to_value(api_group("apps".to_owned(), &registry.group("apps").unwrap().versions))
                .unwrap();
        let version = json!({"groupVersion": "apps/v1", "version": "v1"});
        let fields = json!({"name": "apps", "versions": [version], "preferredVersion": version});
        let mut expected = fields.clone();
        expected["kind"] = json!("APIGroup");
        expected["apiVersion"] = json!("v1");
        assert_eq!(alone, expected);
        let list = serde_json::to_value(api_group_list(named(&registry))).unwrap();
        assert!(list["groups"].as_array().unwrap().contains(&fields));
    }
}
