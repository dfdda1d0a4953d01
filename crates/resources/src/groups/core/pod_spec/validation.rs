//! Validation of pods and pod templates (upstream: `ValidatePodSpec`), in upstream's order.

use nave_machinery::{Value, meta, names};

use super::{
    affinity, annotations, containers, dns, environment, ports, resources, scheduling, security, volumes,
    windows,
};
use crate::validate::{At, Errors, checked, labels, required_text};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PREEMPTION_POLICIES: [&str; 2] = ["Never", "PreemptLowerPriority"];

/// Validates a pod for creation.
pub(crate) fn pod(pod: &Value) -> Errors {
    let mut errors = pod_again(pod);
    let root = At::root(pod);
    let spec = root.field("spec");
    let ephemeral = spec.field("ephemeralContainers");
    if ephemeral.len() > 0 {
        errors.push(ephemeral.forbidden("cannot be set on create"));
    }
    if spec.field("schedulingGates").len() > 0 && !spec.field("nodeName").text().is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(spec.field("nodeName").forbidden(detail));
    }
    let metadata = root.field("metadata");
    annotations::match_fields(metadata.field("annotations"), spec, &mut errors);
    errors
}

/// Validates a new or existing pod.
pub(super) fn pod_again(pod: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(pod);
    let (metadata, spec) = (root.field("metadata"), root.field("spec"));
    annotations::validate(metadata.field("annotations"), spec, &mut errors);
    pod_spec(spec, Some(pod), &mut errors);
    if spec.field("serviceAccountName").text().is_empty() {
        no_tokens(spec, &mut errors);
    }
    for kind in ["containers", "initContainers"] {
        for container in spec.field(kind).items() {
            containers::padded_image(container, &mut errors);
        }
    }
    errors
}

