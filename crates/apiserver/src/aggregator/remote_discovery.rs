//! The discovery documents of aggregated servers. A server is believed only what concerns the version that is read.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The form of the aggregated document.
pub(super) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// Maximum size of a document, in bytes.
pub(crate) const MAX_DOCUMENT: usize = 4 << 20;
/// Maximum number of groups of a document, of resources of a version, and of short names and categories of a resource:
/// those of a custom resource have no limit of their own.
const MAX_ITEMS: usize = 4096;
/// Maximum number of versions of a group, and of subresources and verbs of a resource.
const MAX_DETAILS: usize = 64;
/// Maximum size of the resources of a version in the aggregated form, in bytes.
const MAX_RESOURCES: usize = 2 << 20;

/// The aggregated document at `/api` or `/apis`.
#[derive(Deserialize)]
pub(crate) struct GroupList {
    /// The groups.
    #[serde(default, deserialize_with = "items")]
    pub(crate) items: Vec<Group>,
}

/// A group in the aggregated form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Group {
    /// The metadata.
    #[serde(default)]
    pub(crate) metadata: Metadata,
    /// The versions, the preferred first.
    #[serde(default, deserialize_with = "details")]
    pub(crate) versions: Vec<Version>,
}

/// The metadata of a group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Metadata {
    /// The name; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
}

/// A version in the aggregated form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the fields in the document")]
pub(crate) struct Version {
    /// The name.
    #[serde(default)]
    pub(crate) version: String,
    /// The resources.
    #[serde(default, deserialize_with = "items")]
    pub(crate) resources: Vec<ApiResourceDiscovery>,
    /// `Current`, or `Stale` if its server does not answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) freshness: String,
}

/// A resource in the aggregated form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ApiResourceDiscovery {
    /// The name.
    pub(crate) resource: String,
    response_kind: Option<ResponseKind>,
    scope: String,
    singular_resource: String,
    /// The verbs.
    #[serde(deserialize_with = "details")]
    pub(crate) verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "items")]
    short_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "items")]
    categories: Vec<String>,
    /// The subresources.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "details")]
    pub(crate) subresources: Vec<ApiSubresourceDiscovery>,
}

/// A subresource in the aggregated form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ApiSubresourceDiscovery {
    /// The name.
    pub(crate) subresource: String,
    response_kind: Option<ResponseKind>,
    #[serde(deserialize_with = "details")]
    verbs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct ResponseKind {
    group: String,
    version: String,
    kind: String,
}

/// The document at `/apis/GROUP/VERSION`.
#[derive(Deserialize)]
struct ResourceList {
    #[serde(default, deserialize_with = "items")]
    resources: Vec<LegacyResource>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LegacyResource {
    name: String,
    singular_name: String,
    namespaced: bool,
    group: String,
    version: String,
    kind: String,
    #[serde(deserialize_with = "details")]
    verbs: Vec<String>,
    #[serde(deserialize_with = "items")]
    short_names: Vec<String>,
    #[serde(deserialize_with = "items")]
    categories: Vec<String>,
}

fn items<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(Bounded::<T, MAX_ITEMS>(PhantomData))
}

fn details<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(Bounded::<T, MAX_DETAILS>(PhantomData))
}

/// Reads a list of at most `MAX` elements, or null. An element takes many times its bytes in the document.
struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut read = Vec::new();
        while let Some(element) = elements.next_element()? {
            if read.len() == MAX {
                return Err(de::Error::custom(format!("a list has more than {MAX} elements")));
            }
            read.push(element);
        }
        Ok(read)
    }
}

/// Reads the groups of a document.
///
/// # Errors
/// The document is invalid or too large.
pub(crate) fn groups(document: &[u8]) -> Result<Vec<Group>, String> {
    parse::<GroupList>(document).map(|list| list.items)
}

fn parse<'d, T: Deserialize<'d>>(document: &'d [u8]) -> Result<T, String> {
    if document.len() > MAX_DOCUMENT {
        return Err(format!("the document is longer than {MAX_DOCUMENT} bytes"));
    }
    serde_json::from_slice(document).map_err(|error| error.to_string())
}

/// Returns whether a response is an aggregated document.
pub(crate) fn is_aggregated(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let has = |wanted: &str| content_type.split(';').any(|parameter| parameter.trim() == wanted);
    has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io")
}

