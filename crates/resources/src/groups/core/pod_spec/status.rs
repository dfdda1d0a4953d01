//! Validation of the status of pods (upstream: `ValidatePodStatusUpdate`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use nave_machinery::{FieldError, Value, names};

use super::{CONTAINERS, annotations, device_status};
use crate::ip;
use crate::validate::{At, Errors, checked, immutable};

/// The condition types without a domain.
const SYSTEM_CONDITIONS: [&str; 3] = ["Initialized", "PodScheduled", "Ready"];
/// The lists of container statuses, with the corresponding container lists.
const STATUSES: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// Validates an update of a pod's status.
pub(crate) fn validate(pod: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    annotations::validate_update(pod, old, &mut errors);
    let (root, old_root) = (At::root(pod), At::root(old));
    let (status, old_status) = (root.field("status"), old_root.field("status"));
    let spec = root.field("spec");
    for condition in status.field("conditions").items() {
        generation(condition.field("observedGeneration"), &mut errors);
        let kind = condition.field("type").text();
        if !SYSTEM_CONDITIONS.contains(&kind) {
            let path = condition.path().child("Type");
            let found = names::is_qualified_name(kind);
            errors.extend(found.into_iter().map(|why| FieldError::invalid(&path, kind, why)));
        }
    }
    nominated_node(status, old_status, spec, &mut errors);
    generation(status.field("observedGeneration"), &mut errors);
    immutable(status.field("qosClass"), old_status.field("qosClass"), &mut errors);
    for (list, containers) in STATUSES {
        restarts(status.field(list), old_status.field(list), spec, containers, &mut errors);
    }
    claims(status, spec, &mut errors);
    device_status::validate(status, spec, &mut errors);
    addresses(status.field("podIPs"), &mut errors);
    let host = status.field("hostIPs");
    if let Some(first) = host.items().next()
        && first.field("ip").text() != status.field("hostIP").text()
    {
        errors.push(first.field("ip").invalid_text("must be equal to `hostIP`"));
    }
    addresses(host, &mut errors);
    errors
}

fn generation(at: At, errors: &mut Errors) {
    if at.int().is_some_and(|number| number < 0) {
        errors.push(at.invalid("must be a non-negative integer"));
    }
}

fn nominated_node(status: At, old_status: At, spec: At, errors: &mut Errors) {
    let (node, before) = (status.field("nominatedNodeName"), old_status.field("nominatedNodeName").text());
    if node.text().is_empty() || node.text() == before {
        return;
    }
    checked(node, names::is_dns1123_subdomain, errors);
    if !spec.field("nodeName").text().is_empty() {
        errors.push(node.forbidden("may not be set on pods that are already bound to a node"));
    }
}

/// Checks that a terminated container becomes non-terminated only if it may restart.
fn restarts(new: At, old: At, spec: At, containers: &'static str, errors: &mut Errors) {
    let is_ephemeral = containers == "ephemeralContainers";
    if !is_ephemeral && all_can_restart(spec) {
        return;
    }
    let list = spec.field(containers);
    let containers: HashMap<_, _> =
        list.items().map(|container| (container.field("name").text(), container.value())).collect();
    let mut now = HashMap::new();
    for status in new.items() {
        let state = status.field("state");
        now.entry(status.field("name").text()).or_insert(state.field("terminated").is_set());
    }
    for (index, before) in old.items().enumerate() {
        let name = before.field("name").text();
        let state = before.field("state");
        let ended = state.field("terminated");
        if !ended.is_set() || now.get(name) != Some(&false) {
            continue;
        }
        let code = ended.field("exitCode").int().unwrap_or_default();
        let container = At::named("", containers.get(name).copied().flatten());
        if is_ephemeral || !container.is_set() || !restarts_after(container, spec, code) {
            let state = new.path().index(index).child("state");
            errors.push(FieldError::forbidden(&state, "may not be transitioned to non-terminated state"));
        }
    }
}

/// Returns whether any container can restart all containers.
fn all_can_restart(spec: At) -> bool {
    CONTAINERS.into_iter().take(2).any(|kind| {
        spec.field(kind).items().any(|container| {
            container
                .field("restartPolicyRules")
                .items()
                .any(|rule| rule.field("action").text() == "RestartAllContainers")
        })
    })
}

