//! Defaults and validation of roles and bindings (upstream: `pkg/apis/rbac`).

use nave_machinery::{FieldErrors, Value, names};
use serde_json::json;

use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, label_selector, required_checked, required_text};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of roles.
pub(super) struct Role {
    /// True for roles, false for cluster roles.
    pub(super) namespaced: bool,
}

impl Strategy for Role {
    fn validate(&self, role: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(role);
        for rule in root.field("rules").items() {
            policy_rule(rule, self.namespaced, &mut errors);
        }
        let aggregation = root.field("aggregationRule");
        if aggregation.is_set() && !self.namespaced {
            let selectors = aggregation.field("clusterRoleSelectors");
            if selectors.len() == 0 {
                let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(selectors.required(why));
            }
            for selector in selectors.items() {
                let found = errors.len();
                label_selector(selector, &mut errors);
                if errors.len() > found {
                    errors.push(selector.invalid("invalid label selector."));
                }
            }
        }
        errors
    }
}

/// Checks that a rule has verbs, and either resources or non-resource URLs.
fn policy_rule(rule: At, namespaced: bool, errors: &mut Errors) {
    if rule.field("verbs").len() == 0 {
        errors.push(rule.field("verbs").required("verbs must contain at least one value"));
    }
    let (groups, resources, paths) =
        (rule.field("apiGroups"), rule.field("resources"), rule.field("nonResourceURLs"));
    if paths.len() > 0 {
        if namespaced {
            errors.push(paths.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if groups.len() + resources.len() + rule.field("resourceNames").len() > 0 {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(paths.invalid(why));
        }
        return;
    }
    if groups.len() == 0 {
        errors.push(groups.required("resource rules must supply at least one api group"));
    }
    if resources.len() == 0 {
        errors.push(resources.required("resource rules must supply at least one resource"));
    }
}

/// The strategy of bindings.
pub(super) struct Binding {
    /// True for role bindings, false for cluster role bindings.
    pub(super) namespaced: bool,
}

impl Strategy for Binding {
    fn default(&self, binding: &mut Value, _version: &str) {
        if let Some(role) = binding.get_mut("roleRef") {
            default_group(role, GROUP);
        }
        for subject in binding.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
            if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
                default_group(subject, GROUP);
            }
        }
    }

    fn validate(&self, binding: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(binding);
        let role = root.field("roleRef");
        one_group(role.field("apiGroup"), GROUP, &mut errors);
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&role.field("kind").text()) {
            errors.push(role.field("kind").not_supported(kinds));
        }
        required_checked(role.field("name"), names::is_path_segment_name, &mut errors);
        for subject in root.field("subjects").items() {
            self.subject(subject, &mut errors);
        }
        errors
    }

    fn validate_update(&self, binding: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(binding);
        let (root, old) = (At::root(binding), At::root(old));
        let (role, old) = (root.field("roleRef"), old.field("roleRef"));
        let same = ["apiGroup", "kind", "name"]
            .into_iter()
            .all(|field| role.field(field).text() == old.field(field).text());
        if !same {
            errors.push(role.invalid("cannot change roleRef"));
        }
        errors
    }
}

impl Binding {
    fn subject(&self, subject: At, errors: &mut Errors) {
        let name = subject.field("name");
        let named = required_text(name, errors);
        match subject.field("kind").text() {
            "ServiceAccount" => {
                if named {
                    checked(name, names::is_dns1123_subdomain, errors);
                }
                one_group(subject.field("apiGroup"), "", errors);
                if !self.namespaced {
                    required_text(subject.field("namespace"), errors);
                }
            }
            "User" | "Group" => one_group(subject.field("apiGroup"), GROUP, errors),
            _ => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(subject.field("kind").not_supported(&kinds));
            }
        }
    }
}

fn default_group(object: &mut Value, group: &str) {
    if object["apiGroup"].as_str().is_none_or(str::is_empty) {
        object["apiGroup"] = json!(group);
    }
}

fn one_group(at: At, group: &str, errors: &mut FieldErrors) {
    if at.text() != group {
        errors.push(at.not_supported(&[group]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(errors: &[nave_machinery::FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rule_has_resources_or_paths() {
        let role = json!({"rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {},
            {"verbs": ["get"], "nonResourceURLs": ["/a"]},
            {"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["pods"]},
        ]});
        let both = r#"rules[3].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs"#;
        let cluster = [
            "rules[1].verbs: Required value: verbs must contain at least one value",
            "rules[1].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[1].resources: Required value: resource rules must supply at least one resource",
            both,
        ];
        assert_eq!(messages(&Role { namespaced: false }.validate(&role)), cluster);
        let local = messages(&Role { namespaced: true }.validate(&role));
        let paths = r#"rules[2].nonResourceURLs: Invalid value: ["/a"]: namespaced rules cannot apply to non-resource URLs"#;
        assert!(local.iter().any(|error| error == paths) && local.len() == 6, "{local:?}");
    }

    #[test]
    fn validates_aggregation_selectors() {
        let role = |selectors: &Value| json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
        let validate = |selectors: &Value| messages(&Role { namespaced: false }.validate(&role(selectors)));
        assert_eq!(validate(&json!([{"matchLabels": {"a": "b"}}])), [""; 0]);
        assert_eq!(
            validate(&json!([])),
            [
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
            ]
        );
        assert!(
            validate(&json!([{"matchLabels": {"a b": "c"}}]))[0]
                .starts_with("aggregationRule.clusterRoleSelectors[0].matchLabels: Invalid value")
        );
    }

    #[test]
    fn defaults_api_groups_of_subjects() {
        let mut binding = json!({
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}],
        });
        Binding { namespaced: true }.default(&mut binding, "v1");
        assert_eq!(binding["roleRef"]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
        assert_eq!(messages(&Binding { namespaced: true }.validate(&binding)), [""; 0]);
        assert_eq!(
            messages(&Binding { namespaced: false }.validate(&binding)),
            [
                r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
                "subjects[1].namespace: Required value",
            ]
        );
    }

    #[test]
    fn rejects_invalid_subjects_and_roles() {
        let binding = json!({
            "roleRef": {"kind": "X", "name": "a/b", "apiGroup": "x"},
            "subjects": [
                {"kind": "Robot", "name": "r"},
                {"kind": "Group", "name": "", "apiGroup": "x"},
                {"kind": "ServiceAccount", "name": "A_B", "apiGroup": GROUP},
            ],
        });
        assert_eq!(
            messages(&Binding { namespaced: true }.validate(&binding)),
            [
                r#"roleRef.apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io""#,
                r#"roleRef.kind: Unsupported value: "X": supported values: "Role", "ClusterRole""#,
                r#"roleRef.name: Invalid value: "a/b": may not contain '/'"#,
                r#"subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#,
                "subjects[1].name: Required value",
                r#"subjects[1].apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io""#,
                r#"subjects[2].name: Invalid value: "A_B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
                r#"subjects[2].apiGroup: Unsupported value: "rbac.authorization.k8s.io": supported values: """#,
            ]
        );
    }

    #[test]
    fn role_reference_is_immutable() {
        let binding =
            |role: &str| json!({"roleRef": {"kind": "ClusterRole", "name": role, "apiGroup": GROUP}});
        let strategy = Binding { namespaced: true };
        assert_eq!(messages(&strategy.validate_update(&binding("a"), &binding("a"))), [""; 0]);
        let errors = messages(&strategy.validate_update(&binding("b"), &binding("a")));
        assert!(errors.len() == 1 && errors[0].ends_with("cannot change roleRef"), "{errors:?}");
    }
}
