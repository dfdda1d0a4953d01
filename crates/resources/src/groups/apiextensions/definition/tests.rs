use serde_json::json;

use super::*;

fn definition() -> Value {
    json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "conversion": {"strategy": "None"},
            "versions": [version("v1", true)],
        },
        "status": {"storedVersions": ["v1"], "acceptedNames": {"plural": "", "kind": ""}},
    })
}

fn version(name: &str, storage: bool) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
}

/// Replaces the value at a JSON pointer in a definition and returns the errors.
fn with(pointer: &str, value: Value) -> Vec<String> {
    let mut definition = definition();
    put(&mut definition, pointer, value);
    shown(&validate(At::root(&definition)))
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.insert(field.to_owned(), value)),
        Value::Array(list) => list.push(value),
        other => panic!("{other}"),
    }
}

fn shown(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(|error| limit(&error.to_string())).collect()
}

/// Cuts off the long messages of name checks.
fn limit(text: &str) -> String {
    match text.split_once(" a DNS-1035 label must consist") {
        Some((start, _)) => format!("{start} label"),
        None => text.to_owned(),
    }
}

#[test]
fn accepts_a_valid_definition() {
    assert_eq!(shown(&validate(At::root(&definition()))), [""; 0]);
}

#[test]
fn errors_have_upstream_paths_and_messages() {
    let webhook = |client: Value| json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}});
    let column = |kind: &str, path: &str| json!([{"name": "A", "type": kind, "jsonPath": path}]);
    let scale = |spec: &str, status: &str, selector: &str| json!({"scale": {"specReplicasPath": spec, "statusReplicasPath": status, "labelSelectorPath": selector}});
    let v = "/spec/versions/0";
    let cases: Vec<(String, Value, &[&str])> = vec![
        (
            "/metadata/name".into(),
            json!("x.example.com"),
            &[r#"metadata.name: Invalid value: "x.example.com": must be spec.names.plural+"."+spec.group"#],
        ),
        (
            "/spec/scope".into(),
            json!("Galaxy"),
            &[r#"spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced""#],
        ),
        ("/spec/scope".into(), json!(""), &["spec.scope: Required value"]),
        (
            "/spec/names/shortNames".into(),
            json!(["ok", "TH"]),
            &[r#"spec.names.shortNames[1]: Invalid value: "TH": label"#],
        ),
        (
            "/spec/names/categories".into(),
            json!(["All"]),
            &[r#"spec.names.categories[0]: Invalid value: "All": label"#],
        ),
        (
            "/spec/names/listKind".into(),
            json!("Thing"),
            &[r#"spec.names.listKind: Invalid value: "Thing": kind and listKind may not be the same"#],
        ),
        (
            "/spec/names/kind".into(),
            json!("My Thing"),
            &[
                r#"spec.names.kind: Invalid value: "My Thing": may have mixed case, but should otherwise match: label"#,
            ],
        ),
        ("/spec/names/singular".into(), json!(""), &["spec.names.singular: Required value"]),
        (
            "/spec/preserveUnknownFields".into(),
            json!(true),
            &[
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ],
        ),
        (format!("{v}/schema"), json!(null), &["spec.versions[0].schema.openAPIV3Schema: Required value"]),
        (
            format!("{v}/deprecationWarning"),
            json!("old"),
            &[
                r#"spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions"#,
            ],
        ),
        (
            format!("{v}/name"),
            json!("V1"),
            &[
                r#"spec.versions[0].name: Invalid value: "V1": label"#,
                r#"spec.version: Invalid value: "V1": label"#,
                r#"status.storedVersions: Invalid value: ["v1"]: must have the storage version V1"#,
                r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"#,
            ],
        ),
        (
            format!("{v}/additionalPrinterColumns"),
            column("bogus", "x"),
            &[
                r#"spec.additionalPrinterColumns[0].type: Invalid value: "bogus": must be one of boolean,date,integer,number,string"#,
                r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "x": must be a simple json path starting with ."#,
            ],
        ),
        (
            format!("{v}/additionalPrinterColumns"),
            json!([{"name": "", "type": "", "format": "name"}]),
            &[
                "spec.additionalPrinterColumns[0].name: Required value",
                "spec.additionalPrinterColumns[0].type: Required value: must be one of boolean,date,integer,number,string",
                r#"spec.additionalPrinterColumns[0].format: Invalid value: "name": must be one of byte,date,date-time,double,float,int32,int64,password"#,
                "spec.additionalPrinterColumns[0].JSONPath: Required value",
            ],
        ),
        (
            format!("{v}/subresources"),
            scale(".status.n", ".spec.n", ".metadata.labels"),
            &[
                r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.n": should be a json path under .spec"#,
                r#"spec.subresources.scale.statusReplicasPath: Invalid value: ".spec.n": should be a json path under .status"#,
                r#"spec.subresources.scale.labelSelectorPath: Invalid value: ".metadata.labels": should be a json path under either .spec or .status"#,
            ],
        ),
        (
            format!("{v}/subresources"),
            scale("spec.n", "", ""),
            &[
                r#"spec.subresources.scale.specReplicasPath: Invalid value: "spec.n": must be a simple json path starting with ."#,
                "spec.subresources.scale.statusReplicasPath: Required value",
            ],
        ),
        (
            format!("{v}/selectableFields"),
            json!([{"jsonPath": ".spec.a"}, {"jsonPath": ".spec"}, {"jsonPath": ".spec.a"}, {"jsonPath": ".spec.b"}, {"jsonPath": ".spec['a']"}, {}]),
            &[
                r#"spec.selectableFields[1].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."#,
                r#"spec.selectableFields[2].jsonPath: Duplicate value: ".spec.a""#,
                r#"spec.selectableFields[3].jsonPath: Invalid value: ".spec.b": is an invalid path: does not refer to a valid field"#,
                r#"spec.selectableFields[4].jsonPath: Invalid value: ".spec['a']": is an invalid path: array notation is not allowed"#,
                "spec.selectableFields[5].jsonPath: Required value",
            ],
        ),
        (
            "/spec/conversion".into(),
            json!({"strategy": "Magic"}),
            &[r#"spec.conversion.strategy: Unsupported value: "Magic": supported values: "None", "Webhook""#],
        ),
        (
            "/spec/conversion".into(),
            json!({"strategy": "Webhook"}),
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        ),
        (
            "/spec/conversion".into(),
            webhook(json!({})),
            &[
                "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
            ],
        ),
        // Upstream swaps the name and the namespace of the service.
        (
            "/spec/conversion".into(),
            webhook(json!({"service": {"namespace": "b", "port": 443}})),
            &["spec.conversion.webhookClientConfig.service.namespace: Required value"],
        ),
        (
            "/spec/conversion".into(),
            webhook(json!({"url": "http://a"})),
            &[
                r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
            ],
        ),
        (
            "/spec/conversion".into(),
            json!({"strategy": "None", "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1"]}}),
            &[
                "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
                "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
            ],
        ),
        (
            "/spec/conversion".into(),
            json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v3", "v3"]}}),
            &[
                r#"spec.conversion.conversionReviewVersions[1]: Invalid value: "v3": duplicate version"#,
                r#"spec.conversion.conversionReviewVersions: Invalid value: ["v3","v3"]: must include at least one of v1, v1beta1"#,
            ],
        ),
        (
            "/status/storedVersions".into(),
            json!([]),
            &["status.storedVersions: Invalid value: null: must have at least one stored version"],
        ),
        (
            "/status/acceptedNames".into(),
            json!({"plural": "A"}),
            &[r#"status.acceptedNames.plural: Invalid value: "A": label"#],
        ),
        (
            format!("{v}/schema/openAPIV3Schema"),
            json!({"properties": {}}),
            &["spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"],
        ),
        (
            format!("{v}/schema/openAPIV3Schema/nullable"),
            json!(true),
            &["spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root"],
        ),
    ];
    for (pointer, value, expected) in cases {
        let case = format!("{pointer} {value}");
        assert_eq!(with(&pointer, value), *expected, "{case}");
    }
}

#[test]
fn errors_have_the_version_path_if_versions_differ() {
    let mut definition = definition();
    let mut second = version("v2", false);
    put(&mut second, "/schema/openAPIV3Schema/additionalProperties", json!(true));
    put(&mut second, "/additionalPrinterColumns", json!([{"name": "A", "type": "x", "jsonPath": ".a"}]));
    put(&mut definition, "/spec/versions/-", second);
    assert_eq!(
        shown(&validate(At::root(&definition))),
        [
            "spec.versions[1].schema.openAPIV3Schema.additionalProperties: Forbidden: must not be used at the root",
            r#"spec.versions[1].additionalPrinterColumns[0].type: Invalid value: "x": must be one of boolean,date,integer,number,string"#,
        ]
    );
}

#[test]
fn requires_one_storage_version_and_unique_names() {
    let mut definition = definition();
    put(&mut definition, "/spec/versions/-", version("v1", true));
    let found = shown(&validate(At::root(&definition)));
    let details: Vec<&str> =
        found.iter().filter_map(|text| text.rsplit_once(": ").map(|(_, why)| why)).collect();
    assert_eq!(
        details,
        ["must contain unique version names", "must have exactly one version marked as storage version"]
    );
}

#[test]
fn root_keywords_are_limited_with_a_status_subresource() {
    let mut with_any_of = definition();
    put(&mut with_any_of, "/spec/versions/0/subresources", json!({"status": {}}));
    assert_eq!(shown(&validate(At::root(&with_any_of))), [""; 0]);
    put(&mut with_any_of, "/spec/versions/0/schema/openAPIV3Schema/anyOf", json!([{"required": ["spec"]}]));
    let found = shown(&validate(At::root(&with_any_of)));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("spec.validation.openAPIV3Schema: Invalid value: {"), "{found:?}");
    assert!(
        found[0]
            .ends_with("fields are allowed at the root of the schema if the status subresource is enabled")
    );
}

fn update(change: impl Fn(&mut Value), old: impl Fn(&mut Value)) -> Vec<String> {
    let (mut new, mut before) = (definition(), definition());
    old(&mut new);
    old(&mut before);
    change(&mut new);
    shown(&validate_update(At::root(&new), &Old::new(&before)))
}

#[test]
fn names_and_scope_are_immutable_once_established() {
    let rename = |definition: &mut Value| {
        definition["spec"]["scope"] = json!("Cluster");
        definition["spec"]["names"]["kind"] = json!("Other");
    };
    let established = |definition: &mut Value| {
        definition["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    };
    assert_eq!(update(rename, |_| ()), [""; 0]);
    assert_eq!(
        update(rename, established),
        [
            r#"spec.scope: Invalid value: "Cluster": field is immutable"#,
            r#"spec.names.kind: Invalid value: "Other": field is immutable"#,
        ]
    );
    assert_eq!(
        update(|new| new["spec"]["group"] = json!("other.example.com"), |_| ()),
        [r#"spec.group: Invalid value: "other.example.com": field is immutable"#]
    );
}

#[test]
fn updates_tolerate_faults_of_the_old_definition() {
    // Stored before lists of type `set` required atomic items.
    let set = |definition: &mut Value| {
        let list = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object", "properties": {"a": {"type": "string"}}}});
        put(definition, "/spec/versions/0/schema/openAPIV3Schema/properties/l", list);
    };
    assert_eq!(update(|_| (), set), [""; 0]);
    let found = update(set, |_| ());
    let expected = "spec.validation.openAPIV3Schema.properties[l].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set";
    assert_eq!(found, [expected]);
}

#[test]
fn ca_bundle_must_be_valid_once_established() {
    let webhook = |bundle: &str| json!({"strategy": "Webhook", "webhook": {"clientConfig": {"url": "https://a", "caBundle": bundle}, "conversionReviewVersions": ["v1"]}});
    let established = |definition: &mut Value| {
        definition["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    };
    let break_it = |new: &mut Value| new["spec"]["conversion"] = webhook("Yw==");
    assert_eq!(update(break_it, |_| ()), [""; 0]);
    let found = update(break_it, established);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("spec.conversion.webhookClientConfig.caBundle: Invalid value: "),
        "{found:?}"
    );
    let invalid_before = |definition: &mut Value| {
        established(definition);
        break_it(definition);
    };
    assert_eq!(update(|new| new["spec"]["conversion"] = webhook("ZA=="), invalid_before), [""; 0]);
}

#[test]
fn protected_groups_need_an_approval() {
    let mut definition = definition();
    definition["metadata"]["name"] = json!("things.x.k8s.io");
    definition["spec"]["group"] = json!("x.k8s.io");
    let needed = r#"protected groups must have approval annotation "api-approved.kubernetes.io""#;
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    for (annotation, expected) in [
        (
            "",
            vec![format!(
                "metadata.annotations[api-approved.kubernetes.io]: Required value: {needed}, {see}"
            )],
        ),
        (
            "yes",
            vec![format!(
                r#"metadata.annotations[api-approved.kubernetes.io]: Invalid value: "yes": {needed} with either a URL or a reason starting with "unapproved", {see}"#
            )],
        ),
        ("unapproved, experimental", vec![]),
        ("https://github.com/kubernetes/kubernetes/pull/1", vec![]),
    ] {
        definition["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": annotation});
        assert_eq!(shown(&validate(At::root(&definition))), expected, "{annotation}");
        // An update that does not change the state is accepted.
        assert_eq!(shown(&validate_update(At::root(&definition), &Old::new(&definition))), [""; 0]);
    }
}

#[test]
fn compiles_rules_and_limits_their_cost() {
    let rules = |max_items: Option<u64>, rule: &str| {
        let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 10},
            "x-kubernetes-validations": [{"rule": rule}]});
        if let Some(max) = max_items {
            list["maxItems"] = json!(max);
        }
        let schema = json!({"type": "object", "properties": {"spec": list}});
        with("/spec/versions/0/schema", json!({"openAPIV3Schema": schema}))
    };
    assert_eq!(rules(Some(5), "self.all(x, self.all(y, x == y))"), [""; 0]);
    let unknown = rules(Some(5), "self.unknown == 1");
    assert!(
        unknown[0].contains("undefined field") || unknown[0].contains("does not support field"),
        "{unknown:?}"
    );
    let expensive = rules(None, "self.all(x, self.all(y, x.contains(y)))");
    assert!(expensive[0].contains("estimated rule cost exceeds budget"), "{expensive:?}");

    // A stored schema is exempt from the limit per rule.
    let mut old = definition();
    let schema = json!({"type": "object", "properties": {"spec": {"type": "array", "items": {"type": "string", "maxLength": 10},
        "maxItems": 1000, "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x.contains(y)))"}]}}});
    put(&mut old, "/spec/versions/0/schema", json!({"openAPIV3Schema": schema}));
    let refused = shown(&validate(At::root(&old)));
    assert!(refused.iter().any(|error| error.contains("exceeds budget")), "{refused:?}");
    assert_eq!(shown(&validate_update(At::root(&old), &Old::new(&old))), [""; 0]);
}

#[test]
fn checks_rules_of_schemas_without_errors_only() {
    let rule = |rule: &str| json!([{"rule": rule}]);
    let schema = json!({"type": "object", "properties": {
        "sound": {"type": "string", "maxLength": 5, "x-kubernetes-validations": rule("self.a")},
        "wrong": {"type": "array", "uniqueItems": true, "items": {"type": "string"}, "x-kubernetes-validations": rule("self.a")},
    }});
    let errors = with("/spec/versions/0/schema", json!({"openAPIV3Schema": schema}));
    let has = |text: &str| errors.iter().any(|error| error.contains(text));
    assert!(
        has("[wrong].uniqueItems: Forbidden") && has("[sound].x-kubernetes-validations[0].rule"),
        "{errors:?}"
    );
    assert!(!has("[wrong].x-kubernetes-validations"), "{errors:?}");
}
