//! Defaults and validation of endpoint slices (upstream: `pkg/apis/discovery`).

use std::collections::HashSet;
use std::net::IpAddr;

use nave_machinery::{Value, names};

use crate::defaults::{each, set};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, immutable, labels, one_of, required_checked};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const ZONE_HINTS_MAX: usize = 8;

/// What is particular to endpoint slices.
pub(super) struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn default(&self, slice: &mut Value, _version: &str) {
        let Some(fields) = slice.as_object_mut() else { return };
        for port in each(fields, "ports") {
            set(port, "name", "");
            set(port, "protocol", "TCP");
        }
    }

    fn validate(&self, slice: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(slice);
        let kind = root.field("addressType");
        if kind.text().is_empty() {
            errors.push(kind.required(""));
        } else {
            one_of(kind, &["FQDN", "IPv4", "IPv6"], &mut errors);
        }
        let endpoints = root.field("endpoints");
        if endpoints.len() > ENDPOINTS_MAX {
            errors.push(endpoints.too_many(ENDPOINTS_MAX));
        } else {
            endpoints.items().for_each(|endpoint| self::endpoint(endpoint, kind.text(), &mut errors));
        }
        ports(root.field("ports"), &mut errors);
        errors
    }

    fn validate_update(&self, slice: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(slice);
        let (root, old) = (At::root(slice), At::root(old));
        immutable(root.field("addressType"), old.field("addressType"), &mut errors);
        errors
    }
}

fn endpoint(endpoint: At, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.field("addresses");
    match addresses.len() {
        0 => errors.push(addresses.required("must contain at least 1 address")),
        1..=ADDRESSES_MAX => addresses.items().for_each(|it| address(it, kind, errors)),
        _ => errors.push(addresses.too_many(ADDRESSES_MAX)),
    }
    let (hostname, node) = (endpoint.field("hostname"), endpoint.field("nodeName"));
    if hostname.is_set() {
        checked(hostname, names::is_dns1123_label, errors);
    }
    if node.is_set() {
        checked(node, names::is_dns1123_subdomain, errors);
    }
    let topology = endpoint.field("deprecatedTopology");
    labels(topology, errors);
    let hints = endpoint.field("hints");
    for (field, plural) in [("forZones", "zone"), ("forNodes", "node")] {
        let list = hints.field(field);
        if list.len() > ZONE_HINTS_MAX {
            errors.push(list.too_many(ZONE_HINTS_MAX));
            continue;
        }
        let mut seen = HashSet::new();
        for hint in list.items() {
            let name = hint.field("name");
            if !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            let check =
                if plural == "zone" { names::is_valid_label_value } else { names::is_dns1123_subdomain };
            checked(name, check, errors);
        }
    }
}

/// An address of the slice's family that something outside a host can reach.
fn address(at: At, kind: &str, errors: &mut Errors) {
    let parsed = at.text().parse::<IpAddr>().ok();
    let valid = match kind {
        "IPv4" => parsed.is_some_and(|ip| ip.is_ipv4()),
        "IPv6" => parsed.is_some_and(|ip| ip.is_ipv6()),
        "FQDN" => {
            required_checked(at, names::is_dns1123_subdomain, errors);
            return;
        }
        _ => return,
    };
    let Some(ip) = parsed.filter(|_| valid) else {
        let family = if kind == "IPv4" { "an IPv4" } else { "an IPv6" };
        errors.push(at.invalid(format!("must be {family} address")));
        return;
    };
    let local_multicast = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    for (applies, why) in [
        (ip.is_unspecified(), format!("may not be unspecified ({ip})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if applies {
            errors.push(at.invalid(why));
        }
    }
}

fn ports(ports: At, errors: &mut Errors) {
    if ports.len() > PORTS_MAX {
        errors.push(ports.too_many(PORTS_MAX));
        return;
    }
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            checked(name, names::is_dns1123_label, errors);
        }
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
        one_of(port.field("protocol"), &["SCTP", "TCP", "UDP"], errors);
        let application = port.field("appProtocol");
        if application.is_set() {
            checked(application, names::is_qualified_name, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_without_words_is_tcp_and_has_no_name() {
        let mut slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]});
        EndpointSliceStrategy.default(&mut slice, "v1");
        assert_eq!(slice["ports"][0], json!({"port": 1, "name": "", "protocol": "TCP"}));
        assert_eq!(shown(&EndpointSliceStrategy.validate(&slice)), [""; 0]);
    }

    #[test]
    fn addresses_are_of_the_family_and_reachable() {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": []},
                {"addresses": ["127.0.0.1", "::1", "10.0.0.1"], "hostname": "A"},
            ],
            "ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "ICMP"}],
        });
        let errors = shown(&EndpointSliceStrategy.validate(&slice));
        assert_eq!(errors.len(), 6, "{errors:?}");
        assert_eq!(errors[0], "endpoints[0].addresses: Required value: must contain at least 1 address");
        assert!(errors[1].starts_with(
            r#"endpoints[1].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range"#
        ));
        assert_eq!(errors[2], r#"endpoints[1].addresses[1]: Invalid value: "::1": must be an IPv4 address"#);
        assert!(errors[3].starts_with("endpoints[1].hostname: Invalid value"));
        assert_eq!(errors[4], r#"ports[1].name: Duplicate value: "a""#);
        assert!(errors[5].starts_with(r#"ports[1].protocol: Unsupported value: "ICMP""#));
    }

    #[test]
    fn the_family_stays() {
        let of = |kind: &str| json!({"addressType": kind});
        assert_eq!(shown(&EndpointSliceStrategy.validate_update(&of("IPv4"), &of("IPv4"))), [""; 0]);
        assert_eq!(
            shown(&EndpointSliceStrategy.validate_update(&of("IPv6"), &of("IPv4"))),
            [r#"addressType: Invalid value: "IPv6": field is immutable"#]
        );
        assert_eq!(shown(&EndpointSliceStrategy.validate(&json!({}))), ["addressType: Required value"]);
    }
}
