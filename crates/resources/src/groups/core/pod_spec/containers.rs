//! Containers of all types (upstream: `validateContainers` and related functions).

use std::collections::BTreeSet;

use nave_machinery::{FieldError, names};

use super::volumes::Volumes;
use super::{environment, mounts, ports, probes, resources, security};
use crate::validate::{At, Errors, absent_or_one_of, one_of, required_checked, required_text};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const RESIZE_RESOURCES: [&str; 2] = ["cpu", "memory"];
const RESIZE_POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESTART_ACTIONS: [&str; 2] = ["Restart", "RestartAllContainers"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
/// Fields that ephemeral containers do not support.
const NOT_EPHEMERAL: [&str; 9] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
];
const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// Checks all containers of a pod spec.
pub(super) fn all(spec: At, volumes: &Volumes, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    if spec.field("containers").len() == 0 {
        errors.push(spec.field("containers").required(""));
    }
    let mut host_ports = BTreeSet::new();
    for container in spec.field("containers").items().map(At::with_field_filter) {
        common(container, spec, volumes, errors);
        unique(container.field("name"), &mut names, errors);
        probes::all(container, spec, errors);
        restart_policy(container, errors);
        ports::unique_on_host(container, &mut host_ports, errors);
    }
    for container in spec.field("initContainers").items().map(At::with_field_filter) {
        common(container, spec, volumes, errors);
        unique(container.field("name"), &mut names, errors);
        restart_policy(container, errors);
        // Init containers run sequentially, so they may use the same ports.
        ports::unique_on_host(container, &mut BTreeSet::new(), errors);
        if container.field("restartPolicy").text() == "Always" {
            probes::all(container, spec, errors);
        } else {
            not_for_init(container, errors);
        }
    }
    let others = names.clone();
    for container in spec.field("ephemeralContainers").items().map(At::with_field_filter) {
        common(container, spec, volumes, errors);
        padded_image(container, errors);
        unique(container.field("name"), &mut names, errors);
        ephemeral(container, &others, errors);
    }
}

fn unique<'v>(name: At<'_, 'v>, seen: &mut BTreeSet<&'v str>, errors: &mut Errors) {
    if !seen.insert(name.text()) {
        errors.push(FieldError::duplicate(&name.path(), name.text()));
    }
}

fn common(container: At, spec: At, volumes: &Volumes, errors: &mut Errors) {
    required_checked(container.field("name"), names::is_dns1123_label, errors);
    required_text(container.field("image"), errors);
    let message = container.field("terminationMessagePolicy");
    if required_text(message, errors) {
        one_of(message, &MESSAGE_POLICIES, errors);
    }
    ports::all(container.field("ports"), errors);
    container.field("env").items().for_each(|variable| environment::variable(variable, errors));
    environment::sources(container.field("envFrom"), errors);
    mounts::all(container, volumes, errors);
    pull_policy(container.field("imagePullPolicy"), errors);
    resources::of_container(container.field("resources"), spec.field("resourceClaims"), errors);
    resize_policy(container.field("resizePolicy"), spec.field("restartPolicy").text(), errors);
    security::container(container.field("securityContext"), spec, errors);
}

/// Checks the pull policy of a container image or an image volume.
pub(super) fn pull_policy(policy: At, errors: &mut Errors) {
    if required_text(policy, errors) {
        one_of(policy, &PULL_POLICIES, errors);
    }
}

/// Rejects an image name with surrounding whitespace. Templates accept such names.
pub(super) fn padded_image(container: At, errors: &mut Errors) {
    let image = container.field("image");
    if image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

/// Checks the resize policy. Upstream reports most errors at the list, not at the item.
fn resize_policy(list: At, pod_restart_policy: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for policy in list.items() {
        let (resource, restart) = (policy.field("resourceName").text(), policy.field("restartPolicy").text());
        if !seen.insert(resource) {
            errors.push(FieldError::duplicate(&policy.path(), resource));
        }
        for (text, supported) in [(resource, &RESIZE_RESOURCES), (restart, &RESIZE_POLICIES)] {
            if text.is_empty() {
                errors.push(FieldError::required(&list.path(), ""));
            } else if !supported.contains(&text) {
                errors.push(FieldError::not_supported(&list.path(), text, supported));
            }
        }
        if pod_restart_policy == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(&list.path(), restart, why));
        }
    }
}

/// Checks a container's own restart policy and its rules.
fn restart_policy(container: At, errors: &mut Errors) {
    let (policy, rules) = (container.field("restartPolicy"), container.field("restartPolicyRules"));
    if !policy.is_set() && rules.len() == 0 {
        return;
    }
    if !policy.is_set() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    absent_or_one_of(policy, &RESTART_POLICIES, errors);
    if rules.len() > RESTART_RULES_MAX {
        errors.push(rules.too_many(RESTART_RULES_MAX));
    }
    for rule in rules.items() {
        one_of(rule.field("action"), &RESTART_ACTIONS, errors);
        let codes = rule.field("exitCodes");
        if !codes.is_set() {
            errors.push(codes.required("must be specified"));
            continue;
        }
        one_of(codes.field("operator"), &["In", "NotIn"], errors);
        if codes.field("values").len() > EXIT_CODES_MAX {
            errors.push(codes.field("values").too_many(EXIT_CODES_MAX));
        }
    }
}

