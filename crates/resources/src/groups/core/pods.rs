//! Pods.

use std::borrow::Cow;
use std::collections::HashSet;

use nave_machinery::Value;
use nave_machinery::time::{self, Timestamp};
use serde_json::json;

use super::pod_spec::{self, app_armor, defaults, disabled, qos};
use crate::defaults::{object, set};
use crate::read;
use crate::strategy::{Completion, Strategy};
use crate::table::{Column, age, field, moment, name, text};
use crate::validate::Errors;

/// The strategy of pods.
pub(crate) struct PodStrategy;

impl Strategy for PodStrategy {
    fn default(&self, pod: &mut Value, _version: &str) {
        defaults::pod(pod);
    }

    fn prepare_for_create(&self, pod: &mut Value) {
        disabled::drop_fields(pod, None, disabled::IN_POD);
        pod_spec::label_keys::merge(pod);
        let mut status = json!({"phase": "Pending", "qosClass": qos::class(pod)});
        if !read::list(pod, "spec.schedulingGates").is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": null,
            }]);
        }
        if let Some(fields) = pod.as_object_mut() {
            fields.insert("status".to_owned(), status);
        }
        app_armor::sync(pod);
    }

    fn warnings_before_create(&self, pod: &Value) -> Vec<String> {
        app_armor::warnings(pod)
    }

    fn prepare_for_update(&self, pod: &mut Value, old: &Value) {
        disabled::drop_fields(pod, Some(old), disabled::IN_POD);
    }

    fn prepare_for_status_update(&self, pod: &mut Value, old: &Value) {
        disabled::drop_status_fields(pod, old);
        let class = read::text(old, "status.qosClass");
        if let Some(status) = pod.as_object_mut().and_then(|pod| object(pod, "status")) {
            set(status, "qosClass", class);
        }
    }

    fn prepare_for_subresource_update(&self, subresource: &str, pod: &mut Value, old: &Value) {
        pod_spec::parts::revert_other_fields(subresource, pod, old);
        disabled::drop_fields(pod, Some(old), disabled::IN_POD);
    }

    fn validate(&self, pod: &Value) -> Errors {
        pod_spec::validation::pod(pod)
    }

    fn validate_subresource_update(&self, subresource: &str, pod: &Value, old: &Value) -> Errors {
        pod_spec::parts::validate(subresource, pod, old)
    }

    fn validate_status_update(&self, pod: &Value, old: &Value) -> Errors {
        pod_spec::status::validate(pod, old)
    }

    fn validate_update(&self, pod: &Value, old: &Value) -> Errors {
        pod_spec::update::pod(pod, old)
    }

    fn graceful_period(&self, pod: &Value, requested: Option<i64>) -> Option<i64> {
        let wanted = requested
            .or_else(|| read::value_at(pod, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64))
            .unwrap_or(30);
        let unscheduled = read::text(pod, "spec.nodeName").is_empty();
        let done = matches!(read::text(pod, "status.phase"), "Succeeded" | "Failed");
        // A negative grace period means 1 second.
        Some(if unscheduled || done {
            0
        } else if wanted < 0 {
            1
        } else {
            wanted
        })
    }

    fn completion(&self, pod: &Value) -> Option<Completion> {
        match read::text(pod, "status.phase") {
            "Succeeded" => Some(Completion { reason: "Succeeded", message: "All containers ended well." }),
            "Failed" => Some(Completion { reason: "Failed", message: "At least one container ended badly." }),
            _ => None,
        }
    }

    fn warnings(&self, pod: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { pod_spec::warnings::pod(pod) }
    }
}

/// Returns the first IP of the pod, for the selectable field `status.podIP`.
fn first_ip(pod: &Value) -> Cow<'_, str> {
    let first = read::list(pod, "status.podIPs").first().map(|ip| read::text(ip, "ip"));
    Cow::Borrowed(first.filter(|ip| !ip.is_empty()).unwrap_or_else(|| read::text(pod, "status.podIP")))
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        name(),
        text("Ready", |pod| {
            let summary = Summary::from_pod(pod);
            format!("{}/{}", summary.ready, summary.total)
        })
        .about("The number of ready containers and of all containers"),
        text("Status", |pod| Summary::from_pod(pod).reason.into_owned()).about("The state of the pod"),
        Column::new("Restarts", |pod, now| json!(Summary::from_pod(pod).restarts.shown(now)))
            .about("The number of container restarts, and the time of the last one"),
        age(),
        text("IP", |pod| {
            Some(first_ip(pod)).filter(|ip| !ip.is_empty()).unwrap_or("<none>".into()).into_owned()
        })
        .wide()
        .described_by("core.v1.PodStatus", "podIP"),
        field("Node", "spec.nodeName", "<none>").wide().described_by("core.v1.PodSpec", "nodeName"),
        field("Nominated Node", "status.nominatedNodeName", "<none>")
            .wide()
            .described_by("core.v1.PodStatus", "nominatedNodeName"),
        text("Readiness Gates", readiness_gates).wide().described_by("core.v1.PodSpec", "readinessGates"),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = read::list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open =
        gates.iter().filter(|gate| read::condition_is_true(pod, read::text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}

/// The columns of `kubectl get pods`, computed from the container states.
struct Summary<'a> {
    ready: usize,
    total: usize,
    reason: Cow<'a, str>,
    restarts: Restarts,
}

