//! Validation of external addresses, traffic policies and load balancer fields of services.

use nave_machinery::{FieldError, Value, meta, names};

use crate::ip;
use crate::read;
use crate::validate::{At, Errors, absent_or_one_of, checked, one_of, port_number};

const POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_FOR_LOAD_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

/// Checks the external addresses, policies and load balancer fields of a service.
pub(super) fn validate(service: &Value, errors: &mut Errors) {
    let root = At::root(service);
    let spec = root.field("spec");
    for address in spec.field("externalIPs").items() {
        if let Some(parsed) = ip::ip(address, errors) {
            ip::routable(address, parsed, errors);
        }
    }
    source_ranges(service, spec, errors);
    load_balancer_fields(spec, errors);
    external_policy(spec, errors);
    let internal = spec.field("internalTrafficPolicy");
    absent_or_one_of(internal, &POLICIES, errors);
    if !internal.is_set() && spec.field("type").text() != "ExternalName" {
        errors.push(internal.required(""));
    }
    absent_or_one_of(spec.field("trafficDistribution"), &DISTRIBUTIONS, errors);
}

fn is_load_balancer(spec: At) -> bool {
    spec.field("type").text() == "LoadBalancer"
}

/// Checks the source ranges. Upstream capitalizes the field name.
fn source_ranges(service: &Value, spec: At, errors: &mut Errors) {
    let list = spec.field("LoadBalancerSourceRanges").with(spec.field("loadBalancerSourceRanges").value());
    if list.len() > 0 {
        if !is_load_balancer(spec) {
            errors.push(list.forbidden(ONLY_FOR_LOAD_BALANCERS));
        }
        for range in list.items() {
            range_of_sources(range.text(), &range.path(), errors);
        }
    } else if let Some(annotation) = meta::annotation(service, SOURCE_RANGES) {
        let path = nave_machinery::FieldPath::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !is_load_balancer(spec) {
            errors.push(FieldError::forbidden(&path, ONLY_FOR_LOAD_BALANCERS));
        }
        let ranges = annotation.split(',').filter(|_| !annotation.trim().is_empty());
        ranges.for_each(|range| range_of_sources(range, &path, errors));
    }
}

/// Checks a source range. Surrounding spaces are allowed.
fn range_of_sources(range: &str, path: &nave_machinery::FieldPath, errors: &mut Errors) {
    let range = range.trim();
    if !ip::is_cidr(range) {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.push(FieldError::invalid(path, range, why));
    }
}

fn load_balancer_fields(spec: At, errors: &mut Errors) {
    let (ports, class) = (spec.field("allocateLoadBalancerNodePorts"), spec.field("loadBalancerClass"));
    if ports.is_set() && !is_load_balancer(spec) {
        errors.push(ports.forbidden(ONLY_FOR_LOAD_BALANCERS));
    }
    if !ports.is_set() && is_load_balancer(spec) {
        // Upstream's path omits `spec`.
        errors.push(At::named("allocateLoadBalancerNodePorts", None).required(""));
    }
    if class.is_set() && is_load_balancer(spec) {
        checked(class, names::is_qualified_name, errors);
    } else if class.is_set() {
        errors.push(class.forbidden(ONLY_FOR_LOAD_BALANCERS));
    }
}

fn external_policy(spec: At, errors: &mut Errors) {
    let kind = spec.field("type").text();
    let policy = spec.field("externalTrafficPolicy");
    let is_exposed = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.field("externalIPs").len() > 0);
    if !is_exposed {
        if !policy.text().is_empty() {
            errors.push(policy.invalid("may only be set for externally-accessible services"));
        }
    } else if policy.text().is_empty() {
        errors.push(policy.required(""));
    } else {
        one_of(policy, &POLICIES, errors);
    }
    let health = spec.field("healthCheckNodePort");
    let number = health.int().unwrap_or_default();
    if !needs_health_check(spec) {
        if number != 0 {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(health.invalid(why));
        }
    } else if number == 0 {
        errors.push(health.required(""));
    } else {
        port_number(health, errors);
    }
}

fn needs_health_check(spec: At) -> bool {
    is_load_balancer(spec) && spec.field("externalTrafficPolicy").text() == "Local"
}

/// Checks load balancer fields that an update must not change.
pub(super) fn validate_update(spec: At, old: At, errors: &mut Errors) {
    let class = spec.field("loadBalancerClass");
    if is_load_balancer(spec)
        && is_load_balancer(old)
        && class.value() != old.field("loadBalancerClass").value()
    {
        let shown = class.value().cloned().unwrap_or_default();
        errors.push(FieldError::invalid(&class.path(), shown, "may not change once set"));
        if class.is_set() {
            // Upstream repeats the check of the name.
            checked(class, names::is_qualified_name, errors);
        }
    }
    let health = spec.field("healthCheckNodePort");
    if needs_health_check(spec)
        && needs_health_check(old)
        && health.int() != old.field("healthCheckNodePort").int()
    {
        errors.push(health.forbidden("field is immutable"));
    }
}

