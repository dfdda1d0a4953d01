//! Compares recorded validations by the rules of a definition.

use nave_cel::rules::{RuleError, Validator, check};
use serde_json::{Value, json};

use crate::share::Report;

const PATH: &str = "spec.validation.openAPIV3Schema";
/// Substrings of errors from other validations.
const OTHERS: [&str; 4] = [" in body ", "some validation rules were not checked", "Too many", "RFC 1123"];

/// Compares one case.
pub(crate) fn compare(case: &Value, report: &mut Report) {
    let schema = &case["schema"];
    let unchanged = case.get("oldSchema").is_some_and(|old| old == schema);
    let found = check(schema, PATH, unchanged);
    if let Some(expected) = case.get("crdErrors").and_then(Value::as_array) {
        let expected: Vec<&str> = expected.iter().filter_map(|error| error["error"].as_str()).collect();
        // Upstream does not check the rules of a schema with other errors.
        let concerns =
            |text: &&str| text.contains("x-kubernetes-validations") && !text.contains("to be structural");
        if expected.iter().all(concerns) {
            let expected = texts(expected.iter().map(ToString::to_string));
            report.count("rules: definition errors", case, &expected, &errors(&found.errors));
        }
    }
    if let Some(expected) = case.get("rules").and_then(Value::as_array) {
        let expected: Value =
            serde_json::from_str(&json!(expected).to_string().replace("selfType#", "selfType"))
                .unwrap_or_default();
        for expected in expected.as_array().into_iter().flatten() {
            let path = &expected["path"];
            let Some(rule) = found.rules.iter().find(|rule| json!(rule.path) == *path) else {
                if expected.get("type_info_error").is_none() {
                    report.count("rules: estimates", case, expected, &Value::Null);
                }
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
    let Some(result) = case.get("result") else { return };
    let validation = Validator::new(schema).validate(&case["new"], case.get("old"));
    if let Some(cost) = result.get("cost").filter(|_| !validation.exceeded && case.get("unstable").is_none())
    {
        report.count("rules: cost", case, cost, &json!(validation.cost));
    }
    let expected = result["errors"].as_array().cloned().unwrap_or_default();
    let text = |error: &Value| error["error"].as_str().unwrap_or_default().to_owned();
    if expected.iter().any(|error| OTHERS.iter().any(|other| text(error).contains(other))) {
        return;
    }
    report.count("rules: errors", case, &texts(expected.iter().map(text)), &errors(&validation.errors));
    let warnings = result.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
    let warnings = warnings.iter().filter_map(Value::as_str).map(str::to_owned);
    report.count("rules: warnings", case, &texts(warnings), &errors(&validation.warnings));
}

fn errors(errors: &[RuleError]) -> Value {
    texts(errors.iter().map(ToString::to_string))
}

/// Returns the texts sorted, with type names as recorded.
fn texts(texts: impl Iterator<Item = String>) -> Value {
    let mut texts: Vec<String> = texts.map(|text| text.replace("selfType#", "selfType")).collect();
    texts.sort();
    json!(texts)
}
