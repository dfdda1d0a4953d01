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

/// Returns entries of a manager of the replicas and more, a manager without the replicas, and one of an unknown
/// version.
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
    let of_scale = scale_fields(&entries, &replicas).of_scale().unwrap().unwrap();
    let fields = json!({"f:spec": {"f:replicas": {}}});
    let expected = [
        entry("ci", "Apply", "autoscaling/v1", fields.clone()),
        entry("hand", "Update", "autoscaling/v1", fields),
    ];
    assert_eq!(of_scale, json!(expected));
}

#[test]
fn entries_kept_by_the_scale_stay_in_the_object() {
    let (entries, replicas) = (entries(), replicas());
    let fields = scale_fields(&entries, &replicas);
    let of_scale = fields.of_scale().unwrap();
    let of_object = fields.of_object(of_scale.as_ref()).unwrap().unwrap();
    assert_eq!(of_object, json!(entries.as_array().unwrap()[..3]));
}

#[test]
fn managers_removed_from_the_scale_lose_the_replicas() {
    let (entries, replicas) = (entries(), replicas());
    let mut hpa = entry("hpa", "Apply", "autoscaling/v1", json!({"f:spec": {"f:replicas": {}}}));
    hpa["subresource"] = json!("scale");
    let of_object = scale_fields(&entries, &replicas).of_object(Some(&json!([hpa]))).unwrap().unwrap();
    let ci = entry("ci", "Apply", "apps/v1", json!({"f:spec": {"f:paused": {}}}));
    hpa["apiVersion"] = json!("apps/v1");
    hpa.as_object_mut().unwrap().remove("time");
    assert_eq!(of_object, json!([hpa, ci, entries[2]]));
}

#[test]
fn rejects_malformed_entries() {
    let (entries, replicas) = (json!([{"manager": "m"}]), replicas());
    assert!(scale_fields(&entries, &replicas).of_scale().is_err());
    assert!(scale_fields(&json!([]), &replicas).of_object(Some(&entries)).is_err());
}
