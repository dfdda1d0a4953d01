//! `admissionregistration.k8s.io`: admission webhooks and policies.

mod defaults;
mod policies;
mod rules;
mod strategies;
mod webhooks;

use nave_machinery::Value;

use crate::builder::{Builder, GroupBuilder, group as declare, resource};
use crate::def::KeptMetadata;
use crate::read;
use crate::table::{Column, age, field, length, name, text};

const GROUP: &str = "admissionregistration.k8s.io";
const PACKAGE: &str = "io.k8s.api.admissionregistration";

pub(crate) fn group() -> GroupBuilder {
    let kind = |kind, plural| -> Builder {
        resource(kind, plural).cluster().categories(&["api-extensions"]).conditional_update()
    };
    let policy = |name, plural| kind(name, plural).generation(&["spec"]);
    let webhooks = |name, plural| kind(name, plural).generation(&["webhooks"]).columns(webhook_columns());
    let resources = vec![
        // 1.36 stores these two kinds as v1beta1, so that 1.35 can read them.
        policy("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .optional(&["v1beta1", "v1alpha1"])
            .stored_as(GROUP, "v1beta1", PACKAGE)
            .columns(policy_columns("Mutations", "spec.mutations"))
            .strategy(strategies::Policy { mutating: true }),
        policy("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .optional(&["v1beta1", "v1alpha1"])
            .stored_as(GROUP, "v1beta1", PACKAGE)
            .columns(binding_columns())
            .strategy(strategies::Binding { mutating: true }),
        webhooks("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .strategy(strategies::Webhooks { mutating: true }),
        policy("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .status()
            .keeps_metadata(KeptMetadata::ALL)
            .columns(policy_columns("Validations", "spec.validations"))
            .strategy(strategies::Policy { mutating: false }),
        policy("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .columns(binding_columns())
            .strategy(strategies::Binding { mutating: false }),
        webhooks("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .strategy(strategies::Webhooks { mutating: false }),
    ];
    declare(GROUP, PACKAGE, resources)
}

fn webhook_columns() -> Vec<Column> {
    vec![name(), length("Webhooks", "webhooks").about("The number of webhooks"), age()]
}

fn policy_columns(title: &'static str, path: &'static str) -> Vec<Column> {
    vec![
        name(),
        length(title, path).about("The number of expressions of the policy"),
        text("ParamKind", |policy| match read::value_at(policy, "spec.paramKind") {
            Some(kind @ Value::Object(_)) => {
                format!("{}/{}", read::text(kind, "apiVersion"), read::text(kind, "kind"))
            }
            _ => "<unset>".to_owned(),
        })
        .about("The kind of the policy's parameters"),
        age(),
    ]
}

fn binding_columns() -> Vec<Column> {
    vec![
        name(),
        field("PolicyName", "spec.policyName", "").about("The policy of the binding"),
        text("ParamRef", parameter).about("The parameters of the binding"),
        age(),
    ]
}

fn parameter(binding: &Value) -> String {
    let namespace = read::text_or(binding, "spec.paramRef.namespace", "*");
    match (read::text(binding, "spec.paramRef.name"), read::value_at(binding, "spec.paramRef.selector")) {
        ("", Some(selector @ Value::Object(_))) => go_selector(selector),
        ("", _) => "<unset>".to_owned(),
        (name, _) => format!("{namespace}/{name}"),
    }
}

/// Formats a selector as Go does, which is what upstream shows.
fn go_selector(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let mut labels: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}: {},", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort_unstable();
    let requirements = read::list(selector, "matchExpressions").iter().map(|requirement| {
        let (key, operator) = (read::text(requirement, "key"), read::text(requirement, "operator"));
        let values: Vec<&str> = read::list(requirement, "values").iter().filter_map(Value::as_str).collect();
        let values = values.join(" ");
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let requirements: String = requirements.collect();
    let labels = labels.concat();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_parameters_of_bindings_as_upstream() {
        for (reference, shown) in [
            (json!({}), "<unset>"),
            (json!({"name": "a"}), "*/a"),
            (json!({"name": "a", "namespace": "n"}), "n/a"),
            (
                json!({"selector": {
                    "matchLabels": {"b": "2", "a": "1"},
                    "matchExpressions": [{"key": "k", "operator": "In", "values": ["v", "w"]}],
                }}),
                "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[v w],},},}",
            ),
        ] {
            assert_eq!(parameter(&json!({"spec": {"paramRef": reference}})), shown);
        }
    }
}
