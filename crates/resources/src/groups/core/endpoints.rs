//! `Endpoints`, the legacy form of endpoint slices.

use nave_machinery::{Value, names};

use crate::defaults::{each, set};
use crate::ip::{ip, ip_warning, routable};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, one_of, port_number, required_text};

/// The strategy of endpoints.
pub(super) struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, endpoints: &mut Value, _version: &str) {
        let Some(fields) = endpoints.as_object_mut() else { return };
        for subset in each(fields, "subsets") {
            for port in each(subset, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, endpoints: &Value) -> Errors {
        let mut errors = Errors::new();
        subsets(At::root(endpoints), &mut errors);
        errors
    }

    fn validate_update(&self, endpoints: &Value, old: &Value) -> Errors {
        // Unchanged subsets are not checked, because they may be older than a rule.
        if endpoints.get("subsets") == old.get("subsets") { Errors::new() } else { self.validate(endpoints) }
    }

    fn warnings(&self, endpoints: &Value, _old: Option<&Value>) -> Vec<String> {
        let root = At::root(endpoints);
        let mut warnings = Vec::new();
        for subset in root.field("subsets").items() {
            for list in ["addresses", "notReadyAddresses"] {
                let list = subset.field(list);
                warnings.extend(list.items().filter_map(|address| ip_warning(address.field("ip"))));
            }
        }
        warnings
    }
}

fn subsets(root: At, errors: &mut Errors) {
    for subset in root.field("subsets").items() {
        let (ready, waiting) = (subset.field("addresses"), subset.field("notReadyAddresses"));
        if ready.len() == 0 && waiting.len() == 0 {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        ready.items().chain(waiting.items()).for_each(|it| address(it, errors));
        let ports = subset.field("ports");
        ports.items().for_each(|it| port(it, ports.len() > 1, errors));
    }
}

fn address(address: At, errors: &mut Errors) {
    let (at, hostname, node) = (address.field("ip"), address.field("hostname"), address.field("nodeName"));
    let parsed = ip(at, errors);
    if !hostname.text().is_empty() {
        checked(hostname, names::is_dns1123_label, errors);
    }
    if node.is_set() {
        checked(node, names::is_dns1123_subdomain, errors);
    }
    match parsed {
        Some(ip) => routable(at, ip, errors),
        // Upstream checks the address twice.
        None => errors.push(at.invalid_text("must be a valid IP address")),
    }
}

fn port(port: At, is_one_of_many: bool, errors: &mut Errors) {
    let (name, protocol, application) =
        (port.field("name"), port.field("protocol"), port.field("appProtocol"));
    if !name.text().is_empty() {
        checked(name, names::is_dns1123_label, errors);
    } else if is_one_of_many {
        errors.push(name.required(""));
    }
    port_number(port.field("port"), errors);
    if required_text(protocol, errors) {
        one_of(protocol, &["SCTP", "TCP", "UDP"], errors);
    }
    if application.is_set() {
        checked(application, names::is_qualified_name, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rejects_unroutable_addresses() {
        for (subset, expected) in [
            (json!({"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80, "protocol": "TCP"}]}), &[][..]),
            (json!({}), &["subsets[0]"]),
            (json!({"addresses": [{"ip": "127.0.0.1"}]}), &["subsets[0].addresses[0].ip"]),
            (
                json!({"notReadyAddresses": [{"ip": "x"}]}),
                &["subsets[0].notReadyAddresses[0].ip", "subsets[0].notReadyAddresses[0].ip"],
            ),
            (
                json!({"addresses": [{"ip": "10.1.2.3", "nodeName": "A", "hostname": "a.b"}]}),
                &["subsets[0].addresses[0].hostname", "subsets[0].addresses[0].nodeName"],
            ),
            (
                json!({"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80, "protocol": "TCP"}, {"port": 0, "protocol": "x", "name": "a", "appProtocol": "a b"}]}),
                &[
                    "subsets[0].ports[0].name",
                    "subsets[0].ports[1].port",
                    "subsets[0].ports[1].protocol",
                    "subsets[0].ports[1].appProtocol",
                ],
            ),
        ] {
            let endpoints = json!({"subsets": [subset]});
            let errors = EndpointsStrategy.validate(&endpoints);
            let fields: Vec<_> = errors.iter().map(|error| error.field.to_string()).collect();
            assert_eq!(fields, expected, "{subset}");
            assert_eq!(EndpointsStrategy.validate_update(&endpoints, &endpoints), []);
        }
    }

    #[test]
    fn warns_about_non_canonical_addresses() {
        let endpoints = json!({"subsets": [{"addresses": [{"ip": "2001:DB8::1"}, {"ip": "10.1.2.3"}]}]});
        assert_eq!(EndpointsStrategy.warnings(&endpoints, None).len(), 1);
    }
}
