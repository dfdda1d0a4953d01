//! Defaults and validation of flow schemas and priority levels (upstream: `pkg/apis/flowcontrol`).

use nave_machinery::{Value, meta};

use super::{mandatory, validation};
use crate::defaults::{object, object_at, set, set_number};
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

/// The annotation for zero shares in the `v1beta3` form. Stored objects do not have it.
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

/// The strategy of flow schemas.
pub(super) struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    /// Flow schemas are shown in the order in which they are tried.
    fn row_order(&self) -> Option<fn(&Value) -> i64> {
        Some(|schema| schema.pointer("/spec/matchingPrecedence").and_then(Value::as_i64).unwrap_or_default())
    }

    fn default(&self, schema: &mut Value, _version: &str) {
        if let Some(spec) = schema.as_object_mut().and_then(|schema| object(schema, "spec")) {
            set_number(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self, schema: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(schema);
        let (name, spec) = (meta::name(schema), root.field("spec"));
        validation::schema(name, spec, &mut errors);
        mandatory::schema(name, spec, &mut errors);
        validation::status(root.field("status"), &mut errors);
        errors
    }

    fn validate_status_update(&self, schema: &Value, _old: &Value) -> Errors {
        status(schema)
    }
}

/// The strategy of priority levels.
pub(super) struct PriorityLevelStrategy;

impl Strategy for PriorityLevelStrategy {
    fn default(&self, level: &mut Value, _version: &str) {
        let Some(spec) = level.as_object_mut().and_then(|level| object(level, "spec")) else { return };
        if let Some(exempt) = object_at(spec, &["exempt"]) {
            set(exempt, "nominalConcurrencyShares", 0);
            set(exempt, "lendablePercent", 0);
        }
        let Some(limited) = object_at(spec, &["limited"]) else { return };
        set(limited, "nominalConcurrencyShares", 30);
        set(limited, "lendablePercent", 0);
        if let Some(queuing) = object_at(limited, &["limitResponse", "queuing"]) {
            set_number(queuing, "handSize", 8);
            set_number(queuing, "queues", 64);
            set_number(queuing, "queueLengthLimit", 50);
        }
    }

    fn validate(&self, level: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(level);
        let (metadata, spec) = (root.field("metadata"), root.field("spec"));
        let annotations = metadata.field("annotations");
        if annotations.key(ZERO_SHARES).is_set() {
            errors.push(annotations.forbidden(format!("annotation '{ZERO_SHARES}' is forbidden")));
        }
        validation::level(meta::name(level), spec, &mut errors);
        mandatory::level(meta::name(level), spec, &mut errors);
        validation::status(root.field("status"), &mut errors);
        errors
    }

    fn validate_status_update(&self, level: &Value, _old: &Value) -> Errors {
        status(level)
    }
}

fn status(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(object);
    validation::status(root.field("status"), &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors_of(strategy: &impl Strategy, spec: &Value) -> Vec<String> {
        errors_of_named("x", strategy, spec)
    }

    fn errors_of_named(name: &str, strategy: &impl Strategy, spec: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": name}, "spec": spec});
        strategy.default(&mut object, "v1");
        strategy.validate(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn level_is_exempt_or_limited() {
        let queue = json!({"type": "Queue", "queuing": {}});
        let mut level = json!({"spec": {"type": "Limited", "limited": {"limitResponse": queue}}});
        PriorityLevelStrategy.default(&mut level, "v1");
        assert_eq!(
            level["spec"]["limited"],
            json!({
                "nominalConcurrencyShares": 30, "lendablePercent": 0,
                "limitResponse": {"type": "Queue", "queuing": {"handSize": 8, "queues": 64, "queueLengthLimit": 50}},
            })
        );
        assert_eq!(errors_of(&PriorityLevelStrategy, &level["spec"]), [""; 0]);
        assert_eq!(errors_of_named("exempt", &PriorityLevelStrategy, &json!({"type": "Exempt"})), [""; 0]);
        assert_eq!(
            errors_of(&PriorityLevelStrategy, &json!({"type": "Exempt"})),
            [r#"spec.type: Invalid value: "Exempt": must be 'Exempt' if and only if `name` is 'exempt'"#]
        );
        assert_eq!(
            errors_of(&PriorityLevelStrategy, &json!({"type": "Limited"})),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        let greedy = json!({"type": "Queue", "queuing": {"handSize": 9, "queues": 8}});
        assert_eq!(
            errors_of(
                &PriorityLevelStrategy,
                &json!({"type": "Limited", "limited": {"limitResponse": greedy}})
            ),
            [
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 9: should not be greater than queues (8)"
            ]
        );
    }

    #[test]
    fn rejects_invalid_subjects() {
        let level = json!({"name": "global-default"});
        let rule = json!({
            "subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
        });
        assert_eq!(
            errors_of(&FlowSchemaStrategy, &json!({"priorityLevelConfiguration": level, "rules": [rule]})),
            [""; 0]
        );
        assert_eq!(
            errors_of(
                &FlowSchemaStrategy,
                &json!({"priorityLevelConfiguration": {}, "matchingPrecedence": 10_001, "rules": [{"subjects": [{"kind": "User"}]}]})
            ),
            [
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ]
        );
    }

    #[test]
    fn rejects_invalid_verbs_and_paths() {
        let rule = |resource: &Value, path: &Value| {
            let rules = json!([{
                "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "a b"}}],
                "resourceRules": [resource], "nonResourceRules": [path],
            }]);
            let level = json!({"name": "x"});
            let spec = json!({"priorityLevelConfiguration": level, "matchingPrecedence": 1, "rules": rules});
            let found = errors_of(&FlowSchemaStrategy, &spec);
            found.iter().map(|it| it.split(": ").take(2).collect::<Vec<_>>().join("|")).collect::<Vec<_>>()
        };
        let resource = json!({"verbs": ["do"], "apiGroups": ["*", ""], "resources": [], "namespaces": ["A"]});
        let path = json!({"verbs": ["*", "get"], "nonResourceURLs": ["/a", "a", "/a//b", "/a*", "/*/*", ""]});
        assert_eq!(
            rule(&resource, &path),
            [
                "spec.matchingPrecedence|Invalid value",
                "spec.rules[0].subjects[0].serviceAccount.namespace|Invalid value",
                "spec.rules[0].resourceRules[0].verbs|Unsupported value",
                "spec.rules[0].resourceRules[0].apiGroups|Invalid value",
                "spec.rules[0].resourceRules[0].resources|Required value",
                "spec.rules[0].resourceRules[0].namespaces[0]|Invalid value",
                "spec.rules[0].nonResourceRules[0].verbs|Invalid value",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]|Invalid value",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[2]|Invalid value",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[3]|Invalid value",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[4]|Invalid value",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[5]|Invalid value",
            ]
        );
    }

    #[test]
    fn shows_unsupported_verbs_and_methods() {
        let spec = json!({
            "priorityLevelConfiguration": {"name": "x"}, "matchingPrecedence": 5, "distinguisherMethod": {"type": "X"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "u"}}],
                "nonResourceRules": [{"verbs": ["bad", "get"], "nonResourceURLs": ["/"]}]}],
        });
        let found = errors_of(&FlowSchemaStrategy, &spec);
        assert!(
            found[0].contains("type: Unsupported value: {\"Type\":\"X\"}: supported values"),
            "{found:?}"
        );
        assert!(found[1].contains("verbs: Unsupported value: [\"bad\",\"get\"]: supported"), "{found:?}");
    }

    #[test]
    fn mandatory_specs_are_fixed() {
        let level = json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0,
        }});
        assert_eq!(errors_of_named("catch-all", &PriorityLevelStrategy, &level), [""; 0]);
        let mut other = level;
        other["limited"]["nominalConcurrencyShares"] = json!(6);
        let found = errors_of_named("catch-all", &PriorityLevelStrategy, &other);
        assert!(found.len() == 1 && found[0].ends_with("spec of 'catch-all' must equal the fixed value"));
        let shares = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 9}});
        assert_eq!(errors_of_named("exempt", &PriorityLevelStrategy, &shares), [""; 0]);
        let rule = json!({
            "subjects": [{"kind": "Group", "group": {"name": "system:masters"}}],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        });
        let schema = json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1, "rules": [rule],
        });
        assert_eq!(errors_of_named("exempt", &FlowSchemaStrategy, &schema), [""; 0]);
        assert_eq!(errors_of_named("catch-all", &FlowSchemaStrategy, &schema).len(), 2);
    }

    #[test]
    fn hand_size_is_limited_by_hash_bits() {
        let level = |hand: u32| {
            let queuing = json!({"queues": 1024, "handSize": hand});
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}})
        };
        assert_eq!(errors_of(&PriorityLevelStrategy, &level(6)), [""; 0]);
        assert!(errors_of(&PriorityLevelStrategy, &level(7))[0].contains("required entropy bits"));
    }

    #[test]
    fn condition_types_are_unique() {
        let object = json!({"status": {"conditions": [{"type": "A"}, {"type": "A"}, {}]}});
        let errors = FlowSchemaStrategy.validate_status_update(&object, &object);
        let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
        assert_eq!(fields, ["status.conditions[1].type", "status.conditions[2].type"]);
    }
}
