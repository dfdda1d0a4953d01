//! Reads definitions that are stored in version v1beta1, as kube-apiserver stores them: what all versions share is in
//! the specification, not in each version (upstream: `apiextensions/v1/conversion.go`).

use nave_machinery::{Map, Value};

/// The version in which kube-apiserver stores definitions.
pub(super) const V1BETA1: &str = "v1beta1";

/// Fields of the specification that belong to each version in v1.
const SHARED: [(&str, &str); 4] = [
    ("subresources", "subresources"),
    ("validation", "schema"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// Converts the specification of a definition from v1beta1 to v1.
pub(super) fn convert_spec(spec: &mut Map) {
    let name = spec.remove("version").unwrap_or_default();
    let shared: Vec<(&str, Value)> =
        SHARED.iter().filter_map(|(from, to)| Some((*to, spec.remove(*from)?))).collect();
    let versions = spec.entry("versions").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(versions) = versions.as_array_mut() {
        if versions.is_empty() && name.is_string() {
            versions.push(serde_json::json!({"name": name, "served": true, "storage": true}));
        }
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            version.extend(shared.iter().map(|(field, value)| ((*field).to_owned(), value.clone())));
            rename_paths(version);
        }
    }
    // The default of v1beta1 is true, and v1 omits false.
    match spec.get("preserveUnknownFields") {
        None => drop(spec.insert("preserveUnknownFields".to_owned(), Value::Bool(true))),
        Some(Value::Bool(false)) => drop(spec.remove("preserveUnknownFields")),
        Some(_) => {}
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        nest_webhook(conversion);
    }
}

/// Renames the path of printer columns.
fn rename_paths(version: &mut Map) {
    let columns = version.get_mut("additionalPrinterColumns").and_then(Value::as_array_mut);
    for column in columns.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(path) = column.remove("JSONPath") {
            column.insert("jsonPath".to_owned(), path);
        }
    }
}

/// Moves the fields of the conversion webhook into an object of their own.
fn nest_webhook(conversion: &mut Map) {
    let mut webhook = Map::new();
    for (from, to) in
        [("webhookClientConfig", "clientConfig"), ("conversionReviewVersions", "conversionReviewVersions")]
    {
        if let Some(value) = conversion.remove(from) {
            webhook.insert(to.to_owned(), value);
        }
    }
    if !webhook.is_empty() {
        conversion.insert("webhook".to_owned(), Value::Object(webhook));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn converted(mut spec: Value) -> Value {
        convert_spec(spec.as_object_mut().unwrap());
        spec
    }

    #[test]
    fn shared_fields_move_to_each_version() {
        let stored = json!({
            "group": "example.com", "version": "v1", "preserveUnknownFields": false,
            "versions": [
                {"name": "v1", "served": true, "storage": true},
                {"name": "v2", "served": true, "storage": false},
            ],
            "validation": {"openAPIV3Schema": {"type": "object"}},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "A", "type": "string", "JSONPath": ".spec.a"}],
            "selectableFields": [{"jsonPath": ".spec.a"}],
            "conversion": {"strategy": "None"},
        });
        let version = |name: &str, storage: bool| {
            json!({
                "name": name, "served": true, "storage": storage,
                "schema": {"openAPIV3Schema": {"type": "object"}},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
                "selectableFields": [{"jsonPath": ".spec.a"}],
            })
        };
        let wanted = json!({
            "group": "example.com", "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "None"},
        });
        assert_eq!(converted(stored), wanted);
    }

    #[test]
    fn fields_of_single_versions_stay() {
        let stored = json!({
            "version": "v1", "preserveUnknownFields": false,
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": false,
                    "additionalPrinterColumns": [{"name": "A", "JSONPath": ".spec.a"}]},
            ],
        });
        let wanted = json!({
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": false,
                    "additionalPrinterColumns": [{"name": "A", "jsonPath": ".spec.a"}]},
            ],
        });
        assert_eq!(converted(stored), wanted);
    }

    #[test]
    fn old_forms_are_completed() {
        let webhook = json!({"strategy": "Webhook", "webhookClientConfig": {"url": "https://a"},
            "conversionReviewVersions": ["v1"]});
        assert_eq!(
            converted(json!({"version": "v1", "conversion": webhook})),
            json!({
                "versions": [{"name": "v1", "served": true, "storage": true}],
                "preserveUnknownFields": true,
                "conversion": {"strategy": "Webhook",
                    "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1"]}},
            })
        );
    }
}
