//! A fake node: a scheduler that binds every pod to one node, and the node's kubelet, which runs no containers and
//! reports the statuses that a real kubelet would.
//!
//! Pods with `restartPolicy: Always` start and keep running. Others start and succeed, unless the annotation
//! `nave.test/outcome` is `fail` (all containers end with exit code 1) or `run` (they never end).
//! `nave.test/outcome.2` applies to the pods of index 2 of a job. The annotation `nave.test/unready: "true"` keeps a
//! pod from becoming ready, and `nave.test/pending: "true"` from running.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{
    Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The name of the node.
pub const NODE: &str = "fake";

/// A scheduler and a kubelet that run until the value is dropped.
pub struct FakeNode {
    _tasks: JoinSet<()>,
}

impl FakeNode {
    /// Registers the node and starts to bind and run pods.
    pub async fn start(client: kube::Client) -> Self {
        let nodes: Api<Node> = Api::all(client.clone());
        let node: Node = crate::ok(
            serde_json::from_value(
                json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            ),
            "the node",
        );
        // The node already exists if the server was restarted on the same data.
        let _ = nodes.create(&PostParams::default(), &node).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(heartbeats(nodes));
        tasks.spawn(Kubelet { client, addresses: AtomicU32::new(1) }.run());
        Self { _tasks: tasks }
    }
}

/// Interval between heartbeats. A node that is silent for 50 seconds counts as lost.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Reports periodically that the node is ready. Retries failures at the next heartbeat.
async fn heartbeats(nodes: Api<Node>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": now()});
        let patch = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
        let _ = nodes.patch_status(NODE, &PatchParams::default(), &patch).await;
    }
}

/// A volume provisioner that runs until the value is dropped. Creates a separate volume for each claim.
pub struct FakeProvisioner {
    _tasks: JoinSet<()>,
}

impl FakeProvisioner {
    /// Starts to bind claims.
    pub fn start(client: kube::Client) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(provision(client));
        Self { _tasks: tasks }
    }
}

async fn provision(client: kube::Client) {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let mut changed = pin!(watcher(claims, watcher::Config::default()).default_backoff().touched_objects());
    // After an error, the watcher retries with backoff.
    while let Some(claim) = changed.next().await {
        let Ok(claim) = claim else { continue };
        let is_bound = claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_some());
        if is_bound || claim.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match bind_claim(&client, &claim).await {
            // The claim was changed or deleted meanwhile, which causes another event.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => eprintln!("fake provisioner: {}: {error}", claim.metadata.name.unwrap_or_default()),
            Ok(()) => {}
        }
    }
}

