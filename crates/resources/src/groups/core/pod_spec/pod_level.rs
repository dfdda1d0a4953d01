//! Defaults of the resources of a whole pod, from those of its containers (upstream: `defaultHugePagePodLimits` and
//! `defaultPodRequests`).

use std::collections::BTreeMap;

use nave_machinery::quantity::Quantity;
use nave_machinery::{Map, Value};

use crate::defaults::{object, object_at};

const HUGE_PAGES: &str = "hugepages-";

/// Sets missing resources of a pod that has some. Limits of huge pages are those of the containers. Requests of CPU and
/// memory are those of the containers, all others are the limits.
pub(crate) fn resources(spec: &mut Map) {
    let Some(Value::Object(own)) = spec.get("resources") else { return };
    let has = |list: &str| own.get(list).and_then(Value::as_object).is_some_and(|list| !list.is_empty());
    let (has_limits, has_requests) = (has("limits"), has("requests"));
    if !has_limits && !has_requests {
        return;
    }
    let limits = of_containers(spec, "limits");
    let requests = of_containers(spec, "requests");
    let Some(own) = object_at(spec, &["resources"]) else { return };
    let requested: Vec<String> = own
        .get("requests")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    let pages =
        limits.into_iter().filter(|(name, _)| name.starts_with(HUGE_PAGES) && !requested.contains(name));
    fill(own, "limits", pages.collect());
    let limits = own.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty());
    let Some(limits) = limits.cloned() else { return };
    fill(own, "requests", requests.into_iter().filter(|(name, _)| is_compute(name)).collect());
    let limits = limits.into_iter().filter(|(name, _)| is_compute(name) || name.starts_with(HUGE_PAGES));
    fill(own, "requests", limits.collect());
}

fn is_compute(name: &str) -> bool {
    matches!(name, "cpu" | "memory")
}

fn fill(resources: &mut Map, list: &str, amounts: Vec<(String, Value)>) {
    let Some(amounts_of_pod) = (!amounts.is_empty()).then(|| object(resources, list)).flatten() else {
        return;
    };
    for (name, amount) in amounts {
        amounts_of_pod.entry(name).or_insert(amount);
    }
}

/// Returns the effective amounts of all containers: the sum of those that run together, or the most that an init
/// container needs while it runs beside the sidecars before it.
fn of_containers(spec: &Map, list: &str) -> Vec<(String, Value)> {
    let items = |kind: &str| spec.get(kind).and_then(Value::as_array).into_iter().flatten();
    let mut sum = BTreeMap::new();
    for container in items("containers") {
        add(&mut sum, &amounts(container, list));
    }
    let (mut sidecars, mut start) = (BTreeMap::new(), BTreeMap::new());
    for container in items("initContainers") {
        let mut own = amounts(container, list);
        if container.get("restartPolicy").is_some_and(|policy| policy == "Always") {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut start, own);
    }
    raise(&mut sum, start);
    sum.into_iter().map(|(name, amount)| (name, Value::String(amount.to_string()))).collect()
}

/// Returns the readable amounts of a container. Validation reports the others.
fn amounts(container: &Value, list: &str) -> BTreeMap<String, Quantity> {
    let amounts =
        container.get("resources").and_then(|resources| resources.get(list)).and_then(Value::as_object);
    let parsed =
        |(name, amount): (&String, &Value)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?));
    amounts.into_iter().flatten().filter_map(parsed).collect()
}

fn add(sum: &mut BTreeMap<String, Quantity>, amounts: &BTreeMap<String, Quantity>) {
    for (name, amount) in amounts {
        sum.entry(name.clone()).and_modify(|sum| *sum = *sum + *amount).or_insert(*amount);
    }
}

fn raise(most: &mut BTreeMap<String, Quantity>, amounts: BTreeMap<String, Quantity>) {
    for (name, amount) in amounts {
        let most = most.entry(name).or_insert(amount);
        if amount > *most {
            *most = amount;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fills_the_resources_of_a_pod() {
        let container = |resources: Value| json!({"name": "c", "resources": resources});
        let small = json!({"requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "1"}, "limits": {"hugepages-2Mi": "4Mi"}});
        let cases = [
            // Without resources of the pod nothing is set.
            (json!({}), json!({})),
            // A request alone stays alone, but for the limits of huge pages, which become requests too.
            (
                json!({"requests": {"cpu": "2"}}),
                json!({"limits": {"hugepages-2Mi": "8Mi"}, "requests": {"cpu": "2", "memory": "2Gi", "hugepages-2Mi": "8Mi"}}),
            ),
            (
                json!({"limits": {"cpu": "4"}}),
                json!({"limits": {"cpu": "4", "hugepages-2Mi": "8Mi"}, "requests": {"cpu": "1", "memory": "2Gi", "hugepages-2Mi": "8Mi"}}),
            ),
            // A requested amount of huge pages needs its limit.
            (
                json!({"limits": {"cpu": "4"}, "requests": {"hugepages-2Mi": "2Mi"}}),
                json!({"limits": {"cpu": "4"}, "requests": {"cpu": "1", "memory": "2Gi", "hugepages-2Mi": "2Mi"}}),
            ),
        ];
        for (given, expected) in cases {
            let mut spec = json!({"containers": [container(small.clone()), container(small.clone())], "resources": given});
            resources(spec.as_object_mut().unwrap());
            assert_eq!(spec["resources"], expected, "{given}");
        }
    }

    #[test]
    fn counts_init_containers_beside_sidecars() {
        let with = |cpu: &str, policy: Option<&str>| json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({"containers": [with("1", None)], "initContainers": [with("2", Some("Always")), with("4", None)]});
        assert_eq!(of_containers(spec.as_object().unwrap(), "requests"), [("cpu".to_owned(), json!("6"))]);
    }
}
