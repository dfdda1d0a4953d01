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
        replicas,
        is_version: Box::new(|version| version == "apps/v1"),
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
