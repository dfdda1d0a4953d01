//! Conversion from and to `v1beta1`, which has the fields of an exact request in the request itself, and those of a device
//! in `basic` (upstream: `pkg/apis/resource/v1beta1/conversion.go`).

use nave_machinery::{GroupVersion, Map, Value};

use crate::convert::{ConversionError, relabel};
use crate::defaults::{each, object_at};

const BETA: &str = "v1beta1";
/// The fields of an exact request.
const EXACT: [&str; 7] =
    ["adminAccess", "allocationMode", "capacity", "count", "deviceClassName", "selectors", "tolerations"];

/// Converts an object with requests at `path`, such as a claim.
pub(super) fn requests(
    object: &mut Value,
    path: &[&str],
    from: &GroupVersion,
    to: &GroupVersion,
) -> Result<(), ConversionError> {
    let change = match (from.version == BETA, to.version == BETA) {
        (true, false) => nest_request,
        (false, true) => flatten_request,
        _ => return relabel(object, from, to),
    };
    if let Some(devices) = object.as_object_mut().and_then(|object| object_at(object, path)) {
        each(devices, "requests").for_each(change);
    }
    relabel(object, from, to)
}

/// Converts a resource slice.
pub(super) fn slice(
    object: &mut Value,
    from: &GroupVersion,
    to: &GroupVersion,
) -> Result<(), ConversionError> {
    let change = match (from.version == BETA, to.version == BETA) {
        (true, false) => unnest_device,
        (false, true) => nest_device,
        _ => return relabel(object, from, to),
    };
    if let Some(spec) = object.as_object_mut().and_then(|object| object_at(object, &["spec"])) {
        // These fields are no pointers in v1beta1.
        spec.retain(|field, value| match field.as_str() {
            "nodeName" => value != "",
            "allNodes" => *value != Value::Bool(false),
            _ => true,
        });
        each(spec, "devices").for_each(change);
    }
    relabel(object, from, to)
}

fn nest_request(request: &mut Map) {
    let fields = EXACT.into_iter().filter_map(|field| request.remove_entry(field));
    let exactly: Map = fields.filter(|(_, value)| !value.is_null()).collect();
    let is_set = |(field, value): (&String, &Value)| field != "deviceClassName" || value != "";
    if exactly.iter().any(is_set) {
        request.insert("exactly".to_owned(), Value::Object(exactly));
    }
}

fn flatten_request(request: &mut Map) {
    request.entry("deviceClassName").or_insert_with(|| "".into());
    if let Some(Value::Object(exactly)) = request.remove("exactly") {
        request.extend(exactly);
    }
}

fn nest_device(device: &mut Map) {
    let name = device.remove_entry("name");
    let basic = std::mem::take(device);
    device.extend(name);
    device.insert("basic".to_owned(), Value::Object(basic));
}

fn unnest_device(device: &mut Map) {
    if let Some(Value::Object(basic)) = device.remove("basic") {
        device.extend(basic);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(name: &str) -> GroupVersion {
        GroupVersion::new("resource.k8s.io", name)
    }

    #[test]
    fn requests_are_nested_and_flattened() {
        let path = &["spec", "devices"];
        for (beta, stable) in [
            (
                json!({"name": "a", "deviceClassName": "gpu", "count": 2, "selectors": [{"cel": {}}]}),
                json!({"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2, "selectors": [{"cel": {}}]}}),
            ),
            (
                json!({"name": "a", "deviceClassName": "", "firstAvailable": [{"name": "b"}]}),
                json!({"name": "a", "firstAvailable": [{"name": "b"}]}),
            ),
            (
                json!({"name": "a", "deviceClassName": "", "allocationMode": "All"}),
                json!({"name": "a", "exactly": {"deviceClassName": "", "allocationMode": "All"}}),
            ),
        ] {
            let claim = |version: &str, request: &Value| {
                json!({"apiVersion": format!("resource.k8s.io/{version}"),
                    "spec": {"devices": {"requests": [request]}}})
            };
            let mut object = claim("v1beta1", &beta);
            requests(&mut object, path, &version("v1beta1"), &version("v1")).unwrap();
            assert_eq!(object, claim("v1", &stable));
            requests(&mut object, path, &version("v1"), &version("v1beta1")).unwrap();
            assert_eq!(object, claim("v1beta1", &beta));
            let mut other = claim("v1beta2", &stable);
            requests(&mut other, path, &version("v1beta2"), &version("v1")).unwrap();
            assert_eq!(other, claim("v1", &stable));
        }
    }

    #[test]
    fn devices_of_slices_lose_and_get_basic() {
        let mut object = json!({"apiVersion": "resource.k8s.io/v1beta1", "spec": {"nodeName": "", "allNodes": false,
            "devices": [{"name": "a", "basic": {"taints": [], "nodeName": "n"}}, {"name": "b"}]}});
        slice(&mut object, &version("v1beta1"), &version("v1")).unwrap();
        let stable = json!({"apiVersion": "resource.k8s.io/v1",
            "spec": {"devices": [{"name": "a", "taints": [], "nodeName": "n"}, {"name": "b"}]}});
        assert_eq!(object, stable);
        slice(&mut object, &version("v1"), &version("v1beta1")).unwrap();
        let beta = json!({"apiVersion": "resource.k8s.io/v1beta1", "spec": {"devices": [
            {"name": "a", "basic": {"taints": [], "nodeName": "n"}}, {"name": "b", "basic": {}}]}});
        assert_eq!(object, beta);
    }
}