impl<'a> Summary<'a> {
    fn from_pod(pod: &'a Value) -> Self {
        let sidecars = read::list(pod, "spec.initContainers").iter().filter(|it| is_sidecar(it)).count();
        let mut summary = Summary {
            ready: 0,
            total: read::list(pod, "spec.containers").len() + sidecars,
            reason: Cow::Borrowed(read::text_or(pod, "status.reason", read::text(pod, "status.phase"))),
            restarts: Restarts::default(),
        };
        let scheduled = read::condition(pod, "PodScheduled").map(|condition| read::text(condition, "reason"));
        if scheduled == Some("SchedulingGated") {
            summary.reason = Cow::Borrowed("SchedulingGated");
        }
        let (initializing, restarts_of_sidecars) = summary.add_init_containers(pod);
        if !initializing || read::condition_is_true(pod, "Initialized") {
            summary.restarts = restarts_of_sidecars;
            summary.add_containers(pod);
        }
        if read::is_being_deleted(pod) {
            if read::text(pod, "status.reason") == "NodeLost" {
                summary.reason = Cow::Borrowed("Unknown");
            } else if !matches!(read::text(pod, "status.phase"), "Succeeded" | "Failed") {
                summary.reason = Cow::Borrowed("Terminating");
            }
        }
        summary
    }

    /// Visits the init containers until one is running or has failed. Returns whether one was found, and the restarts of
    /// the sidecars among the visited ones.
    fn add_init_containers(&mut self, pod: &'a Value) -> (bool, Restarts) {
        let specs = read::list(pod, "spec.initContainers");
        let sidecars = sidecars(specs);
        let mut of_sidecars = Restarts::default();
        for (index, status) in read::list(pod, "status.initContainerStatuses").iter().enumerate() {
            self.restarts.add(status);
            let is_sidecar = sidecars.contains(read::text(status, "name"));
            if is_sidecar {
                of_sidecars.add(status);
            }
            let ended = read::value_at(status, "state.terminated").filter(|it| it.is_object());
            if ended.is_some_and(|ended| read::int(ended, "exitCode") == 0) {
                continue;
            }
            if is_sidecar && read::flag(status, "started") {
                self.ready += usize::from(read::flag(status, "ready"));
                continue;
            }
            let waiting = read::text(status, "state.waiting.reason");
            self.reason = match ended {
                Some(ended) => format!("Init:{}", ending(ended)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            }
            .into();
            return (true, of_sidecars);
        }
        (false, of_sidecars)
    }

    /// Visits the containers in reverse order, so that the reason of the first container wins, but for `Completed`
    /// beside a container that failed.
    fn add_containers(&mut self, pod: &'a Value) {
        let (mut running, mut failure) = (false, None);
        for status in read::list(pod, "status.containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = read::text(status, "state.waiting.reason");
            let ended = read::value_at(status, "state.terminated").filter(|it| it.is_object());
            if !waiting.is_empty() {
                self.reason = Cow::Borrowed(waiting);
            } else if let Some(ended) = ended {
                self.reason = ending(ended);
                if read::int(ended, "exitCode") != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if read::flag(status, "ready") && read::value_at(status, "state.running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            let is_ready = running && read::condition_is_true(pod, "Ready");
            match failure {
                _ if is_ready => self.reason = Cow::Borrowed("Running"),
                Some(failure) => self.reason = failure,
                None if running => self.reason = Cow::Borrowed("NotReady"),
                None => {}
            }
        }
    }
}

/// The restarts of containers.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += read::int(status, "restartCount");
        self.last = self.last.max(moment(status, "lastState.terminated.finishedAt"));
    }

    fn shown(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, time::human_duration(now.seconds_since(last)))
            }
            _ => self.count.to_string(),
        }
    }
}

/// Returns the reason of a container's termination.
fn ending(ended: &Value) -> Cow<'_, str> {
    match (read::text(ended, "reason"), read::int(ended, "signal")) {
        ("", 0) => format!("ExitCode:{}", read::int(ended, "exitCode")).into(),
        ("", signal) => format!("Signal:{signal}").into(),
        (reason, _) => Cow::Borrowed(reason),
    }
}

/// Returns the names of sidecar containers.
fn sidecars(init_containers: &[Value]) -> HashSet<&str> {
    init_containers.iter().filter(|it| is_sidecar(it)).map(|it| read::text(it, "name")).collect()
}

