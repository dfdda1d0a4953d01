use serde_json::json;

use super::*;

/// An established definition with two versions.
fn definition() -> Value {
    json!({
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "selectableFields": [{"jsonPath": ".spec.color"}]},
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                    "selectableFields": [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]},
                {"name": "v1alpha1", "served": false, "storage": false},
            ]},
        "status": {"acceptedNames": {"plural": "things", "singular": "thing", "kind": "Thing",
            "listKind": "ThingList", "shortNames": ["th"], "categories": ["all"]}},
    })
}

#[test]
fn reads_the_parts_of_each_version() {
    let def = resource(&definition()).unwrap();
    let names: Vec<&str> = def.versions.iter().map(|version| &*version.name).collect();
    assert_eq!(
        names,
        ["v1", "v1beta1"],
        "the preferred version is first, and unserved versions are left out"
    );
    assert_eq!(def.unserved.iter().map(|version| &*version.name).collect::<Vec<_>>(), ["v1alpha1"]);
    assert!(def.schema("v1alpha1").is_some() && def.schema("v2").is_none());
    let [stable, beta] = &def.versions[..] else { panic!("two versions") };
    assert!(stable.has_status() && stable.subresource("scale").is_some() && beta.subresources.is_empty());
    assert_eq!(stable.selectable.to_vec(), ["spec.color", "spec.size"]);
    assert_eq!(beta.selectable.to_vec(), ["spec.color"]);
    assert_eq!(def.fields.len(), 2, "watch caches keep the fields of all versions");
    assert_eq!(
        beta.deprecation.as_deref(),
        Some("example.com/v1beta1 Thing is deprecated; use example.com/v1 Thing")
    );
    assert_eq!(stable.type_name, "com.example.v1.Thing");
    let storage = def.storage.as_ref().unwrap();
    assert_eq!(
        (&*storage.prefix, storage.version.to_string()),
        ("/registry/example.com/things", "example.com/v1".into())
    );
    assert!(def.is_custom() && !def.requires_qualified_finalizers());
}

#[test]
fn rejects_definitions_without_names_or_storage_version() {
    let mut unnamed = definition();
    unnamed["status"]["acceptedNames"]["listKind"] = json!("");
    assert_eq!(resource(&unnamed).err(), Some(DefinitionError::Name("listKind")));
    let mut unstored = definition();
    unstored["spec"]["versions"][1]["storage"] = json!(false);
    assert_eq!(resource(&unstored).err(), Some(DefinitionError::Storage));
    assert_eq!(resource(&json!({})).err(), Some(DefinitionError::Name("plural")));
}

#[test]
fn warns_once_about_finalizers_without_a_path() {
    let object = json!({"metadata": {"finalizers": ["a.example.com", "example.com/b", "orphan"]}});
    let warnings = CustomStrategy { converts: true }.warnings(&object, None);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("metadata.finalizers: \"a.example.com\": prefer a domain-qualified"));
    assert!(CustomStrategy { converts: true }.warnings(&object, Some(&object)).is_empty());
}

#[test]
fn fails_to_convert_versions_that_need_a_webhook() {
    let mut webhook = definition();
    let client = json!({"url": "https://a.example"});
    webhook["spec"]["conversion"] = json!({"strategy": "Webhook",
        "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}});
    let def = resource(&webhook).unwrap();
    let expected = ConversionWebhook { client_config: client, review_versions: vec!["v1".to_owned()] };
    assert_eq!(def.conversion, Conversion::Webhook(expected));
    let [beta, stable] = ["v1beta1", "v1"].map(|version| GroupVersion::new("example.com", version));
    let mut object = json!({"apiVersion": "example.com/v1beta1"});
    assert!(def.strategy.convert(&mut object, &beta, &stable).is_err());
    assert_eq!(object["apiVersion"], "example.com/v1beta1");
    assert!(def.strategy.convert(&mut object, &beta, &beta).is_ok());
}

#[test]
fn applies_rules_unless_the_object_is_invalid() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.min <= self.max", "message": "min is above max"},
            {"rule": "self.max >= oldSelf.max", "message": "max never falls"}],
        "properties": {"min": {"type": "integer"}, "max": {"type": "integer"},
            "mode": {"type": "string", "enum": ["a"]}}}}});
    let stored = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": &schema}}]}});
    let text = DefinitionText::new(Arc::new(Packed::new(stored.to_string().as_bytes())));
    let schema = CustomSchema::compile(Some(&schema), &text, "v1", false, None).unwrap();
    assert!(schema.is_costly());
    let object = |min: i64, max: i64, mode: &str| json!({"kind": "Thing", "spec": {"min": min, "max": max, "mode": mode}});
    let check = |object: &Value, old: Option<&Value>| {
        let mut errors = schema.validate("Thing", object, old);
        let (violated, warnings) = schema.validate_rules(object, old, &errors);
        errors.extend(violated);
        (errors.iter().map(ToString::to_string).collect::<Vec<_>>(), warnings)
    };
    let sound = object(1, 2, "a");
    assert_eq!(check(&sound, None), (vec![], vec![]));
    assert_eq!(check(&object(3, 2, "a"), None).0, ["spec: Invalid value: min is above max"]);
    assert_eq!(check(&object(1, 1, "a"), Some(&sound)).0, ["spec: Invalid value: max never falls"]);

    let (errors, _) = check(&object(3, 2, "b"), None);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[1].starts_with("<nil>: Invalid value: null: some validation rules were not checked"));

    let broken = object(3, 2, "a");
    let (errors, warnings) = check(&broken, Some(&broken));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(warnings, ["spec: Invalid value: min is above max"]);
}

#[test]
fn schemas_are_read_from_the_text_of_the_definition() {
    let schema = |kind: &str| json!({"type": "object", "properties": {"spec": {"type": kind}}});
    let mut definition = definition();
    for (at, kind) in ["string", "object", "integer"].into_iter().enumerate() {
        definition["spec"]["versions"][at]["schema"] = json!({"openAPIV3Schema": schema(kind)});
    }
    let pack = |definition: &Value| Arc::new(Packed::new(definition.to_string().as_bytes()));
    let text = DefinitionText::new(pack(&definition));
    let def = resource_with_text(&definition, &text).unwrap();
    let check = || {
        for (version, kind) in [("v1beta1", "string"), ("v1", "object"), ("v1alpha1", "integer")] {
            assert_eq!(def.schema(version).unwrap().json(), Some(schema(kind)), "{version}");
        }
    };
    check();
    definition["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let newer = pack(&definition);
    text.replace(Arc::clone(&newer));
    check();
    assert_eq!(Arc::strong_count(&newer), 2, "all versions share it");
}
