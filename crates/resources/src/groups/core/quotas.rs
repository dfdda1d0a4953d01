//! Resource quotas (upstream: `ValidateResourceQuota`).

use std::collections::{BTreeSet, HashMap};

use nave_machinery::{FieldError, FieldErrorKind, Value, limits};

use crate::resource_names;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, IMMUTABLE};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const POD_COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// Pairs of mutually exclusive scopes.
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// The maximum number of errors that include the long list of all scopes.
const MAX_SCOPE_ERRORS: usize = 16;
/// The maximum length of a scope selector in an error, in bytes.
const MAX_SHOWN_BYTES: usize = 2 * 1024;
/// The scopes that support values.
const WITH_VALUES: [&str; 2] = ["PriorityClass", "VolumeAttributesClass"];

/// The strategy of quotas.
pub(super) struct QuotaStrategy;

impl Strategy for QuotaStrategy {
    fn validate(&self, quota: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(quota);
        let (spec, status) = (root.field("spec"), root.field("status"));
        quantities(spec.field("hard"), &mut errors);
        scopes(spec, &mut errors);
        scope_selector(spec, &mut errors);
        quantities(status.field("hard"), &mut errors);
        quantities(status.field("used"), &mut errors);
        errors
    }

    fn validate_update(&self, quota: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(quota);
        let (root, old) = (At::root(quota), At::root(old));
        let (spec, old_spec) = (root.field("spec"), old.field("spec"));
        let (now, before) = (spec.field("scopes"), old_spec.field("scopes"));
        let set =
            |list: At<'_, '_>| list.items().map(|scope| scope.text().to_owned()).collect::<BTreeSet<_>>();
        if set(now) != set(before) {
            errors.push(now.invalid(IMMUTABLE));
        }
        errors
    }

    fn warnings(&self, quota: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { requests_above_limits(quota) }
    }

    fn validate_status_update(&self, quota: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(quota);
        let status = root.field("status");
        quantities(status.field("hard"), &mut errors);
        quantities(status.field("used"), &mut errors);
        errors
    }
}

/// Warns about a quota whose requests exceed its limits.
fn requests_above_limits(quota: &Value) -> Vec<String> {
    let root = At::root(quota);
    let spec = root.field("spec");
    let hard = spec.field("hard");
    let mut warnings = Vec::new();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let mut request = format!("requests.{resource}");
        if hard.quantity_of(&request).is_none() && matches!(resource, "cpu" | "memory") {
            resource.clone_into(&mut request);
        }
        let limit = format!("limits.{resource}");
        let (Some(asked), Some(most)) = (hard.quantity_of(&request), hard.quantity_of(&limit)) else {
            continue;
        };
        if asked > most {
            warnings.push(format!("ResourceQuota {request} ({asked}) should be less than {limit} ({most})"));
        }
    }
    warnings
}

fn quantities(list: At, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resource_names::quota(name, amount, errors);
        resource_names::amount(name, amount, errors);
    }
}

fn scopes(spec: At, errors: &mut Errors) {
    let list = spec.field("scopes");
    let mut found = 0;
    let mut add = |why: &str, errors: &mut Errors| {
        found += 1;
        if found <= MAX_SCOPE_ERRORS {
            errors.push(list.invalid(why));
        }
    };
    let unfit = Unfit::from_spec(spec);
    for scope in list.items() {
        if !SCOPES.contains(&scope.text()) {
            add("unsupported scope", errors);
        }
        for _ in 0..unfit.count(scope.text()) {
            add("unsupported scope applied to resource", errors);
        }
    }
    conflicts(list, list, &list.items().map(|scope| scope.text()).collect(), errors);
}

/// The number of quota resources that each scope does not support.
struct Unfit(HashMap<&'static str, usize>);

impl Unfit {
    fn from_spec(spec: At) -> Self {
        let hard = spec.field("hard");
        let count = |scope| {
            let names = hard.map().into_iter().flat_map(|hard| hard.keys());
            names
                .filter(|name| resource_names::is_standard_quota(name) && !fits(scope, name))
                .count()
                .min(MAX_SCOPE_ERRORS)
        };
        Self(SCOPES.into_iter().map(|scope| (scope, count(scope))).collect())
    }

    fn count(&self, scope: &str) -> usize {
        self.0.get(scope).copied().unwrap_or_default()
    }
}

fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => resource == "pods" || POD_COMPUTE.contains(&resource),
    }
}

fn conflicts(at: At, shown: At, scopes: &BTreeSet<&str>, errors: &mut Errors) {
    for pair in OPPOSITES {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            let value = shown.value().cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&at.path(), value, "conflicting scopes"));
        }
    }
}

/// Formats a scope selector as upstream's internal type, whose fields have the names of Go.
fn shown_selector(expressions: At) -> String {
    let text = |at: At| Value::from(at.text()).to_string();
    let expressions = expressions.items().map(|it| {
        let (scope, operator) = (text(it.field("scopeName")), text(it.field("operator")));
        let values = it.field("values").value().cloned().unwrap_or_default();
        format!("{{\"ScopeName\":{scope},\"Operator\":{operator},\"Values\":{values}}}")
    });
    let expressions: Vec<String> = expressions.collect();
    limits::clipped(format_args!("{{\"MatchExpressions\":[{}]}}", expressions.join(",")), MAX_SHOWN_BYTES)
}

