//! Tests with simulated metrics: proposals, and their limits over time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, MetricSpec,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::behavior::{Bounds, History, Step};
use super::calculator::{Observed, Tolerances};
use super::highest_proposal;
use super::metrics::{MetricError, PodMetric, PodMetrics};
use super::proposal::{Failure, Proposal, Samples, propose};
use super::status::{Status, metric_entry};
use crate::frame::AutoscalerOptions;
use crate::pods::fixtures::now;

/// A pod of a target and its CPU usage in thousandths, if known.
struct FakePod {
    pod: Value,
    used: Option<i64>,
}

/// A pod that has been ready for an hour and requests one CPU.
fn ready(used: i64) -> FakePod {
    let at = "2026-01-01T11:00:00Z";
    let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": at});
    let status = json!({"phase": "Running", "startTime": at, "conditions": [condition]});
    let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
    FakePod {
        pod: json!({"metadata": {}, "spec": {"containers": [container]}, "status": status}),
        used: Some(used),
    }
}

fn changed(mut pod: FakePod, change: impl FnOnce(&mut Value)) -> FakePod {
    change(&mut pod.pod);
    pod
}

fn unknown() -> FakePod {
    FakePod { used: None, ..ready(0) }
}

fn pending() -> FakePod {
    FakePod { used: None, ..changed(ready(0), |pod| pod["status"] = json!({"phase": "Pending"})) }
}

/// A pod that started a minute ago and is not ready yet.
fn starting(used: i64) -> FakePod {
    changed(ready(used), |pod| {
        pod["status"]["startTime"] = "2026-01-01T11:59:00Z".into();
        pod["status"]["conditions"][0]["status"] = "False".into();
    })
}

fn samples(fake_pods: &[FakePod]) -> Samples {
    let sample = |value| PodMetric { value, at: now(), window: Duration::from_secs(30) };
    let by_pod = fake_pods.iter().enumerate().filter_map(|(at, it)| Some((at.to_string(), sample(it.used?))));
    Samples::Pods(PodMetrics { by_pod: by_pod.collect() })
}

fn pods(fake_pods: &[FakePod]) -> Vec<Pod> {
    let named = fake_pods.iter().enumerate().map(|(at, fake_pod)| {
        let mut pod = fake_pod.pod.clone();
        pod["metadata"]["name"] = at.to_string().into();
        serde_json::from_value(pod).unwrap()
    });
    named.collect()
}

fn observed(pods: &[Pod], wanted: i32) -> Observed<'_> {
    let tolerances = Tolerances { down: 0.1, up: 0.1 };
    Observed { pods, wanted, has: wanted, tolerances, options: AutoscalerOptions::default(), now: now() }
}

fn resource(target: &Value) -> MetricSpec {
    let spec = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    serde_json::from_value(spec).unwrap()
}

/// The replicas for a target of half a CPU, with one pod per replica.
fn by_utilization(fake_pods: &[FakePod]) -> Result<i32, String> {
    let (spec, pods) = (resource(&json!({"type": "Utilization", "averageUtilization": 50})), pods(fake_pods));
    let wanted = i32::try_from(fake_pods.len()).unwrap();
    let proposal = propose(&spec, Ok(samples(fake_pods)), &observed(&pods, wanted));
    proposal.map(|proposal| proposal.replicas).map_err(|failure| failure.why.to_string())
}

#[test]
fn scales_to_target_utilization() {
    for (used, expected) in [
        (&[1000, 1000][..], 4),
        (&[500, 500], 2),
        // Within the tolerance.
        (&[540, 540], 2),
        (&[560, 560], 3),
        (&[250, 250, 250, 250], 2),
        (&[10, 10, 10], 1),
    ] {
        let fake_pods: Vec<_> = used.iter().map(|used| ready(*used)).collect();
        assert_eq!(by_utilization(&fake_pods), Ok(expected), "{used:?}");
    }
}

