//! Validation of services (upstream: `ValidateService` in `pkg/apis/core/validation`).

use std::collections::BTreeSet;

use nave_machinery::{FieldError, FieldErrors, FieldPath, Value, meta, names};
use serde_json::json;

use super::traffic;
use super::warnings::{TOPOLOGY_HINTS, TOPOLOGY_MODE};
use crate::validate::{At, Errors, checked, ip, labels, one_of, port_number, port_number_or_name};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const CHANGED: &str = "may not change once set";
/// The maximum timeout of client IP affinity in seconds: one day.
const AFFINITY_SECONDS_MAX: i64 = 86400;

pub(super) fn service(service: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(service);
    let spec = root.field("spec");
    let kind = spec.field("type").text();
    let headless = spec.field("clusterIP").text() == "None";
    if spec.field("ports").len() == 0 && !headless && kind != "ExternalName" {
        errors.push(spec.field("ports").required(""));
    }
    of_type(spec, &mut errors);
    ports(spec, &mut errors);
    labels(spec.field("selector"), &mut errors);
    affinity(spec, &mut errors);
    errors.extend(cluster_ips(service));
    one_of(spec.field("type"), &TYPES, &mut errors);
    traffic::validate(service, &mut errors);
    topology(service, &mut errors);
    errors
}

pub(super) fn service_update(new: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (new_root, old_root) = (At::root(new), At::root(old));
    let (spec, old_spec) = (new_root.field("spec"), old_root.field("spec"));
    let is_external = |spec: At| spec.field("type").text() == "ExternalName";
    if !is_external(spec) && !is_external(old_spec) {
        let is_headless = |spec: At| spec.field("clusterIPs").index(0).text() == "None";
        if !is_headless(spec) || !is_headless(old_spec) {
            cluster_ips_update(spec, old_spec, &mut errors);
        }
        if !is_headless(spec) && !is_headless(old_spec) {
            ip_families_update(spec, old_spec, &mut errors);
        }
    }
    traffic::validate_update(spec, old_spec, &mut errors);
    errors.extend(service(new));
    errors
}

/// Checks that the old and the new topology annotation match.
fn topology(service: &Value, errors: &mut Errors) {
    let of = |key| meta::annotation(service, key);
    if let (Some(hints), Some(mode)) = (of(TOPOLOGY_HINTS), of(TOPOLOGY_MODE))
        && hints != mode
    {
        let path = FieldPath::new("metadata").child("annotations").key(TOPOLOGY_MODE);
        let why = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.push(FieldError::invalid(&path, mode, why));
    }
}

/// Checks that an update adds or removes only the secondary IP.
fn cluster_ips_update(spec: At, old_spec: At, errors: &mut Errors) {
    let (ips, old_ips) = (spec.field("clusterIPs"), old_spec.field("clusterIPs"));
    let at = |index: usize, detail: &str| {
        let value = ips.value().cloned().unwrap_or(Value::Null);
        FieldError::invalid(&ips.index(index).path(), value, detail)
    };
    if ips.len() == old_ips.len() {
        let changed =
            ips.items().zip(old_ips.items()).enumerate().filter(|(_, (ip, old))| ip.text() != old.text());
        errors.extend(changed.map(|(index, _)| at(index, CHANGED)));
        return;
    }
    match (ips.len(), old_ips.len()) {
        (0, _) => errors.push(at(0, "primary clusterIP can not be unset")),
        (_, 0) => {}
        _ if ips.index(0).text() != old_ips.index(0).text() => errors.push(at(0, CHANGED)),
        _ => {}
    }
    if ips.len() == 1 && old_ips.len() > 1 {
        releases_second(spec, "clusterIP", errors);
    }
}

/// Checks that an update adds or removes only the secondary family.
fn ip_families_update(spec: At, old_spec: At, errors: &mut Errors) {
    let (families, old_families) = (spec.field("ipFamilies"), old_spec.field("ipFamilies"));
    let at = |value: At, detail: &str| {
        let value = value.value().cloned().unwrap_or(Value::Null);
        FieldError::invalid(&families.index(0).path(), value, detail)
    };
    let changed = families
        .items()
        .zip(old_families.items())
        .filter(|(family, old)| family.text() != old.text())
        .count();
    let ips = spec.field("clusterIPs");
    if families.len() == old_families.len() {
        errors.extend((0..changed).map(|_| at(families, CHANGED)));
        return;
    }
    if families.len() < old_families.len() && ips.len() == 0 {
        errors.push(at(families, "primary ipFamily can not be unset"));
    }
    let (first, old_first) = (families.index(0), old_families.index(0));
    if first.is_set() && old_first.is_set() && first.text() != old_first.text() {
        errors.push(at(ips, CHANGED));
    }
    if families.len() == 1 && old_families.len() > 1 {
        releases_second(spec, "ipFamily", errors);
    }
}

fn releases_second(spec: At, what: &str, errors: &mut Errors) {
    let policy = spec.field("ipFamilyPolicy");
    if policy.text() != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.push(policy.invalid(detail));
    }
}

/// Checks the fields that depend on the service's type.
fn of_type(spec: At, errors: &mut Errors) {
    let headless = spec.field("clusterIP").text() == "None";
    match spec.field("type").text() {
        "LoadBalancer" if headless => {
            errors.push(
                spec.field("clusterIPs")
                    .index(0)
                    .invalid("may not be set to 'None' for LoadBalancer services"),
            );
        }
        "NodePort" if headless => {
            errors.push(
                spec.field("clusterIPs").index(0).invalid("may not be set to 'None' for NodePort services"),
            );
        }
        "ExternalName" => {
            if spec.field("clusterIPs").len() > 0 {
                errors
                    .push(spec.field("clusterIPs").forbidden("may not be set when `type` is 'ExternalName'"));
            }
            for field in ["ipFamilies", "ipFamilyPolicy"] {
                if spec.field(field).is_set() {
                    errors.push(spec.field(field).forbidden("may not be set for ExternalName services"));
                }
            }
            let name = spec.field("externalName");
            if name.text().is_empty() {
                errors.push(name.required(""));
            } else {
                let host = name.text().strip_suffix('.').unwrap_or(name.text());
                errors.extend(names::is_dns1123_subdomain(host).into_iter().map(|why| name.invalid(why)));
            }
        }
        _ => {}
    }
}