/// Creates a volume for a claim and binds both.
async fn bind_claim(client: &kube::Client, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
    let (name, namespace) = (claim.metadata.name.clone(), claim.metadata.namespace.clone());
    let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
    let volume_name = format!("pvc-{}", claim.metadata.uid.clone().unwrap_or_default());
    let spec = claim.spec.clone().unwrap_or_default();
    let capacity = spec.resources.and_then(|resources| resources.requests);
    let volume = json!({
        "metadata": {"name": volume_name},
        "spec": {
            "accessModes": spec.access_modes, "capacity": capacity, "hostPath": {"path": "/volumes"},
            "storageClassName": spec.storage_class_name, "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "name": name,
                "namespace": namespace, "uid": claim.metadata.uid},
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = crate::ok(serde_json::from_value(volume), "the volume");
    volumes.create(&PostParams::default(), &volume).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let parameters = PatchParams::default();
    let spec_patch = Patch::Merge(json!({"spec": {"volumeName": volume_name}}));
    claims.patch(&name, &parameters, &spec_patch).await?;
    let status =
        json!({"status": {"phase": "Bound", "accessModes": spec.access_modes, "capacity": capacity}});
    claims.patch_status(&name, &parameters, &Patch::Merge(status)).await?;
    Ok(())
}

struct Kubelet {
    client: kube::Client,
    addresses: AtomicU32,
}

impl Kubelet {
    /// Handles every change of a pod. Retries failures at the next event or list.
    async fn run(self) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let mut changed = pin!(watcher(pods, watcher::Config::default()).default_backoff().touched_objects());
        loop {
            match changed.try_next().await {
                Ok(Some(pod)) => self.look(pod).await,
                Ok(None) => return,
                // The watcher retries with backoff.
                Err(_) => {}
            }
        }
    }

    async fn look(&self, pod: Pod) {
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let done = if pod.metadata.deletion_timestamp.is_some() {
            self.stop(&pod).await
        } else {
            match bound.as_deref() {
                None | Some("") => self.bind(&pod).await,
                Some(NODE) => self.report(&pod).await,
                Some(_) => Ok(()),
            }
        };
        match done {
            // The pod was changed or deleted meanwhile, which causes another event.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => eprintln!("fake kubelet: {}: {error}", pod.metadata.name.unwrap_or_default()),
            Ok(()) => {}
        }
    }

    async fn bind(&self, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let target = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(NODE.into()),
            ..ObjectReference::default()
        };
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let (parameters, binding) = (PostParams::default(), Binding { metadata, target });
        self.pods(pod).create_subresource::<_, Value>("binding", &name, &parameters, &binding).await?;
        Ok(())
    }

    /// Reports the next step of a pod's life: from pending to running, or from running to ended.
    async fn report(&self, pod: &Pod) -> Result<(), kube::Error> {
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let says = |key: &str| annotations.get(&format!("nave.test/{key}")).map(String::as_str);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let ends = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) != Some("Always");
        let ready = says("unready") != Some("true");
        let is_ready = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready =
            is_ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let index = annotations.get("batch.kubernetes.io/job-completion-index").map(String::as_str);
        let of_index = index.and_then(|index| says(&format!("outcome.{index}")));
        let outcome = of_index.or_else(|| says("outcome"));
        let status = match (phase, outcome) {
            ("Pending", _) if says("pending") == Some("true") => return Ok(()),
            ("Pending", _) => self.running(pod, ready),
            ("Running", Some("run")) => return Ok(()),
            ("Running", Some("fail")) if ends => ended(pod, "Failed", 1),
            ("Running", _) if ends => ended(pod, "Succeeded", 0),
            ("Running", _) if ready != is_ready => self.running(pod, ready),
            _ => return Ok(()),
        };
        self.patch(pod, status).await
    }

    /// Ends and removes a pod with a deletion timestamp.
    async fn stop(&self, pod: &Pod) -> Result<(), kube::Error> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(NODE));
        if bound && phase == "Running" {
            self.patch(pod, ended(pod, "Failed", 137)).await?;
        }
        let name = pod.metadata.name.clone().unwrap_or_default();
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        if pod.metadata.deletion_grace_period_seconds != Some(0) {
            self.pods(pod).delete(&name, &now).await?;
        }
        Ok(())
    }

    async fn patch(&self, pod: &Pod, status: Value) -> Result<(), kube::Error> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        // Applies only to this version: a late report must not revive a pod that has ended meanwhile.
        let (uid, version) = (&pod.metadata.uid, &pod.metadata.resource_version);
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": status});
        self.pods(pod).patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    fn running(&self, pod: &Pod, ready: bool) -> Value {
        let known = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        let address = known.unwrap_or_else(|| {
            let number = self.addresses.fetch_add(1, Ordering::Relaxed);
            Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + number).to_string()
        });
        let started = json!({"running": {"startedAt": now()}});
        json!({
            "phase": "Running", "hostIP": "192.0.2.1", "podIP": address, "podIPs": [{"ip": address}],
            "startTime": now(),
            "conditions": conditions(ready),
            "containerStatuses": containers(pod, ready, &started)
        })
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }
}

fn ended(pod: &Pod, phase: &str, code: i32) -> Value {
    let state = json!({"terminated": {"exitCode": code, "startedAt": now(), "finishedAt": now(),
        "reason": if code == 0 { "Completed" } else { "Error" }}});
    json!({"phase": phase, "conditions": conditions(false), "containerStatuses": containers(pod, false, &state)})
}

fn conditions(ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    let of =
        |type_: &str, status: &str| json!({"type": type_, "status": status, "lastTransitionTime": now()});
    json!([
        of("Initialized", "True"),
        of("Ready", status),
        of("ContainersReady", status),
        of("PodScheduled", "True")
    ])
}

fn containers(pod: &Pod, ready: bool, state: &Value) -> Vec<BTreeMap<&'static str, Value>> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let status = containers.map(|container| {
        BTreeMap::from([
            ("name", json!(container.name)),
            ("image", json!(container.image)),
            ("imageID", json!("")),
            ("ready", json!(ready)),
            ("started", json!(ready)),
            ("restartCount", json!(0)),
            ("state", state.clone()),
        ])
    });
    status.collect()
}

fn now() -> String {
    k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
