//! Benchmarks parsing the table and the schema work of a pod write: `cargo run --release --example normalize`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nave_schema::normalize::{Mode, normalize};
use nave_schema::{builtin, defaulting};
use serde_json::{Value, json};

const ROUNDS: u32 = 500;

fn main() {
    let start = Instant::now();
    let set = builtin();
    println!("table: {:?}, {} types", start.elapsed(), set.types().len());
    let pod = pod();
    println!("pod: {} bytes", pod.to_string().len());
    let Some(id) = set.find("io.k8s.api.core.v1.Pod") else { return };
    let mut normal = pod;
    let normalizing = fastest(|| {
        let _ = black_box(normalize(set, id, black_box(&mut normal), Mode::Report));
    });
    println!("normalize: {normalizing:?}");
    let defaulting = fastest(|| {
        let _ = black_box(defaulting::apply(set, id, black_box(&mut normal)));
    });
    println!("defaulting: {defaulting:?}");
}

/// Returns the time per round of the fastest batch; other load can only increase the time.
fn fastest(mut work: impl FnMut()) -> Duration {
    let batch = |_| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        start.elapsed() / ROUNDS
    };
    (0..200).map(batch).min().unwrap_or_default()
}

/// A typical running pod of a Deployment.
fn pod() -> Value {
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
    let container = |name: &str| {
        json!({
            "name": name, "image": "registry.example.com/team/app:v1.2.3", "imagePullPolicy": "IfNotPresent",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": (0..6).map(|n| json!({"name": format!("VAR_{n}"), "value": format!("value-{n}")})).collect::<Vec<_>>(),
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": [{"name": "kube-api-access-x7x2k", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            "livenessProbe": probe, "readinessProbe": probe,
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        })
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-5d4f8c7b9-abcde", "generateName": "web-5d4f8c7b9-", "namespace": "default",
            "uid": "0b6a6a4e-58a3-4d4c-9d0e-3f1f5d5a5b5c", "resourceVersion": "12345", "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8c7b9", "uid": "a7b6a6a4-58a3-4d4c-9d0e-3f1f5d5a5b5c", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-x7x2k", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}],
            "containers": [container("app")],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "nodeName": "node-17", "securityContext": {},
            "schedulerName": "default-scheduler", "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.17", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}], "startTime": "2026-01-02T03:04:05Z",
            "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"), condition("PodScheduled")],
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "started": true, "image": "registry.example.com/team/app:v1.2.3",
                "imageID": "sha256:0123456789abcdef", "containerID": "containerd://0123456789abcdef", "lastState": {}, "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}}],
            "qosClass": "Burstable",
        },
    })
}