/// Checks the scope selector. Upstream reports errors of expressions at the list, without an index.
fn scope_selector(spec: At, errors: &mut Errors) {
    let selector = spec.field("scopeSelector");
    let list = selector.field("matchExpressions");
    let path = list.path();
    let unfit = Unfit::from_spec(spec);
    let mut found = 0;
    for expression in list.items() {
        let (scope, operator, values) =
            (expression.field("scopeName"), expression.field("operator"), expression.field("values"));
        let invalid =
            |field: &str, value: &str, why: &str| FieldError::invalid(&path.child(field), value, why);
        let is_known = SCOPES.contains(&scope.text());
        if !is_known {
            errors.push(invalid("scopeName", scope.text(), "unsupported scope"));
        }
        for _ in 0..unfit.count(scope.text()) {
            found += 1;
            if found <= MAX_SCOPE_ERRORS {
                let detail = format!("{}: unsupported scope applied to resource", shown_selector(list));
                errors.push(FieldError::with(
                    FieldErrorKind::InvalidWithoutValue,
                    &path,
                    Value::Null,
                    detail,
                ));
            }
        }
        if is_known && !WITH_VALUES.contains(&scope.text()) && operator.text() != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                       ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(invalid("operator", operator.text(), why));
        }
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&path.child("values"), why));
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                let shown = values.value().cloned().unwrap_or_default();
                errors.push(FieldError::invalid(&path.child("values"), shown, why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(invalid("operator", other, "not a valid selector operator")),
        }
    }
    // Upstream shows the other list.
    let scopes = list.items().map(|it| it.field("scopeName").text()).collect();
    conflicts(list, spec.field("scopes"), &scopes, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors_of(spec: Value) -> Vec<String> {
        let errors = QuotaStrategy.validate(&json!({"spec": spec}));
        errors.iter().map(|error| format!("{} {}", error.field, error.detail)).collect()
    }

    #[test]
    fn rejects_unknown_resources() {
        for (spec, expected) in [
            (
                json!({"hard": {"pods": "1", "count/jobs.batch": "2", "requests.example.com/gpu": "3"}}),
                &[][..],
            ),
            (
                json!({"hard": {"foo": "1"}}),
                &[
                    "spec.hard[foo] must be a standard resource type or fully qualified",
                    "spec.hard[foo] must be a standard resource for quota",
                ],
            ),
            (json!({"hard": {"pods": "-1"}}), &["spec.hard[pods] must be greater than or equal to 0"]),
            (json!({"hard": {"pods": "1500m"}}), &["spec.hard[pods] must be an integer"]),
        ] {
            assert_eq!(errors_of(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn rejects_conflicting_scopes() {
        for (spec, expected) in [
            (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), &[][..]),
            (json!({"scopes": ["x"]}), &["spec.scopes unsupported scope"]),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                &["spec.scopes unsupported scope applied to resource"],
            ),
            (json!({"scopes": ["BestEffort", "NotBestEffort"]}), &["spec.scopes conflicting scopes"]),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
                &[
                    "spec.scopeSelector.matchExpressions.values must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Has"}]}}),
                &["spec.scopeSelector.matchExpressions.operator not a valid selector operator"],
            ),
        ] {
            assert_eq!(errors_of(spec.clone()), expected, "{spec}");
        }
        let mixed = json!({"hard": {"services": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}, {"scopeName": "Terminating", "operator": "Exists"},
            {"scopeName": "NotTerminating", "operator": "Exists"}]}});
        let errors = QuotaStrategy.validate(&json!({"spec": mixed}));
        let texts: Vec<String> = errors.iter().map(FieldError::body).collect();
        let shown = r#"{"MatchExpressions":[{"ScopeName":"PriorityClass","Operator":"In","Values":["a"]},{"ScopeName":"Terminating","Operator":"Exists","Values":null},{"ScopeName":"NotTerminating","Operator":"Exists","Values":null}]}"#;
        let unfit = format!("Invalid value: {shown}: unsupported scope applied to resource");
        let conflict = "Invalid value: null: conflicting scopes".to_owned();
        assert_eq!(texts, [unfit.clone(), unfit.clone(), unfit, conflict]);
        let scoped = |operator: &str| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": operator}]}});
        assert_eq!(errors_of(scoped("Exists")), [""; 0]);
        assert_eq!(errors_of(scoped("DoesNotExist")).len(), 1);
    }

    #[test]
    fn warns_about_requests_above_limits() {
        let quota = |hard: Value| json!({"spec": {"hard": hard}});
        for (hard, expected) in [
            (json!({"requests.cpu": "1", "limits.cpu": "1"}), &[][..]),
            (
                json!({"cpu": "2", "limits.cpu": "1"}),
                &["ResourceQuota cpu (2) should be less than limits.cpu (1)"],
            ),
            (
                json!({"requests.ephemeral-storage": "2Gi", "limits.ephemeral-storage": "1Gi"}),
                &[
                    "ResourceQuota requests.ephemeral-storage (2Gi) should be less than limits.ephemeral-storage (1Gi)",
                ],
            ),
        ] {
            assert_eq!(QuotaStrategy.warnings(&quota(hard.clone()), None), expected, "{hard}");
        }
    }

    #[test]
    fn scopes_are_immutable() {
        let quota = |scopes: Value| json!({"spec": {"scopes": scopes}});
        let update = |new: Value, old: Value| QuotaStrategy.validate_update(&quota(new), &quota(old)).len();
        assert_eq!(update(json!(["BestEffort", "PriorityClass"]), json!(["PriorityClass", "BestEffort"])), 0);
        assert_eq!(update(json!(["BestEffort"]), json!(null)), 1);
    }
}