/// Checks the load balancer status.
pub(super) fn validate_status(service: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(service);
    let status = root.field("status");
    let balancer = status.field("loadBalancer");
    let points = balancer.field("ingress");
    if points.len() > 0 && read::text(service, "spec.type") != "LoadBalancer" {
        errors.push(points.forbidden("may only be used when `spec.type` is 'LoadBalancer'"));
        return errors;
    }
    for point in points.items() {
        let (address, mode, host) = (point.field("ip"), point.field("ipMode"), point.field("hostname"));
        let has_address = !address.text().is_empty();
        if has_address {
            ip::ip(address, &mut errors);
        }
        match (has_address, mode.is_set()) {
            (true, false) => errors.push(mode.required("must be specified when `ip` is set")),
            (false, true) => errors.push(mode.forbidden("may not be specified when `ip` is not set")),
            _ => absent_or_one_of(mode, &["Proxy", "VIP"], &mut errors),
        }
        if !host.text().is_empty() {
            checked(host, names::is_dns1123_subdomain, &mut errors);
            if host.text().parse::<std::net::IpAddr>().is_ok() {
                errors.push(host.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(kind: &str, more: Value) -> Vec<String> {
        let mut spec = json!({"type": kind, "internalTrafficPolicy": "Cluster"});
        if kind != "ClusterIP" {
            spec["externalTrafficPolicy"] = json!("Cluster");
        }
        if kind == "LoadBalancer" {
            spec["allocateLoadBalancerNodePorts"] = json!(true);
        }
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut errors = Errors::new();
        validate(&json!({"metadata": {}, "spec": spec}), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_fields_that_the_type_does_not_support() {
        for (kind, more, expected) in [
            ("ClusterIP", json!({}), &[][..]),
            ("ClusterIP", json!({"healthCheckNodePort": 30000}), &["spec.healthCheckNodePort"]),
            ("ClusterIP", json!({"trafficDistribution": "x"}), &["spec.trafficDistribution"]),
            ("ClusterIP", json!({"externalTrafficPolicy": "Local"}), &["spec.externalTrafficPolicy"]),
            (
                "ClusterIP",
                json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}),
                &["spec.LoadBalancerSourceRanges"],
            ),
            ("ClusterIP", json!({"loadBalancerClass": "a"}), &["spec.loadBalancerClass"]),
            (
                "NodePort",
                json!({"externalIPs": ["127.0.0.1", "x"]}),
                &["spec.externalIPs[0]", "spec.externalIPs[1]"],
            ),
            (
                "LoadBalancer",
                json!({"loadBalancerSourceRanges": [" 10.0.0.0/8 ", "10.1.0.0/8"]}),
                &["spec.LoadBalancerSourceRanges[1]"],
            ),
            ("LoadBalancer", json!({"externalTrafficPolicy": "Local"}), &["spec.healthCheckNodePort"]),
            (
                "LoadBalancer",
                json!({"allocateLoadBalancerNodePorts": null}),
                &["allocateLoadBalancerNodePorts"],
            ),
            ("LoadBalancer", json!({"loadBalancerClass": "a b"}), &["spec.loadBalancerClass"]),
        ] {
            assert_eq!(fields(kind, more.clone()), expected, "{kind} {more}");
        }
    }

    #[test]
    fn class_and_health_check_port_are_immutable() {
        let spec = |class: &str, port: i64| json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": class, "healthCheckNodePort": port});
        for (new, errors) in [(spec("a", 1), 0), (spec("b", 1), 1), (spec("a", 2), 1)] {
            let old = spec("a", 1);
            let mut found = Errors::new();
            validate_update(At::named("spec", Some(&new)), At::named("spec", Some(&old)), &mut found);
            assert_eq!(found.len(), errors, "{new}");
        }
    }

    #[test]
    fn load_balancer_status_has_ip_or_hostname() {
        for (kind, point, errors) in [
            ("LoadBalancer", json!({"ip": "1.1.1.1", "ipMode": "VIP"}), 0),
            ("LoadBalancer", json!({"hostname": "a.b"}), 0),
            ("LoadBalancer", json!({"hostname": "1.1.1.1"}), 1),
            ("LoadBalancer", json!({"ip": "x", "ipMode": "y"}), 2),
            ("LoadBalancer", json!({"ipMode": "VIP"}), 1),
            ("ClusterIP", json!({"hostname": "a"}), 1),
        ] {
            let service = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [point]}}});
            assert_eq!(validate_status(&service).len(), errors, "{kind} {point}");
        }
    }
}
