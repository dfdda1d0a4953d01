//! Validation of the status of resource claims: allocation, reservations and device status (upstream:
//! `pkg/apis/resource/validation` and `pkg/registry/resource/resourceclaim`).

use std::collections::HashSet;
use std::net::IpAddr;

use nave_machinery::{FieldError, Value, names};

use super::parts::{binding_conditions, each, pool_name, raw, unique};
use super::validation::{CONFIGS_MAX, REQUESTS_MAX, Requests, opaque, reference, references, request_names};
use crate::conditions::conditions;
use crate::groups::core::pod_spec::affinity;
use crate::read;
use crate::validate::{At, Errors, checked, driver_name, immutable, required_text};

const RESERVED_MAX: usize = 256;
const CONDITIONS_MAX: usize = 8;
const DATA_MAX: usize = 10 * 1024;
const INTERFACE_MAX: usize = 256;
const HARDWARE_MAX: usize = 128;
const ADDRESSES_MAX: usize = 16;

/// A device, identified by driver, pool, name and share ID.
type Device<'v> = [&'v str; 4];

/// Drops the status of devices that are no longer allocated.
pub(super) fn drop_deallocated(claim: &mut Value, old: &Value) {
    let gone: HashSet<[String; 4]> = {
        let (new, old) = (At::root(claim), At::root(old));
        let allocated = allocated(new.field("status"));
        let before = self::allocated(old.field("status"));
        before.difference(&allocated).map(|device| device.map(str::to_owned)).collect()
    };
    let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) else { return };
    let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) else { return };
    devices.retain(|item| !gone.contains(&device(At::root(item)).map(str::to_owned)));
    if devices.is_empty() {
        status.remove("devices");
    }
}

/// Checks an update of the status.
pub(super) fn update(claim: &Value, old: &Value) -> Errors {
    let mut errors = Errors::new();
    let (root, old) = (At::root(claim), At::root(old));
    let (status, old_status) = (root.field("status"), old.field("status"));
    let requests = request_names(root.field("spec"));
    let reserved = status.field("reservedFor");
    each(reserved, RESERVED_MAX, &mut errors, |consumer, errors| {
        for field in ["resource", "name", "uid"] {
            required_text(consumer.field(field), errors);
        }
    });
    unique(reserved, RESERVED_MAX, &mut errors, |consumer| consumer.field("uid").text());
    devices(status, &mut errors);
    let (allocation, old_allocation) = (status.field("allocation"), old_status.field("allocation"));
    if reserved.len() > 0 && !allocation.is_set() {
        errors.push(reserved.forbidden("may not be specified when `allocated` is not set"));
    } else if read::is_being_deleted(claim) && has_more(reserved, old_status.field("reservedFor")) {
        errors.push(reserved.forbidden(
            "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
        ));
    }
    match (old_allocation.is_set(), allocation.is_set()) {
        (true, true) => immutable(allocation, old_allocation, &mut errors),
        (false, true) => self::allocation(allocation, &requests, &mut errors),
        _ => {}
    }
    errors
}

fn has_more(new: At, old: At) -> bool {
    new.items().any(|item| !old.items().any(|old| old.value() == item.value()))
}

fn device<'v>(at: At<'_, 'v>) -> Device<'v> {
    ["driver", "pool", "device", "shareID"].map(|field| at.field(field).text())
}

/// Returns the devices allocated to a claim.
fn allocated<'v>(status: At<'_, 'v>) -> HashSet<Device<'v>> {
    let allocation = status.field("allocation");
    let devices = allocation.field("devices");
    devices.field("results").items().map(device).collect()
}

/// Checks the status of allocated devices that drivers report.
fn devices(status: At, errors: &mut Errors) {
    let allocated = allocated(status);
    let mut seen = HashSet::new();
    for item in status.field("devices").items() {
        named_device(item, errors);
        let device = device(item);
        if !allocated.contains(&device) {
            let why = "must be an allocated device in the claim";
            errors.push(FieldError::invalid(&item.path(), device.join("/"), why));
        }
        let conditions = item.field("conditions");
        if conditions.len() > CONDITIONS_MAX {
            errors.push(conditions.too_many(CONDITIONS_MAX));
        }
        self::conditions(conditions, errors);
        if item.field("data").is_set() {
            raw(item.field("data"), DATA_MAX, errors);
        }
        network(item.field("networkData"), errors);
        if !seen.insert(device) {
            errors.push(FieldError::duplicate(&item.path(), device.join("/")));
        }
    }
}

fn named_device(device: At, errors: &mut Errors) {
    driver_name(device.field("driver"), errors);
    pool_name(device.field("pool"), errors);
    checked(device.field("device"), names::is_dns1123_label, errors);
    let share = device.field("shareID");
    if share.is_set() && !is_uuid(share.text()) {
        let why = "must be a UUID of lower case hexadecimal digits, in groups of 8-4-4-4-12";
        errors.push(share.invalid(why));
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || is_digit(byte))
}

