//! Services.

mod addresses;
mod traffic;
mod validation;
mod warnings;

pub use self::validation::cluster_ips;
use std::collections::BTreeSet;

use nave_machinery::{Map, Value};
use serde_json::json;

use crate::defaults::{each, object, object_at, set, set_absent};
use crate::read;
use crate::strategy::Strategy;
use crate::table::{Column, age, field, format_labels, joined_strings, name, text};
use crate::validate::Errors;

/// The default timeout of client IP affinity, in seconds.
const AFFINITY_SECONDS: i64 = 10800;

/// The strategy of services.
pub(super) struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn default(&self, service: &mut Value, _version: &str) {
        let Some(fields) = service.as_object_mut() else { return };
        if let Some(spec) = object(fields, "spec") {
            spec_defaults(spec);
        }
        if fields.get("spec").is_some_and(|spec| spec["type"] == "LoadBalancer")
            && let Some(balancer) = object_at(fields, &["status", "loadBalancer"])
        {
            for point in each(balancer, "ingress").filter(|it| it.get("ip").is_some_and(|ip| ip != "")) {
                set_absent(point, "ipMode", "VIP");
            }
        }
    }

    fn prepare_for_create(&self, service: &mut Value) {
        if let Some(spec) = service.as_object_mut().and_then(|service| object_at(service, &["spec"])) {
            addresses::set_cluster_ips(spec);
        }
    }

    fn prepare_for_update(&self, service: &mut Value, old: &Value) {
        let old = old.get("spec").and_then(Value::as_object);
        let spec = service.as_object_mut().and_then(|service| object_at(service, &["spec"]));
        if let (Some(spec), Some(old)) = (spec, old) {
            addresses::keep_allocated(spec, old);
            addresses::drop_unneeded(spec, old);
        }
    }

    fn validate(&self, service: &Value) -> Errors {
        validation::service(service)
    }

    fn validate_update(&self, service: &Value, old: &Value) -> Errors {
        validation::service_update(service, old)
    }

    fn validate_status_update(&self, service: &Value, _old: &Value) -> Errors {
        traffic::validate_status(service)
    }

    fn warnings(&self, service: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::service(service)
    }
}

fn spec_defaults(spec: &mut Map) {
    set(spec, "sessionAffinity", "None");
    set(spec, "type", "ClusterIP");
    affinity(spec);
    for port in each(spec, "ports") {
        set(port, "protocol", "TCP");
        let unset =
            port.get("targetPort").is_none_or(|target| target.is_null() || target == "" || target == 0);
        if let Some(number) = port.get("port").filter(|_| unset).cloned() {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let kind = spec["type"].as_str().unwrap_or_default();
    let (in_cluster, balanced) = (kind != "ExternalName", kind == "LoadBalancer");
    let has_external_ips =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if balanced || kind == "NodePort" || (kind == "ClusterIP" && has_external_ips) {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if in_cluster {
        set_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn affinity(spec: &mut Map) {
    if spec["sessionAffinity"] == "None" {
        spec.remove("sessionAffinityConfig");
    } else if spec["sessionAffinity"] == "ClientIP" {
        let has_timeout = object_at(spec, &["sessionAffinityConfig", "clientIP"])
            .is_some_and(|it| it.get("timeoutSeconds").is_some_and(Value::is_number));
        if !has_timeout {
            let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
            spec.insert("sessionAffinityConfig".to_owned(), config);
        }
    }
}

pub(super) fn columns() -> Vec<Column> {
    let spec = "core.v1.ServiceSpec";
    vec![
        name(),
        field("Type", "spec.type", "").described_by(spec, "type"),
        text("Cluster-IP", cluster_ip).described_by(spec, "clusterIP"),
        text("External-IP", external_ip).described_by(spec, "externalIPs"),
        text("Port(s)", ports).described_by(spec, "ports"),
        age(),
        text("Selector", |service| format_labels(read::map(service, "spec.selector")))
            .wide()
            .described_by(spec, "selector"),
    ]
}

fn cluster_ip(service: &Value) -> String {
    let first = read::list(service, "spec.clusterIPs").first().and_then(Value::as_str);
    first.unwrap_or_else(|| read::text_or(service, "spec.clusterIP", "<none>")).to_owned()
}

fn external_ip(service: &Value) -> String {
    let external = joined_strings(service, "spec.externalIPs");
    let (shown, missing) = match read::text(service, "spec.type") {
        "ClusterIP" | "NodePort" => (external, "<none>"),
        "ExternalName" => return read::text(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            let balanced = load_balancer(service);
            let both: Vec<String> =
                [balanced, external].into_iter().filter(|text| !text.is_empty()).collect();
            (both.join(","), "<pending>")
        }
        _ => (String::new(), "<unknown>"),
    };
    if shown.is_empty() { missing.to_owned() } else { shown }
}

/// Returns the IPs, or else the host names, in the load balancer status of a service or ingress.
pub(crate) fn load_balancer(object: &Value) -> String {
    let points = read::list(object, "status.loadBalancer.ingress").iter();
    let names: BTreeSet<&str> = points
        .map(|point| read::text_or(point, "ip", read::text(point, "hostname")))
        .filter(|it| !it.is_empty())
        .collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}

fn ports(service: &Value) -> String {
    let shown: Vec<String> = read::list(service, "spec.ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (read::int(port, "port"), read::text(port, "protocol"));
            match read::int(port, "nodePort") {
                0 => format!("{number}/{protocol}"),
                on_node => format!("{number}:{on_node}/{protocol}"),
            }
        })
        .collect();
    if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") }
}