/// Validates a pod template.
pub(crate) fn template(template: At, errors: &mut Errors) {
    let metadata = template.field("metadata");
    // Upstream's paths of labels and annotations in a template omit `metadata`.
    let moved = |field: &'static str| template.field(field).with(metadata.field(field).value());
    labels(moved("labels"), errors);
    let annotations = moved("annotations");
    let spec = template.field("spec");
    self::annotations(annotations, spec, errors);
    pod_spec(spec, None, errors);
    annotations::match_fields(annotations, spec, errors);
    let ephemeral = spec.field("ephemeralContainers");
    if ephemeral.len() > 0 {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// Validates the annotations of a template.
pub(crate) fn annotations(annotations: At, spec: At, errors: &mut Errors) {
    let path = annotations.path();
    errors.extend(annotations.map().into_iter().flat_map(|map| names::validate_annotations(map, &path)));
    annotations::validate(annotations, spec, errors);
}

/// Checks that the template's pods are long-running and restart. `kind` is the owner's name in the message.
pub(crate) fn runs_on(template: At, kind: &str, errors: &mut Errors) {
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    if policy.text() != "Always" {
        errors.push(policy.not_supported(&["Always"]));
    }
    if spec.field("activeDeadlineSeconds").is_set() {
        errors.push(
            spec.field("activeDeadlineSeconds")
                .forbidden(format!("activeDeadlineSeconds in {kind} is not Supported")),
        );
    }
}

/// Validates a pod spec. `pod` is `None` for a template.
fn pod_spec(spec: At, pod: Option<&Value>, errors: &mut Errors) {
    let spec = spec.with_field_filter();
    let grace = spec.field("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.push(grace.required(""));
    }
    let volumes = volumes::all(spec, pod.map(meta::name), errors);
    resources::pod_claims(spec.field("resourceClaims"), pod.is_some_and(crate::pod::is_mirror), errors);
    containers::all(spec, &volumes, errors);
    resources::of_pod(spec, errors);
    ports::on_host_network(spec, pod.is_some(), errors);
    policy(spec.field("restartPolicy"), &RESTART_POLICIES, errors);
    policy(spec.field("dnsPolicy"), &DNS_POLICIES, errors);
    labels(spec.field("nodeSelector"), errors);
    security::pod(spec, errors);
    affinity::all(spec.field("affinity"), errors);
    dns::config(spec, errors);
    for gate in spec.field("readinessGates").items() {
        checked(gate.field("conditionType"), names::is_qualified_name, errors);
    }
    scheduling::gates(spec.field("schedulingGates"), errors);
    scheduling::spread(spec.field("topologySpreadConstraints"), errors);
    windows::host_processes(spec, errors);
    security::own_users(spec, errors);
    dns::hostname_override(spec, errors);
    named(spec.field("serviceAccountName"), names::is_dns1123_subdomain, errors);
    named(spec.field("nodeName"), names::is_dns1123_subdomain, errors);
    deadline(spec.field("activeDeadlineSeconds"), errors);
    named(spec.field("hostname"), names::is_dns1123_label, errors);
    named(spec.field("subdomain"), names::is_dns1123_label, errors);
    scheduling::tolerations(spec.field("tolerations"), errors);
    dns::host_aliases(spec.field("hostAliases"), errors);
    named(spec.field("priorityClassName"), names::is_dns1123_subdomain, errors);
    if spec.field("runtimeClassName").is_set() {
        checked(spec.field("runtimeClassName"), names::is_dns1123_subdomain, errors);
    }
    if spec.field("preemptionPolicy").is_set() {
        policy(spec.field("preemptionPolicy"), &PREEMPTION_POLICIES, errors);
    }
    resources::overhead(spec.field("overhead"), errors);
    windows::operating_system(spec, errors);
    environment::file_volumes(spec, errors);
}

/// Checks that a pod without a service account does not mount a service account token.
fn no_tokens(spec: At, errors: &mut Errors) {
    for volume in spec.field("volumes").items() {
        let projected = volume.field("projected");
        for source in projected.field("sources").items() {
            let token = source.field("serviceAccountToken");
            if token.is_set() {
                errors.push(token.forbidden("must not be specified when serviceAccountName is not set"));
            }
        }
    }
}

/// Checks a required field with few supported values.
fn policy(at: At, supported: &[&str], errors: &mut Errors) {
    if required_text(at, errors) && !supported.contains(&at.text()) {
        errors.push(at.not_supported(supported));
    }
}

/// Checks a name, if present.
fn named(at: At, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if !at.text().is_empty() {
        checked(at, check, errors);
    }
}

fn deadline(at: At, errors: &mut Errors) {
    let max = i64::from(i32::MAX);
    if at.int().is_some_and(|seconds| seconds < 1 || seconds > max) {
        errors.push(at.invalid(format!("must be between 1 and {max}, inclusive")));
    }
}

#[cfg(test)]
pub(super) mod fixtures {
    use serde_json::{Value, json};

    /// A valid pod with additional fields in its spec.
    pub(in super::super) fn pod_with(more: Value) -> Value {
        let container = json!({"name": "c", "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"});
        let mut spec = json!({
            "containers": [container], "restartPolicy": "Always", "dnsPolicy": "Default",
            "terminationGracePeriodSeconds": 30,
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": "p"}, "spec": spec})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::fixtures::pod_with;
    use super::*;

    fn fields(errors: &Errors) -> Vec<String> {
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn validates_all_fields_of_a_pod() {
        let token =
            json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
        for (more, expected) in [
            (json!({}), &[][..]),
            (json!({"restartPolicy": "x", "dnsPolicy": ""}), &["spec.restartPolicy", "spec.dnsPolicy"]),
            (json!({"nodeSelector": {"a": "_"}}), &["spec.nodeSelector"]),
            (json!({"activeDeadlineSeconds": 0}), &["spec.activeDeadlineSeconds"]),
            (json!({"hostname": "a.b", "subdomain": "A"}), &["spec.hostname", "spec.subdomain"]),
            (json!({"runtimeClassName": ""}), &["spec.runtimeClassName"]),
            (
                json!({"overhead": {"bogus": "1"}}),
                &["spec.overhead.limits[bogus]", "spec.overhead.limits[bogus]"],
            ),
            (json!({"terminationGracePeriodSeconds": null}), &["spec.terminationGracePeriodSeconds"]),
            (json!({"volumes": token}), &["spec.volumes[0].projected.sources[0].serviceAccountToken"]),
            (json!({"imagePullSecrets": [{}]}), &[]),
            (
                json!({"ephemeralContainers": [{}], "containers": []}),
                &[
                    "spec.containers",
                    "spec.ephemeralContainers[0].name",
                    "spec.ephemeralContainers[0].image",
                    "spec.ephemeralContainers[0].terminationMessagePolicy",
                    "spec.ephemeralContainers[0].imagePullPolicy",
                    "spec.ephemeralContainers",
                ],
            ),
        ] {
            assert_eq!(fields(&pod(&pod_with(more.clone()))), expected, "{more}");
        }
    }

    #[test]
    fn validates_template_like_its_pods() {
        let mut owner = json!({"template": pod_with(json!({}))});
        owner["template"]["metadata"] = json!({"labels": {"a": "_"}, "annotations": {"a b": ""}});
        owner["template"]["spec"]["restartPolicy"] = json!("Never");
        let root = At::named("spec", Some(&owner));
        let mut errors = Errors::new();
        template(root.field("template"), &mut errors);
        runs_on(root.field("template"), "ReplicaSet", &mut errors);
        let expected =
            ["spec.template.labels", "spec.template.annotations", "spec.template.spec.restartPolicy"];
        assert_eq!(fields(&errors), expected);
    }
}
