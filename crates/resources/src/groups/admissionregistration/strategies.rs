//! The strategies of the kinds in `admissionregistration.k8s.io`.

use nave_machinery::{Value, meta};

use super::policies::Expressions;
use super::webhooks::Leniency;
use super::{defaults, policies, webhooks};
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

const STATIC_SUFFIX: &str = ".static.k8s.io";

/// Webhook configurations.
pub(super) struct Webhooks {
    /// True for mutating webhooks.
    pub(super) mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, configuration: &mut Value, _version: &str) {
        defaults::webhooks(configuration, self.mutating);
    }

    fn validate(&self, configuration: &Value) -> Errors {
        let mut errors = Errors::new();
        webhooks::webhooks(At::root(configuration), Leniency::default(), &mut errors);
        errors
    }

    fn validate_update(&self, configuration: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        webhooks::webhooks(
            At::root(configuration),
            Leniency::for_stored(At::root(old), At::root(configuration)),
            &mut errors,
        );
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved_name(object)
    }
}

/// Policies.
pub(super) struct Policy {
    /// True for mutating policies.
    pub(super) mutating: bool,
}

impl Strategy for Policy {
    fn default(&self, policy: &mut Value, _version: &str) {
        defaults::policy(policy);
    }

    fn validate(&self, policy: &Value) -> Errors {
        self.errors(policy, None)
    }

    fn validate_update(&self, policy: &Value, old: &Value) -> Errors {
        self.errors(policy, Some(old))
    }

    fn validate_status_update(&self, policy: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        policies::status(At::root(policy), &mut errors);
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved_name(object)
    }
}

impl Policy {
    fn errors(&self, policy: &Value, stored: Option<&Value>) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(policy);
        let mut expressions = Expressions::new(root, stored.map(At::root), self.mutating);
        policies::policy(root, &mut expressions, &mut errors);
        let own = if self.mutating { policies::mutations } else { policies::validations };
        own(root, expressions, &mut errors);
        errors
    }
}

/// Bindings of policies.
pub(super) struct Binding {
    /// True for mutating policies.
    pub(super) mutating: bool,
}

impl Strategy for Binding {
    fn default(&self, binding: &mut Value, _version: &str) {
        defaults::binding(binding);
    }

