//! Containers: images, ports, environment, mounts, resources.

use std::collections::{BTreeSet, HashSet};

use nave_machinery::{FieldError, Value, names};

use super::{probes, security};
use crate::validate::{
    At, Errors, checked, one_of, port_name, port_number, quantity, required_checked, required_text,
};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ENV_SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Checks the containers of a pod spec, of all kinds.
pub(super) fn all(spec: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let listed = spec.field("volumes");
    let volumes = listed.items().map(|volume| volume.field("name").text()).collect();
    if spec.field("containers").len() == 0 {
        errors.push(spec.field("containers").required(""));
    }
    for kind in super::CONTAINERS {
        let list = spec.field(kind);
        for container in list.items() {
            common(container, &volumes, errors);
            let name = container.field("name");
            if !seen.insert(name.text()) && !name.text().is_empty() {
                errors.push(name.duplicate());
            }
            let runs_on = kind == "containers" || container.field("restartPolicy").text() == "Always";
            if runs_on {
                probes::all(container, errors);
            } else {
                not_for_init(kind, container, errors);
            }
            // Init containers run one after the other.
            if kind == "containers" {
                unique_host_ports(container, &mut host_ports, errors);
            }
        }
    }
}

/// What ends before the others start is not probed, and what is only there to look has no hooks.
fn not_for_init(kind: &str, container: At, errors: &mut Errors) {
    let detail = match kind {
        "initContainers" => "may not be set for init containers without restartPolicy=Always",
        _ => "cannot be set for an Ephemeral Container",
    };
    for hook in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.field(hook).is_set() {
            errors.push(container.field(hook).forbidden(detail));
        }
    }
    if kind == "ephemeralContainers" && container.field("ports").len() > 0 {
        errors.push(container.field("ports").forbidden(detail));
    }
}

fn common(container: At, volumes: &HashSet<&str>, errors: &mut Errors) {
    required_checked(container.field("name"), names::is_dns1123_label, errors);
    required_text(container.field("image"), errors);
    let message = container.field("terminationMessagePolicy");
    if required_text(message, errors) {
        one_of(message, &MESSAGE_POLICIES, errors);
    }
    ports(container.field("ports"), errors);
    for variable in container.field("env").items() {
        environment(variable, errors);
    }
    for source in container.field("envFrom").items() {
        environment_from(source, errors);
    }
    mounts(container, volumes, errors);
    let policy = container.field("imagePullPolicy");
    if required_text(policy, errors) {
        one_of(policy, &PULL_POLICIES, errors);
    }
    resources(container.field("resources"), errors);
    security::container(container.field("securityContext"), errors);
}

fn ports(list: At, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            let found = port_name(name.text());
            if found.is_empty() && !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            errors.extend(found.into_iter().map(|why| name.invalid(why)));
        }
        let number = port.field("containerPort");
        if number.int().unwrap_or_default() == 0 {
            errors.push(number.required(""));
        } else {
            port_number(number, errors);
        }
        if port.field("hostPort").int().is_some_and(|number| number != 0) {
            port_number(port.field("hostPort"), errors);
        }
        let protocol = port.field("protocol");
        if required_text(protocol, errors) {
            one_of(protocol, &PROTOCOLS, errors);
        }
    }
}

fn unique_host_ports<'v>(
    container: At<'_, 'v>,
    seen: &mut BTreeSet<(&'v str, &'v str, i64)>,
    errors: &mut Errors,
) {
    for port in container.field("ports").items() {
        let host_port = port.field("hostPort");
        let Some(number) = host_port.int().filter(|number| *number != 0) else { continue };
        let (ip, protocol) = (port.field("hostIP").text(), port.field("protocol").text());
        if !seen.insert((ip, protocol, number)) {
            let shown = format!("{protocol}/{ip}/{number}");
            errors.push(FieldError::duplicate(&host_port.path(), shown));
        }
    }
}

