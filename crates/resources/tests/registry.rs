//! Prints a readable table of the built-in resources. A change of the served API changes the expected file.

use std::fmt::Write;
use std::path::PathBuf;

use nave_machinery::GroupVersionResource;
use nave_resources::{Generation, Registry, ResourceDef, discovery, list_prefix, parse_key, storage_key};
use nave_schema::SchemaSet;

fn builtin() -> Registry {
    Registry::builtin(&SchemaSet::default())
}

#[test]
fn builtin_resources_match_expected() {
    let mut table = String::new();
    for def in builtin().all() {
        describe(&mut table, def).unwrap();
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/registry.expected");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(table == expected, "{} differs; UPDATE_EXPECT=1 rewrites it:\n{table}", path.display());
}

fn describe(table: &mut String, def: &ResourceDef) -> std::fmt::Result {
    let versions: Vec<&str> = def.versions.iter().map(|version| version.name.as_str()).collect();
    let scope = if def.namespaced { "namespaced" } else { "cluster" };
    writeln!(table, "{} {} {} {scope}", def.group_resource(), def.kind, versions.join(","))?;
    match &def.storage {
        None => writeln!(table, "  not stored")?,
        Some(storage) => {
            let ttl = storage.ttl.map_or(String::new(), |ttl| format!(", for {} s", ttl.as_secs()));
            writeln!(table, "  at {} as {}{ttl}", storage.prefix, storage.version)?;
        }
    }
    let rules = &def.rules;
    let said = [
        (rules.create_on_update, "PUT creates"),
        (!rules.unconditional_update, "updates need a resourceVersion"),
        (rules.returns_deleted, "DELETE answers with the object"),
        (rules.orphans_dependents, "DELETE orphans"),
    ];
    for (_, text) in said.iter().filter(|(holds, _)| *holds) {
        writeln!(table, "  {text}")?;
    }
    if let Generation::Of(fields) = rules.generation
        && !fields.is_empty()
    {
        writeln!(table, "  generation follows {}", fields.join(", "))?;
    }
    for field in &def.fields {
        let places: Vec<String> = field.at.iter().map(|path| path.join(".")).collect();
        let source = format!("{} or {:?}", places.join(" or "), field.missing);
        writeln!(table, "  field {} = {source}{}", field.path, if field.indexed { ", indexed" } else { "" })?;
    }
    for sub in def.versions.first().into_iter().flat_map(|version| version.subresources.iter()) {
        writeln!(table, "  /{} {}", sub.name, sub.response)?;
    }
    Ok(())
}

#[test]
fn storage_keys_are_validated_and_parsed() {
    let registry = builtin();
    let mut stored = 0;
    for def in registry.all().filter(|def| def.storage.is_some()) {
        let namespace = def.namespaced.then_some("some-ns");
        let key = storage_key(def, namespace, "a.name").unwrap();
        assert!(key.starts_with(&list_prefix(def, namespace).unwrap()), "{key}");
        assert!(key.starts_with(&list_prefix(def, None).unwrap()), "{key}");
        assert_eq!(parse_key(def, &key), Some((namespace, "a.name")));
        for bad in ["", ".", "..", "a/b", "a%2fb"] {
            assert!(storage_key(def, namespace, bad).is_err(), "{bad:?} in {def:?}");
            assert!(!def.namespaced || storage_key(def, Some(bad), "a").is_err(), "{bad:?} in {def:?}");
            assert!(!def.namespaced || list_prefix(def, Some(bad)).is_err(), "{bad:?} in {def:?}");
        }
        let other_scope = (!def.namespaced).then_some("some-ns");
        assert!(storage_key(def, other_scope, "a").is_err());
        stored += 1;
    }
    assert!(stored > 50);
}

#[test]
fn storage_prefixes_are_unique_except_for_events() {
    let registry = builtin();
    let mut prefixes: Vec<String> = registry.all().filter_map(|def| list_prefix(def, None).ok()).collect();
    prefixes.sort();
    for pair in prefixes.windows(2) {
        let nested = pair[1].starts_with(&pair[0]);
        assert!(!nested || pair[0] == "/registry/events/", "{pair:?}");
    }
}

#[test]
fn prefixes_of_builtin_resources_are_reserved() {
    let registry = builtin();
    for prefix in [
        "/registry/apiextensions.k8s.io/customresourcedefinitions",
        "/registry/apiregistration.k8s.io/apiservices",
        "/registry/pods",
        "/registry/pods/default",
        "/registry/services",
        "/registry",
    ] {
        assert!(registry.is_reserved_prefix(prefix), "{prefix}");
    }
    for prefix in ["/registry/example.com/pods", "/registry/apiextensions.k8s.io/others", "/registry/podsx"] {
        assert!(!registry.is_reserved_prefix(prefix), "{prefix}");
    }
}

#[test]
fn finds_resources_by_plural_name_and_kind() {
    let registry = builtin();
    for def in registry.all() {
        for version in &def.versions {
            let found =
                registry.lookup(&GroupVersionResource::new(&*def.group, &*version.name, &*def.resource));
            assert_eq!(found.map(|found| found.group_resource()), Some(def.group_resource()));
            let kind = def.group_version(&version.name).with_kind(&*def.kind);
            assert_eq!(
                registry.by_kind(&kind).map(|found| found.group_resource()),
                Some(def.group_resource())
            );
        }
    }
    assert!(registry.lookup(&GroupVersionResource::new("", "v2", "pods")).is_none());
}

#[test]
fn unaggregated_discovery_has_hashes_and_subresources() {
    let registry = builtin();
    let core = serde_json::to_value(discovery::api_resource_list(registry.group("").unwrap(), "v1")).unwrap();
    let entry = |name: &str| {
        core["resources"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
    };
    // These values are the same in all Kubernetes clusters.
    assert_eq!(entry("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
    assert_eq!(entry("events")["storageVersionHash"], "r2yiGXH7wu8=");
    assert_eq!(entry("pods/eviction")["group"], "policy");
    assert!(entry("bindings").get("storageVersionHash").is_none());
    assert!(core.get("apiVersion").is_none());
    let versions = |name: &str| registry.group(name).unwrap().versions.clone();
    let autoscaling = discovery::api_group("autoscaling".to_owned(), &versions("autoscaling"));
    let autoscaling = serde_json::to_value(autoscaling).unwrap();
    assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
    let named = registry.groups().iter().filter(|group| !group.name.is_empty());
    let named = named.map(|group| (group.name.clone(), group.versions.clone()));
    let groups = serde_json::to_value(discovery::api_group_list(named)).unwrap();
    assert_eq!(groups["groups"].as_array().map(Vec::len), Some(20));
}

proptest::proptest! {
    /// For any input, a key belongs to its resource and identifies one object.
    #[test]
    fn storage_key_stays_within_its_resource(namespace in ".{0,20}", name in "[a-z./%\\PC]{0,20}") {
        let registry = builtin();
        let pods = registry.lookup(&GroupVersionResource::new("", "v1", "pods")).unwrap();
        if let Ok(key) = storage_key(pods, Some(&namespace), &name) {
            proptest::prop_assert_eq!(parse_key(pods, &key), Some((Some(namespace.as_str()), name.as_str())));
            proptest::prop_assert!(key.split('/').all(|part| part != "." && part != ".."));
        }
    }
}