/// Returns whether an init container is a sidecar, which runs alongside the containers.
fn is_sidecar(init_container: &Value) -> bool {
    read::text(init_container, "restartPolicy") == "Always"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the first four cells of a pod with container `a`, init container `i` and sidecar `s`.
    fn cells(status: &Value, deleted: bool) -> Vec<String> {
        let now = Timestamp::parse("2026-01-01T01:00:00Z").unwrap();
        let mut pod = json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "nodeName": "n", "containers": [{"name": "a"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            },
            "status": status,
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:30:00Z");
        }
        let cells = columns().iter().skip(1).take(4).map(|column| column.cell(&pod, now)).collect::<Vec<_>>();
        cells.iter().map(|cell| cell.as_str().unwrap().to_owned()).collect()
    }

    fn inits(mut first: Value, mut second: Value) -> Value {
        first["name"] = json!("i");
        second["name"] = json!("s");
        json!([first, second])
    }

    #[test]
    fn summary_matches_kubectl() {
        let done = || json!({"state": {"terminated": {"exitCode": 0}}});
        let sidecar = || {
            json!({"started": true, "ready": true, "state": {"running": {}}, "restartCount": 1,
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}})
        };
        let running = json!({"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 2,
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:50:00Z"}}});
        let ended = |ended: Value| json!({"name": "a", "state": {"terminated": ended}});
        let waiting =
            |reason: &str| json!({"name": "a", "restartCount": 1, "state": {"waiting": {"reason": reason}}});
        let status = |phase: &str, inits: Value, containers: Value| json!({"phase": phase, "initContainerStatuses": inits, "containerStatuses": containers});
        let with = |state: Value| status("Running", inits(done(), sidecar()), json!([state]));
        let initializing = |state: Value| status("Pending", inits(state, json!({})), json!([]));
        let cases = [
            (json!({"phase": "Pending"}), "0/2 Pending 0"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/2 Evicted 0"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                "0/2 SchedulingGated 0",
            ),
            (initializing(json!({})), "0/2 Init:0/2 0"),
            (initializing(json!({"state": {"waiting": {"reason": "PodInitializing"}}})), "0/2 Init:0/2 0"),
            (
                initializing(
                    json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 4}),
                ),
                "0/2 Init:CrashLoopBackOff 4",
            ),
            (initializing(json!({"state": {"terminated": {"exitCode": 3}}})), "0/2 Init:ExitCode:3 0"),
            (
                initializing(json!({"state": {"terminated": {"exitCode": 3, "signal": 9}}})),
                "0/2 Init:Signal:9 0",
            ),
            (
                initializing(json!({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}})),
                "0/2 Init:Error 0",
            ),
            (status("Pending", inits(done(), json!({})), json!([])), "0/2 Init:1/2 0"),
            (with(running.clone()), "2/2 Running 3 (5m ago)"),
            (with(waiting("CrashLoopBackOff")), "1/2 CrashLoopBackOff 2 (5m ago)"),
            (with(ended(json!({"reason": "Completed", "exitCode": 0}))), "1/2 Completed 1 (5m ago)"),
            (with(ended(json!({"exitCode": 2}))), "1/2 ExitCode:2 1 (5m ago)"),
            (
                status(
                    "Running",
                    inits(done(), sidecar()),
                    json!([
                        ended(json!({"reason": "Completed", "exitCode": 0})),
                        ended(json!({"reason": "Error", "exitCode": 1}))
                    ]),
                ),
                "1/2 Error 1 (5m ago)",
            ),
            // Sidecars after an init container that failed are not counted.
            (
                json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}],
                    "initContainerStatuses": inits(json!({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}), sidecar()),
                    "containerStatuses": [running.clone()]}),
                "1/2 Init:Error 2 (10m ago)",
            ),
        ];
        for (status, expected) in cases {
            let cells = cells(&status, false);
            assert_eq!(cells[..3].join(" "), expected, "{status}");
            assert_eq!(cells[3], "60m");
        }
        assert_eq!(cells(&with(running), true)[1], "Terminating");
        assert_eq!(cells(&json!({"phase": "Succeeded"}), true)[1], "Succeeded");
        assert_eq!(cells(&json!({"phase": "Running", "reason": "NodeLost"}), true)[1], "Unknown");
    }

    #[test]
    fn scheduled_pod_has_a_grace_period() {
        let period = |pod: Value, requested| PodStrategy.graceful_period(&pod, requested);
        let on_node = |phase: &str| json!({"spec": {"nodeName": "n"}, "status": {"phase": phase}});
        assert_eq!(period(on_node("Running"), None), Some(30));
        assert_eq!(period(on_node("Running"), Some(5)), Some(5));
        assert_eq!(period(on_node("Running"), Some(-1)), Some(1));
        assert_eq!(period(on_node("Succeeded"), None), Some(0));
        assert_eq!(period(json!({"spec": {}}), Some(60)), Some(0));
        assert_eq!(
            period(json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 7}}), None),
            Some(7)
        );
    }
}