#[test]
fn untrusted_pods_count_against_scaling() {
    let deleted =
        |pod| changed(pod, |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z".into());
    for (what, fake_pods, expected) in [
        // Two of three pods use twice their target: (1000 + 1000 + 0) / 3 = 66 % for three pods.
        ("missing", vec![ready(1000), ready(1000), unknown()], 4),
        // The known pods use 20 %; the unknown pod counts as using its request: (200 + 200 + 1000) / 3 = 46 %.
        ("missing, down", vec![ready(200), ready(200), unknown()], 3),
        ("pending", vec![ready(1000), ready(1000), pending()], 4),
        ("starting", vec![ready(1000), ready(1000), starting(5000)], 4),
        // Starting pods are ignored when scaling down.
        ("starting, down", vec![ready(100), ready(100), starting(5000)], 1),
        ("deleted", vec![ready(1000), ready(1000), deleted(ready(5000))], 4),
        ("turned", vec![ready(600), ready(600), unknown(), unknown()], 4),
    ] {
        assert_eq!(by_utilization(&fake_pods), Ok(expected), "{what}");
    }
    assert_eq!(
        by_utilization(&[starting(500), pending()]).unwrap_err(),
        "failed to get cpu utilization: did not receive metrics for targeted pods (pods might be unready)"
    );
    assert_eq!(
        by_utilization(&[]).unwrap_err(),
        "failed to get cpu utilization: no pods returned by selector while calculating replica count"
    );
}

#[test]
fn trusts_unready_pod_that_was_ready_before() {
    let unready_since = |changed_at: &str| {
        changed(ready(1000), |pod| {
            pod["status"]["conditions"][0]["status"] = "False".into();
            pod["status"]["conditions"][0]["lastTransitionTime"] = changed_at.into();
        })
    };
    // The pod started at 11:00. If it became unready within 30 s, it counts as never ready. If it became unready later,
    // it counts as ready before.
    assert!(by_utilization(&[unready_since("2026-01-01T11:00:10Z")]).is_err());
    assert_eq!(by_utilization(&[unready_since("2026-01-01T11:30:00Z")]), Ok(2));
}

#[test]
fn uses_requests_of_the_pod_or_its_containers() {
    let requests = |spec: Value| changed(ready(1000), |pod| pod["spec"] = spec);
    let container = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
    let two = json!({"containers": [container("a", "1"), container("b", "1")]});
    assert_eq!(by_utilization(&[requests(two.clone())]), Ok(1));
    let sidecar = json!({"containers": [container("a", "1")],
        "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
            {"name": "i", "resources": {}}]});
    assert_eq!(by_utilization(&[requests(sidecar)]), Ok(1));
    let own = json!({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "500m"}}});
    assert_eq!(by_utilization(&[requests(own)]), Ok(4));
    assert_eq!(
        by_utilization(&[requests(json!({"containers": [{"name": "a"}]}))]).unwrap_err(),
        "failed to get cpu utilization: missing request for cpu in container a of Pod 0"
    );
    let spec = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "b",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let spec: MetricSpec = serde_json::from_value(spec).unwrap();
    let (fake_pods, metrics) = ([requests(two)], samples(&[ready(1000)]));
    let fake_pods = pods(&fake_pods);
    let proposal = propose(&spec, Ok(metrics), &observed(&fake_pods, 1)).unwrap();
    assert_eq!(
        (proposal.replicas, proposal.metric.as_str()),
        (2, "cpu container resource utilization (percentage of request)")
    );
    let current = json!({"averageUtilization": 100, "averageValue": "1"});
    let expected = json!({"type": "ContainerResource",
        "containerResource": {"name": "cpu", "container": "b", "current": current}});
    assert_eq!(proposal.status, expected);
}

fn proposal(spec: Value, samples: Result<Samples, MetricError>, wanted: i32) -> Result<Proposal, Failure> {
    let fake_pods = pods(&[ready(100), ready(100)]);
    propose(&serde_json::from_value(spec).unwrap(), samples, &observed(&fake_pods, wanted))
}

