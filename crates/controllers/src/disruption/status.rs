//! The status of a pod disruption budget, computed from the budget, its pods and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::int_or_percent;
use crate::pods;
use crate::selectors::written_as_go;
use crate::time_arithmetic::saturating_add;

/// The time after which an allowed eviction times out if its pod is not deleted.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// The type of the condition.
pub(super) const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// The basis for the expected number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// The number of selected pods.
    SelectedPods,
    /// The total scale of the pods' controllers.
    Scale(i64),
}

/// Returns whether the budget depends on the scale of the pods' controllers instead of the number of pods.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The evictions in progress.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OngoingEvictions {
    /// Pods, with the time their eviction was allowed.
    pub(super) pods: BTreeMap<String, Time>,
    /// The time until the next eviction times out.
    pub(super) recheck: Option<Duration>,
    /// Pods whose eviction has timed out.
    pub(super) overdue: Vec<String>,
}

/// Returns the evictions in a budget's status that are still in progress.
pub(super) fn ongoing_evictions(
    budget: &PodDisruptionBudget,
    selected: &[&Pod],
    now: Timestamp,
) -> OngoingEvictions {
    let mut disrupted = OngoingEvictions::default();
    let Some(named) = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref()) else {
        return disrupted;
    };
    for pod in selected.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(since) = named.get(name) else { continue };
        let left = saturating_add(since.0, DELETION_TIMEOUT).duration_since(now);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                disrupted.recheck = Some(disrupted.recheck.map_or(left, |earlier| earlier.min(left)));
                disrupted.pods.insert(name.to_owned(), since.clone());
            }
            _ => disrupted.overdue.push(name.to_owned()),
        }
    }
    disrupted
}

/// Returns the status of a budget.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    selected: &[&Pod],
    expected: Expected,
    disrupted: &OngoingEvictions,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let (expected, desired) = expected_and_desired(budget, selected.len() as i64, expected);
    let healthy = selected.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && !disrupted.pods.contains_key(pod.metadata.name.as_deref().unwrap_or_default())
            && pods::is_ready(pod)
    });
    let healthy = healthy.count() as i64;
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        conditions: Some(with_condition(budget, status, reason, "", now)),
        current_healthy: Some(clamp(healthy)),
        desired_healthy: Some(clamp(desired)),
        disrupted_pods: Some(disrupted.pods.clone()).filter(|pods| !pods.is_empty()),
        disruptions_allowed: Some(clamp(allowed)),
        expected_pods: Some(clamp(expected)),
        observed_generation: budget.metadata.generation,
    }
}

/// The status of a budget that could not be evaluated; it allows no disruptions.
pub(super) fn failed_status(
    budget: &PodDisruptionBudget,
    message: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        conditions: Some(with_condition(budget, "False", "SyncFailed", message, now)),
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        ..budget.status.clone().unwrap_or_default()
    }
}

/// Returns whether two statuses are equal.
pub(super) fn is_equal(old: Option<&PodDisruptionBudgetStatus>, new: &PodDisruptionBudgetStatus) -> bool {
    let Some(old) = old else { return false };
    let none = BTreeMap::new();
    let pods =
        |status: &PodDisruptionBudgetStatus| status.disrupted_pods.clone().unwrap_or_else(|| none.clone());
    let conditions = |status: &PodDisruptionBudgetStatus| status.conditions.clone().unwrap_or_default();
    (old.current_healthy, old.desired_healthy, old.disruptions_allowed, old.expected_pods)
        == (new.current_healthy, new.desired_healthy, new.disruptions_allowed, new.expected_pods)
        && old.observed_generation == new.observed_generation
        && pods(old) == pods(new)
        && conditions(old) == conditions(new)
}

/// Returns the expected number of pods and the number that must be healthy.
fn expected_and_desired(budget: &PodDisruptionBudget, found: i64, expected: Expected) -> (i64, i64) {
    let Some(spec) = &budget.spec else { return (found, 0) };
    let expected = match expected {
        Expected::SelectedPods => found,
        Expected::Scale(scale) => scale,
    };
    if let Some(unavailable) = &spec.max_unavailable {
        return (expected, (expected - scaled(unavailable, expected)).max(0));
    }
    match &spec.min_available {
        Some(available) => (expected, scaled(available, expected)),
        None => (found, 0),
    }
}

/// The message about selected pods whose desired number is unknown.
pub(super) fn unmanaged_pods_message(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
         please set \".spec.minAvailable\" field of the PDB to an integer value.",
        written_as_go(&selector)
    )
}

/// Resolves a number, or a percentage of `total` rounded up.
fn scaled(amount: &IntOrString, total: i64) -> i64 {
    int_or_percent::scaled(Some(amount), i32::try_from(total).unwrap_or(i32::MAX), true).into()
}

