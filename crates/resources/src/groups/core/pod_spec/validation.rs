//! What a pod, and the template of one, must be (upstream: `ValidatePodSpec` in `pkg/apis/core/validation`).

use std::collections::BTreeSet;

use nave_machinery::quantity::Quantity;
use nave_machinery::{Value, names};

use super::CONTAINERS;
use crate::validate::{
    At, Errors, absent_or_one_of, checked, in_range, labels, not_negative, one_of, port_name, port_number,
    port_number_or_name, quantity, quantity_not_negative, required_checked, required_text,
};

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TERMINATION_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];
const TOLERATION_OPERATORS: [&str; 2] = ["Equal", "Exists"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// What is wrong with a pod.
pub(crate) fn pod(pod: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(pod);
    spec(root.field("spec"), &mut errors);
    errors
}

/// What is wrong with a pod template.
pub(crate) fn template(template: At, errors: &mut Errors) {
    let metadata = template.field("metadata");
    labels(metadata.field("labels"), errors);
    spec(template.field("spec"), errors);
    let ephemeral = template.field("spec");
    let ephemeral = ephemeral.field("ephemeralContainers");
    if ephemeral.len() > 0 {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// What is wrong with the template of a workload whose pods run until they are deleted.
pub(crate) fn running_template(template: At, errors: &mut Errors) {
    self::template(template, errors);
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    if RESTART_POLICIES.contains(&policy.text()) {
        one_of(policy, &["Always"], errors);
    }
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
}

fn spec(spec: At, errors: &mut Errors) {
    let volumes = volumes(spec.field("volumes"), errors);
    if spec.field("containers").len() == 0 {
        errors.push(spec.field("containers").required(""));
    }
    let mut taken = BTreeSet::new();
    for kind in CONTAINERS {
        for container in spec.field(kind).items() {
            self::container(container, &volumes, &mut taken, errors);
        }
    }
    one_of(spec.field("restartPolicy"), &RESTART_POLICIES, errors);
    one_of(spec.field("dnsPolicy"), &DNS_POLICIES, errors);
    labels(spec.field("nodeSelector"), errors);
    not_negative(spec.field("terminationGracePeriodSeconds"), errors);
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.is_set() {
        in_range(deadline, 1, i64::from(i32::MAX), errors);
    }
    for (field, rule) in [
        ("nodeName", names::is_dns1123_subdomain as fn(&str) -> Vec<String>),
        ("serviceAccountName", names::is_dns1123_subdomain),
        ("priorityClassName", names::is_dns1123_subdomain),
        ("hostname", names::is_dns1123_label),
        ("subdomain", names::is_dns1123_label),
    ] {
        let at = spec.field(field);
        if !at.text().is_empty() {
            checked(at, rule, errors);
        }
    }
    for toleration in spec.field("tolerations").items() {
        self::toleration(toleration, errors);
    }
    for constraint in spec.field("topologySpreadConstraints").items() {
        if constraint.field("maxSkew").int().unwrap_or_default() <= 0 {
            errors.push(constraint.field("maxSkew").invalid("must be greater than zero"));
        }
        required_text(constraint.field("topologyKey"), errors);
        one_of(constraint.field("whenUnsatisfiable"), &["DoNotSchedule", "ScheduleAnyway"], errors);
    }
}

/// Checks the volumes; answers with their names.
fn volumes<'v>(volumes: At<'_, 'v>, errors: &mut Errors) -> BTreeSet<&'v str> {
    let mut found = BTreeSet::new();
    for volume in volumes.items() {
        let name = volume.field("name");
        required_checked(name, names::is_dns1123_label, errors);
        if !name.text().is_empty() && !found.insert(name.text()) {
            errors.push(name.duplicate());
        }
        // Beside its name a volume has just its source.
        match volume.len() {
            0 | 1 => errors.push(volume.required("must specify a volume type")),
            2 => {}
            _ => {
                let sources = volume.map().into_iter().flatten().map(|(key, _)| key.as_str());
                let second = sources.filter(|key| *key != "name").nth(1).unwrap_or_default();
                errors.push(volume.key(second).forbidden("may not specify more than 1 volume type"));
            }
        }
    }
    found
}

fn container<'v>(
    container: At<'_, 'v>,
    volumes: &BTreeSet<&str>,
    taken: &mut BTreeSet<&'v str>,
    errors: &mut Errors,
) {
    let name = container.field("name");
    required_checked(name, names::is_dns1123_label, errors);
    if !name.text().is_empty() && !taken.insert(name.text()) {
        errors.push(name.duplicate());
    }
    let image = container.field("image");
    if required_text(image, errors) && image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
    ports(container.field("ports"), errors);
    for variable in container.field("env").items() {
        let name = variable.field("name");
        if required_text(name, errors) && name.text().contains('=') {
            errors.push(name.invalid("a valid environment variable name must not contain '='"));
        }
        if !variable.field("value").text().is_empty() && variable.field("valueFrom").is_set() {
            errors
                .push(variable.field("valueFrom").invalid("may not be specified when `value` is not empty"));
        }
    }
    mounts(container.field("volumeMounts"), volumes, errors);
    resources(container.field("resources"), errors);
    one_of(container.field("imagePullPolicy"), &PULL_POLICIES, errors);
    absent_or_one_of(container.field("terminationMessagePolicy"), &TERMINATION_POLICIES, errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        self::probe(container.field(probe), errors);
    }
}

fn ports(ports: At, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            errors.extend(port_name(name.text()).into_iter().map(|why| name.invalid(why)));
            if !taken.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
        if port.field("containerPort").int().unwrap_or_default() == 0 {
            errors.push(port.field("containerPort").required(""));
        } else {
            port_number(port.field("containerPort"), errors);
        }
        if port.field("hostPort").int().is_some_and(|number| number != 0) {
            port_number(port.field("hostPort"), errors);
        }
        one_of(port.field("protocol"), &PROTOCOLS, errors);
    }
}

fn mounts(mounts: At, volumes: &BTreeSet<&str>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        if required_text(name, errors) && !volumes.contains(name.text()) {
            errors.push(name.not_found());
        }
        if required_text(path, errors) && !paths.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
    }
}

