//! The status of a deployment: its counts, and the conditions that `kubectl rollout status` and `kubectl wait`
//! read.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::scale::max_unavailable;
use super::{Sets, available, replicas, size};
use crate::counts::omit_zero;
use crate::time_arithmetic::saturating_add;

/// The type of the condition about the progress of a rollout.
pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const ALL_AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// The status with updated counts and the condition `Available`; other conditions are unchanged.
pub(super) fn status_with_counts(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let count = |number: fn(&ReplicaSetStatus) -> Option<i32>| -> i32 {
        sets.all().filter_map(|set| number(set.status.as_ref()?)).sum()
    };
    let available_now: i32 = sets.all().map(available).sum();
    let unavailable = sets.all().map(size).sum::<i32>() - available_now;
    let enough = available_now >= replicas(deployment) - max_unavailable(deployment);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: omit_zero(count(|status| Some(status.replicas))),
        updated_replicas: sets.new.as_ref().and_then(|new| omit_zero(new.status.as_ref()?.replicas)),
        ready_replicas: omit_zero(count(|status| status.ready_replicas)),
        available_replicas: omit_zero(available_now),
        unavailable_replicas: omit_zero(unavailable),
        terminating_replicas: Some(count(|status| status.terminating_replicas)),
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let (value, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, new_condition(AVAILABLE, value, reason, message.to_owned(), now));
    status
}

/// The status during a rollout, with the conditions `Progressing` and `ReplicaFailure`.
pub(super) fn rollout_status(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let mut status = status_with_counts(deployment, sets, now);
    let before = progressing(deployment.status.as_ref()).cloned();
    if deadline(deployment).is_none() {
        remove_condition(&mut status, PROGRESSING);
    } else {
        // A completed rollout stays complete while pods are replaced.
        let was_complete = status.replicas == status.updated_replicas
            && before.as_ref().is_some_and(|before| before.reason.as_deref() == Some(ALL_AVAILABLE));
        if !was_complete && let Some(condition) = progress(deployment, sets, &status, before.as_ref(), now) {
            if condition.status == "True" && condition.reason.as_deref() == Some("ReplicaSetUpdated") {
                // Progress restarts the deadline, so the update time must change even if the condition does not.
                remove_condition(&mut status, PROGRESSING);
            }
            set_condition(&mut status, condition);
        }
    }
    remove_condition(&mut status, REPLICA_FAILURE);
    if let Some(failure) = replica_failure(sets) {
        let existing = deployment
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .find(|old| old.type_ == REPLICA_FAILURE && old.reason == failure.reason);
        set_condition(&mut status, existing.cloned().unwrap_or(failure));
    }
    status
}

/// The condition `Progressing`: complete, progressing, or timed out.
fn progress(
    deployment: &Deployment,
    sets: &Sets,
    status: &DeploymentStatus,
    before: Option<&DeploymentCondition>,
    now: Timestamp,
) -> Option<DeploymentCondition> {
    let (kind, name) = match &sets.new {
        Some(new) => ("ReplicaSet", &new.metadata.name),
        None => ("Deployment", &deployment.metadata.name),
    };
    let name = name.as_deref().unwrap_or_default();
    let condition_with = |value, reason, outcome: &str| {
        Some(new_condition(PROGRESSING, value, reason, format!("{kind} {name:?} {outcome}."), now))
    };
    if is_complete(deployment, status) {
        condition_with("True", ALL_AVAILABLE, "has successfully progressed")
    } else if has_progressed(deployment, status) {
        let mut condition = condition_with("True", "ReplicaSetUpdated", "is progressing")?;
        if let Some(before) = before.filter(|before| before.status == "True") {
            condition.last_transition_time.clone_from(&before.last_transition_time);
        }
        Some(condition)
    } else if has_timed_out(deployment, before, now) {
        condition_with("False", TIMED_OUT, "has timed out progressing")
    } else {
        None
    }
}