fn network(network: At, errors: &mut Errors) {
    for (field, max) in [("interfaceName", INTERFACE_MAX), ("hardwareAddress", HARDWARE_MAX)] {
        let at = network.field(field);
        if at.text().len() > max {
            errors.push(FieldError::too_long(&at.path(), max));
        }
    }
    let addresses = network.field("ips");
    each(addresses, ADDRESSES_MAX, errors, |address, errors| {
        errors.extend(wrong_address(address.text()).map(|why| address.invalid_text(why)));
    });
    unique(addresses, ADDRESSES_MAX, errors, |address| address.text());
}

/// Returns the error of a network address with prefix length that is malformed or not canonical.
fn wrong_address(text: &str) -> Option<String> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        Some((address, length.parse::<u8>().ok().filter(|length| *length <= most)?))
    });
    match parsed {
        None => Some("must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned()),
        Some((address, length)) => {
            let canonical = format!("{address}/{length}");
            (canonical != text).then(|| format!("must be in canonical form (\"{canonical}\")"))
        }
    }
}

fn allocation(allocation: At, requests: &Requests, errors: &mut Errors) {
    let devices = allocation.field("devices");
    each(devices.field("results"), REQUESTS_MAX, errors, |result, errors| {
        reference(result.field("request"), requests, errors);
        named_device(result, errors);
        binding_conditions(result, errors);
    });
    // The list has the parameters of the class and of the claim.
    each(devices.field("config"), 2 * CONFIGS_MAX, errors, |config, errors| {
        let source = config.field("source");
        match source.text() {
            "" => errors.push(source.required("")),
            "FromClaim" | "FromClass" => {}
            _ => errors.push(source.not_supported(&["FromClaim", "FromClass"])),
        }
        references(config.field("requests"), requests, errors);
        opaque(config.field("opaque"), errors);
    });
    let selector = allocation.field("nodeSelector");
    if selector.is_set() {
        affinity::node_selector(selector, errors);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(status: Value) -> Value {
        json!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status})
    }

    fn allocation(more: Value) -> Value {
        let mut result = json!({"request": "r", "driver": "d.com", "pool": "p", "device": "x"});
        result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"devices": {"results": [result]}})
    }

    fn update_errors(status: Value, old: Value) -> Vec<String> {
        let errors = update(&claim(status), &claim(old));
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn allocated_devices_are_unique_and_requested() {
        let consumer = json!({"resource": "pods", "name": "p", "uid": "u"});
        let sound = allocation(json!({}));
        assert_eq!(
            update_errors(json!({"allocation": sound, "reservedFor": [consumer]}), json!({})),
            [""; 0]
        );
        for (status, expected) in [
            (json!({"reservedFor": [consumer]}), &["status.reservedFor"][..]),
            (
                json!({"allocation": sound, "reservedFor": [{}, {}]}),
                &[
                    "status.reservedFor[0].resource",
                    "status.reservedFor[0].name",
                    "status.reservedFor[0].uid",
                    "status.reservedFor[1].resource",
                    "status.reservedFor[1].name",
                    "status.reservedFor[1].uid",
                    "status.reservedFor[1]",
                ],
            ),
            (
                json!({"allocation": allocation(json!({"request": "q", "driver": "", "pool": "P", "shareID": "1"}))}),
                &["request", "driver", "pool", "shareID"]
                    .map(|field| ["status.allocation.devices.results[0].", field].concat().leak() as &str)[..],
            ),
            (
                json!({"allocation": {"devices": {"config": [{"source": "X"}]}}}),
                &["status.allocation.devices.config[0].source", "status.allocation.devices.config[0].opaque"],
            ),
        ] {
            assert_eq!(update_errors(status.clone(), json!({})), expected, "{status}");
        }
        let other = allocation(json!({"device": "y"}));
        assert_eq!(
            update_errors(json!({"allocation": other}), json!({"allocation": sound})),
            ["status.allocation"]
        );
    }

    #[test]
    fn device_status_requires_allocation() {
        let sound = allocation(json!({}));
        let status = |more: Value| {
            let mut device = json!({"driver": "d.com", "pool": "p", "device": "x"});
            device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"allocation": sound, "devices": [device]})
        };
        let old = json!({"allocation": sound});
        for (more, expected) in [
            (json!({"networkData": {"ips": ["10.0.0.1/24", "fd00::1/64"]}, "data": {}}), &[][..]),
            (json!({"device": "y"}), &["status.devices[0]"]),
            (json!({"data": 1}), &["status.devices[0].data"]),
            (
                json!({"networkData": {"ips": ["10.0.0.1", "fd00:0::1/64"], "hardwareAddress": "a".repeat(129)}}),
                &[
                    "status.devices[0].networkData.hardwareAddress",
                    "status.devices[0].networkData.ips[0]",
                    "status.devices[0].networkData.ips[1]",
                ],
            ),
        ] {
            assert_eq!(update_errors(status(more.clone()), old.clone()), expected, "{more}");
        }
        let mut freed = claim(json!({"devices": [{"driver": "d.com", "pool": "p", "device": "x"}]}));
        drop_deallocated(&mut freed, &claim(old));
        assert_eq!(freed["status"], json!({}));
    }
}