fn resources(resources: At, errors: &mut Errors) {
    let (requests, limits) = (resources.field("requests"), resources.field("limits"));
    for list in [limits, requests] {
        for (name, amount) in list.entries() {
            errors.extend(names::is_qualified_name(name).into_iter().map(|why| amount.invalid(why)));
            quantity_not_negative(amount, errors);
        }
    }
    for (name, asked) in requests.entries() {
        let limit = limits.key(name);
        if let (Some(asked_for), Some(most)) = (quantity(asked), quantity(limit))
            && asked_for > most
        {
            let why = format!("must be less than or equal to {name} limit of {}", shown(most));
            errors.push(asked.invalid(why));
        }
    }
}

fn shown(quantity: Quantity) -> String {
    quantity.to_string()
}

fn probe(probe: At, errors: &mut Errors) {
    if !probe.is_set() {
        return;
    }
    let handlers: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|kind| probe.field(kind).is_set())
        .collect();
    match handlers.as_slice() {
        [] => errors.push(probe.required("must specify a handler type")),
        [_] => {}
        [_, second, ..] => {
            errors.push(probe.key(second).forbidden("may not specify more than 1 handler type"));
        }
    }
    for kind in ["httpGet", "tcpSocket"] {
        let handler = probe.field(kind);
        if handler.is_set() {
            port_number_or_name(handler.field("port"), errors);
        }
    }
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(probe.field(field), errors);
    }
}

fn toleration(toleration: At, errors: &mut Errors) {
    let (key, operator, value) =
        (toleration.field("key"), toleration.field("operator"), toleration.field("value"));
    if key.text().is_empty() {
        if operator.text() != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(operator.invalid_text(why));
        }
    } else {
        checked(key, names::is_qualified_name, errors);
    }
    absent_or_one_of(operator, &TOLERATION_OPERATORS, errors);
    if operator.text() == "Exists" && !value.text().is_empty() {
        errors.push(operator.invalid_text("value must be empty when `operator` is 'Exists'"));
    }
    if !toleration.field("effect").text().is_empty() {
        one_of(toleration.field("effect"), &EFFECTS, errors);
    }
}
