//! Compares recorded validations by the rules of a definition, with the structural validation around them.

use nave_cel::rules::{Validator, blocking_error, check, check_defaults};
use nave_machinery::{FieldError, FieldErrors, FieldPath, names};
use nave_structural::Structural;
use nave_structural::rules::{self, Requirements};
use serde_json::{Value, json};

use crate::share::Report;

const PATH: &str = "spec.validation.openAPIV3Schema";

/// Compares one case.
pub(crate) fn compare(case: &Value, report: &mut Report) {
    let schema = &case["schema"];
    let old = case.get("oldSchema");
    let found = check(schema, PATH, old == Some(schema));
    let requirements = old.map_or(Requirements::ALL, |old| Requirements::of_update(&[old]));
    let mut errors = rules::check(schema, &FieldPath::new(PATH), requirements).errors;
    if errors.is_empty() {
        let all = found.errors.iter().cloned().chain(check_defaults(schema, PATH));
        errors.extend(all.map(FieldError::from));
    }
    if let Some(panic) = case.get("crdPanic") {
        // Upstream panics. This engine reports an error.
        let expected = if errors.is_empty() { panic.clone() } else { texts(&errors) };
        report.count("rules: definition errors", case, &expected, &texts(&errors));
    } else {
        report.count("rules: definition errors", case, &recorded(&case["crdErrors"]), &texts(&errors));
    }
    if let Some(expected) = case.get("rules").and_then(Value::as_array) {
        let expected: Value =
            serde_json::from_str(&json!(expected).to_string().replace("selfType#", "selfType"))
                .unwrap_or_default();
        for expected in expected.as_array().into_iter().flatten() {
            let path = &expected["path"];
            let Some(rule) = found.rules.iter().find(|rule| json!(rule.path) == *path) else {
                // The rules of a schema without a type are not estimated; the definition has an error.
                let unknown = expected.get("type_info_error").filter(|_| !errors.is_empty());
                let found = unknown.map_or(Value::Null, |_| expected.clone());
                report.count("rules: estimates", case, expected, &found);
                continue;
            };
            let found = if rule.error.is_some() {
                json!({"path": path, "compile_error": rule.error})
            } else {
                let mut found = json!({
                    "path": path, "usesOldSelf": rule.uses_old_self, "maxCost": rule.max_cost,
                    "cardinality": rule.cardinality, "cardinalityBounded": rule.cardinality_bounded,
                    "ruleCost": rule.cost,
                });
                for (name, value) in [
                    ("messageExpressionCost", json!(rule.message_cost)),
                    ("messageExpressionError", json!(rule.message_error)),
                    ("fieldPath", json!(rule.field_path)),
                ] {
                    if !value.is_null() {
                        found[name] = value;
                    }
                }
                found
            };
            report.count("rules: estimates", case, expected, &found);
        }
        report.count("rules: total estimate", case, &case["crdCost"], &json!(found.cost));
    }
    if let Some(result) = case.get("result") {
        validate(case, result, report);
    }
}

/// Compares the validation of an object.
fn validate(case: &Value, result: &Value, report: &mut Report) {
    let (schema, new, old) = (&case["schema"], &case["new"], case.get("old"));
    let validation = Validator::new(schema).validate(new, old);
    if let Some(cost) = result.get("cost") {
        let exceeded = json!("exceeded");
        let found = if validation.exceeded { exceeded } else { json!(validation.cost) };
        let costs = case.get("unstable").and_then(Value::as_array).into_iter().flatten();
        let expected = costs.map(|result| &result["cost"]).find(|cost| **cost == found).unwrap_or(cost);
        report.count("rules: cost", case, expected, &found);
    }
    let mut errors = FieldErrors::from(metadata(new));
    if let Ok(structural) = Structural::compile(schema) {
        errors.extend(structural.validate(new, old).errors);
    }
    let mut warnings = Vec::new();
    if let Some(error) = blocking_error(&errors) {
        errors.push(error);
    } else {
        errors.extend(validation.errors.into_iter().map(FieldError::from));
        warnings.extend(validation.warnings.into_iter().map(FieldError::from));
    }
    report.count("rules: errors", case, &recorded(&result["errors"]), &texts(&errors));
    let expected = result.get("warnings").and_then(Value::as_array).into_iter().flatten();
    let expected = expected.filter_map(Value::as_str).map(str::to_owned);
    report.count("rules: warnings", case, &sorted(expected), &texts(&warnings));
}

/// Checks the name of an object.
fn metadata(object: &Value) -> Vec<FieldError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = FieldPath::new("metadata").child("name");
    let messages = names::is_dns1123_subdomain(name).into_iter();
    messages.map(|message| FieldError::invalid(&path, name, message)).collect()
}

/// Returns the texts of recorded errors.
fn recorded(errors: &Value) -> Value {
    let errors = errors.as_array().into_iter().flatten();
    sorted(errors.filter_map(|error| error["error"].as_str()).map(str::to_owned))
}

fn texts(errors: &[FieldError]) -> Value {
    sorted(errors.iter().map(ToString::to_string))
}

/// Returns the texts sorted, with type names as recorded.
fn sorted(texts: impl Iterator<Item = String>) -> Value {
    let mut texts: Vec<String> = texts.map(|text| text.replace("selfType#", "selfType")).collect();
    texts.sort();
    json!(texts)
}
