//! Pod garbage collector: deletes pods that no other controller deletes (upstream: `podgc`).
//!
//! Deletes pods on nodes that no longer exist, terminating pods that were never scheduled, terminating pods on
//! nodes that are out of service, and terminated pods beyond a threshold. Runs periodically instead of on events,
//! and decodes only the fields it needs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use nave_client::{Lister, Object};
use serde::Deserialize;
use serde_json::json;

use crate::frame::{Context, Descriptor, SyncError, Workers};

pub(crate) const POD_GC: Descriptor = Descriptor {
    name: "pod-garbage-collector-controller",
    alias: "podgc",
    service_account: "pod-garbage-collector",
    on_by_default: true,
    workers: Workers::fixed(CONCURRENT_DELETIONS),
    start,
};

/// The interval between runs.
const PERIOD: Duration = Duration::from_secs(20);
/// The time for which pods of a missing node are kept, as the cache may not have a new node yet.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The number of concurrent deletions.
const CONCURRENT_DELETIONS: usize = 16;
/// Taint that an operator sets on a node that is out of service.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The fields of a pod that this controller needs.
#[derive(Deserialize)]
struct PodFields {
    #[serde(default)]
    spec: PodSpecFields,
    #[serde(default)]
    status: PodStatusFields,
    metadata: PodMetadataFields,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpecFields {
    #[serde(default)]
    node_name: String,
}

#[derive(Default, Deserialize)]
struct PodStatusFields {
    #[serde(default)]
    phase: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodMetadataFields {
    creation_timestamp: Option<Timestamp>,
}

/// The reason for deleting a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeletionReason {
    Terminated,
    OutOfService,
    Orphaned,
    Unscheduled,
}

struct Collector {
    client: kube::Client,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    /// The number of terminated pods to keep.
    terminated_threshold: usize,
    /// The time at which each missing node was first found missing.
    missing: HashMap<String, Instant>,
    /// True if a node has existed since this controller started.
    has_seen_nodes: bool,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (pods, nodes) = (context.informers.informer::<Pod>(), context.informers.informer::<Node>());
    let mut collector = Collector {
        client: context.client.clone(),
        pods: pods.lister(),
        nodes: nodes.lister(),
        terminated_threshold: context.options.terminated_pods,
        missing: HashMap::new(),
        has_seen_nodes: false,
    };
    let stop = context.stop.clone();
    async move {
        let collect = async {
            pods.wait_for_sync().await;
            nodes.wait_for_sync().await;
            loop {
                tokio::time::sleep(PERIOD).await;
                if let Err(error) = collector.collect().await {
                    tracing::warn!(%error, "some pods could not be deleted");
                }
            }
        };
        stop.run_until_cancelled(collect).await;
    }
    .boxed()
}

impl Collector {
    async fn collect(&mut self) -> Result<(), SyncError> {
        let (all, nodes) = (self.pods.list(), self.nodes.list());
        let known: HashSet<&str> = nodes.iter().map(Object::name).collect();
        let out_of_service: HashSet<&str> =
            nodes.iter().filter(|node| is_out_of_service(node)).map(Object::name).collect();
        let mut pods = Vec::with_capacity(all.len());
        for pod in &all {
            let fields: PodFields = serde_json::from_slice(pod.json())?;
            pods.push((pod, fields));
        }
        let gone = self.gone_nodes(&pods, &known).await?;
        let mut garbage: Vec<(&Object<Pod>, DeletionReason)> = terminated(&pods, self.terminated_threshold);
        let others = pods.iter().filter_map(|(pod, fields)| {
            Some((*pod, deletion_reason(pod.is_being_deleted(), fields, &out_of_service, &gone)?))
        });
        garbage.extend(others);
        for batch in garbage.chunks(CONCURRENT_DELETIONS) {
            let deleted = join_all(batch.iter().map(|(pod, why)| self.delete(pod, *why))).await;
            deleted.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// Returns the nodes that have been missing for the whole quarantine, confirmed by a live read.
    async fn gone_nodes(
        &mut self,
        pods: &[(&Object<Pod>, PodFields)],
        known: &HashSet<&str>,
    ) -> Result<HashSet<String>, SyncError> {
        // In a cluster without nodes, users bind pods manually; do not delete these pods.
        if known.is_empty() && !self.has_seen_nodes {
            return Ok(HashSet::new());
        }
        self.has_seen_nodes = true;
        let bound = pods.iter().map(|(_, fields)| fields.spec.node_name.as_str());
        let missing: HashSet<&str> = bound.filter(|node| !node.is_empty() && !known.contains(node)).collect();
        self.missing.retain(|node, _| missing.contains(node.as_str()));
        for node in missing {
            self.missing.entry(node.to_owned()).or_insert_with(Instant::now);
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let mut gone = HashSet::new();
        for (node, since) in &self.missing {
            if since.elapsed() >= QUARANTINE && nodes.get_metadata_opt(node).await?.is_none() {
                gone.insert(node.clone());
            }
        }
        Ok(gone)
    }

    async fn delete(&self, pod: &Object<Pod>, why: DeletionReason) -> Result<(), SyncError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace());
        let decoded = pod.decode()?;
        if !crate::pods::is_terminal(&decoded) && why != DeletionReason::Terminated {
            // Sets the phase because no kubelet will report it, and clients may wait for it.
            let mut status = json!({"phase": "Failed"});
            if why == DeletionReason::Orphaned {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": now_rfc3339(),
                }]);
            }
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
            let patched = pods.patch_status(pod.name(), &PatchParams::default(), &patch).await;
            if is_gone(patched.map(drop))? {
                return Ok(());
            }
        }
        tracing::info!(
            namespace = pod.namespace(),
            pod = pod.name(),
            ?why,
            "deleting a pod that nobody else will"
        );
        let preconditions = Preconditions { uid: Some(pod.uid().to_owned()), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        is_gone(pods.delete(pod.name(), &parameters).await.map(drop)).map(drop)
    }
}