/// Returns whether all pods are of the current template and available, and no others exist.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Returns whether any count has improved since the last status.
fn has_progressed(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let of_old_templates =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas > old.updated_replicas
        || of_old_templates(new) < of_old_templates(&old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn has_timed_out(deployment: &Deployment, before: Option<&DeploymentCondition>, now: Timestamp) -> bool {
    let (Some(deadline), Some(before)) = (deadline(deployment), before) else { return false };
    match before.reason.as_deref() {
        Some(ALL_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => before.last_update_time.as_ref().is_some_and(|from| saturating_add(from.0, deadline) < now),
    }
}

/// The time until a stalled rollout exceeds its deadline; `None` if no deadline applies.
pub(super) fn deadline_in(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let before = progressing(Some(status))?;
    let deadline = deadline(deployment)?;
    if is_complete(deployment, status) || before.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let until = saturating_add(before.last_update_time.as_ref()?.0, deadline);
    // Adds one second, so that the deadline has passed at the next sync.
    let wait = now.duration_until(until) + SignedDuration::from_secs(1);
    Some(wait.try_into().unwrap_or(Duration::from_secs(1)))
}

/// The condition `Progressing` of a deployment that was paused or resumed since the last status. The deadline does not
/// run during a pause; resuming restarts it.
pub(super) fn pause_condition(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    deadline(deployment)?;
    let before = progressing(deployment.status.as_ref()).and_then(|condition| condition.reason.as_deref());
    if before == Some(TIMED_OUT) {
        return None;
    }
    match (super::is_paused(deployment), before == Some(PAUSED)) {
        (true, false) => {
            Some(new_condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned(), now))
        }
        (false, true) => Some(new_condition(
            PROGRESSING,
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".to_owned(),
            now,
        )),
        _ => None,
    }
}

/// The progress deadline.
fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds =
        deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Returns whether the deployment has a progress deadline. Progress is reported only if it does.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

/// The condition about the progress of a rollout.
pub(super) fn progressing(status: Option<&DeploymentStatus>) -> Option<&DeploymentCondition> {
    status?.conditions.iter().flatten().find(|condition| condition.type_ == PROGRESSING)
}

/// The replica failure of the new set, or else of any old set.
fn replica_failure(sets: &Sets) -> Option<DeploymentCondition> {
    let mut failures = sets.all().filter_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE)
    });
    let found = failures.next()?;
    Some(DeploymentCondition {
        type_: found.type_.clone(),
        status: found.status.clone(),
        reason: found.reason.clone(),
        message: found.message.clone(),
        last_transition_time: found.last_transition_time.clone(),
        last_update_time: found.last_transition_time.clone(),
    })
}

/// A condition with the current time as its transition and update times.
pub(super) fn new_condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
    }
}