/// Returns the resources of a version, as a JSON array in the aggregated form. A version that the document does not
/// contain has no resources.
///
/// # Errors
/// The document is invalid.
pub(super) fn from_aggregated(document: &[u8], group: &str, version: &str) -> Result<String, String> {
    let list: GroupList = parse(document)?;
    let groups = list.items.into_iter().filter(|found| found.metadata.name == group);
    let found = groups.flat_map(|group| group.versions).find(|found| found.version == version);
    encode(found.map(|found| found.resources).unwrap_or_default())
}

/// Returns the resources of a resource list, as a JSON array in the aggregated form (upstream:
/// `ConvertGroupVersionIntoToDiscovery`).
///
/// # Errors
/// The document is invalid.
pub(super) fn from_legacy(document: &[u8]) -> Result<String, String> {
    let list: ResourceList = parse(document)?;
    let mut resources: Vec<ApiResourceDiscovery> = Vec::new();
    let (subresources, own): (Vec<_>, Vec<_>) =
        list.resources.into_iter().partition(|found| found.name.contains('/'));
    for found in own {
        let response_kind = Some(found.response_kind());
        resources.push(ApiResourceDiscovery {
            response_kind,
            scope: found.scope(),
            resource: found.name,
            singular_resource: found.singular_name,
            verbs: found.verbs,
            short_names: found.short_names,
            categories: found.categories,
            subresources: Vec::new(),
        });
    }
    let mut places: HashMap<String, usize> =
        resources.iter().enumerate().map(|(place, found)| (found.resource.clone(), place)).collect();
    for found in subresources {
        let Some((parent, subresource)) = found.name.split_once('/') else { continue };
        let place = *places.entry(parent.to_owned()).or_insert_with(|| {
            resources.push(ApiResourceDiscovery {
                resource: parent.to_owned(),
                scope: found.scope(),
                ..ApiResourceDiscovery::default()
            });
            resources.len() - 1
        });
        if let Some(parent) = resources.get_mut(place) {
            parent.subresources.push(ApiSubresourceDiscovery {
                subresource: subresource.to_owned(),
                response_kind: Some(found.response_kind()),
                verbs: found.verbs,
            });
        }
    }
    encode(resources)
}

/// The document at `/openapi/v3`.
#[derive(Deserialize)]
struct OpenApiIndex {
    paths: HashMap<String, OpenApiPath>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenApiPath {
    #[serde(rename = "serverRelativeURL")]
    server_relative_url: String,
}

/// Maximum length of the hash of a document.
const MAX_HASH: usize = 256;

/// Returns the hash of a version's OpenAPI 3 document; `None` if there is no document.
///
/// # Errors
/// The list is invalid.
pub(super) fn openapi_hash(document: &[u8], group: &str, version: &str) -> Result<Option<String>, String> {
    let mut index: OpenApiIndex = parse(document)?;
    let Some(found) = index.paths.remove(&format!("apis/{group}/{version}")) else { return Ok(None) };
    let query = found.server_relative_url.split_once('?').map_or("", |(_, query)| query);
    let hash = query.split('&').find_map(|pair| pair.strip_prefix("hash=")).unwrap_or_default();
    let is_plain = hash.len() <= MAX_HASH && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { Ok(Some(hash.to_owned())) } else { Err("the hash of the document is invalid".to_owned()) }
}

impl LegacyResource {
    fn scope(&self) -> String {
        if self.namespaced { "Namespaced" } else { "Cluster" }.to_owned()
    }