fn ports(spec: At, errors: &mut Errors) {
    let list = spec.field("ports");
    let many = list.len() > 1;
    let mut seen_names = BTreeSet::new();
    for port in list.items() {
        let name = port.field("name");
        if name.text().is_empty() {
            if many {
                errors.push(name.required(""));
            }
        } else {
            checked(name, names::is_dns1123_label, errors);
            if !seen_names.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
        port_number(port.field("port"), errors);
        let protocol = port.field("protocol");
        if protocol.text().is_empty() {
            errors.push(protocol.required(""));
        } else {
            one_of(protocol, &PROTOCOLS, errors);
        }
        port_number_or_name(port.field("targetPort"), errors);
        if port.field("appProtocol").is_set() {
            checked(port.field("appProtocol"), names::is_qualified_name, errors);
        }
        if port.field("nodePort").int().is_some_and(|number| number != 0)
            && spec.field("type").text() == "ClusterIP"
        {
            errors.push(port.field("nodePort").forbidden("may not be used when `type` is 'ClusterIP'"));
        }
    }
    duplicates(list, "nodePort", errors);
    duplicates(list, "port", errors);
}

/// Checks that numbers are unique per protocol.
fn duplicates(list: At, field: &'static str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in list.items() {
        let (protocol, number) = (port.field("protocol").text(), port.field(field).int().unwrap_or_default());
        if number == 0 || seen.insert((protocol, number)) {
            continue;
        }
        errors.push(if field == "port" {
            // Upstream formats the key as its internal type.
            let key = json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number, "TargetPort": 0, "NodePort": 0});
            FieldError::duplicate(&port.path(), key)
        } else {
            port.field(field).duplicate()
        });
    }
}

fn affinity(spec: At, errors: &mut Errors) {
    let kind = spec.field("sessionAffinity");
    let config = spec.field("sessionAffinityConfig");
    if kind.text().is_empty() {
        errors.push(kind.required(""));
    } else {
        one_of(kind, &AFFINITIES, errors);
    }
    if kind.text() == "ClientIP" {
        let client = config.field("clientIP");
        let timeout = client.field("timeoutSeconds");
        let seconds = timeout.int().unwrap_or_default();
        if seconds <= 0 || seconds > AFFINITY_SECONDS_MAX {
            let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
            errors.push(FieldError::invalid(&timeout.path(), seconds, detail));
        }
    } else if config.is_set() && kind.text() == "None" {
        errors.push(config.forbidden("must not be set when session affinity is None"));
    }
}

/// Validates the cluster IPs against the IP families and the family policy, regardless of the service's type
/// (upstream: `ValidateServiceClusterIPsRelatedFields`).
pub fn cluster_ips(service: &Value) -> FieldErrors {
    let mut errors = Errors::new();
    let root = At::root(service);
    let spec = root.field("spec");
    if spec.field("type").text() == "ExternalName" {
        return errors;
    }
    let (ips, families, policy) =
        (spec.field("clusterIPs"), spec.field("ipFamilies"), spec.field("ipFamilyPolicy"));
    let (ip, first) = (spec.field("clusterIP").text(), ips.index(0));
    match (ip, ips.len()) {
        ("", 0) => {}
        ("", _) => errors.push(ips.invalid("must be empty when `clusterIP` is not specified")),
        (_, 0) => errors.push(ips.required("")),
        _ if first.text() != ip => errors.push(ips.invalid("first value must match `clusterIP`")),
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in families.items() {
        one_of(family, &FAMILIES, &mut errors);
        if !seen.insert(family.text()) {
            errors.push(family.duplicate());
        }
    }
    if policy.is_set() {
        one_of(policy, &FAMILY_POLICIES, &mut errors);
    }
    let before = errors.len();
    for (index, address) in ips.items().enumerate() {
        if index == 0 && address.text() == "None" {
            if ips.len() > 1 {
                errors.push(ips.invalid("'None' must be the first and only value"));
            }
            continue;
        }
        self::ip(address, &mut errors);
    }
    let has_invalid_ips = errors.len() > before;
    if ips.len() > 2 {
        errors.push(ips.invalid("may only hold up to 2 values"));
    }
    if !has_invalid_ips {
        cluster_ip_families(ips, families, &mut errors);
    }
    errors
}

/// Checks that the families of the cluster IPs are distinct and match the order of `ipFamilies`.
fn cluster_ip_families(ips: At, families: At, errors: &mut Errors) {
    let is_ipv6 = |ip: At| ip.text().contains(':');
    if ips.len() > 1 {
        let count = ips.items().filter(|ip| is_ipv6(*ip)).count();
        if count == 0 || count == ips.len() {
            errors.push(ips.invalid("may specify no more than one IP for each IP family"));
        }
    }
    for (index, (ip, family)) in ips.items().zip(families.items()).enumerate() {
        let expected = match (family.text(), ip.text()) {
            (_, "None") => continue,
            ("IPv4", _) if is_ipv6(ip) => "IPv4",
            ("IPv6", _) if !is_ipv6(ip) => "IPv6",
            _ => continue,
        };
        errors
            .push(ip.invalid(format!("expected an {expected} value as indicated by `ipFamilies[{index}]`")));
    }
}
