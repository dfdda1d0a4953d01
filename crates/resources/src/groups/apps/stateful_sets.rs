//! Validation of stateful sets (upstream: `pkg/apis/apps/validation`).

use std::collections::BTreeSet;

use nave_machinery::{Value, names};
use serde_json::json;

use super::validation::{at_most_100_percent, is_selected, selector, share, share_value};
use crate::defaults::object_at;
use crate::groups::core::{claim_spec, pod_spec::validation as pod_spec};
use crate::read;
use crate::validate::{At, Errors, checked, labels, not_negative, one_of};

const UPDATE_FIXED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
/// The mutable fields of a stateful set's spec.
const UPDATABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// The parts of a spec to check.
#[derive(Clone, Copy)]
struct Checked {
    /// The immutable fields.
    fixed: bool,
    /// The template's metadata and pod spec.
    template: bool,
}

/// Removes `maxUnavailable`, whose feature is off by default, unless the stored set uses it.
pub(super) fn drop_disabled(set: &mut Value, old: Option<&Value>) {
    let path = ["spec", "updateStrategy", "rollingUpdate"];
    let is_used = old.is_some_and(|old| {
        read::value_at(old, "spec.updateStrategy.rollingUpdate.maxUnavailable")
            .is_some_and(|it| !it.is_null())
    });
    let rolling = set.as_object_mut().and_then(|set| object_at(set, &path));
    if let Some(rolling) = rolling.filter(|_| !is_used) {
        rolling.remove("maxUnavailable");
    }
}

pub(super) fn create(set: &Value) -> Errors {
    spec(set, Checked { fixed: true, template: true })
}

pub(super) fn update(new: &Value, old: &Value) -> Errors {
    // A template that was already invalid may remain invalid.
    let was_right = spec(old, Checked { fixed: false, template: true }).is_empty();
    let mut errors = spec(new, Checked { fixed: false, template: was_right });
    let root = At::root(new);
    let (Some(fields), Some(old)) = (root.field("spec").map(), old.get("spec").and_then(Value::as_object))
    else {
        return errors;
    };
    let mut names = fields.keys().chain(old.keys()).filter(|name| !UPDATABLE.contains(&name.as_str()));
    if names.any(|name| fields.get(name) != old.get(name)) {
        errors.push(root.field("spec").forbidden(UPDATE_FIXED));
    }
    errors
}

fn spec(set: &Value, which: Checked) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(set);
    let spec = root.field("spec");
    strategies(spec, &mut errors);
    let claims = spec.field("volumeClaimTemplates");
    if which.fixed {
        claims.items().for_each(|claim| claim_spec(claim.field("spec"), &mut errors));
    }
    not_negative(spec.field("replicas"), &mut errors);
    not_negative(spec.field("minReadySeconds"), &mut errors);
    not_negative(spec.field("ordinals").field("start"), &mut errors);
    let service = spec.field("serviceName");
    if which.fixed && !service.text().is_empty() {
        checked(service, names::is_dns1123_label, &mut errors);
    }
    selector(spec.field("selector"), "statefulset", &mut errors);
    let template = spec.field("template");
    if is_selected(spec, "", &mut errors) {
        if which.template {
            match with_claims(template, claims) {
                Some(made) => pod_spec::template(template.with(Some(&made)), &mut errors),
                None => pod_spec::template(template, &mut errors),
            }
        }
        // Upstream checks labels and annotations twice.
        let metadata = template.field("metadata");
        let moved = |field: &'static str| template.field(field).with(metadata.field(field).value());
        labels(moved("labels"), &mut errors);
        pod_spec::annotations(moved("annotations"), template.field("spec"), &mut errors);
    }
    pod_spec::runs_on(template, "StatefulSet", &mut errors);
    errors
}

