//! The health of nodes: kubelet heartbeats, and the resulting conditions and taints.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The time after which a node without heartbeats is unhealthy (`--node-monitor-grace-period`).
const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// The time within which a new node must send its first heartbeat (`--node-startup-grace-period`).
const STARTUP_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The conditions that kubelets report.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The taint for each condition type and status.
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Labels, and the older label that must have the same value.
const OLDER_LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// Returns the older labels that a node lacks or has with another value.
pub(super) fn missing_labels(node: &Node) -> BTreeMap<&'static str, String> {
    let label = |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name));
    let missing =
        OLDER_LABELS.iter().filter(|(name, older)| label(name).is_some() && label(name) != label(older));
    missing.filter_map(|(name, older)| Some((*older, label(name)?.clone()))).collect()
}

/// The last heartbeat data from a kubelet, and the time of the last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heartbeat {
    /// The status and the heartbeat time of the condition `Ready`.
    reported: Option<String>,
    /// The renew time of the kubelet's lease.
    renewed: Option<String>,
    at: Timestamp,
}

impl Heartbeat {
    /// Compares a node's heartbeat data with the previous data.
    pub(super) fn update(
        node: &Node,
        renewed: Option<String>,
        before: Option<&Self>,
        now: Timestamp,
    ) -> Self {
        // Ignores `Unknown`: this controller writes it, so it is not a heartbeat.
        let ready = condition(node, "Ready").filter(|ready| ready.status != "Unknown");
        let reported = ready.map(|ready| format!("{} {:?}", ready.status, ready.last_heartbeat_time));
        let Some(before) = before else {
            let never_reported = condition(node, "Ready").is_none();
            let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
            return Self { reported, renewed, at: created.filter(|_| never_reported).unwrap_or(now) };
        };
        let is_fresh = renewed != before.renewed || reported.is_some() && reported != before.reported;
        let at = if is_fresh { now } else { before.at };
        Self { reported: reported.or_else(|| before.reported.clone()), renewed, at }
    }

    /// Returns the time until the node counts as unhealthy; zero if the grace period is over.
    pub(super) fn remaining_grace(&self, node: &Node, now: Timestamp) -> Duration {
        let grace = if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        Duration::try_from(grace - self.at.duration_until(now)).unwrap_or(Duration::ZERO)
    }
}

/// Returns the condition of a type.
pub(super) fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Returns whether a node is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Returns the conditions to set to `Unknown` on a node without heartbeats.
pub(super) fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let changed = REPORTED.into_iter().filter_map(|type_| {
        let unknown = |reason: &str, message: &str, heartbeat| NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat,
            last_transition_time: Some(Time(now)),
        };
        match condition(node, type_) {
            None => {
                let created = node.metadata.creation_timestamp.clone();
                Some(unknown("NodeStatusNeverUpdated", "Kubelet never posted node status.", created))
            }
            Some(old) if old.status == "Unknown" => None,
            Some(old) => {
                let heartbeat = old.last_heartbeat_time.clone();
                Some(unknown("NodeStatusUnknown", "Kubelet stopped posting node status.", heartbeat))
            }
        }
    });
    changed.collect()
}

