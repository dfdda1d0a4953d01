//! Measures the cost of managed fields in writes of a pod.
//!
//! Run it with `cargo run --release -p nave-patch --example managed_fields`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nave_machinery::managed_fields::expand;
use nave_patch::managed_fields::{FieldManager, FieldSet, TypeRef, Versions};
use nave_schema::{TypeId, builtin};
use serde_json::{Value, json};

/// Small enough that a batch is rarely interrupted by other processes.
const ROUNDS: u32 = 20;
const NOW: &str = "2026-01-02T03:04:05Z";

struct Pods(TypeId);

impl Versions for Pods {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        (api_version == "v1").then_some(TypeRef::Struct(builtin(), self.0))
    }

    fn convert(&self, object: &Value, _: &str) -> Result<Value, String> {
        Ok(object.clone())
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        None
    }
}

fn main() {
    let Some(id) = builtin().find("io.k8s.api.core.v1.Pod") else { return };
    let (pods, pod, empty) =
        (Pods(id), pod(), json!({"metadata": {}, "spec": {"containers": null}, "status": {}}));
    let manager = FieldManager {
        versions: &pods,
        api_version: "v1",
        kind: "Pod",
        subresource: "",
        now: NOW,
        empty: &empty,
    };
    println!("pod: {} bytes", pod.to_string().len());
    let copying = fastest(|| drop(black_box(pod.clone())));
    println!("copy (part of the next figure): {copying:?}");
    let creating = fastest(|| {
        let mut pod = pod.clone();
        manager.update(None, &mut pod, "kubelet");
        black_box(pod);
    });
    println!("create: {creating:?}");

    let mut live = pod;
    manager.update(None, &mut live, "manager-0");
    expand(&mut live);
    for at in 1..5 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("label-{at}")] = json!("x");
        manager.update(Some(&live), &mut new, &format!("manager-{at}"));
        expand(&mut new);
        live = new;
    }
    let mut new = live.clone();
    new["spec"]["containers"][0]["image"] = json!("registry.example.com/team/app:v2");
    let copying = fastest(|| drop(black_box(new.clone())));
    println!("copy with five managers (part of the next figure): {copying:?}");
    let updating = fastest(|| {
        let mut new = new.clone();
        manager.update(Some(&live), &mut new, "manager-5");
        black_box(new);
    });
    println!("update with five managers: {updating:?}");
    let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "app", "image": "registry.example.com/team/app:v2"}]}});
    let applying = fastest(|| {
        let _ = black_box(manager.apply(Some(&live), &applied, "applier", true));
    });
    println!("apply: {applying:?}");
}

/// Returns the time per round of the fastest of many batches. Other load on the machine only adds time.
fn fastest(mut work: impl FnMut()) -> Duration {
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        start.elapsed() / ROUNDS
    };
    (0..1000).map(batch).min().unwrap_or_default()
}

/// Returns a pod as created by a Deployment.
fn pod() -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1,
        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    let container = |name: &str| {
        json!({
            "name": name, "image": "registry.example.com/team/app:v1.2.3", "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": (0..6).map(|n| json!({"name": format!("VAR_{n}"), "value": format!("value-{n}")})).collect::<Vec<_>>(),
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": probe, "readinessProbe": probe,
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "app-5d4f8c7b9d-", "labels": {"app": "app", "pod-template-hash": "5d4f8c7b9d"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-5d4f8c7b9d",
                "uid": "6c1e7f0e-8a52-4f9b-9d36-1c2f3a4b5c6d", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": [container("app"), container("sidecar")], "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true},
        "status": {},
    })
}