/// The conditions of a budget with an updated `DisruptionAllowed`.
fn with_condition(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let old = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let at = old.iter().position(|condition| condition.type_ == DISRUPTION_ALLOWED);
    let since = at.map(|at| &old[at]).filter(|condition| condition.status == status);
    let condition = Condition {
        type_: DISRUPTION_ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        observed_generation: budget.metadata.generation,
    };
    let mut conditions = old;
    match at {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    conditions
}

fn clamp(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::fixtures::{deleting, now, pod};

    fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
        let budget = json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status});
        serde_json::from_value(budget).unwrap()
    }

    fn counted(spec: &Value, pods: &[Pod], expected: Expected) -> (i32, i32, i32, i32) {
        let budget = budget(spec, &json!(null));
        let pods: Vec<_> = pods.iter().collect();
        let status = status(&budget, &pods, expected, &OngoingEvictions::default(), now());
        let numbers = [
            status.expected_pods,
            status.desired_healthy,
            status.current_healthy,
            status.disruptions_allowed,
        ];
        numbers.map(Option::unwrap).into()
    }

    fn four() -> Vec<Pod> {
        vec![
            pod("a", "Running", Some(9)),
            pod("b", "Running", Some(9)),
            pod("c", "Running", Some(9)),
            pod("d", "Running", None),
        ]
    }

    #[test]
    fn evaluates_numbers_and_percentages() {
        let cases = [
            (json!({"minAvailable": 2}), Expected::SelectedPods, (4, 2, 3, 1)),
            (json!({"minAvailable": 3}), Expected::SelectedPods, (4, 3, 3, 0)),
            (json!({"minAvailable": 9}), Expected::SelectedPods, (4, 9, 3, 0)),
            (json!({"minAvailable": "50%"}), Expected::Scale(5), (5, 3, 3, 0)),
            (json!({"minAvailable": "34%"}), Expected::Scale(5), (5, 2, 3, 1)),
            (json!({"maxUnavailable": 1}), Expected::Scale(4), (4, 3, 3, 0)),
            (json!({"maxUnavailable": 2}), Expected::Scale(4), (4, 2, 3, 1)),
            (json!({"maxUnavailable": "30%"}), Expected::Scale(4), (4, 2, 3, 1)),
            (json!({"maxUnavailable": 9}), Expected::Scale(4), (4, 0, 3, 3)),
            (json!({"maxUnavailable": 9}), Expected::Scale(0), (0, 0, 3, 0)),
            (json!({}), Expected::SelectedPods, (4, 0, 3, 3)),
        ];
        for (spec, expected, wanted) in cases {
            assert_eq!(counted(&spec, &four(), expected), wanted, "{spec} {expected:?}");
        }
        let leaving = [deleting(pod("a", "Running", Some(9))), pod("b", "Running", Some(9))];
        assert_eq!(counted(&json!({"minAvailable": 1}), &leaving, Expected::SelectedPods), (2, 1, 1, 0));
    }

    #[test]
    fn message_about_unmanaged_pods_has_the_selector() {
        let expression = json!({"key": "t", "operator": "In", "values": ["x", "y"]});
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [expression]});
        let message = unmanaged_pods_message(&budget(&json!({"selector": selector}), &json!(null)));
        let expected = "(selector: &LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:\
            []LabelSelectorRequirement{LabelSelectorRequirement{Key:t,Operator:In,Values:[x y],},},}) \
            were found to be unmanaged. As a result, ";
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn evictions_in_progress_count_until_they_time_out() {
        let ago = |seconds: i64| (now() - SignedDuration::from_secs(seconds)).to_string();
        let named = json!({"disruptedPods": {"a": ago(20), "b": ago(121), "gone": ago(1), "c": ago(50)},
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        let budget = budget(&json!({"minAvailable": 1}), &named);
        let pods = [
            pod("a", "Running", Some(9)),
            pod("b", "Running", Some(9)),
            deleting(pod("c", "Running", Some(9))),
        ];
        let pods: Vec<_> = pods.iter().collect();
        let found = ongoing_evictions(&budget, &pods, now());
        let mut distant = budget.clone();
        let evictions = distant.status.as_mut().unwrap().disrupted_pods.as_mut().unwrap();
        for since in evictions.values_mut() {
            since.0 = Timestamp::MAX;
        }
        assert_eq!(ongoing_evictions(&distant, &pods, now()).overdue.len(), 0);
        assert_eq!(found.pods.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            (found.recheck, found.overdue.as_slice()),
            (Some(Duration::from_secs(100)), &["b".to_owned()][..])
        );
        let status = status(&budget, &pods, Expected::SelectedPods, &found, now());
        assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(1), Some(0)));
        assert_eq!(status.disrupted_pods.unwrap().len(), 1);
    }

    #[test]
    fn condition_keeps_its_transition_time() {
        let pods = four();
        let pods: Vec<_> = pods.iter().collect();
        let mut budget = budget(&json!({"minAvailable": 2}), &json!(null));
        let at = |budget: &PodDisruptionBudget, now| {
            status(budget, &pods, Expected::SelectedPods, &OngoingEvictions::default(), now)
        };
        let first = at(&budget, now());
        let condition = &first.conditions.as_ref().unwrap()[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "SufficientPods"));
        assert_eq!((first.observed_generation, condition.observed_generation), (Some(3), Some(3)));
        budget.status = Some(first.clone());
        let later = now() + SignedDuration::from_secs(60);
        assert!(is_equal(Some(&first), &at(&budget, later)));
        let failed = failed_status(&budget, "found no controllers", later);
        let condition = &failed.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (condition.reason.as_str(), &condition.last_transition_time),
            ("SyncFailed", &Time(later))
        );
        assert_eq!((failed.disruptions_allowed, failed.current_healthy), (Some(0), Some(3)));
        assert!(!is_equal(Some(&first), &failed) && !is_equal(None, &failed));
    }

    #[test]
    fn only_percentages_and_max_unavailable_need_the_scale() {
        for (spec, needed) in [
            (json!({"minAvailable": 1}), false),
            (json!({"minAvailable": "1%"}), true),
            (json!({"maxUnavailable": 1}), true),
        ] {
            assert_eq!(needs_scale(&budget(&spec, &json!(null))), needed);
        }
    }
}