/// Sets a condition unless it is unchanged. Keeps the transition time if only the reason changes.
pub(super) fn set_condition(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(old) = conditions.iter().find(|old| old.type_ == condition.type_) {
        if old.status == condition.status && old.reason == condition.reason {
            return;
        }
        if old.status == condition.status {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    conditions.retain(|old| old.type_ != condition.type_);
    conditions.push(condition);
}

fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != type_);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{deployment, set as replica_set};
    use super::*;
    use crate::pods::fixtures::now;

    fn reason(status: &DeploymentStatus, type_: &str) -> String {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
        found.and_then(|condition| condition.reason.clone()).unwrap_or_default()
    }

    fn later(seconds: i64) -> Timestamp {
        now() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn rollout_progresses_completes_and_stays_complete() {
        let mut deployment = deployment(2);
        let mut sets = Sets { new: Some(replica_set("new", 2, 1)), old: vec![replica_set("old", 1, 1)] };
        let status = rollout_status(&deployment, &sets, now());
        assert_eq!(reason(&status, PROGRESSING), "ReplicaSetUpdated");
        assert_eq!(reason(&status, AVAILABLE), "MinimumReplicasAvailable");
        assert_eq!(
            (status.replicas, status.updated_replicas, status.unavailable_replicas),
            (Some(3), Some(2), Some(1))
        );
        deployment.status = Some(status);

        sets = Sets { new: Some(replica_set("new", 2, 2)), old: vec![replica_set("old", 0, 0)] };
        let status = rollout_status(&deployment, &sets, later(5));
        assert_eq!(reason(&status, PROGRESSING), "NewReplicaSetAvailable");
        let message = progressing(Some(&status)).unwrap().message.clone().unwrap();
        assert_eq!(message, "ReplicaSet \"new\" has successfully progressed.");
        deployment.status = Some(status);

        sets.new = Some(replica_set("new", 2, 0));
        let status = rollout_status(&deployment, &sets, later(10_000));
        assert_eq!(reason(&status, PROGRESSING), "NewReplicaSetAvailable");
        assert_eq!(reason(&status, AVAILABLE), "MinimumReplicasUnavailable");
    }

    #[test]
    fn stalled_rollout_times_out_after_its_deadline() {
        let mut deployment = deployment(2);
        let sets = Sets { new: Some(replica_set("new", 2, 1)), old: Vec::new() };
        deployment.status = Some(rollout_status(&deployment, &sets, now()));
        let status = rollout_status(&deployment, &sets, later(600));
        assert_eq!(Some(&status), deployment.status.as_ref(), "nothing moved, and the deadline is not over");
        assert_eq!(deadline_in(&deployment, &status, later(590)), Some(Duration::from_secs(11)));
        let status = rollout_status(&deployment, &sets, later(601));
        assert_eq!(reason(&status, PROGRESSING), "ProgressDeadlineExceeded");
        assert_eq!(deadline_in(&deployment, &status, later(601)), None);
    }

    #[test]
    fn extreme_times_and_deadlines_do_not_overflow() {
        let mut deployment = deployment(2);
        let sets = Sets { new: Some(replica_set("new", 2, 1)), old: Vec::new() };
        let status = rollout_status(&deployment, &sets, now());
        for seconds in [i32::MIN, 0, 1, i32::MAX - 1, i32::MAX] {
            deployment.spec.as_mut().unwrap().progress_deadline_seconds = Some(seconds);
            for updated in [Timestamp::MIN, now(), Timestamp::MAX] {
                let mut status = status.clone();
                for condition in status.conditions.iter_mut().flatten() {
                    condition.last_update_time = Some(Time(updated));
                }
                deployment.status = Some(status.clone());
                rollout_status(&deployment, &sets, later(1));
                deadline_in(&deployment, &status, now());
            }
        }
    }

    #[test]
    fn pause_stops_the_deadline_and_resuming_restarts_it() {
        let mut deployment = deployment(1);
        assert_eq!(pause_condition(&deployment, now()), None);
        deployment.spec.as_mut().unwrap().paused = Some(true);
        let condition = pause_condition(&deployment, now()).unwrap();
        assert_eq!(condition.reason.as_deref(), Some("DeploymentPaused"));
        set_condition(deployment.status.get_or_insert_default(), condition);
        assert_eq!(pause_condition(&deployment, now()), None);
        deployment.spec.as_mut().unwrap().paused = None;
        assert_eq!(pause_condition(&deployment, now()).unwrap().reason.as_deref(), Some("DeploymentResumed"));
    }

    #[test]
    fn reports_replica_failure_of_a_set() {
        let mut failing = replica_set("new", 2, 0);
        failing.status.as_mut().unwrap().conditions = serde_json::from_value(serde_json::json!([
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
        ]))
        .unwrap();
        let mut deployment = deployment(2);
        let sets = Sets { new: Some(failing), old: Vec::new() };
        let status = rollout_status(&deployment, &sets, now());
        assert_eq!(reason(&status, "ReplicaFailure"), "FailedCreate");
        deployment.status = Some(status);
        let healthy = Sets { new: Some(replica_set("new", 2, 0)), old: Vec::new() };
        assert_eq!(reason(&rollout_status(&deployment, &healthy, now()), "ReplicaFailure"), "");
    }
}
