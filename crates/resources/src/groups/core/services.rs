//! Services.

use std::collections::BTreeSet;

use nave_machinery::Value;

use crate::read;
use crate::table::{Column, age, field, format_labels, joined_strings, name, text};

pub(super) fn columns() -> Vec<Column> {
    let spec = "core.v1.ServiceSpec";
    vec![
        name(),
        field("Type", "spec.type", "").of(spec, "type"),
        text("Cluster-IP", cluster_ip).of(spec, "clusterIP"),
        text("External-IP", external_ip).of(spec, "externalIPs"),
        text("Port(s)", ports).of(spec, "ports"),
        age(),
        text("Selector", |service| format_labels(read::map(service, "spec.selector")))
            .wide()
            .of(spec, "selector"),
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

/// The addresses, or else host names, that a load balancer gave to a service or an ingress.
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
