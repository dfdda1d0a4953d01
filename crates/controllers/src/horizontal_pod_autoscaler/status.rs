//! The status of an autoscaler.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use nave_machinery::conditions;
use serde_json::{Value, json};

use super::behavior::Step;
use super::proposal::{Failure, Proposal};

/// The status as it becomes in a sync.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Status {
    /// An object with the status in it.
    object: Value,
    now: String,
}

impl Status {
    /// The status as it was seen.
    ///
    /// # Errors
    /// A status that cannot be encoded.
    pub(super) fn of(
        autoscaler: &HorizontalPodAutoscaler,
        now: Timestamp,
    ) -> Result<Self, serde_json::Error> {
        let status = serde_json::to_value(&autoscaler.status)?;
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ok(Self { object: json!({"status": if status.is_null() { json!({}) } else { status }}), now })
    }

    pub(super) fn into_json(mut self) -> Value {
        self.object["status"].take()
    }

    /// Sets a condition.
    pub(super) fn condition(&mut self, condition: &str, status: &str, reason: &str, message: &str) {
        let condition = json!({"type": condition, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": self.now});
        conditions::set(&mut self.object, condition);
    }

    /// Sets the conditions that a step comes with.
    pub(super) fn step(&mut self, step: &Step) {
        let (reason, message) = step.able;
        self.condition("AbleToScale", "True", reason, message);
        let (is_limited, (reason, message)) = step.limited;
        self.condition("ScalingLimited", if is_limited { "True" } else { "False" }, reason, message);
    }

    /// Sets the numbers of replicas, and the metrics.
    pub(super) fn replicas(&mut self, current: i32, desired: i32, metrics: Vec<Value>) {
        self.object["status"]["desiredReplicas"] = desired.into();
        self.current(current, metrics);
    }

    /// Sets the number of replicas that there are, and the metrics; the desired number stays.
    pub(super) fn current(&mut self, current: i32, metrics: Vec<Value>) {
        let status = &mut self.object["status"];
        status["currentReplicas"] = current.into();
        if status["desiredReplicas"].is_null() {
            status["desiredReplicas"] = 0.into();
        }
        match status.as_object_mut() {
            Some(status) if metrics.is_empty() => drop(status.remove("currentMetrics")),
            _ => status["currentMetrics"] = metrics.into(),
        }
    }

    /// Notes the time of scaling.
    pub(super) fn scaled(&mut self) {
        self.object["status"]["lastScaleTime"] = self.now.clone().into();
    }
}

/// The entry of a metric; a metric that failed has one that says nothing.
pub(super) fn of_metric(outcome: &Result<Proposal, Failure>) -> Value {
    outcome.as_ref().map_or_else(|_| json!({"type": ""}), |proposal| proposal.status.clone())
}
