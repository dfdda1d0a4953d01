//! What is particular to the kinds of `admissionregistration.k8s.io`.

use nave_machinery::Value;

use super::{defaults, validation};
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

/// Webhook configurations.
pub(super) struct Webhooks {
    /// Whether the webhooks may change objects.
    pub(super) mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, configuration: &mut Value, _version: &str) {
        defaults::webhooks(configuration, self.mutating);
    }

    fn validate(&self, configuration: &Value) -> Errors {
        let mut errors = Errors::new();
        validation::webhooks(At::root(configuration), &mut errors);
        errors
    }
}

/// Policies.
pub(super) struct Policy {
    /// Whether the policy changes objects.
    pub(super) mutating: bool,
}

impl Strategy for Policy {
    fn default(&self, policy: &mut Value, _version: &str) {
        defaults::policy(policy);
    }

    fn validate(&self, policy: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(policy);
        validation::policy(root, &mut errors);
        let own = if self.mutating { validation::mutations } else { validation::validations };
        own(root, &mut errors);
        errors
    }
}

/// Bindings of policies.
pub(super) struct Binding {
    /// Whether the policy changes objects.
    pub(super) mutating: bool,
}

impl Strategy for Binding {
    fn default(&self, binding: &mut Value, _version: &str) {
        defaults::binding(binding);
    }

    fn validate(&self, binding: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(binding);
        validation::binding(root, &mut errors);
        if !self.mutating {
            validation::actions(root, &mut errors);
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn configuration() -> Value {
        json!({"webhooks": [{
            "name": "a.example.com",
            "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }]})
    }

    #[test]
    fn a_webhook_is_asked_about_all_it_does_not_exclude() {
        let mut full = configuration();
        Webhooks { mutating: true }.default(&mut full, "v1");
        let webhook = &full["webhooks"][0];
        assert_eq!(webhook["rules"][0]["scope"], "*");
        assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
        assert_eq!((&webhook["namespaceSelector"], &webhook["objectSelector"]), (&json!({}), &json!({})));
        assert_eq!(
            (&webhook["matchPolicy"], &webhook["failurePolicy"], &webhook["timeoutSeconds"]),
            (&json!("Equivalent"), &json!("Fail"), &json!(10))
        );
        assert_eq!(webhook["reinvocationPolicy"], "Never");
        assert_eq!(shown(&Webhooks { mutating: true }.validate(&full)), [""; 0]);
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_told() {
        for (path, value, expected) in [
            (
                "/name",
                json!("a.b"),
                r#"webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots"#,
            ),
            (
                "/sideEffects",
                Value::Null,
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            ),
            (
                "/sideEffects",
                json!("Some"),
                r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
            ),
            (
                "/clientConfig",
                json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "/admissionReviewVersions",
                json!(["v2"]),
                r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
            ),
            (
                "/rules/0/operations",
                json!(["*", "CREATE"]),
                r#"webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations"#,
            ),
            (
                "/rules/0/resources",
                json!(["pods/*", "pods/log"]),
                r#"webhooks[0].rules[0].resources[1]: Invalid value: "pods/log": if 'pods/*' is present, must not specify pods/log"#,
            ),
            ("/rules/0/resources", json!([]), "webhooks[0].rules[0].resources: Required value"),
        ] {
            let mut broken = configuration();
            *broken["webhooks"][0].pointer_mut(path).unwrap() = value;
            assert_eq!(shown(&Webhooks { mutating: false }.validate(&broken)), [expected]);
        }
        let mut slow = configuration();
        slow["webhooks"][0]["timeoutSeconds"] = json!(31);
        let errors = shown(&Webhooks { mutating: false }.validate(&slow));
        assert_eq!(
            errors,
            [
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"
            ]
        );
    }

    #[test]
    fn a_policy_matches_something_and_says_something() {
        let mut policy = json!({"spec": {
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
            ]},
            "validations": [{"expression": "true"}],
        }});
        Policy { mutating: false }.default(&mut policy, "v1");
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(policy["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
        assert_eq!(shown(&Policy { mutating: false }.validate(&policy)), [""; 0]);
        assert_eq!(
            shown(&Policy { mutating: false }.validate(&json!({"spec": {}}))),
            [
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ]
        );
        assert_eq!(
            shown(&Policy { mutating: true }.validate(&policy)),
            [
                "spec.mutations: Required value: mutations must contain at least one item",
                "spec.reinvocationPolicy: Required value",
            ]
        );
    }

    #[test]
    fn a_binding_names_its_policy_and_what_is_done() {
        let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}});
        assert_eq!(shown(&Binding { mutating: false }.validate(&binding)), [""; 0]);
        let empty =
            json!({"spec": {"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}}});
        assert_eq!(
            shown(&Binding { mutating: false }.validate(&empty)),
            [
                "spec.policyName: Required value",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.validationActions: Required value",
            ]
        );
    }
}
