//! What a pod and a pod template must be (upstream: `pkg/apis/core/validation`), in upstream's order.

use std::collections::BTreeSet;

use nave_machinery::{FieldError, Value, names};

use super::{annotations, containers, scheduling, security, volumes};
use crate::validate::{At, Errors, checked, labels, quantity_not_negative, required_text};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PREEMPTION_POLICIES: [&str; 2] = ["Never", "PreemptLowerPriority"];
/// The most name servers a pod may name.
const NAME_SERVERS_MAX: usize = 3;

/// What is wrong with a pod to be created.
pub(crate) fn pod(pod: &Value) -> Errors {
    let mut errors = annotations::validate(pod);
    errors.extend(pod_again(pod));
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
    errors
}

/// What is wrong with a pod, new or not.
pub(super) fn pod_again(pod: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(pod);
    let spec = root.field("spec");
    pod_spec(spec, &mut errors);
    for kind in super::CONTAINERS {
        for container in spec.field(kind).items() {
            let image = container.field("image");
            if image.text().trim() != image.text() {
                errors.push(image.invalid("must not have leading or trailing whitespace"));
            }
        }
    }
    errors
}

/// What is wrong with a pod template.
pub(crate) fn template(template: At, errors: &mut Errors) {
    let metadata = template.field("metadata");
    // Upstream names the labels of a template without the metadata they are in.
    let template_labels = template.field("labels").with(metadata.field("labels").value());
    labels(template_labels, errors);
    let spec = template.field("spec");
    pod_spec(spec, errors);
    let ephemeral = spec.field("ephemeralContainers");
    if ephemeral.len() > 0 {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// What is wrong with the template of pods that are to run on, and be replaced when they end.
pub(crate) fn running_template(at: At, errors: &mut Errors) {
    template(at, errors);
    let spec = at.field("spec");
    let policy = spec.field("restartPolicy");
    if policy.text() != "Always" {
        errors.push(policy.not_supported(&["Always"]));
    }
    if spec.field("activeDeadlineSeconds").is_set() {
        errors.push(
            spec.field("activeDeadlineSeconds")
                .forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"),
        );
    }
}

fn pod_spec(spec: At, errors: &mut Errors) {
    volumes::all(spec, errors);
    containers::all(spec, errors);
    policy(spec.field("restartPolicy"), &RESTART_POLICIES, errors);
    policy(spec.field("dnsPolicy"), &DNS_POLICIES, errors);
    labels(spec.field("nodeSelector"), errors);
    security::pod(spec, errors);
    for secret in spec.field("imagePullSecrets").items() {
        required_text(secret.field("name"), errors);
    }
    scheduling::affinity(spec.field("affinity"), errors);
    dns_config(spec, errors);
    for gate in spec.field("readinessGates").items() {
        checked(gate.field("conditionType"), names::is_qualified_name, errors);
    }
    scheduling::gates(spec.field("schedulingGates"), errors);
    scheduling::spread(spec.field("topologySpreadConstraints"), errors);
    named(spec.field("serviceAccountName"), names::is_dns1123_subdomain, errors);
    named(spec.field("nodeName"), names::is_dns1123_subdomain, errors);
    deadline(spec.field("activeDeadlineSeconds"), errors);
    named(spec.field("hostname"), names::is_dns1123_label, errors);
    named(spec.field("subdomain"), names::is_dns1123_label, errors);
    scheduling::tolerations(spec.field("tolerations"), errors);
    host_aliases(spec.field("hostAliases"), errors);
    named(spec.field("priorityClassName"), names::is_dns1123_subdomain, errors);
    named(spec.field("runtimeClassName"), names::is_dns1123_subdomain, errors);
    if spec.field("preemptionPolicy").is_set() {
        policy(spec.field("preemptionPolicy"), &PREEMPTION_POLICIES, errors);
    }
    for (_, quantity) in spec.field("overhead").entries() {
        quantity_not_negative(quantity, errors);
    }
    let os = spec.field("os");
    if os.is_set() {
        policy(os.field("name"), &["linux", "windows"], errors);
    }
}

/// One of a few words, which must be said.
fn policy(at: At, supported: &[&str], errors: &mut Errors) {
    if required_text(at, errors) && !supported.contains(&at.text()) {
        errors.push(at.not_supported(supported));
    }
}

/// A name, if there is one.
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

fn dns_config(spec: At, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let servers = config.field("nameservers");
    if spec.field("dnsPolicy").text() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.len() == 0 {
            errors
                .push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.len() > NAME_SERVERS_MAX {
        errors.push(servers.invalid(format!("must not have more than {NAME_SERVERS_MAX} nameservers")));
    }
    for server in servers.items() {
        crate::validate::ip(server, errors);
    }
    for option in config.field("options").items() {
        if option.field("name").text().is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

fn host_aliases(at: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for alias in at.items() {
        let ip = alias.field("ip");
        crate::validate::ip(ip, errors);
        if !seen.insert(ip.text()) {
            errors.push(FieldError::duplicate(&ip.path(), ip.text()));
        }
        for host in alias.field("hostnames").items() {
            checked(host, names::is_dns1123_subdomain, errors);
        }
    }
}