#[test]
fn evaluates_metrics_of_all_types() {
    let object = |target: Value| {
        json!({"type": "Object", "object": {"metric": {"name": "hits"}, "target": target,
            "describedObject": {"kind": "Ingress", "name": "main", "apiVersion": "networking.k8s.io/v1"}}})
    };
    let external = |target: Value| {
        let selector = json!({"matchLabels": {"queue": "a"}});
        json!({"type": "External", "external": {"metric": {"name": "lag", "selector": selector}, "target": target}})
    };
    let lag = "external metric lag(&LabelSelector{MatchLabels:map[string]string{queue: a,},MatchExpressions:[]LabelSelectorRequirement{},})";
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "rps"},
        "target": {"type": "AverageValue", "averageValue": "10"}}});
    let twenty = || samples(&[ready(20_000), ready(20_000)]);
    for (spec, samples, replicas, metric, current) in [
        (pods, twenty(), 4, "pods metric rps", json!({"averageValue": "20"})),
        (
            object(json!({"type": "Value", "value": "10"})),
            Samples::Value(30_000),
            6,
            "Ingress metric hits",
            json!({"value": "30"}),
        ),
        (
            object(json!({"type": "AverageValue", "averageValue": "10"})),
            Samples::Value(75_000),
            8,
            "external metric hits(nil)",
            json!({"averageValue": "37500m"}),
        ),
        (
            external(json!({"type": "Value", "value": "10"})),
            Samples::Values(vec![10_000, 20_000]),
            6,
            lag,
            json!({"value": "30"}),
        ),
        (
            external(json!({"type": "AverageValue", "averageValue": "10"})),
            Samples::Values(vec![50_000]),
            5,
            lag,
            json!({"averageValue": "25"}),
        ),
        (
            external(json!({"type": "AverageValue", "averageValue": "10"})),
            Samples::Values(vec![i64::MAX, 5]),
            i32::MAX,
            lag,
            json!({"averageValue": "9223372036854775807m"}),
        ),
    ] {
        let found = proposal(spec.clone(), Ok(samples), 2).unwrap();
        assert_eq!((found.replicas, found.metric.as_str()), (replicas, metric), "{spec}");
        let kind = found.status["type"].as_str().unwrap().to_lowercase();
        assert_eq!(found.status[kind]["current"], current, "{spec}");
    }
}

#[test]
fn failures_have_the_messages_of_upstream() {
    let missing = || {
        let why = "unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
        Err(MetricError::new(why))
    };
    let utilization = json!({"type": "Utilization", "averageUtilization": 50});
    let resource = json!({"type": "Resource", "resource": {"name": "cpu", "target": utilization}});
    let failure = proposal(resource.clone(), missing(), 2).unwrap_err();
    assert_eq!(failure.reason, "FailedGetResourceMetric");
    let cause = "unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    assert_eq!(failure.why.to_string(), format!("failed to get cpu utilization: {cause}"));
    let all = [Err(failure)];
    let (_, message) = highest_proposal(&all, 2).unwrap_err();
    assert_eq!(
        message,
        format!(
            "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: failed to get cpu utilization: {cause}"
        )
    );
    assert_eq!(metric_entry(&all[0]), json!({"type": ""}));
}

#[test]
fn failed_metric_prevents_scaling_down() {
    let valid = |replicas| Ok(Proposal { replicas, metric: "m".to_owned(), status: Value::Null });
    let failed = || {
        let why = MetricError::new("no");
        Err(Failure { reason: "FailedGetPodsMetric", in_summary: why.clone(), why })
    };
    assert_eq!(highest_proposal(&[valid(2), valid(5), valid(3)], 4).unwrap().replicas, 5);
    assert_eq!(highest_proposal(&[failed(), valid(5)], 4).unwrap().replicas, 5);
    assert!(highest_proposal(&[failed(), valid(3)], 4).is_err());
    assert!(highest_proposal(&[failed()], 4).is_err());
}

/// An autoscaler over time.
struct Simulation {
    history: History,
    behavior: Option<HorizontalPodAutoscalerBehavior>,
    current: i32,
    now: Timestamp,
}

impl Simulation {
    fn new(behavior: Value, current: i32) -> Self {
        let behavior = serde_json::from_value(behavior).unwrap();
        Self { history: History::default(), behavior, current, now: now() }
    }

    /// Runs one sync after some seconds.
    fn recommend(&mut self, seconds: i64, replicas: i32) -> Step {
        self.now += SignedDuration::from_secs(seconds);
        let bounds = Bounds {
            current: self.current,
            min: 1,
            max: 100,
            behavior: self.behavior.as_ref(),
            downscale_stabilization: Duration::from_mins(5),
            now: self.now,
        };
        self.history.begin(self.current, self.now);
        let step = self.history.step(replicas, &bounds);
        if step.replicas != self.current {
            self.history.scaled(self.current, step.replicas, &bounds);
        }
        self.current = step.replicas;
        step
    }
}

