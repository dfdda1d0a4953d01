//! Defaults and validation of endpoint slices (upstream: `pkg/apis/discovery`).

use std::collections::HashSet;

use nave_machinery::{FieldError, Value, meta, names};

use crate::defaults::{each, set_absent};
use crate::ip;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, immutable, one_of, required_text};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Controllers that write canonical addresses. Their slices need no address warnings.
const CONTROLLERS: [&str; 2] =
    ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

/// The strategy of endpoint slices.
pub(super) struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn default(&self, slice: &mut Value, _version: &str) {
        let Some(fields) = slice.as_object_mut() else { return };
        for port in each(fields, "ports") {
            set_absent(port, "name", "");
            set_absent(port, "protocol", "TCP");
        }
    }

    fn prepare_for_create(&self, slice: &mut Value) {
        drop_topology(slice);
    }

    fn prepare_for_update(&self, slice: &mut Value, old: &Value) {
        if slice.get("endpoints") != old.get("endpoints") {
            drop_topology(slice);
        }
    }

    fn validate(&self, slice: &Value) -> Errors {
        let mut errors = validate_all_but_endpoints(slice);
        endpoints(slice, &mut errors);
        errors
    }

    fn validate_update(&self, slice: &Value, old: &Value) -> Errors {
        let mut errors = validate_all_but_endpoints(slice);
        // Unchanged endpoints are not checked, because they may be older than a rule.
        if slice.get("endpoints") != old.get("endpoints") {
            endpoints(slice, &mut errors);
        }
        immutable(At::root(slice).field("addressType"), At::root(old).field("addressType"), &mut errors);
        errors
    }

    fn warnings(&self, slice: &Value, old: Option<&Value>) -> Vec<String> {
        let root = At::root(slice);
        let mut warnings = Vec::new();
        if old.is_none() && root.field("addressType").text() == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        if meta::label(slice, MANAGED_BY).is_none_or(|manager| !CONTROLLERS.contains(&manager)) {
            for endpoint in root.field("endpoints").items() {
                warnings.extend(endpoint.field("addresses").items().filter_map(ip::ip_warning));
            }
        }
        warnings
    }
}

/// Removes `deprecatedTopology`, which v1 replaced with fields.
fn drop_topology(slice: &mut Value) {
    if let Some(slice) = slice.as_object_mut() {
        each(slice, "endpoints").for_each(|endpoint| drop(endpoint.remove("deprecatedTopology")));
    }
}

fn validate_all_but_endpoints(slice: &Value) -> Errors {
    let mut errors = Errors::new();
    let root = At::root(slice);
    let kind = root.field("addressType");
    if required_text(kind, &mut errors) {
        one_of(kind, &["FQDN", "IPv4", "IPv6"], &mut errors);
    }
    ports(root.field("ports"), &mut errors);
    errors
}

fn endpoints(slice: &Value, errors: &mut Errors) {
    let root = At::root(slice);
    let (endpoints, kind) = (root.field("endpoints"), root.field("addressType").text());
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(endpoints.too_many(ENDPOINTS_MAX));
    } else {
        endpoints.items().for_each(|endpoint| self::endpoint(endpoint, kind, errors));
    }
}

fn endpoint(endpoint: At, kind: &str, errors: &mut Errors) {
    let addresses = endpoint.field("addresses");
    match addresses.len() {
        0 => errors.push(addresses.required("must contain at least 1 address")),
        1..=ADDRESSES_MAX => {}
        _ => errors.push(addresses.too_many(ADDRESSES_MAX)),
    }
    addresses.items().for_each(|it| address(addresses, it, kind, errors));
    let (hostname, node) = (endpoint.field("hostname"), endpoint.field("nodeName"));
    if node.is_set() {
        checked(node, names::is_dns1123_subdomain, errors);
    }
    if hostname.is_set() {
        checked(hostname, names::is_dns1123_label, errors);
    }
    let hints = endpoint.field("hints");
    for (field, check) in [
        ("forZones", names::is_valid_label_value as fn(&str) -> _),
        ("forNodes", names::is_dns1123_subdomain),
    ] {
        let list = hints.field(field);
        if list.len() > HINTS_MAX {
            errors.push(list.too_many(HINTS_MAX));
            return;
        }
        let mut seen = HashSet::new();
        for hint in list.items() {
            let name = hint.field("name");
            if !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
            checked(name, check, errors);
        }
    }
}

