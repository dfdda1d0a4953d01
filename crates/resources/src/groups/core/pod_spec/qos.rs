//! The quality of service class of a pod (upstream: `pkg/apis/core/v1/helper/qos`).

use nave_machinery::quantity::Quantity;
use nave_machinery::{Map, Value};

/// The resources that determine the class.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The sum of each compute resource, in thousandths; `None` if the resource is missing in all containers.
type Sums = [Option<i128>; COMPUTE.len()];

/// Returns `Guaranteed` if every container has limits and equal requests, `BestEffort` if all containers lack both,
/// and `Burstable` otherwise. Pod-level resources, if present, replace the containers' resources.
pub(crate) fn class(pod: &Value) -> &'static str {
    let Some(spec) = pod.get("spec") else { return "BestEffort" };
    let (mut requests, mut limits) = (Sums::default(), Sums::default());
    let mut all_limited = true;
    if let Some(resources) =
        spec.get("resources").filter(|it| it.as_object().is_some_and(|map| !map.is_empty()))
    {
        add(&mut requests, resources.get("requests"));
        all_limited = add(&mut limits, resources.get("limits"));
    } else {
        let lists = ["containers", "initContainers"].map(|kind| spec.get(kind).and_then(Value::as_array));
        for container in lists.into_iter().flatten().flatten() {
            let resources = container.get("resources");
            add(&mut requests, resources.and_then(|it| it.get("requests")));
            all_limited &= add(&mut limits, resources.and_then(|it| it.get("limits")));
        }
    }
    if requests == Sums::default() && limits == Sums::default() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the positive amounts. Returns whether all compute resources are present.
fn add(sums: &mut Sums, list: Option<&Value>) -> bool {
    let Some(list) = list.and_then(Value::as_object) else { return false };
    let mut all = true;
    for (name, sum) in COMPUTE.into_iter().zip(sums) {
        match amount(list, name) {
            Some(amount) => *sum = Some(sum.unwrap_or_default() + amount),
            None => all = false,
        }
    }
    all
}

fn amount(list: &Map, name: &str) -> Option<i128> {
    let quantity = match list.get(name)? {
        Value::String(text) => Quantity::parse(text).ok()?,
        other => Quantity::from_value(other.as_i64()?),
    };
    let milli = i128::from(quantity.milli_value());
    (milli > 0).then_some(milli)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn class_depends_on_requests_and_limits() {
        let full =
            json!({"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        let cases = [
            (json!([{}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
            (json!([{"resources": full}]), "Guaranteed"),
            (json!([{"resources": full}, {}]), "Burstable"),
            (json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
        ];
        for (containers, expected) in cases {
            assert_eq!(class(&json!({"spec": {"containers": containers}})), expected);
        }
        assert_eq!(class(&json!({"spec": {"resources": full, "containers": [{}]}})), "Guaranteed");
    }
}
