//! The documents as clients see them.

use http::{HeaderMap, HeaderValue, Method, header};
use nave_machinery::Value;
use nave_resources::Registry;

use super::*;

fn openapi() -> OpenApi {
    OpenApi::new(&Arc::new(Registry::builtin(nave_schema::builtin())))
}

/// Requests `uri` below `/openapi/` and returns the status code and headers of the response.
fn head(openapi: &OpenApi, uri: &str, headers: &HeaderMap) -> (u16, HeaderMap) {
    let info = RequestInfo::new(&Method::GET, &format!("/openapi/{uri}").parse().unwrap());
    let path: Vec<&str> = info.path.trim_start_matches("/openapi/").split('/').collect();
    let response = openapi.answer(&path, &info, headers).unwrap();
    (response.status().as_u16(), response.headers().clone())
}

fn seen(tag: &HeaderValue) -> HeaderMap {
    [(header::IF_NONE_MATCH, tag.clone())].into_iter().collect()
}

#[test]
fn the_index_generates_no_document() {
    let openapi = openapi();
    let index: Value = serde_json::from_slice(&openapi.index().0).unwrap();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert_eq!(head(&openapi, "v3", &HeaderMap::new()).0, 200);
    assert!(openapi.v3.values().all(|document| document.content.get().is_none()));
}

#[test]
fn documents_are_cached_by_etag_and_hash() {
    let openapi = openapi();
    let (code, headers) = head(&openapi, "v3/apis/batch/v1", &HeaderMap::new());
    assert_eq!(
        (code, &headers[header::CACHE_CONTROL]),
        (200, &HeaderValue::from_static("no-cache, private"))
    );
    assert_eq!(head(&openapi, "v3/apis/batch/v1", &seen(&headers[header::ETAG])).0, 304);

    let hash = openapi.hash(&openapi.v3["apis/batch/v1"]).to_owned();
    let (code, headers) = head(&openapi, &format!("v3/apis/batch/v1?hash={hash}"), &HeaderMap::new());
    assert_eq!(code, 200);
    let kept =
        headers.get_all(header::CACHE_CONTROL).iter().any(|of| of.to_str().unwrap().contains("immutable"));
    assert!(kept, "{headers:?}");

    let (code, headers) = head(&openapi, "v3/apis/batch/v1?hash=0123", &HeaderMap::new());
    let location = headers[header::LOCATION].to_str().unwrap();
    assert_eq!((code, location), (301, format!("/openapi/v3/apis/batch/v1?hash={hash}").as_str()));
    assert_eq!(head(&openapi, "v3/apis/none/v1", &HeaderMap::new()).0, 404);
}

#[test]
fn openapi_2_is_compressed_for_clients_that_accept_it() {
    let openapi = openapi();
    let gzip: HeaderMap = [(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))].into_iter().collect();
    let encoding =
        |headers: &HeaderMap| head(&openapi, "v2", headers).1.get(header::CONTENT_ENCODING).cloned();
    assert_eq!(encoding(&gzip), Some(HeaderValue::from_static("gzip")));
    assert_eq!(encoding(&HeaderMap::new()), None);
    assert_eq!(head(&openapi, "v2", &gzip).1[header::VARY], "Accept, Accept-Encoding");
    assert!(!head(&openapi, "v3/apis/batch/v1", &gzip).1.contains_key(header::CONTENT_ENCODING));
}

#[test]
fn descriptions_list_the_values_of_enumerations() {
    let openapi = openapi();
    let document = openapi.make(&openapi.v3["apis/apps/v1"].coverage);
    let schemas = &document["components"]["schemas"];
    let text = |kind: &str, field: &str| {
        let schema = &schemas[kind]["properties"][field];
        schema["description"].as_str().unwrap_or_default().to_owned()
    };
    let strategy = text("io.k8s.api.apps.v1.DeploymentStrategy", "type");
    let values = "\n\nPossible enum values:\n - `\"Recreate\"`\n - `\"RollingUpdate\"`";
    assert!(strategy.ends_with(values) && strategy.len() > values.len(), "{strategy}");
    assert!(!text("io.k8s.api.apps.v1.DeploymentSpec", "replicas").contains("Possible"));
    let list = schemas["io.k8s.api.apps.v1.DeploymentList"]["description"].as_str().unwrap();
    assert_eq!(list, "DeploymentList is a list of Deployment objects.");
}