#[test]
fn default_behavior_doubles_at_most_and_stabilizes_down() {
    let mut world = Simulation::new(Value::Null, 3);
    let step = world.recommend(15, 50);
    assert_eq!(
        (step.replicas, step.able.0, step.limited.0, step.limited.1.0),
        (6, "ReadyForNewScale", true, "ScaleUpLimit")
    );
    assert_eq!(world.recommend(15, 50).replicas, 12);
    assert_eq!(world.recommend(15, 200).replicas, 24);
    world.current = 60;
    let step = world.recommend(15, 200);
    assert_eq!((step.replicas, step.limited.1.0), (100, "TooManyReplicas"));
    let step = world.recommend(15, 2);
    assert_eq!((step.replicas, step.able.0), (100, "ScaleDownStabilized"));
    assert_eq!(world.recommend(280, 2).replicas, 100);
    let step = world.recommend(10, 0);
    assert_eq!(step.replicas, 2, "the highest of the last five minutes");
    let step = world.recommend(301, 0);
    assert_eq!((step.replicas, step.limited.1.0), (1, "TooFewReplicas"));
    let mut few = Simulation::new(Value::Null, 1);
    assert_eq!(few.recommend(15, 50).replicas, 4);
}

fn behavior(up: &Value, down: &Value) -> Value {
    json!({"scaleUp": up, "scaleDown": down})
}

fn policies(select: &str, window: i32, policies: &[(&str, i32, i32)]) -> Value {
    let policies: Vec<_> = policies
        .iter()
        .map(|(kind, value, period)| json!({"type": kind, "value": value, "periodSeconds": period}))
        .collect();
    json!({"selectPolicy": select, "stabilizationWindowSeconds": window, "policies": policies})
}

#[test]
fn policies_limit_scaling() {
    let up = policies("Max", 0, &[("Pods", 4, 60), ("Percent", 100, 60)]);
    let down = policies("Min", 0, &[("Pods", 2, 60), ("Percent", 50, 60)]);
    let mut world = Simulation::new(behavior(&up, &down), 3);
    let step = world.recommend(15, 50);
    assert_eq!((step.replicas, step.limited.1.0), (7, "ScaleUpLimit"));
    assert_eq!(world.recommend(15, 50).replicas, 7, "the period still counts from 3");
    assert_eq!(world.recommend(60, 50).replicas, 14);
    // The smaller of the two changes is two pods.
    world.recommend(61, 14);
    let step = world.recommend(61, 1);
    assert_eq!((step.replicas, step.limited.1.0), (12, "ScaleDownLimit"));
    assert_eq!(world.recommend(15, 1).replicas, 12);
    assert_eq!(world.recommend(60, 1).replicas, 10);
    let disabled = policies("Disabled", 0, &[("Pods", 2, 60)]);
    let mut world = Simulation::new(behavior(&up, &disabled), 5);
    let step = world.recommend(15, 1);
    assert_eq!(
        (step.replicas, step.limited),
        (
            5,
            (
                true,
                (
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate"
                )
            )
        )
    );
}

#[test]
fn windows_use_the_most_conservative_recommendation() {
    let up = policies("Max", 60, &[("Percent", 1000, 15)]);
    let down = policies("Max", 120, &[("Percent", 100, 15)]);
    let mut world = Simulation::new(behavior(&up, &down), 4);
    world.recommend(0, 4);
    let step = world.recommend(30, 10);
    assert_eq!((step.replicas, step.able.0), (4, "ScaleUpStabilized"));
    assert_eq!(world.recommend(31, 12).replicas, 10, "the lowest of the last minute");
    let step = world.recommend(15, 2);
    assert_eq!((step.replicas, step.able.0), (10, "ScaleDownStabilized"));
    assert_eq!(world.recommend(110, 3).replicas, 3, "the highest of the last two minutes");
}

#[test]
fn status_keeps_unchanged_fields() {
    let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}},
        "status": {"desiredReplicas": 2, "lastScaleTime": "2025-12-31T00:00:00Z", "conditions": [
            {"type": "AbleToScale", "status": "True", "reason": "Old", "lastTransitionTime": "2025-12-31T00:00:00Z"}]}
    }))
    .unwrap();
    let mut status = Status::from_autoscaler(&autoscaler, now()).unwrap();
    status.condition("AbleToScale", "True", "SucceededGetScale", "m");
    status.condition("ScalingActive", "False", "FailedGetResourceMetric", "n");
    status.current(2, vec![json!({"type": ""})]);
    let json = status.into_json();
    assert_eq!(json["conditions"][0]["lastTransitionTime"], "2025-12-31T00:00:00Z");
    assert_eq!(json["conditions"][1]["lastTransitionTime"], "2026-01-01T12:00:00Z");
    assert_eq!((&json["currentReplicas"], &json["desiredReplicas"]), (&json!(2), &json!(2)));
    assert_eq!(json["lastScaleTime"], "2025-12-31T00:00:00Z");
}
