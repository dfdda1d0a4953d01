//! Defaults and validation of flow schemas and priority levels (upstream: `pkg/apis/flowcontrol`).

use nave_machinery::{FieldError, Value, names};

use crate::defaults::{at, object, set, set_number};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, in_range, not_negative, one_of, required_checked, required_text};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;

/// What is particular to flow schemas.
pub(super) struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    fn default(&self, schema: &mut Value, _version: &str) {
        if let Some(spec) = schema.as_object_mut().and_then(|schema| object(schema, "spec")) {
            set_number(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self, schema: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(schema);
        let spec = root.field("spec");
        let precedence = spec.field("matchingPrecedence");
        match precedence.int().unwrap_or_default() {
            ..=0 => errors.push(precedence.invalid("must be a positive value")),
            1..=PRECEDENCE_MAX => {}
            _ => errors.push(precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}"))),
        }
        let method = spec.field("distinguisherMethod");
        if method.is_set() {
            one_of(method.field("type"), &["ByNamespace", "ByUser"], &mut errors);
        }
        let level = spec.field("priorityLevelConfiguration");
        required_checked(level.field("name"), names::is_dns1123_subdomain, &mut errors);
        for rule in spec.field("rules").items() {
            self::rule(rule, &mut errors);
        }
        errors
    }
}

/// Who asks, and for what.
fn rule(rule: At, errors: &mut Errors) {
    let subjects = rule.field("subjects");
    if subjects.len() == 0 {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    for subject in subjects.items() {
        self::subject(subject, errors);
    }
    let (resources, paths) = (rule.field("resourceRules"), rule.field("nonResourceRules"));
    if resources.len() == 0 && paths.len() == 0 {
        errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for resource in resources.items() {
        for field in ["verbs", "apiGroups", "resources"] {
            listed(resource.field(field), errors);
        }
        let namespaces = resource.field("namespaces");
        if namespaces.len() == 0 && !resource.field("clusterScope").flag() {
            errors.push(
                namespaces.required(
                    "resource rules that are not cluster scoped must supply at least one namespace",
                ),
            );
        }
    }
    for path in paths.items() {
        listed(path.field("verbs"), errors);
        listed(path.field("nonResourceURLs"), errors);
    }
}

/// Something must be listed; where all is, nothing else.
fn listed(list: At, errors: &mut Errors) {
    if list.len() == 0 {
        errors.push(list.required(""));
    } else if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        errors.push(list.invalid("if '*' is present, must not specify other values"));
    }
}

fn subject(subject: At, errors: &mut Errors) {
    let kind = subject.field("kind");
    let field = match kind.text() {
        "User" => "user",
        "Group" => "group",
        "ServiceAccount" => "serviceAccount",
        _ => {
            errors.push(kind.not_supported(&["Group", "ServiceAccount", "User"]));
            return;
        }
    };
    for other in ["group", "serviceAccount", "user"] {
        if other != field && subject.field(other).is_set() {
            let why = format!("{other} is forbidden when subject kind is not '{other}'");
            errors.push(subject.field(other).forbidden(why));
        }
    }
    let who = subject.field(field);
    if !who.is_set() {
        errors.push(who.required(format!("{field} is required when subject kind is '{}'", kind.text())));
        return;
    }
    required_text(who.field("name"), errors);
    if field == "serviceAccount" {
        required_text(who.field("namespace"), errors);
    }
}

/// What is particular to priority levels.
pub(super) struct PriorityLevelStrategy;

impl Strategy for PriorityLevelStrategy {
    fn default(&self, level: &mut Value, _version: &str) {
        let Some(spec) = level.as_object_mut().and_then(|level| object(level, "spec")) else { return };
        if let Some(exempt) = at(spec, &["exempt"]) {
            set(exempt, "nominalConcurrencyShares", 0);
            set(exempt, "lendablePercent", 0);
        }
        let Some(limited) = at(spec, &["limited"]) else { return };
        set(limited, "nominalConcurrencyShares", 30);
        set(limited, "lendablePercent", 0);
        if let Some(queuing) = at(limited, &["limitResponse", "queuing"]) {
            set_number(queuing, "handSize", 8);
            set_number(queuing, "queues", 64);
            set_number(queuing, "queueLengthLimit", 50);
        }
    }

    fn validate(&self, level: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(level);
        let spec = root.field("spec");
        let (exempt, limited) = (spec.field("exempt"), spec.field("limited"));
        match spec.field("type").text() {
            "Exempt" => {
                if limited.is_set() {
                    errors.push(limited.forbidden("must be nil if the type is not Limited"));
                }
                shares(exempt, &mut errors);
            }
            "Limited" => {
                if exempt.is_set() {
                    errors.push(exempt.forbidden("must be nil if the type is Limited"));
                }
                if limited.is_set() {
                    self::limited(limited, &mut errors);
                } else {
                    errors.push(limited.required("must not be empty when type is Limited"));
                }
            }
            _ => errors.push(spec.field("type").not_supported(&["Exempt", "Limited"])),
        }
        errors
    }
}

fn shares(at: At, errors: &mut Errors) {
    not_negative(at.field("nominalConcurrencyShares"), errors);
    let lendable = at.field("lendablePercent");
    if lendable.is_set() {
        in_range(lendable, 0, 100, errors);
    }
}

fn limited(limited: At, errors: &mut Errors) {
    shares(limited, errors);
    not_negative(limited.field("borrowingLimitPercent"), errors);
    let response = limited.field("limitResponse");
    let queuing = response.field("queuing");
    match response.field("type").text() {
        "Reject" => {
            if queuing.is_set() {
                errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
            }
        }
        "Queue" => {
            if queuing.is_set() {
                self::queuing(queuing, errors);
            } else {
                errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
            }
        }
        _ => errors.push(response.field("type").not_supported(&["Queue", "Reject"])),
    }
}

fn queuing(queuing: At, errors: &mut Errors) {
    for field in ["queueLengthLimit", "queues", "handSize"] {
        let number = queuing.field(field);
        if number.int().unwrap_or_default() <= 0 {
            errors.push(number.invalid("must be positive"));
        }
    }
    let (hand, queues) = (queuing.field("handSize"), queuing.field("queues"));
    let (cards, deck) = (hand.int().unwrap_or_default(), queues.int().unwrap_or_default());
    if deck > QUEUES_MAX {
        errors.push(queues.invalid(format!("must not be greater than {QUEUES_MAX}")));
    }
    if cards > deck {
        let why = format!("should not be greater than queues ({deck})");
        errors.push(FieldError::invalid(&hand.path(), cards, why));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(strategy: &impl Strategy, spec: &Value) -> Vec<String> {
        let mut object = json!({"spec": spec});
        strategy.default(&mut object, "v1");
        strategy.validate(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_level_is_exempt_or_limited() {
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
        assert_eq!(found(&PriorityLevelStrategy, &level["spec"]), [""; 0]);
        assert_eq!(found(&PriorityLevelStrategy, &json!({"type": "Exempt"})), [""; 0]);
        assert_eq!(
            found(&PriorityLevelStrategy, &json!({"type": "Limited"})),
            ["spec.limited: Required value: must not be empty when type is Limited"]
        );
        let greedy = json!({"type": "Queue", "queuing": {"handSize": 9, "queues": 8}});
        assert_eq!(
            found(&PriorityLevelStrategy, &json!({"type": "Limited", "limited": {"limitResponse": greedy}})),
            [
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 9: should not be greater than queues (8)"
            ]
        );
    }

    #[test]
    fn a_schema_says_whose_requests_it_is_for() {
        let level = json!({"name": "global-default"});
        let rule = json!({
            "subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
        });
        assert_eq!(
            found(&FlowSchemaStrategy, &json!({"priorityLevelConfiguration": level, "rules": [rule]})),
            [""; 0]
        );
        assert_eq!(
            found(
                &FlowSchemaStrategy,
                &json!({"priorityLevelConfiguration": {}, "matchingPrecedence": 10_001, "rules": [{"subjects": [{"kind": "User"}]}]})
            ),
            [
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
                "spec.priorityLevelConfiguration.name: Required value",
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ]
        );
    }
}
