//! Quota scopes: the objects that a quota counts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, PersistentVolumeClaim, Pod, PodSpec, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WrittenQuantity;
use nave_machinery::quantity::Quantity;

/// The scope that selects pods by priority class.
const PRIORITY_CLASS: &str = "PriorityClass";
/// The scope that selects claims by volume attributes class.
const ATTRIBUTES_CLASS: &str = "VolumeAttributesClass";

/// Returns whether a quota counts a pod.
pub fn include_pod(quota: &ResourceQuotaSpec, pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return !is_scoped(quota) };
    let selected =
        quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    quota.scopes.iter().flatten().all(|scope| matches(scope, spec))
        && selected.into_iter().all(|requirement| selects_pod(requirement, spec))
}

/// Returns whether a quota counts a volume claim.
pub fn include_claim(quota: &ResourceQuotaSpec, claim: &PersistentVolumeClaim) -> bool {
    let selected =
        quota.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    quota
        .scopes
        .iter()
        .flatten()
        .all(|scope| scope == ATTRIBUTES_CLASS && !attributes_classes(claim).is_empty())
        && selected.into_iter().all(|requirement| selects_claim(requirement, claim))
}

/// Returns whether a quota is restricted to certain pods or claims. Such a quota counts no other objects.
pub fn is_scoped(quota: &ResourceQuotaSpec) -> bool {
    let selected = quota.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_ref());
    quota.scopes.iter().flatten().next().is_some() || selected.is_some_and(|selected| !selected.is_empty())
}

/// Returns whether a pod matches a scope selector requirement.
pub fn selects_pod(requirement: &ScopedResourceSelectorRequirement, pod: &PodSpec) -> bool {
    if requirement.scope_name != PRIORITY_CLASS {
        return matches(&requirement.scope_name, pod);
    }
    let class = pod.priority_class_name.as_deref().filter(|class| !class.is_empty());
    selects_class(requirement, class)
}

/// Returns whether a claim matches a scope selector requirement.
pub fn selects_claim(requirement: &ScopedResourceSelectorRequirement, claim: &PersistentVolumeClaim) -> bool {
    if requirement.scope_name != ATTRIBUTES_CLASS {
        return false;
    }
    match attributes_classes(claim).as_slice() {
        [] => selects_class(requirement, None),
        classes => classes.iter().any(|class| selects_class(requirement, Some(class))),
    }
}

fn selects_class(requirement: &ScopedResourceSelectorRequirement, class: Option<&str>) -> bool {
    let among = |class: &str| requirement.values.iter().flatten().any(|value| value == class);
    match requirement.operator.as_str() {
        "In" => class.is_some_and(among),
        "NotIn" => !class.is_some_and(among),
        "Exists" => class.is_some(),
        "DoesNotExist" => class.is_none(),
        _ => false,
    }
}

/// Returns the current, requested and target volume attributes classes of a claim.
fn attributes_classes(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let status = claim.status.as_ref();
    let requested = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|status| {
        status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()
    });
    [requested, current, target].into_iter().flatten().filter(|class| !class.is_empty()).collect()
}

fn matches(scope: &str, pod: &PodSpec) -> bool {
    match scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        PRIORITY_CLASS => pod.priority_class_name.as_ref().is_some_and(|class| !class.is_empty()),
        "CrossNamespacePodAffinity" => pod.affinity.as_ref().is_some_and(names_namespaces),
        _ => false,
    }
}

fn is_terminating(pod: &PodSpec) -> bool {
    pod.active_deadline_seconds.is_some_and(|seconds| seconds >= 0)
}

/// Returns whether all containers and the pod lack requests and limits for CPU and memory.
fn is_best_effort(pod: &PodSpec) -> bool {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    let mut needs = containers.map(|container| &container.resources).chain([&pod.resources]).flatten();
    let mentions = |list: &Option<BTreeMap<String, WrittenQuantity>>| {
        let list = list.as_ref();
        list.is_some_and(|list| {
            ["cpu", "memory"].iter().any(|name| {
                list.get(*name).is_some_and(|amount| {
                    Quantity::parse(&amount.0).is_ok_and(|amount| !amount.is_zero() && !amount.is_negative())
                })
            })
        })
    };
    !needs.any(|needs| mentions(&needs.requests) || mentions(&needs.limits))
}