fn strategies(spec: At, errors: &mut Errors) {
    let policy = spec.field("podManagementPolicy");
    match policy.text() {
        "" => errors.push(policy.required("")),
        "OrderedReady" | "Parallel" => {}
        _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    let strategy = spec.field("updateStrategy");
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "" => errors.push(strategy.required("")),
        "OnDelete" if rolling.is_set() => {
            errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            not_negative(rolling.field("partition"), errors);
            let unavailable = rolling.field("maxUnavailable");
            if unavailable.is_set() {
                share(unavailable, errors);
                if share_value(unavailable) == 0 {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                at_most_100_percent(unavailable, errors);
            }
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for when in ["whenDeleted", "whenScaled"] {
            one_of(retention.field(when), &["Retain", "Delete"], errors);
        }
    }
}

/// Returns the template that the controller uses, with a volume for each claim template and generated names.
fn with_claims(template: At, claims: At) -> Option<Value> {
    let pod = template.field("spec");
    let is_named = ["hostname", "subdomain"].into_iter().any(|field| !pod.field(field).text().is_empty());
    if !is_named && claims.len() == 0 {
        return None;
    }
    let mut made = template.value()?.clone();
    let fields = made.get_mut("spec")?.as_object_mut()?;
    fields.remove("hostname");
    fields.remove("subdomain");
    let of_claims: Vec<_> = claims.items().collect();
    let names: BTreeSet<&str> =
        of_claims.iter().map(|claim| claim.field("metadata").field("name").text()).collect();
    let (volumes, of_claims) = (pod.field("volumes"), names.iter());
    let of_claims = of_claims.map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let others = volumes.items().filter(|volume| !names.contains(volume.field("name").text()));
    let volumes: Vec<Value> = of_claims.chain(others.filter_map(|volume| volume.value().cloned())).collect();
    if !volumes.is_empty() {
        fields.insert("volumes".to_owned(), Value::Array(volumes));
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(changes: Value) -> Value {
        let pod = json!({
            "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always",
                "terminationMessagePolicy": "File", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}],
            "restartPolicy": "Always", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 1,
            "hostname": "A b",
        });
        let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}});
        let mut spec = json!({
            "podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        });
        for (field, value) in changes.as_object().unwrap() {
            spec[field] = value.clone();
        }
        json!({"metadata": {"name": "s"}, "spec": spec})
    }

    fn messages(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| format!("{}|{:?}", error.field, error.kind)).collect()
    }

    #[test]
    fn validates_all_fields() {
        for (changes, expected) in [
            (json!({}), &[][..]),
            (
                json!({"serviceName": "A b", "ordinals": {"start": -1}}),
                &["spec.ordinals.start|Invalid", "spec.serviceName|Invalid"],
            ),
            (json!({"selector": null}), &["spec.selector|Required", "spec.template.metadata.labels|Invalid"]),
            (json!({"selector": {}}), &["spec.selector|Invalid"]),
            (
                json!({"volumeClaimTemplates": [{"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}]}),
                &[
                    "spec.template.spec.volumes[0].persistentVolumeClaim.claimName|Required",
                    "spec.template.spec.volumes[0].name|Required",
                    "spec.template.spec.containers[0].volumeMounts[0].name|NotFound",
                ],
            ),
            (
                json!({"volumeClaimTemplates": []}),
                &["spec.template.spec.containers[0].volumeMounts[0].name|NotFound"],
            ),
            (
                json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable|Invalid"],
            ),
            (
                json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "101%"}}}),
                &["spec.updateStrategy.rollingUpdate.maxUnavailable|Invalid"],
            ),
            (json!({"updateStrategy": {"type": "X"}}), &["spec.updateStrategy|Invalid"]),
        ] {
            assert_eq!(messages(&create(&set(changes.clone()))), expected, "{changes}");
        }
    }

    #[test]
    fn max_unavailable_stays_only_if_the_stored_set_has_it() {
        let rolling = |rolling: Value| {
            set(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}))
        };
        let (with, without) =
            (rolling(json!({"partition": 1, "maxUnavailable": 2})), rolling(json!({"partition": 1})));
        for (old, expected) in [(None, &without), (Some(&without), &without), (Some(&with), &with)] {
            let mut changed = with.clone();
            drop_disabled(&mut changed, old);
            assert_eq!(changed, *expected);
        }
    }

    #[test]
    fn update_accepts_template_that_was_invalid() {
        let bad_name = set(json!({"serviceName": "A b"}));
        assert_eq!(messages(&update(&bad_name, &bad_name)), [""; 0]);
        let no_volume = set(json!({"volumeClaimTemplates": []}));
        assert_eq!(messages(&update(&no_volume, &no_volume)), [""; 0]);
        assert_eq!(messages(&update(&set(json!({"serviceName": "b"})), &set(json!({})))), ["spec|Forbidden"]);
    }
}