/// Returns whether a write failed because the pod no longer exists or has another UID.
fn is_gone(written: Result<(), kube::Error>) -> Result<bool, SyncError> {
    match written {
        Ok(()) => Ok(false),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn now_rfc3339() -> String {
    nave_machinery::time::now().rfc3339()
}

/// Returns the reason to delete a pod, without regard to the threshold of terminated pods.
fn deletion_reason(
    is_being_deleted: bool,
    pod: &PodFields,
    out_of_service: &HashSet<&str>,
    gone: &HashSet<String>,
) -> Option<DeletionReason> {
    let node = pod.spec.node_name.as_str();
    if gone.contains(node) {
        Some(DeletionReason::Orphaned)
    } else if is_being_deleted && node.is_empty() {
        Some(DeletionReason::Unscheduled)
    } else if is_being_deleted && out_of_service.contains(node) {
        Some(DeletionReason::OutOfService)
    } else {
        None
    }
}

/// Returns the terminated pods beyond the threshold: evicted pods first, then the oldest pods.
fn terminated<'a>(
    pods: &[(&'a Object<Pod>, PodFields)],
    kept: usize,
) -> Vec<(&'a Object<Pod>, DeletionReason)> {
    let mut ended: Vec<_> = pods
        .iter()
        .filter(|(pod, fields)| {
            matches!(&*fields.status.phase, "Succeeded" | "Failed") && !pod.is_being_deleted()
        })
        .collect();
    let excess = ended.len().saturating_sub(kept);
    if excess == 0 {
        return Vec::new();
    }
    ended.sort_by_key(|(pod, fields)| {
        (fields.status.reason != "Evicted", fields.metadata.creation_timestamp, pod.key().as_str().to_owned())
    });
    ended.truncate(excess);
    ended.into_iter().map(|(pod, _)| (*pod, DeletionReason::Terminated)).collect()
}

/// Returns whether a node has the out-of-service taint and is not ready.
fn is_out_of_service(node: &Object<Node>) -> bool {
    let Ok(node) = node.decode() else { return false };
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
        && !conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn pod(name: &str, minute: u32, status: &Value) -> (Object<Pod>, Value) {
        let at = format!("2026-01-01T00:{minute:02}:00Z");
        let value =
            json!({"metadata": {"name": name, "namespace": "a", "creationTimestamp": at}, "status": status});
        (Object::from_value(&value).unwrap(), value)
    }

    #[test]
    fn deletes_evicted_pods_first_then_the_oldest() {
        let ended = json!({"phase": "Succeeded"});
        let pods = [
            pod("new", 9, &ended),
            pod("old", 1, &ended),
            pod("evicted", 9, &json!({"phase": "Failed", "reason": "Evicted"})),
            pod("runs", 0, &json!({"phase": "Running"})),
        ];
        let read: Vec<_> = pods
            .iter()
            .map(|(pod, value)| (pod, serde_json::from_value::<PodFields>(value.clone()).unwrap()))
            .collect();
        let names: Vec<_> = terminated(&read, 1).iter().map(|(pod, _)| pod.name()).collect();
        assert_eq!(names, ["evicted", "old"]);
        assert!(terminated(&read, 3).is_empty());
    }

    #[test]
    fn finds_the_reason_for_deletion() {
        let pod_on = |node: &str| PodFields {
            spec: PodSpecFields { node_name: node.to_owned() },
            status: PodStatusFields::default(),
            metadata: PodMetadataFields { creation_timestamp: None },
        };
        let (out, gone) = (HashSet::from(["out"]), HashSet::from(["gone".to_owned()]));
        for (deleted, node, expected) in [
            (false, "gone", Some(DeletionReason::Orphaned)),
            (false, "", None),
            (true, "", Some(DeletionReason::Unscheduled)),
            (false, "out", None),
            (true, "out", Some(DeletionReason::OutOfService)),
            (true, "here", None),
        ] {
            assert_eq!(deletion_reason(deleted, &pod_on(node), &out, &gone), expected, "{deleted} {node}");
        }
    }
}