#[test]
fn a_hash_depends_on_the_served_resources() {
    let all = Registry::builtin(nave_schema::builtin());
    let fewer: Vec<_> = all
        .groups()
        .iter()
        .map(|group| nave_resources::Group::clone(group))
        .map(|mut group| {
            group.resources.retain(|def| def.resource != "deployments");
            group
        })
        .collect();
    let (all, fewer) = (OpenApi::new(&Arc::new(all)), OpenApi::new(&Arc::new(Registry::new(fewer))));
    let same = |path: &str| all.hash(&all.v3[path]) == fewer.hash(&fewer.v3[path]);
    assert!(!same("apis/apps/v1") && same("apis/batch/v1") && same("apis"));
    assert_ne!(all.v2_hash(), fewer.v2_hash());
}

#[test]
fn a_document_has_the_encoding_that_the_client_prefers() {
    let [old, new] = GNOSTIC_V3;
    for (accept, expected) in [
        (String::new(), Some(Form::Json)),
        ("application/json;q=0.9, */*".to_owned(), Some(Form::Json)),
        (format!("{old}, application/json"), Some(Form::Protobuf)),
        (format!("text/html, {new}"), Some(Form::Protobuf)),
        (format!("application/json;q=0.5, {new}"), Some(Form::Protobuf)),
        (format!("{new};q=0.3, application/json; q=0.5"), Some(Form::Json)),
        (format!("*/*, application/*, {new}"), Some(Form::Protobuf)),
        ("image/*, */json".to_owned(), Some(Form::Json)),
        ("text/html".to_owned(), None),
        (GNOSTIC[1].to_owned(), None),
    ] {
        let headers = accepting(&accept);
        assert_eq!(form(&headers, &GNOSTIC_V3), expected, "{accept}");
    }
    assert_eq!(form(&accepting(GNOSTIC[0]), &GNOSTIC), Some(Form::Protobuf));
}

fn accepting(media_types: &str) -> HeaderMap {
    [(header::ACCEPT, HeaderValue::from_str(media_types).unwrap())].into_iter().collect()
}

#[test]
fn version_3_is_also_protobuf() {
    let openapi = openapi();
    let document = &openapi.v3["apis/batch/v1"];
    let (code, headers) = head(&openapi, "v3/apis/batch/v1", &accepting(GNOSTIC_V3[0]));
    assert_eq!((code, &headers[header::CONTENT_TYPE]), (200, &HeaderValue::from_static(GNOSTIC_V3[1])));
    assert!(document.content.get().is_none(), "only the requested form is made");
    let size = |accept| openapi.size("v3/apis/batch/v1", &accepting(accept));
    assert_eq!(
        (size(GNOSTIC_V3[0]), size("application/json")),
        (0, usize::MAX),
        "the other one is still to be made"
    );
    let json = head(&openapi, "v3/apis/batch/v1", &accepting("application/json")).1;
    assert_eq!((&json[header::ETAG], &json[header::VARY]), (&headers[header::ETAG], &headers[header::VARY]));
    let (bytes, text) = (openapi.bytes(document, Form::Protobuf), openapi.bytes(document, Form::Json));
    assert!(bytes.len() > text.len() * 3 / 4 && bytes.starts_with(b"\x0a\x053.0.0"), "{}", bytes.len());
    let (code, headers) = head(&openapi, "v3/apis/batch/v1", &accepting("text/html"));
    assert_eq!((code, &headers[header::VARY]), (406, &HeaderValue::from_static("Accept")));
    // The index has one form.
    assert_eq!(head(&openapi, "v3", &accepting(GNOSTIC_V3[1])).0, 200);
}