/// Returns whether a container restarts after exit code `code`. Its rules come first, then its policy or the pod's
/// policy.
fn restarts_after(container: At, spec: At, code: i64) -> bool {
    for rule in container.field("restartPolicyRules").items() {
        let codes = rule.field("exitCodes");
        let is_listed = codes.field("values").items().any(|value| value.int() == Some(code));
        let applies = match codes.field("operator").text() {
            "In" => is_listed,
            "NotIn" => !is_listed,
            _ => false,
        };
        if applies && rule.field("action").text() == "Restart" {
            return true;
        }
    }
    let own = container.field("restartPolicy").text();
    match if own.is_empty() { spec.field("restartPolicy").text() } else { own } {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn claims(status: At, spec: At, errors: &mut Errors) {
    let list = spec.field("resourceClaims");
    let known: HashSet<_> = list.items().map(|claim| claim.field("name").text()).collect();
    let mut seen = HashSet::new();
    for claim in status.field("resourceClaimStatuses").items() {
        let (name, object) = (claim.field("name"), claim.field("resourceClaimName"));
        if !known.contains(name.text()) {
            errors.push(name.invalid_text("must match the name of an entry in `spec.resourceClaims`"));
        }
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
        if object.is_set() {
            checked(object, names::is_dns1123_subdomain, errors);
        }
    }
}

/// Checks that addresses are unique, with at most one per family. Upstream reports the item instead of its field.
fn addresses(list: At, errors: &mut Errors) {
    let mut parsed = Vec::new();
    for element in list.items() {
        parsed.extend(ip::ip(element.with(element.field("ip").value()), errors));
    }
    let has_both = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
    if list.len() > 1 && (list.len() > 2 || !has_both) {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(spec: Value, old: Value, new: Value) -> Vec<String> {
        let pod = |status| json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        validate(&pod(new), &pod(old)).iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_invalid_status() {
        for (spec, new, expected) in [
            (json!({}), json!({"conditions": [{"type": "Ready"}, {"type": "example.com/x"}]}), &[][..]),
            (json!({}), json!({"conditions": [{"type": "a b"}]}), &["status.conditions[0].Type"]),
            (json!({}), json!({"qosClass": "Guaranteed"}), &["status.qosClass"]),
            (json!({}), json!({"nominatedNodeName": "n"}), &[]),
            (json!({"nodeName": "m"}), json!({"nominatedNodeName": "n"}), &["status.nominatedNodeName"]),
            (json!({}), json!({"podIPs": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}]}), &["status.podIPs"]),
            (json!({}), json!({"podIPs": [{"ip": "1.1.1.1"}, {"ip": "::1"}]}), &[]),
            (json!({}), json!({"podIPs": [{"ip": "x"}]}), &["status.podIPs[0]"]),
            (json!({}), json!({"hostIPs": [{"ip": "1.1.1.1"}]}), &["status.hostIPs[0].ip"]),
            (
                json!({}),
                json!({"resourceClaimStatuses": [{"name": "a"}]}),
                &["status.resourceClaimStatuses[0].name"],
            ),
        ] {
            assert_eq!(fields(spec, json!({}), new.clone()), expected, "{new}");
        }
    }

    #[test]
    fn terminated_containers_run_again_only_if_they_restart() {
        let status = |state: Value| json!({"containerStatuses": [{"name": "c", "state": state}]});
        let rule = |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [3]}}]);
        for (spec, code, errors) in [
            (json!({"restartPolicy": "Always", "containers": [{"name": "c"}]}), 0, 0),
            (json!({"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}), 1, 0),
            (json!({"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}), 0, 1),
            (json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}), 1, 1),
            (
                json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicy": "Always"}]}),
                1,
                0,
            ),
            (
                json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicyRules": rule("Restart")}]}),
                3,
                0,
            ),
            (
                json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicyRules": rule("RestartAllContainers")}]}),
                1,
                0,
            ),
        ] {
            let ended = status(json!({"terminated": {"exitCode": code}}));
            let found = fields(spec.clone(), ended, status(json!({"running": {}})));
            assert_eq!(found.len(), errors, "{spec} {code}");
        }
    }
}