/// Checks an address of the slice's type. IP addresses must be routable. Upstream reports one of the errors at the
/// list instead of the item.
fn address(addresses: At, at: At, kind: &str, errors: &mut Errors) {
    let family = match kind {
        "IPv4" => "an IPv4",
        "IPv6" => "an IPv6",
        "FQDN" => return domain(at, errors),
        _ => return,
    };
    let Some(ip) = ip::ip(at, errors) else { return };
    let is_of_family = ip.is_ipv4() == (kind == "IPv4");
    if kind == "IPv6" && ip.to_string() != at.text() {
        errors.push(at.invalid(format!("must be in canonical form (\"{ip}\")")));
        return;
    }
    if !is_of_family {
        let why = format!("must be {family} address");
        errors.push(FieldError::invalid(&addresses.path(), at.text(), why));
    }
    ip::routable(at, ip, errors);
}

/// Checks a domain name with at least two labels.
fn domain(at: At, errors: &mut Errors) {
    if !required_text(at, errors) {
        return;
    }
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    let found = names::is_dns1123_subdomain(name);
    if !found.is_empty() {
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&at.path(), name, why)));
        return;
    }
    if !name.contains('.') {
        errors.push(at.invalid("should be a domain with at least two segments separated by dots"));
    }
    for label in name.split('.') {
        let found = names::is_dns1123_label(label);
        errors.extend(found.into_iter().map(|why| FieldError::invalid(&at.path(), label, why)));
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

    fn messages(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn port_defaults_to_tcp_without_name() {
        let mut slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]});
        EndpointSliceStrategy.default(&mut slice, "v1");
        assert_eq!(slice["ports"][0], json!({"port": 1, "name": "", "protocol": "TCP"}));
        assert_eq!(messages(&EndpointSliceStrategy.validate(&slice)), [""; 0]);
    }

    #[test]
    fn rejects_addresses_of_other_families_and_unroutable_ones() {
        let slice = json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": []},
                {"addresses": ["127.0.0.1", "::1", "10.0.0.1"], "hostname": "A"},
            ],
            "ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "ICMP"}],
        });
        let errors = EndpointSliceStrategy.validate(&slice);
        let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
        let expected = [
            "ports[1].name",
            "ports[1].protocol",
            "endpoints[0].addresses",
            "endpoints[1].addresses[0]",
            "endpoints[1].addresses",
            "endpoints[1].addresses[1]",
            "endpoints[1].hostname",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn validates_domain_names_and_drops_topology() {
        for (name, errors) in
            [("db.example.com", 0), ("db.example.com.", 0), ("db", 1), ("not a name", 1), ("", 1)]
        {
            let slice = json!({"addressType": "FQDN", "endpoints": [{"addresses": [name]}]});
            assert_eq!(EndpointSliceStrategy.validate(&slice).len(), errors, "{name}");
            assert_eq!(EndpointSliceStrategy.warnings(&slice, None).len(), 1);
        }
        let mut slice = json!({"endpoints": [{"addresses": ["10.1.2.3"], "deprecatedTopology": {"a": "b"}}]});
        let stored = slice.clone();
        EndpointSliceStrategy.prepare_for_update(&mut slice, &stored);
        assert_eq!(slice, stored);
        EndpointSliceStrategy.prepare_for_create(&mut slice);
        assert_eq!(slice, json!({"endpoints": [{"addresses": ["10.1.2.3"]}]}));
    }

    #[test]
    fn address_type_is_immutable() {
        let of = |kind: &str| json!({"addressType": kind});
        assert_eq!(messages(&EndpointSliceStrategy.validate_update(&of("IPv4"), &of("IPv4"))), [""; 0]);
        assert_eq!(
            messages(&EndpointSliceStrategy.validate_update(&of("IPv6"), &of("IPv4"))),
            [r#"addressType: Invalid value: "IPv6": field is immutable"#]
        );
        assert_eq!(messages(&EndpointSliceStrategy.validate(&json!({}))), ["addressType: Required value"]);
    }
}
