use serde_json::json;

use super::super::ScaleFields;
use super::*;

fn entry(manager: &str, operation: &str, api_version: &str, fields: Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": api_version, "time": NOW,
        "fieldsType": "FieldsV1", "fieldsV1": fields})
}

fn replicas() -> Vec<String> {
    ["spec", "replicas"].map(str::to_owned).to_vec()
}

fn scale_fields<'a>(entries: &'a Value, replicas: &'a [String]) -> ScaleFields<'a> {
    ScaleFields {
        entries: Some(entries),
        api_version: "apps/v1".to_owned(),
        replicas: Box::new(move |version| (version == "apps/v1").then_some(replicas)),
    }
}

/// Returns three entries: one with the replicas and more, one without the replicas, one of an unknown version.
fn entries() -> Value {
    json!([
        entry("ci", "Apply", "apps/v1", json!({"f:spec": {"f:paused": {}, "f:replicas": {}}})),
        entry("hand", "Update", "apps/v1", json!({"f:spec": {"f:replicas": {}}})),
        entry("other", "Update", "apps/v1", json!({"f:spec": {"f:paused": {}}})),
        entry("gone", "Update", "apps/v0", json!({"f:spec": {"f:replicas": {}}})),
    ])
}

#[test]
fn a_scale_has_the_owners_of_the_replicas() {
    let (entries, replicas) = (entries(), replicas());
    let scale_entries = scale_fields(&entries, &replicas).scale_entries().unwrap().unwrap();
    let fields = json!({"f:spec": {"f:replicas": {}}});
    let expected = [
        entry("ci", "Apply", "autoscaling/v1", fields.clone()),
        entry("hand", "Update", "autoscaling/v1", fields),
    ];
    assert_eq!(scale_entries, json!(expected));
}

#[test]
fn entries_kept_by_the_scale_stay_in_the_object() {
    let (entries, replicas) = (entries(), replicas());
    let fields = scale_fields(&entries, &replicas);
    let scale_entries = fields.scale_entries().unwrap();
    let object_entries = fields.object_entries(scale_entries.as_ref()).unwrap().unwrap();
    assert_eq!(object_entries, json!(entries.as_array().unwrap()[..3]));
}

#[test]
fn managers_removed_from_the_scale_lose_the_replicas() {
    let (entries, replicas) = (entries(), replicas());
    let mut hpa = entry("hpa", "Apply", "autoscaling/v1", json!({"f:spec": {"f:replicas": {}}}));
    hpa["subresource"] = json!("scale");
    let object_entries =
        scale_fields(&entries, &replicas).object_entries(Some(&json!([hpa]))).unwrap().unwrap();
    let ci = entry("ci", "Apply", "apps/v1", json!({"f:spec": {"f:paused": {}}}));
    hpa["apiVersion"] = json!("apps/v1");
    hpa.as_object_mut().unwrap().remove("time");
    assert_eq!(object_entries, json!([hpa, ci, entries[2]]));
}

#[test]
fn rejects_malformed_entries() {
    let (entries, replicas) = (json!([{"manager": "m"}]), replicas());
    assert!(scale_fields(&entries, &replicas).scale_entries().is_err());
    assert!(scale_fields(&json!([]), &replicas).object_entries(Some(&entries)).is_err());
}

#[test]
fn a_write_through_another_version_moves_the_replicas() {
    let paths = [["spec", "replicas"], ["spec", "size"]].map(|path| path.map(str::to_owned).to_vec());
    let owned = |fields: Value| json!({"f:spec": fields});
    let entries = json!([
        entry("owner", "Apply", "example.com/v1", owned(json!({"f:image": {}, "f:replicas": {}}))),
        entry("hand", "Update", "example.com/v1", owned(json!({"f:replicas": {}}))),
        entry("hand", "Update", "example.com/v1alpha1", owned(json!({"f:image": {}}))),
    ]);
    let fields = ScaleFields {
        entries: Some(&entries),
        api_version: "example.com/v1alpha1".to_owned(),
        replicas: Box::new(|version| match version {
            "example.com/v1" => Some(&paths[0][..]),
            "example.com/v1alpha1" => Some(&paths[1][..]),
            _ => None,
        }),
    };
    let scale_entries = fields.scale_entries().unwrap().unwrap();
    assert_eq!(scale_entries.as_array().unwrap().len(), 2, "{scale_entries}");
    // The writer owns the replicas alone now.
    let written = json!([entry("hand", "Update", "autoscaling/v1", owned(json!({"f:replicas": {}})))]);
    let moved = fields.object_entries(Some(&written)).unwrap().unwrap();
    let found: Vec<(&str, &str, &Value)> = moved
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["manager"].as_str().unwrap(),
                entry["apiVersion"].as_str().unwrap(),
                &entry["fieldsV1"]["f:spec"],
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("owner", "example.com/v1", &json!({"f:image": {}})),
            ("hand", "example.com/v1alpha1", &json!({"f:image": {}, "f:size": {}})),
        ]
    );
}