fn environment(variable: At, errors: &mut Errors) {
    let name = variable.field("name");
    if required_text(name, errors) {
        checked(name, environment_name, errors);
    }
    let from = variable.field("valueFrom");
    if !from.is_set() {
        return;
    }
    let sources = ENV_SOURCES.iter().filter(|source| from.field(source).is_set()).count();
    let wrong = |detail: &str| FieldError::invalid(&from.path(), "", detail);
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(wrong(detail));
    } else if !variable.field("value").text().is_empty() {
        errors.push(wrong("may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(wrong("may not have more than one field specified at a time"));
    }
    let field = from.field("fieldRef");
    if field.is_set() {
        field_reference(field, errors);
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        let reference = from.field(source);
        if reference.is_set() {
            required_text(reference.field("name"), errors);
            required_checked(reference.field("key"), names::is_config_map_key, errors);
        }
    }
    let resource = from.field("resourceFieldRef");
    if resource.is_set() {
        required_text(resource.field("resource"), errors);
    }
}

fn field_reference(reference: At, errors: &mut Errors) {
    required_text(reference.field("apiVersion"), errors);
    let path = reference.field("fieldPath");
    if !required_text(path, errors) {
        return;
    }
    let of_map = path.text().strip_suffix("']").and_then(|it| {
        it.strip_prefix("metadata.annotations['").or_else(|| it.strip_prefix("metadata.labels['"))
    });
    if of_map.is_none() && !ENV_FIELDS.contains(&path.text()) {
        errors.push(match path.text() {
            "metadata.labels" | "metadata.annotations" => path.not_supported(&ENV_FIELDS),
            other => path.invalid(format!("error converting fieldPath: field label not supported: {other}")),
        });
    }
}

fn environment_from(source: At, errors: &mut Errors) {
    let prefix = source.field("prefix");
    if !prefix.text().is_empty() {
        checked(prefix, environment_name, errors);
    }
    let given: Vec<_> =
        ["configMapRef", "secretRef"].into_iter().filter(|it| source.field(it).is_set()).collect();
    match given.as_slice() {
        [] => errors.push(FieldError::invalid(
            &source.path(),
            "",
            "must specify one of: `configMapRef` or `secretRef`",
        )),
        [one] => {
            let reference = source.field(one);
            required_checked(reference.field("name"), names::is_dns1123_subdomain, errors);
        }
        _ => errors.push(FieldError::invalid(
            &source.path(),
            "",
            "may not have more than one field specified at a time",
        )),
    }
}

/// What is wrong with the name of a variable.
fn environment_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

fn mounts(container: At, volumes: &HashSet<&str>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for mount in container.field("volumeMounts").items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        if required_text(name, errors) && !volumes.contains(name.text()) {
            errors.push(name.not_found());
        }
        if required_text(path, errors) && !seen.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        let (sub_path, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
        if !sub_path.text().is_empty() {
            super::volumes::descending(sub_path, errors);
        }
        if !expression.text().is_empty() {
            if !sub_path.text().is_empty() {
                errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
            }
            super::volumes::descending(expression, errors);
        }
    }
    for device in container.field("volumeDevices").items() {
        let name = device.field("name");
        if required_text(name, errors) && !volumes.contains(name.text()) {
            errors.push(name.not_found());
        }
        required_text(device.field("devicePath"), errors);
    }
}

/// Checks requests and limits, of a container or of a pod as a whole.
pub(super) fn resources(resources: At, errors: &mut Errors) {
    let (requests, limits) = (resources.field("requests"), resources.field("limits"));
    for (name, limit) in limits.entries() {
        resource(name, limit, errors);
    }
    for (name, request) in requests.entries() {
        resource(name, request, errors);
        let limit = limits.key(name);
        let (Some(asked), Some(most)) = (quantity(request), quantity(limit)) else { continue };
        let may_exceed = !name.contains('/') && !name.starts_with("hugepages-");
        if may_exceed && asked > most {
            let detail = format!("must be less than or equal to {name} limit of {most}");
            errors.push(FieldError::invalid(&requests.path(), asked.to_string(), detail));
        } else if !may_exceed && asked != most {
            let detail = format!("must be equal to {name} limit of {most}");
            errors.push(FieldError::invalid(&requests.path(), asked.to_string(), detail));
        }
    }
    for (name, _) in requests.entries() {
        if name.contains('/') && !limits.key(name).is_set() {
            let detail = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(&limits.path(), detail));
        }
    }
}

fn resource(name: &str, at: At, errors: &mut Errors) {
    let invalid = |detail: String| FieldError::invalid(&at.path(), name, detail);
    errors.extend(names::is_qualified_name(name).into_iter().map(invalid));
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.push(invalid("must be a standard resource for containers".to_owned()));
    }
    let Some(amount) = quantity(at) else { return };
    if amount.is_negative() {
        errors.push(FieldError::invalid(&at.path(), amount.to_string(), crate::validate::NOT_NEGATIVE));
    } else if name.contains('/') && amount.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(&at.path(), Value::from(amount.to_string()), "must be an integer"));
    }
}