    fn validate(&self, binding: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(binding);
        policies::binding(root, &mut errors);
        if self.mutating {
            let spec = root.field("spec");
            policies::changes_only(spec.field("matchResources"), &mut errors);
        } else {
            policies::actions(root, &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved_name(object)
    }
}

/// Warns about a name that is reserved for configurations in manifest files.
fn reserved_name(object: &Value) -> Vec<String> {
    let is_reserved = meta::name(object).ends_with(STATIC_SUFFIX);
    let warning = || {
        format!(
            "metadata.name: names ending with {STATIC_SUFFIX:?} are reserved for static manifest-based \
             configurations and cannot be managed via the API"
        )
    };
    is_reserved.then(warning).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn messages(errors: &Errors) -> Vec<String> {
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
    fn webhook_defaults_match_everything() {
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
        assert_eq!(messages(&Webhooks { mutating: true }.validate(&full)), [""; 0]);
    }

    #[test]
    fn rejects_invalid_webhooks() {
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
            assert_eq!(messages(&Webhooks { mutating: false }.validate(&broken)), [expected]);
        }
        let mut slow = configuration();
        slow["webhooks"][0]["timeoutSeconds"] = json!(31);
        let errors = messages(&Webhooks { mutating: false }.validate(&slow));
        assert_eq!(
            errors,
            [
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"
            ]
        );
    }

    #[test]
    fn rejects_policies_without_rules_or_validations() {
        let mut policy = json!({"spec": {
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
            ]},
            "validations": [{"expression": "true"}],
        }});
        Policy { mutating: false }.default(&mut policy, "v1");
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(policy["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
        assert_eq!(messages(&Policy { mutating: false }.validate(&policy)), [""; 0]);
        assert_eq!(
            messages(&Policy { mutating: false }.validate(&json!({"spec": {}}))),
            [
                "spec.failurePolicy: Required value",
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ]
        );
        assert_eq!(
            messages(&Policy { mutating: true }.validate(&policy)),
            [
                "spec.mutations: Required value: mutations must contain at least one item",
                "spec.reinvocationPolicy: Required value",
            ]
        );
    }

    #[test]
    fn binding_requires_policy_and_actions() {
        let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}});
        assert_eq!(messages(&Binding { mutating: false }.validate(&binding)), [""; 0]);
        let empty =
            json!({"spec": {"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Deny"}}});
        assert_eq!(
            messages(&Binding { mutating: false }.validate(&empty)),
            [
                "spec.policyName: Required value",
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.validationActions: Required value: at least one validation action is required",
            ]
        );
    }

    #[test]
    fn stored_faults_are_accepted_in_updates() {
        let mut old = configuration();
        old["webhooks"][0]["sideEffects"] = json!("Some");
        old["webhooks"][0]["admissionReviewVersions"] = json!(["v0"]);
        let twice = json!([old["webhooks"][0], old["webhooks"][0]]);
        old["webhooks"] = twice;
        let strategy = Webhooks { mutating: false };
        assert_eq!(messages(&strategy.validate_update(&old, &old)), [""; 0]);
        assert_eq!(strategy.validate_update(&old, &configuration()).len(), 5);
    }

    #[test]
    fn rejects_invalid_parts_of_policies() {
        let policy = |more: Value| {
            let rule = json!({
                "operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            });
            let mut policy = json!({
                "metadata": {"name": "p"},
                "spec": {
                    "matchConstraints": {"resourceRules": [rule]},
                    "validations": [{"expression": "true"}],
                    "reinvocationPolicy": "Never",
                },
            });
            policy["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Policy { mutating: false }.default(&mut policy, "v1");
            policy
        };
        let fields = |errors: Errors| errors.iter().map(|it| it.field.to_string()).collect::<Vec<_>>();
        let annotation = |key: &str| json!({"key": key, "valueExpression": "'a'"});
        for (more, expected) in [
            (json!({"failurePolicy": ""}), &["spec.failurePolicy"][..]),
            (json!({"paramKind": {"apiVersion": "v1", "kind": "K"}}), &[]),
            (
                json!({"paramKind": {"apiVersion": "a/b/c", "kind": "-"}}),
                &["spec.paramKind.apiVersion", "spec.paramKind.kind"],
            ),
            (
                json!({"paramKind": {"apiVersion": "A_/V1", "kind": "K"}}),
                &["spec.paramKind.apiVersion", "spec.paramKind.apiVersion"],
            ),
            (
                json!({"variables": [{"name": "in", "expression": " "}]}),
                &["spec.variables[0].name", "spec.variables[0].expression"],
            ),
            (
                json!({"validations": [{"expression": "true", "message": " ", "messageExpression": " ", "reason": "Unauthorized"}]}),
                &[
                    "spec.validations[0].messageExpression",
                    "spec.validations[0].message",
                    "spec.validations[0].reason",
                ],
            ),
            (
                json!({"validations": [{"expression": "true", "message": "a\nb"}]}),
                &["spec.validations[0].message"],
            ),
            (
                json!({"auditAnnotations": [annotation("a"), annotation("a"), annotation("a/b")]}),
                &["spec.auditAnnotations[1].key", "spec.auditAnnotations[2].key"],
            ),
        ] {
            assert_eq!(
                fields(Policy { mutating: false }.validate(&policy(more.clone()))),
                expected,
                "{more}"
            );
        }
        let mutations = json!([
            {"patchType": "JSONPatch", "applyConfiguration": {"expression": "x"}},
            {"patchType": "ApplyConfiguration", "applyConfiguration": {}},
            {"patchType": "X"},
        ]);
        assert_eq!(
            fields(Policy { mutating: true }.validate(&policy(json!({"mutations": mutations})))),
            [
                "spec.mutations[0].applyConfiguration",
                "spec.mutations[0].jsonPatch",
                "spec.mutations[1].applyConfiguration.expression",
                "spec.mutations[2].patchType",
                "spec.matchConstraints.resourceRules.operations",
            ]
        );
    }

    #[test]
    fn rejects_expressions_that_do_not_compile() {
        let policy = |mutating: bool, more: Value| {
            let mut policy = json!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": [
                    {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
                ]},
                "reinvocationPolicy": "Never",
            }});
            policy["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let kind = Policy { mutating };
            kind.default(&mut policy, "v1");
            let errors = kind.validate(&policy);
            errors.iter().map(|it| (it.field.to_string(), it.to_string())).collect::<Vec<_>>()
        };
        let validate = |validation: Value, more: Value| {
            let mut spec = json!({"validations": [validation]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            policy(false, spec)
        };
        let undeclared = |field: &str, text: &str, name: &str, column: usize| {
            let dots = ".".repeat(column - 1);
            let error = format!(
                "{field}: Invalid value: {text:?}: compilation failed: ERROR: <input>:1:{column}: undeclared reference to '{name}' (in container '')\n | {text}\n | {dots}^"
            );
            vec![(field.to_owned(), error)]
        };
        let expression = |text: &str| json!({"expression": text});
        let first = "spec.validations[0].expression";
        let none = json!({});
        assert_eq!(validate(expression("object.a == 1"), none.clone()), []);
        assert_eq!(
            validate(expression("object.a"), none.clone()),
            [(
                first.to_owned(),
                format!("{first}: Invalid value: \"object.a\": must evaluate to bool but got dyn")
            )]
        );
        assert_eq!(
            validate(expression("params.a == 1"), none.clone()),
            undeclared(first, "params.a == 1", "params", 1)
        );
        let params = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}});
        assert_eq!(validate(expression("params.a == 1"), params), []);
        assert_eq!(
            validate(expression("variables.a == 1"), none.clone()),
            undeclared(first, "variables.a == 1", "variables", 1)
        );
        let variables = json!({"variables": [{"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a + 1"}]});
        assert_eq!(validate(expression("variables.b == 1"), variables.clone()), []);
        // Match conditions cannot use variables, messages cannot use the authorizer.
        let mut conditions = variables;
        conditions["matchConditions"] = json!([{"name": "c", "expression": " variables.a == 1"}]);
        assert_eq!(
            validate(expression("true"), conditions),
            undeclared("spec.matchConditions[0].expression", "variables.a == 1", "variables", 1)
        );
        let message = "authorizer.path('/').check('get').reason()";
        assert_eq!(
            validate(json!({"expression": "true", "messageExpression": message}), none.clone()),
            undeclared("spec.validations[0].messageExpression", message, "authorizer", 1)
        );
        // A constant part that fails is an internal error.
        let failing = validate(expression("int('a') == 1"), none);
        assert!(failing[0].1.starts_with(&format!("{first}: Internal error: program instantiation failed")));
        let mutate = |text: &str| {
            let mutation =
                json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}});
            policy(true, json!({"mutations": [mutation]}))
        };
        assert_eq!(mutate(" Object{spec: Object.spec{replicas: 1}} "), []);
        let field = "spec.mutations[0].applyConfiguration.expression";
        assert_eq!(
            mutate("'x'"),
            [(
                field.to_owned(),
                format!("{field}: Invalid value: \"'x'\": must evaluate to Object but got string")
            )]
        );
    }

    #[test]
    fn unchanged_match_conditions_are_not_compiled_again() {
        let mut old = configuration();
        old["webhooks"][0]["matchConditions"] = json!([{"name": "c", "expression": "broken("}]);
        Webhooks { mutating: false }.default(&mut old, "v1");
        let errors = Webhooks { mutating: false }.validate(&old);
        assert_eq!(errors[0].field.as_str(), "webhooks[0].matchConditions[0].expression");
        assert_eq!(messages(&Webhooks { mutating: false }.validate_update(&old, &old)), [""; 0]);
    }

    #[test]
    fn policy_status_requires_field_references() {
        let warnings =
            json!({"typeChecking": {"expressionWarnings": [{"fieldRef": " "}]}, "conditions": [{}]});
        let policy = json!({"status": warnings});
        let errors = Policy { mutating: false }.validate_status_update(&policy, &policy);
        assert_eq!(errors[0].field.as_str(), "status.typeChecking.expressionWarnings[0].warning");
        assert_eq!(errors[1].field.as_str(), "status.typeChecking.expressionWarnings[0].fieldRef");
        assert!(errors[2].field.as_str().starts_with("status.conditions[0]"));
    }

    #[test]
    fn warns_about_names_of_static_configurations() {
        let named = |name: &str| json!({"metadata": {"name": name}});
        assert_eq!(Webhooks { mutating: true }.warnings(&named("a"), None), [""; 0]);
        let reserved = named("a.static.k8s.io");
        let kinds: [&dyn Strategy; 3] =
            [&Webhooks { mutating: true }, &Policy { mutating: false }, &Binding { mutating: true }];
        assert!(kinds.iter().all(|kind| kind.warnings(&reserved, Some(&reserved)).len() == 1));
    }
}
