//! Warnings to clients about services (upstream: `pkg/api/service`).

use nave_machinery::{Value, meta};

use crate::ip::{cidr_warning, ip_warning};
use crate::read;
use crate::validate::At;

pub(super) const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
pub(super) const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

pub(super) fn service(service: &Value) -> Vec<String> {
    let text = |field: &str| read::text(service, field);
    let mut found = Vec::new();
    let mut add = |warning: String| found.push(warning);
    if meta::annotation(service, TOPOLOGY_HINTS).is_some() {
        add(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let root = At::root(service);
    let spec = root.field("spec");
    let is_allocated = !matches!(text("spec.clusterIP"), "" | "None");
    if is_allocated {
        spec.field("clusterIPs").items().filter_map(ip_warning).for_each(&mut add);
    }
    let kind = text("spec.type");
    let has_external_ips = !read::list(service, "spec.externalIPs").is_empty();
    let headless = kind == "ClusterIP" && text("spec.clusterIP") == "None";
    if headless {
        for (ignored, field) in [
            (!text("spec.loadBalancerIP").is_empty(), "spec.loadBalancerIP"),
            (has_external_ips, "spec.externalIPs"),
            (text("spec.sessionAffinity") != "None", "spec.SessionAffinity"),
        ] {
            if ignored {
                add(format!("{field} is ignored for headless services"));
            }
        }
    }
    spec.field("externalIPs").items().filter_map(ip_warning).for_each(&mut add);
    if has_external_ips && !headless && kind != "ExternalName" {
        add("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    ip_warning(spec.field("loadBalancerIP")).into_iter().for_each(&mut add);
    spec.field("loadBalancerSourceRanges").items().filter_map(cidr_warning).for_each(&mut add);
    if has_external_ips && kind == "ExternalName" {
        add("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !text("spec.externalName").is_empty() {
        add("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text("spec.trafficDistribution") == "PreferClose" {
        add("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn warns_about_fields_without_effect() {
        let spec = |spec: Value| service(&json!({"metadata": {}, "spec": spec}));
        assert_eq!(spec(json!({"type": "ClusterIP", "sessionAffinity": "None"})), [] as [&str; 0]);
        assert_eq!(
            spec(
                json!({"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["1.1.1.1"], "sessionAffinity": "ClientIP"})
            ),
            [
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ]
        );
        assert_eq!(
            spec(json!({"type": "ClusterIP", "externalName": "a", "externalIPs": ["1.1.1.1"]})),
            [
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ]
        );
    }
}