/// Checks fields that init containers support only with restart policy `Always`: probes, hooks, restarts on resize.
fn not_for_init(container: At, errors: &mut Errors) {
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.field(field).is_set() {
            let why = "may not be set for init containers without restartPolicy=Always";
            errors.push(container.field(field).forbidden(why));
        }
    }
    for policy in container.field("resizePolicy").items() {
        let restart = policy.field("restartPolicy");
        if restart.text() == "RestartContainer" {
            let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.push(restart.invalid(why));
        }
    }
}

fn ephemeral(container: At, others: &BTreeSet<&str>, errors: &mut Errors) {
    let target = container.field("targetContainerName");
    if !target.text().is_empty() && !others.contains(target.text()) {
        errors.push(target.not_found());
    }
    for field in NOT_EPHEMERAL {
        let at = container.field(field);
        if at.len() > 0 || !at.text().is_empty() {
            errors.push(at.forbidden(EPHEMERAL));
        }
    }
    for mount in container.field("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            let path = mount.field(field);
            if !path.text().is_empty() {
                errors.push(path.forbidden(EPHEMERAL));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(mut spec: Value) -> Vec<String> {
        for kind in ["containers", "initContainers", "ephemeralContainers"] {
            for (index, container) in
                spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten().enumerate()
            {
                for (field, value) in [
                    ("name", format!("{}{index}", &kind[..1])),
                    ("image", "i".to_owned()),
                    ("terminationMessagePolicy", "File".to_owned()),
                    ("imagePullPolicy", "Always".to_owned()),
                ] {
                    container.as_object_mut().unwrap().entry(field).or_insert(json!(value));
                }
            }
        }
        let at = At::named("spec", Some(&spec));
        let mut errors = Errors::new();
        let volumes = super::super::volumes::all(at, None, &mut errors);
        all(at, &volumes, &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn container_names_are_unique() {
        for (spec, expected) in [
            (json!({"containers": [{}]}), &[][..]),
            (json!({}), &["spec.containers"]),
            (json!({"containers": [{"name": "a"}, {"name": "a"}]}), &["spec.containers[1].name"]),
            (
                json!({"containers": [{"name": "a"}], "initContainers": [{"name": "a"}]}),
                &["spec.initContainers[0].name"],
            ),
            (
                json!({"containers": [{"name": "A", "image": ""}]}),
                &["spec.containers[0].name", "spec.containers[0].image"],
            ),
            (
                json!({"containers": [{"imagePullPolicy": "x", "terminationMessagePolicy": "y"}]}),
                &["spec.containers[0].terminationMessagePolicy", "spec.containers[0].imagePullPolicy"],
            ),
        ] {
            assert_eq!(fields(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn validates_restart_policies() {
        let one = |container: Value| fields(json!({"containers": [container]}));
        let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}});
        assert_eq!(one(json!({"restartPolicy": "Never", "restartPolicyRules": [rule]})), [""; 0]);
        assert_eq!(one(json!({"restartPolicyRules": [rule]})), ["spec.containers[0].restartPolicy"]);
        assert_eq!(
            one(json!({"restartPolicy": "x", "restartPolicyRules": [{"action": "y"}]})),
            [
                "spec.containers[0].restartPolicy",
                "spec.containers[0].restartPolicyRules[0].action",
                "spec.containers[0].restartPolicyRules[0].exitCodes",
            ]
        );
        assert_eq!(
            one(json!({"resizePolicy": [{"resourceName": "x", "restartPolicy": "NotRequired"}]})),
            ["spec.containers[0].resizePolicy"]
        );
    }

    #[test]
    fn rejects_fields_of_init_and_ephemeral_containers() {
        let probe = json!({"exec": {"command": ["a"]}, "successThreshold": 1});
        let with =
            |kind: &str, container: Value| fields(json!({"containers": [{"name": "c"}], kind: [container]}));
        assert_eq!(
            with("initContainers", json!({"livenessProbe": probe})),
            ["spec.initContainers[0].livenessProbe"]
        );
        assert_eq!(
            with("initContainers", json!({"livenessProbe": probe, "restartPolicy": "Always"})),
            [""; 0]
        );
        assert_eq!(with("ephemeralContainers", json!({"targetContainerName": "c"})), [""; 0]);
        assert_eq!(
            with(
                "ephemeralContainers",
                json!({"targetContainerName": "zz", "resources": {"limits": {"cpu": "1"}}, "image": " i"})
            ),
            [
                "spec.ephemeralContainers[0].image",
                "spec.ephemeralContainers[0].targetContainerName",
                "spec.ephemeralContainers[0].resources",
            ]
        );
    }
}
