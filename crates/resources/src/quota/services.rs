//! The quota usage of services.

use k8s_openapi::api::core::v1::Service;
use nave_machinery::quantity::Quantity;

use super::{Usage, one};

/// Returns the usage of a service.
pub fn service(service: &Service) -> Usage {
    let spec = service.spec.as_ref();
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let kind = spec.and_then(|spec| spec.type_.as_deref()).unwrap_or_default();
    let allocates = spec.and_then(|spec| spec.allocate_load_balancer_node_ports).unwrap_or(true);
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if allocates => ports.len(),
        "LoadBalancer" => ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0)).count(),
        _ => 0,
    };
    let load_balancers = i64::from(kind == "LoadBalancer");
    Usage::from([
        ("count/services".to_owned(), one()),
        ("services".to_owned(), one()),
        ("services.loadbalancers".to_owned(), Quantity::from_value(load_balancers)),
        ("services.nodeports".to_owned(), Quantity::from_value(node_ports as i64)),
    ])
}

/// Returns whether a quota counts services under this name.
pub fn is_service_name(name: &str) -> bool {
    matches!(name, "count/services" | "services" | "services.loadbalancers" | "services.nodeports")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_node_ports_and_load_balancers() {
        let cases = [
            (json!({"type": "ClusterIP", "ports": [{"port": 1}]}), "0", "0"),
            (json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}), "2", "0"),
            (json!({"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}), "2", "1"),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"port": 1, "nodePort": 30000}, {"port": 2}]}),
                "1",
                "1",
            ),
        ];
        for (spec, ports, balancers) in cases {
            let object = serde_json::from_value(json!({"spec": spec})).unwrap();
            let used = service(&object);
            let of = |name: &str| used[name].to_string();
            assert_eq!(
                (of("services.nodeports").as_str(), of("services.loadbalancers").as_str()),
                (ports, balancers)
            );
            assert_eq!((of("services"), of("count/services")), ("1".to_owned(), "1".to_owned()));
            assert!(used.keys().all(|name| is_service_name(name)));
        }
    }
}