/// Returns whether a pod's affinity or anti-affinity refers to namespaces.
fn names_namespaces(affinity: &Affinity) -> bool {
    let near = affinity.pod_affinity.as_ref().map(|near| {
        (
            &near.required_during_scheduling_ignored_during_execution,
            &near.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let far = affinity.pod_anti_affinity.as_ref().map(|far| {
        (
            &far.required_during_scheduling_ignored_during_execution,
            &far.preferred_during_scheduling_ignored_during_execution,
        )
    });
    near.into_iter().chain(far).any(|(required, preferred)| {
        let preferred = preferred.iter().flatten().map(|weighted| &weighted.pod_affinity_term);
        required.iter().flatten().chain(preferred).any(|term| {
            term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
                || term.namespace_selector.is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn includes(quota: Value, pod: &Value) -> bool {
        let quota = serde_json::from_value(quota).unwrap();
        let mut spec = json!({"containers": [{"name": "c"}]});
        spec.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
        include_pod(&quota, &serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    #[test]
    fn scopes_select_pods() {
        let term = json!({"topologyKey": "t", "namespaces": ["n"]});
        let cases = [
            ("Terminating", json!({"activeDeadlineSeconds": 5}), json!({})),
            ("NotTerminating", json!({}), json!({"activeDeadlineSeconds": 5})),
            (
                "BestEffort",
                json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "0"}}}]}),
                json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}),
            ),
            ("NotBestEffort", json!({"resources": {"requests": {"memory": "1"}}}), json!({})),
            ("PriorityClass", json!({"priorityClassName": "high"}), json!({})),
            (
                "CrossNamespacePodAffinity",
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
                json!({"affinity": {"podAffinity": {}}}),
            ),
            ("Unknown", json!(null), json!({})),
        ];
        for (scope, inside, outside) in cases {
            let by_name = json!({"scopes": [scope]});
            let by_selector =
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": "Exists"}]}});
            for quota in [by_name, by_selector] {
                assert!(inside.is_null() || includes(quota.clone(), &inside), "{scope}");
                assert!(!includes(quota, &outside), "{scope}");
            }
        }
        assert!(includes(json!({}), &json!({})));
    }

    #[test]
    fn selects_priority_classes_by_value() {
        let quota = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        let (high, none) = (json!({"priorityClassName": "high"}), json!({}));
        for (operator, values, of_high, of_none) in [
            ("In", json!(["high"]), true, false),
            ("In", json!(["low"]), false, false),
            ("NotIn", json!(["high"]), false, true),
            ("Exists", json!(null), true, false),
            ("DoesNotExist", json!(null), false, true),
        ] {
            let found = [&high, &none].map(|pod| includes(quota(operator, values.clone()), pod));
            assert_eq!(found, [of_high, of_none], "{operator} {values}");
        }
    }

    #[test]
    fn selects_claims_by_attributes_class() {
        let quota = |operator: &str, values: Value| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": ATTRIBUTES_CLASS, "operator": operator, "values": values}]}})
        };
        let includes = |quota: &Value, claim: &Value| {
            let quota = serde_json::from_value(quota.clone()).unwrap();
            include_claim(&quota, &serde_json::from_value(claim.clone()).unwrap())
        };
        let gold = json!({"spec": {"volumeAttributesClassName": "gold"}});
        let moving = json!({"spec": {}, "status": {"currentVolumeAttributesClassName": "silver",
            "modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "gold"}}});
        let none = json!({"spec": {}});
        for (quota, expected) in [
            (json!({}), [true, true, true]),
            (json!({"scopes": [ATTRIBUTES_CLASS]}), [true, true, false]),
            (json!({"scopes": ["BestEffort"]}), [false, false, false]),
            (quota("In", json!(["gold"])), [true, true, false]),
            (quota("In", json!(["silver"])), [false, true, false]),
            (quota("NotIn", json!(["gold"])), [false, true, true]),
            (quota("DoesNotExist", json!(null)), [false, false, true]),
        ] {
            assert_eq!([&gold, &moving, &none].map(|claim| includes(&quota, claim)), expected, "{quota}");
        }
    }

    #[test]
    fn recognizes_scoped_quotas() {
        let scoped = |quota: Value| is_scoped(&serde_json::from_value(quota).unwrap());
        assert!(
            !scoped(json!({})) && !scoped(json!({"scopes": [], "scopeSelector": {"matchExpressions": []}}))
        );
        assert!(scoped(json!({"scopes": ["BestEffort"]})));
    }
}