/// Returns the `NoExecute` taint for a node that is not ready.
pub(super) fn eviction_taint(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready")?.status.as_str() {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

/// Returns whether a node has a taint.
pub(super) fn has_taint(node: &Node, key: &str, effect: &str) -> bool {
    taints(node).iter().any(|taint| taint.key == key && taint.effect == effect)
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Returns the corrected taints of a node: `NoSchedule` taints for its conditions, and `evict` as a `NoExecute`
/// taint. Returns `None` if the taints are correct already.
pub(super) fn corrected_taints(node: &Node, evict: Option<&str>, now: Timestamp) -> Option<Vec<Taint>> {
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let by_conditions = TAINTS.into_iter().filter(|(type_, status, _)| {
        condition(node, type_).is_some_and(|condition| condition.status == *status)
    });
    let mut wanted: Vec<(&str, &str)> = by_conditions.map(|(_, _, key)| (key, "NoSchedule")).collect();
    wanted.extend(unschedulable.then_some((UNSCHEDULABLE, "NoSchedule")));
    wanted.extend(evict.map(|key| (key, "NoExecute")));

    let is_own = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => taint.key == UNSCHEDULABLE || TAINTS.iter().any(|(_, _, key)| *key == taint.key),
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        _ => false,
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut corrected: Vec<Taint> =
        taints(node).iter().filter(|taint| !is_own(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !has_taint(node, key, effect) {
            corrected.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(Time(now)),
            });
        }
    }
    (corrected != taints(node)).then_some(corrected)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pods::fixtures::now;

    fn node(conditions: &[(&str, &str)], spec: &Value) -> Node {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status)| json!({"type": type_, "status": status, "lastHeartbeatTime": "2026-01-01T11:00:00Z"}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T11:59:30Z"},
            "spec": spec, "status": {"conditions": conditions}}))
        .unwrap()
    }

    fn after(seconds: i64) -> Timestamp {
        now() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn older_labels_follow_the_newer_ones() {
        for (labels, missing) in [
            (json!({}), json!({})),
            (json!({"beta.kubernetes.io/os": "linux"}), json!({})),
            (json!({"kubernetes.io/os": "linux"}), json!({"beta.kubernetes.io/os": "linux"})),
            (
                json!({"kubernetes.io/arch": "arm64", "beta.kubernetes.io/arch": "amd64"}),
                json!({"beta.kubernetes.io/arch": "arm64"}),
            ),
            (json!({"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"}), json!({})),
        ] {
            let node = serde_json::from_value(json!({"metadata": {"labels": labels}})).unwrap();
            assert_eq!(json!(missing_labels(&node)), missing, "{labels}");
        }
    }

    #[test]
    fn unhealthy_without_changes_of_lease_and_heartbeat() {
        let ready = node(&[("Ready", "True")], &json!({}));
        let lease = |text: &str| Some(text.to_owned());
        let first = Heartbeat::update(&ready, lease("1"), None, now());
        let same = Heartbeat::update(&ready, lease("1"), Some(&first), after(40));
        assert_eq!(same.remaining_grace(&ready, after(40)), Duration::from_secs(10));
        assert_eq!(same.remaining_grace(&ready, after(50)), Duration::ZERO);
        let renewed = Heartbeat::update(&ready, lease("2"), Some(&same), after(45));
        assert_eq!(renewed.remaining_grace(&ready, after(50)), Duration::from_secs(45));

        // This controller's own writes are not heartbeats.
        let unknown = node(&[("Ready", "Unknown")], &json!({}));
        let still = Heartbeat::update(&unknown, lease("2"), Some(&renewed), after(200));
        assert_eq!(still.remaining_grace(&unknown, after(200)), Duration::ZERO);
        let back = Heartbeat::update(&unknown, lease("3"), Some(&still), after(210));
        assert_eq!(back.remaining_grace(&unknown, after(210)), Duration::from_secs(50));
    }

    #[test]
    fn startup_grace_period_starts_at_creation() {
        let new = node(&[], &json!({}));
        let heard = Heartbeat::update(&new, None, None, now());
        assert_eq!(heard.remaining_grace(&new, now()), Duration::from_secs(30));
    }

    #[test]
    fn conditions_without_heartbeats_become_unknown() {
        let silent = node(&[("Ready", "True"), ("DiskPressure", "Unknown")], &json!({}));
        let changed = unknown_conditions(&silent, now());
        let said: Vec<_> =
            changed.iter().map(|it| (it.type_.as_str(), it.reason.as_deref().unwrap())).collect();
        assert_eq!(
            said,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", "NodeStatusNeverUpdated"),
                ("PIDPressure", "NodeStatusNeverUpdated")
            ]
        );
    }

    #[test]
    fn sets_taints_by_conditions() {
        let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
        let corrected = |node: &Node, evict| {
            let taints = corrected_taints(node, evict, now())?;
            Some(
                taints.into_iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect::<Vec<_>>(),
            )
        };
        let healthy = node(&[("Ready", "True")], &json!({"taints": [taint("own", "NoExecute")]}));
        assert_eq!(corrected(&healthy, None), None);
        let cordoned = node(&[("Ready", "True")], &json!({"unschedulable": true}));
        assert_eq!(corrected(&cordoned, None).unwrap(), ["node.kubernetes.io/unschedulable:NoSchedule"]);
        let lost = node(
            &[("Ready", "Unknown")],
            &json!({"taints": [taint(NOT_READY, "NoSchedule"), taint("own", "NoSchedule")]}),
        );
        assert_eq!(
            corrected(&lost, eviction_taint(&lost)).unwrap(),
            [
                "own:NoSchedule",
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        let back = node(
            &[("Ready", "True")],
            &json!({"taints": [taint(UNREACHABLE, "NoExecute"), taint(UNREACHABLE, "NoSchedule")]}),
        );
        assert_eq!(corrected(&back, eviction_taint(&back)).unwrap(), [""; 0]);
        let full = node(&[("Ready", "True"), ("DiskPressure", "True")], &json!({}));
        assert_eq!(corrected(&full, None).unwrap(), ["node.kubernetes.io/disk-pressure:NoSchedule"]);
    }
}