    fn response_kind(&self) -> ResponseKind {
        ResponseKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }
}

fn encode(mut resources: Vec<ApiResourceDiscovery>) -> Result<String, String> {
    for resource in &mut resources {
        // Some clients fail without the kind.
        resource.response_kind.get_or_insert_default();
        for subresource in &mut resource.subresources {
            subresource.response_kind.get_or_insert_default();
        }
    }
    let encoded = serde_json::to_string(&resources).map_err(|error| error.to_string())?;
    if encoded.len() > MAX_RESOURCES {
        return Err(format!("the resources of the version take more than {MAX_RESOURCES} bytes"));
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(resources: &str) -> Value {
        serde_json::from_str(resources).unwrap()
    }

    #[test]
    fn only_the_requested_version_is_believed() {
        let things = json!([{"resource": "things", "scope": "Namespaced", "verbs": ["get"],
            "singularResource": "thing", "subresources": [{"subresource": "status", "verbs": []}]}]);
        let document = json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": things}]},
            {"metadata": {"name": "a.example"}, "versions": [{"version": "v1", "resources": things, "freshness": "x"}]},
        ]});
        let document = document.to_string();
        let found = parsed(&from_aggregated(document.as_bytes(), "a.example", "v1").unwrap());
        assert_eq!(found[0]["resource"], "things");
        let empty = json!({"group": "", "version": "", "kind": ""});
        assert_eq!(
            (&found[0]["responseKind"], &found[0]["subresources"][0]["responseKind"]),
            (&empty, &empty)
        );
        assert_eq!(from_aggregated(document.as_bytes(), "a.example", "v2").unwrap(), "[]");
        for invalid in ["", "[", "{\"items\": 1}", "{\"items\":[{\"versions\":[{\"resources\":[1]}]}]}"] {
            assert!(from_aggregated(invalid.as_bytes(), "a.example", "v1").is_err(), "{invalid}");
        }
        let deep = format!("{{\"items\": {}", "[".repeat(100_000));
        assert!(from_aggregated(deep.as_bytes(), "a.example", "v1").is_err());
    }

    #[test]
    fn documents_that_grow_in_memory_are_refused() {
        let many = |item: &str, count: usize| vec![item; count].join(",");
        let legacy = |resources: &str| from_legacy(format!("{{\"resources\":[{resources}]}}").as_bytes());
        assert!(legacy(&many("{}", MAX_ITEMS)).is_ok());
        let detail = |count: usize| format!("{{\"verbs\":[{}]}}", many("\"\"", count));
        assert!(legacy(&detail(MAX_DETAILS)).is_ok());
        let names = |count: usize| {
            let names = many("\"a\"", count);
            format!("{{\"shortNames\":[{names}],\"categories\":[{names}]}}")
        };
        assert!(legacy(&names(MAX_ITEMS)).is_ok());
        let long = format!("{{\"name\":\"{}\"}}", "x".repeat(2000));
        for resources in [
            many("{}", MAX_ITEMS + 1),
            detail(MAX_DETAILS + 1),
            names(MAX_ITEMS + 1),
            many(&long, 1500),
            many(&long, 3000),
        ] {
            assert!(legacy(&resources).is_err(), "{}", resources.len());
        }
        let aggregated =
            |items: &str| from_aggregated(format!("{{\"items\":[{items}]}}").as_bytes(), "a", "v1");
        let versions = format!("{{\"versions\":[{}]}}", many("{}", MAX_DETAILS + 1));
        for items in [many("{}", MAX_ITEMS + 1), versions] {
            assert!(aggregated(&items).is_err(), "{}", items.len());
        }
        assert_eq!(aggregated("{\"versions\":null}").unwrap(), "[]");
    }

    #[test]
    fn resource_lists_are_converted() {
        let list = json!({"resources": [
            {"name": "pods/log", "namespaced": true, "kind": "Log", "verbs": ["get"]},
            {"name": "nodes", "singularName": "", "kind": "NodeMetrics", "verbs": ["get", "list"]},
            {"name": "nodes/scale", "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let found = parsed(&from_legacy(list.to_string().as_bytes()).unwrap());
        assert_eq!((&found[0]["resource"], &found[0]["scope"]), (&json!("nodes"), &json!("Cluster")));
        assert_eq!(found[0]["subresources"][0]["responseKind"]["group"], "autoscaling");
        assert_eq!((&found[1]["resource"], &found[1]["scope"]), (&json!("pods"), &json!("Namespaced")));
        assert_eq!(found[1]["subresources"][0]["subresource"], "log");
    }

    #[test]
    fn the_hash_of_a_document_is_plain() {
        let index = |path: &str, url: &str| json!({"paths": {path: {"serverRelativeURL": url}}}).to_string();
        let hash = |index: String| openapi_hash(index.as_bytes(), "a.example", "v1");
        let path = "apis/a.example/v1";
        assert_eq!(hash(index(path, "/openapi/v3/apis/a.example/v1?hash=0AF")), Ok(Some("0AF".to_owned())));
        assert_eq!(hash(index(path, "https://evil.example/")), Ok(Some(String::new())));
        assert_eq!(hash(index("apis/apps/v1", "?hash=1")), Ok(None));
        assert!(hash(index(path, "?hash=\"><script>")).is_err());
        assert!(hash(index(path, &format!("?hash={}", "0".repeat(300)))).is_err());
        assert!(hash("{}".to_owned()).is_err());
    }

    #[test]
    fn the_form_is_recognized_by_its_content_type() {
        for (content_type, expected) in [
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", true),
            ("application/json; as=APIGroupDiscoveryList; g=apidiscovery.k8s.io", true),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_aggregated(&headers), expected, "{content_type}");
        }
    }
}
