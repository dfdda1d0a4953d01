//! The status of an autoscaler.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use nave_machinery::conditions;
use serde_json::{Value, json};

use super::behavior::Step;
use super::proposal::{Failure, Proposal};

/// The status under construction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Status {
    /// An object that contains the status.
    object: Value,
    now: String,
}

impl Status {
    /// Starts with the current status.
    ///
    /// # Errors
    /// The status cannot be encoded.
    pub(super) fn from_autoscaler(
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

    pub(super) fn condition(&mut self, condition: &str, status: &str, reason: &str, message: &str) {
        let condition = json!({"type": condition, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": self.now});
        conditions::set(&mut self.object, condition);
    }

    /// Sets the conditions of a step.
    pub(super) fn step(&mut self, step: &Step) {
        let (reason, message) = step.able;
        self.condition("AbleToScale", "True", reason, message);
        let (is_limited, (reason, message)) = step.limited;
        self.condition("ScalingLimited", if is_limited { "True" } else { "False" }, reason, message);
    }

    /// Sets the current and desired numbers of replicas, and the metrics.
    pub(super) fn replicas(&mut self, current: i32, desired: i32, metrics: Vec<Value>) {
        self.object["status"]["desiredReplicas"] = desired.into();
        self.current(current, metrics);
    }

    /// Sets the current number of replicas and the metrics; the desired number is unchanged.
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

    /// Sets the time of the last scaling.
    pub(super) fn scaled(&mut self) {
        self.object["status"]["lastScaleTime"] = self.now.clone().into();
    }
}

/// The status entry of a metric; empty if the metric failed.
pub(super) fn metric_entry(outcome: &Result<Proposal, Failure>) -> Value {
    outcome.as_ref().map_or_else(|_| json!({"type": ""}), |proposal| proposal.status.clone())
}
