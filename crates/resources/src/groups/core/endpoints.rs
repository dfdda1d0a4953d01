//! Endpoints, the older form of endpoint slices.

use nave_machinery::{Value, names};

use crate::defaults::{each, set};
use crate::strategy::Strategy;
use crate::validate::{At, Errors, checked, ip, one_of, port_number};

/// What is particular to endpoints.
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
        let root = At::root(endpoints);
        for subset in root.field("subsets").items() {
            let (ready, waiting) = (subset.field("addresses"), subset.field("notReadyAddresses"));
            if ready.len() == 0 && waiting.len() == 0 {
                errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
            }
            for address in ready.items().chain(waiting.items()) {
                ip(address.field("ip"), &mut errors);
                if !address.field("hostname").text().is_empty() {
                    checked(address.field("hostname"), names::is_dns1123_label, &mut errors);
                }
            }
            let ports = subset.field("ports");
            for port in ports.items() {
                let name = port.field("name");
                if !name.text().is_empty() {
                    checked(name, names::is_dns1123_label, &mut errors);
                } else if ports.len() > 1 {
                    errors.push(name.required(""));
                }
                port_number(port.field("port"), &mut errors);
                one_of(port.field("protocol"), &["SCTP", "TCP", "UDP"], &mut errors);
            }
        }
        errors
    }
}