/// kubectl leaves validation to the server only if the kind has a patch operation with `fieldValidation`.
#[test]
fn patches_of_every_version_take_field_validation() {
    let openapi = openapi();
    let document = openapi.make(&Coverage::Version(GroupVersion::new("", "v1")));
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    let names: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|of| &of["name"]).collect();
    assert!(names.contains(&&json!("fieldValidation")), "{names:?}");
}

/// Parses the fields of a protobuf message into number and content; formats numbers as text.
fn fields(mut message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    fn number(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for at in 0.. {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message);
        let content = if key & 7 == 2 {
            let length = number(&mut message) as usize;
            let (content, rest) = message.split_at(length);
            message = rest;
            content.to_vec()
        } else {
            number(&mut message).to_string().into_bytes()
        };
        found.push(((key >> 3) as u32, content));
    }
    found
}

/// Returns the value with the given name from the name-value pairs of a field.
fn named(message: &[u8], number: u32, name: &str) -> Vec<u8> {
    let pairs = fields(message).into_iter().filter(|(of, _)| *of == number).map(|(_, pair)| fields(&pair));
    let mut values = pairs.filter(|pair| pair[0].1 == name.as_bytes()).map(|pair| pair[1].1.clone());
    values.next().unwrap_or_else(|| panic!("no {name}"))
}

fn nested(message: &[u8], path: &[u32]) -> Vec<u8> {
    path.iter().fold(message.to_vec(), |message, number| {
        fields(&message).into_iter().find(|(of, _)| of == number).unwrap_or_else(|| panic!("no {number}")).1
    })
}

#[test]
fn protobuf_and_json_have_the_same_content() {
    let document = openapi().make_v2(&Coverage::Everything, &Documentation::new());
    let bytes = gnostic::v2::encode(&document);
    let text = |message: &[u8], path: &[u32]| String::from_utf8(nested(message, path)).unwrap();
    assert_eq!(text(&bytes, &[1]), "2.0");
    assert_eq!(text(&bytes, &[2, 1]), "Kubernetes");

    let pod = named(&nested(&bytes, &[9]), 1, "io.k8s.api.core.v1.Pod");
    let described = document["definitions"]["io.k8s.api.core.v1.Pod"]["description"].as_str().unwrap();
    assert_eq!((text(&pod, &[4]).as_str(), text(&pod, &[22, 1]).as_str()), (described, "object"));
    let spec = named(&nested(&pod, &[25]), 1, "spec");
    assert_eq!(text(&spec, &[1]), "#/definitions/io.k8s.api.core.v1.PodSpec");
    let kinds: Value =
        serde_json::from_slice(&nested(&named(&pod, 31, "x-kubernetes-group-version-kind"), &[2])).unwrap();
    assert_eq!(kinds, document["definitions"]["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"]);

    let path = "/api/v1/namespaces/{namespace}/pods/{name}";
    let item = named(&nested(&bytes, &[8]), 2, path);
    let patch = nested(&item, &[8]);
    assert_eq!(text(&patch, &[5]), "patchCoreV1NamespacedPod");
    // The first parameter is the shared body, the second one is `dryRun` in the query.
    let parameters: Vec<_> =
        fields(&patch).into_iter().filter(|(of, _)| *of == 8).map(|(_, item)| item).collect();
    assert!(text(&parameters[0], &[2, 1]).starts_with("#/parameters/body-"));
    assert_eq!(text(&parameters[1], &[1, 2, 3, 4]), "dryRun");
    let ok = named(&nested(&patch, &[9]), 1, "200");
    assert_eq!(text(&ok, &[1, 2, 1, 1]), "#/definitions/io.k8s.api.core.v1.Pod");
    let shared =
        document["parameters"].as_object().unwrap().keys().find(|name| name.starts_with("namespace-"));
    assert_eq!(text(&named(&nested(&bytes, &[10]), 1, shared.unwrap()), &[2, 4, 4]), "namespace");
}

