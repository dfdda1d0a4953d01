//! The quota usage of resource claims.

use nave_machinery::Value;
use nave_machinery::quantity::Quantity;

use super::{Usage, one};
use crate::read;

const COUNT: &str = "count/resourceclaims.resource.k8s.io";
/// The suffix of quota names that count the devices of a device class.
const OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// The maximum number of devices for `allocationMode: All`.
const ALL_DEVICES: i64 = 32;

/// Returns the usage of a resource claim. A request with alternatives uses the maximum number of devices per device
/// class.
pub fn resource_claim(claim: &Value) -> Usage {
    let mut usage = Usage::from([(COUNT.to_owned(), one())]);
    for request in read::list(claim, "spec.devices.requests") {
        let mut needed = Usage::new();
        let alternatives = read::list(request, "firstAvailable");
        for request in alternatives.iter().chain(request.get("exactly").filter(|_| alternatives.is_empty())) {
            let devices = match read::text_or(request, "allocationMode", "ExactCount") {
                "ExactCount" => read::value_at(request, "count").and_then(Value::as_i64).unwrap_or(1),
                "All" => ALL_DEVICES,
                _ => 0,
            };
            let name = format!("{}{OF_CLASS}", read::text(request, "deviceClassName"));
            super::raise(&mut needed, &Usage::from([(name, Quantity::from_value(devices))]));
        }
        super::add(&mut usage, &needed);
    }
    usage
}

/// Returns whether a quota counts resource claims under this name.
pub fn is_resource_claim_name(name: &str) -> bool {
    name == COUNT || is_device_name(name)
}

/// Returns whether a quota counts the devices of a device class under this name.
pub fn is_device_name(name: &str) -> bool {
    name.ends_with(OF_CLASS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_devices_by_class() {
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
            {"name": "b", "exactly": {"deviceClassName": "gpu"}},
            {"name": "c", "exactly": {"deviceClassName": "nic", "allocationMode": "All"}},
            {"name": "d", "firstAvailable": [
                {"name": "x", "deviceClassName": "gpu", "count": 4},
                {"name": "y", "deviceClassName": "gpu", "count": 8},
                {"name": "z", "deviceClassName": "fpga", "count": 1}]}]}}});
        let found: Vec<_> =
            resource_claim(&claim).into_iter().map(|(name, amount)| (name, amount.to_string())).collect();
        let expected = [
            ("count/resourceclaims.resource.k8s.io", "1"),
            ("fpga.deviceclass.resource.k8s.io/devices", "1"),
            ("gpu.deviceclass.resource.k8s.io/devices", "11"),
            ("nic.deviceclass.resource.k8s.io/devices", "32"),
        ];
        assert_eq!(found, expected.map(|(name, amount)| (name.to_owned(), amount.to_owned())));
        assert!(found.iter().all(|(name, _)| is_resource_claim_name(name)));
        assert!(is_device_name("gpu.deviceclass.resource.k8s.io/devices") && !is_device_name(COUNT));
        assert!(!is_resource_claim_name("count/pods"));
    }
}
