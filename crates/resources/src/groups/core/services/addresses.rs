//! Allocated fields in updates of services (upstream: `pkg/registry/core/service/storage`).

use std::collections::{BTreeMap, BTreeSet};

use nave_machinery::{Map, Value};
use serde_json::json;

/// Sets `clusterIPs` from `clusterIP` if only `clusterIP` is set.
pub(super) fn set_cluster_ips(spec: &mut Map) {
    let ip = text(spec, "clusterIP");
    if !ip.is_empty() && is_empty(spec, "clusterIPs") {
        let ips = json!([ip]);
        spec.insert("clusterIPs".to_owned(), ips);
    }
}

/// Copies allocated values that an update omits from `old`. Synchronizes `clusterIP` and `clusterIPs` if an update
/// changes only one of them.
pub(super) fn keep_allocated(spec: &mut Map, old: &Map) {
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        if text(spec, "clusterIP").is_empty() {
            copy(spec, old, "clusterIP");
        }
        if is_empty(spec, "clusterIPs") && text(spec, "clusterIP") == text(old, "clusterIP") {
            copy(spec, old, "clusterIPs");
        }
    }
    sync_cluster_ip_fields(spec, old);
    if needs_node_ports(spec) && needs_node_ports(old) {
        keep_node_ports(spec, old);
    }
    if needs_health_port(spec) && needs_health_port(old) && number(spec, "healthCheckNodePort") == 0 {
        copy(spec, old, "healthCheckNodePort");
    }
}

fn sync_cluster_ip_fields(spec: &mut Map, old: &Map) {
    let (ip, old_ip) = (text(spec, "clusterIP"), text(old, "clusterIP"));
    let same_ips = spec.get("clusterIPs") == old.get("clusterIPs");
    if ip.is_empty() && !old_ip.is_empty() && same_ips {
        spec.remove("clusterIPs");
    } else if !ip.is_empty() && ip != old_ip && (same_ips || is_empty(spec, "clusterIPs")) {
        let ip = json!(ip);
        match spec.get_mut("clusterIPs").and_then(Value::as_array_mut).and_then(|ips| ips.first_mut()) {
            Some(first) => *first = ip,
            None => drop(spec.insert("clusterIPs".to_owned(), json!([ip]))),
        }
    } else if ip == old_ip && is_empty(spec, "clusterIPs") && !is_empty(old, "clusterIPs") {
        spec.remove("clusterIP");
    }
}

/// Copies missing node ports from old ports with the same name, unless another port uses them.
fn keep_node_ports(spec: &mut Map, old: &Map) {
    let old_ports: BTreeMap<&str, i64> =
        ports(old).map(|port| (text(port, "name"), number(port, "nodePort"))).collect();
    let mut taken: BTreeSet<i64> = ports(spec).map(|port| number(port, "nodePort")).collect();
    let list = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in list.into_iter().flatten().filter_map(Value::as_object_mut) {
        let Some(&kept) = old_ports.get(text(port, "name")) else { continue };
        if number(port, "nodePort") == 0 && kept != 0 && taken.insert(kept) {
            port.insert("nodePort".to_owned(), json!(kept));
        }
    }
}

/// Drops values that the new type does not support. Values that the update changes are kept.
pub(super) fn drop_unneeded(spec: &mut Map, old: &Map) {
    type Needs = fn(&Map) -> bool;
    let by_type: [(Needs, &[&str]); 6] = [
        (needs_cluster_ip, &["clusterIP", "clusterIPs"]),
        (needs_cluster_ip, &["ipFamilies", "ipFamilyPolicy"]),
        (needs_cluster_ip, &["internalTrafficPolicy"]),
        (needs_health_port, &["healthCheckNodePort"]),
        (is_load_balancer, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]),
        (needs_external_policy, &["externalTrafficPolicy"]),
    ];
    for (needs, fields) in by_type {
        for field in fields {
            if needs(old) && !needs(spec) && spec.get(*field) == old.get(*field) {
                spec.remove(*field);
            }
        }
    }
    let numbers = |spec: &Map| ports(spec).map(|port| number(port, "nodePort")).collect::<Vec<_>>();
    if needs_node_ports(old) && !needs_node_ports(spec) && numbers(old) == numbers(spec) {
        let list = spec.get_mut("ports").and_then(Value::as_array_mut);
        for port in list.into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
}

pub(super) fn needs_cluster_ip(spec: &Map) -> bool {
    text(spec, "type") != "ExternalName"
}

fn is_load_balancer(spec: &Map) -> bool {
    text(spec, "type") == "LoadBalancer"
}

fn needs_node_ports(spec: &Map) -> bool {
    let declined = spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    text(spec, "type") == "NodePort" || (is_load_balancer(spec) && !declined)
}

fn needs_health_port(spec: &Map) -> bool {
    is_load_balancer(spec) && text(spec, "externalTrafficPolicy") == "Local"
}

fn needs_external_policy(spec: &Map) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
        || (text(spec, "type") == "ClusterIP" && !is_empty(spec, "externalIPs"))
}

fn ports(spec: &Map) -> impl Iterator<Item = &Map> {
    spec.get("ports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

fn text<'a>(map: &'a Map, field: &str) -> &'a str {
    map.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn number(map: &Map, field: &str) -> i64 {
    map.get(field).and_then(Value::as_i64).unwrap_or_default()
}

fn is_empty(map: &Map, field: &str) -> bool {
    map.get(field).and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn copy(to: &mut Map, from: &Map, field: &str) {
    if let Some(value) = from.get(field) {
        to.insert(field.to_owned(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_cleared_cluster_ip() {
        let spec = |spec: Value| spec.as_object().cloned().unwrap_or_default();
        let old = spec(json!({"type": "ClusterIP", "clusterIP": "10.0.0.5", "clusterIPs": ["10.0.0.5"]}));
        for cleared in [
            json!({"type": "ClusterIP", "clusterIPs": ["10.0.0.5"]}),
            json!({"type": "ClusterIP", "clusterIP": "", "clusterIPs": ["10.0.0.5"]}),
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.5"}),
            json!({"type": "ClusterIP"}),
        ] {
            let mut new = spec(cleared.clone());
            keep_allocated(&mut new, &old);
            assert_eq!(new, old, "{cleared}");
        }
    }
}