/// Returns the resource of a definition with this group and plural.
fn custom(group: &str, plural: &str) -> Arc<ResourceDef> {
    let kind = format!("{}{}", plural[..1].to_uppercase(), &plural[1..]);
    let names =
        json!({"plural": plural, "kind": kind, "singular": plural, "listKind": format!("{kind}List")});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-embedded-resource": true}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let definition = json!({
        "spec": {"group": group, "scope": "Namespaced", "versions": [version("v1", true), version("v1beta1", false)]},
        "status": {"acceptedNames": names},
    });
    Arc::new(nave_resources::custom::resource(&definition).unwrap())
}

/// Returns the joined document of version 2.
fn document_v2(openapi: &OpenApi) -> Value {
    let json: Vec<Bytes> = openapi.v2.join(Form::Json, openapi).iter().map(Segment::unpack).collect();
    serde_json::from_slice(&json.concat()).unwrap()
}

/// Returns the types and paths of a document in protobuf, sorted.
pub(super) fn pairs(message: &[u8]) -> Vec<Vec<u8>> {
    let sections = fields(message).into_iter().filter(|(number, _)| (8..=10).contains(number));
    let mut pairs: Vec<Vec<u8>> =
        sections.flat_map(|(_, section)| fields(&section)).map(|(_, pair)| pair).collect();
    pairs.sort();
    pairs
}

#[test]
fn the_joined_document_is_that_of_the_whole_api() {
    let mut registry = Arc::new(Registry::builtin(nave_schema::builtin()));
    let mut openapi = OpenApi::new(&registry);
    let groups = ["a.example.com", "storage.k8s.io", "b.example.com", "a.example.com"];
    for (step, group) in groups.into_iter().enumerate() {
        let defs = ["ants", "bees", "cats"][..=step % 3].iter().map(|plural| custom(group, plural));
        registry = Arc::new(registry.with_custom(group, defs));
        openapi = openapi.with_group(&registry, group);
        let whole = openapi.make_v2(&Coverage::Everything, &Documentation::new());
        assert!(document_v2(&openapi) == whole, "{group}");
    }
    let whole = gnostic::v2::encode(&openapi.make_v2(&Coverage::Everything, &Documentation::new()));
    let joined: Vec<Bytes> = openapi.v2.join(Form::Protobuf, &openapi).iter().map(Segment::unpack).collect();
    assert!(pairs(&joined.concat()) == pairs(&whole));

    registry = Arc::new(registry.with_custom("a.example.com", []));
    openapi = openapi.with_group(&registry, "a.example.com");
    assert!(!document_v2(&openapi).to_string().contains("com.example.a"));
}

#[test]
fn a_change_of_one_group_keeps_the_parts_of_others() {
    let group = |name: &str| (name.to_owned(), custom(name, "ants"));
    let [(a, first), (b, second)] = ["a.example.com", "b.example.com"].map(group);
    let registry = Arc::new(Registry::builtin(nave_schema::builtin()).with_custom(&a, [first]));
    let before = OpenApi::new(&registry);
    let registry = Arc::new(registry.with_custom(&b, [second]));
    let after = before.with_group(&registry, &b);
    let parts = |openapi: &OpenApi| -> Vec<Bytes> {
        openapi.v2.join(Form::Json, openapi).iter().map(Segment::deflated).cloned().collect()
    };
    let (before, after) = (parts(&before), parts(&after));
    let large = before.iter().filter(|part| part.len() > 1000);
    let (kept, made): (Vec<&Bytes>, Vec<&Bytes>) =
        large.partition(|part| after.iter().any(|kept| kept.as_ptr() == part.as_ptr()));
    // Only the types that list all versions are made again.
    assert!(kept.len() >= 4 && made.len() == 1, "{} and {}", kept.len(), made.len());
    assert_ne!(before.len(), after.len());
}
