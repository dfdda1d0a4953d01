//! Pod garbage collection: deletes pods that nobody else will.
//!
//! These are pods whose node is gone, pods under deletion that never had a node, pods under deletion on a node that is
//! out of service, and, beyond a threshold, pods that have ended. It looks at all pods now and then rather than at each
//! event; of a pod it reads no more than it needs for that.

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

/// Pod garbage collection.
pub(crate) const POD_GC: Descriptor = Descriptor {
    name: "pod-garbage-collector-controller",
    alias: "podgc",
    service_account: "pod-garbage-collector",
    on_by_default: true,
    workers: Workers::fixed(AT_ONCE),
    start,
};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(20);
/// A node that is missing may only not have been seen yet: so long its pods are left alone.
const QUARANTINE: Duration = Duration::from_secs(40);
/// So many pods are deleted at once.
const AT_ONCE: usize = 16;
/// The taint of a node that an operator has declared to be out of service.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is read of a pod.
#[derive(Deserialize)]
struct Brief {
    #[serde(default)]
    spec: BriefSpec,
    #[serde(default)]
    status: BriefStatus,
    metadata: BriefMetadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BriefSpec {
    #[serde(default)]
    node_name: String,
}

#[derive(Default, Deserialize)]
struct BriefStatus {
    #[serde(default)]
    phase: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BriefMetadata {
    creation_timestamp: Option<Timestamp>,
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Terminated,
    OutOfService,
    Orphaned,
    Unscheduled,
}

struct Collector {
    client: kube::Client,
    pods: Lister<Pod>,
    nodes: Lister<Node>,
    /// So many pods that have ended are kept.
    terminated_kept: usize,
    /// Since when nodes that pods are bound to have been missing.
    missing: HashMap<String, Instant>,
    /// True if there has been a node since this controller started.
    has_seen_nodes: bool,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (pods, nodes) = (context.informers.informer::<Pod>(), context.informers.informer::<Node>());
    let mut collector = Collector {
        client: context.client.clone(),
        pods: pods.lister(),
        nodes: nodes.lister(),
        terminated_kept: context.options.terminated_pods,
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
                    tracing::warn!(%error, "not all pods that nobody needs could be deleted");
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
            let brief: Brief = serde_json::from_slice(pod.json())?;
            pods.push((pod, brief));
        }
        let gone = self.gone_nodes(&pods, &known).await?;
        let mut garbage: Vec<(&Object<Pod>, Why)> = terminated(&pods, self.terminated_kept);
        let others = pods.iter().filter_map(|(pod, brief)| {
            Some((*pod, reason(pod.is_being_deleted(), brief, &out_of_service, &gone)?))
        });
        garbage.extend(others);
        for batch in garbage.chunks(AT_ONCE) {
            let deleted = join_all(batch.iter().map(|(pod, why)| self.delete(pod, *why))).await;
            deleted.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// The nodes that pods are bound to and that have been missing for long enough, and are.
    async fn gone_nodes(
        &mut self,
        pods: &[(&Object<Pod>, Brief)],
        known: &HashSet<&str>,
    ) -> Result<HashSet<String>, SyncError> {
        // Where no node has ever registered, pods are objects that somebody binds by hand: a control plane by itself.
        if known.is_empty() && !self.has_seen_nodes {
            return Ok(HashSet::new());
        }
        self.has_seen_nodes = true;
        let bound = pods.iter().map(|(_, brief)| brief.spec.node_name.as_str());
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

    async fn delete(&self, pod: &Object<Pod>, why: Why) -> Result<(), SyncError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), pod.namespace());
        let decoded = pod.decode()?;
        if !crate::pods::is_terminal(&decoded) && why != Why::Terminated {
            // Whoever waits for the pod's end must see one: there is no kubelet to report it.
            let mut status = json!({"phase": "Failed"});
            if why == Why::Orphaned {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": now(),
                }]);
            }
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
            let patched = pods.patch_status(pod.name(), &PatchParams::default(), &patch).await;
            if gone(patched.map(drop))? {
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
        gone(pods.delete(pod.name(), &parameters).await.map(drop)).map(drop)
    }
}

/// Returns whether a write found that the pod is gone, or another by now has its name.
fn gone(written: Result<(), kube::Error>) -> Result<bool, SyncError> {
    match written {
        Ok(()) => Ok(false),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn now() -> String {
    nave_machinery::time::now().rfc3339()
}

/// Why a pod is deleted whatever there is besides it.
fn reason(
    is_being_deleted: bool,
    pod: &Brief,
    out_of_service: &HashSet<&str>,
    gone: &HashSet<String>,
) -> Option<Why> {
    let node = pod.spec.node_name.as_str();
    if gone.contains(node) {
        Some(Why::Orphaned)
    } else if is_being_deleted && node.is_empty() {
        Some(Why::Unscheduled)
    } else if is_being_deleted && out_of_service.contains(node) {
        Some(Why::OutOfService)
    } else {
        None
    }
}

/// Pods that have ended, beyond those that are kept: evicted ones first, then the oldest.
fn terminated<'a>(pods: &[(&'a Object<Pod>, Brief)], kept: usize) -> Vec<(&'a Object<Pod>, Why)> {
    let ended = |(pod, brief): &&(&Object<Pod>, Brief)| {
        matches!(&*brief.status.phase, "Succeeded" | "Failed") && !pod.is_being_deleted()
    };
    let mut ended: Vec<_> = pods.iter().filter(ended).collect();
    let excess = ended.len().saturating_sub(kept);
    if excess == 0 {
        return Vec::new();
    }
    ended.sort_by_key(|(pod, brief)| {
        (brief.status.reason != "Evicted", brief.metadata.creation_timestamp, pod.key().as_str().to_owned())
    });
    ended.truncate(excess);
    ended.into_iter().map(|(pod, _)| (*pod, Why::Terminated)).collect()
}

/// Returns whether an operator has declared a node to be out of service, and it is not ready indeed.
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
    fn evicted_pods_go_first_then_the_oldest() {
        let ended = json!({"phase": "Succeeded"});
        let pods = [
            pod("new", 9, &ended),
            pod("old", 1, &ended),
            pod("evicted", 9, &json!({"phase": "Failed", "reason": "Evicted"})),
            pod("runs", 0, &json!({"phase": "Running"})),
        ];
        let read: Vec<_> = pods
            .iter()
            .map(|(pod, value)| (pod, serde_json::from_value::<Brief>(value.clone()).unwrap()))
            .collect();
        let names: Vec<_> = terminated(&read, 1).iter().map(|(pod, _)| pod.name()).collect();
        assert_eq!(names, ["evicted", "old"]);
        assert!(terminated(&read, 3).is_empty());
    }

    #[test]
    fn a_pod_is_garbage_when_nobody_will_end_it() {
        let on = |node: &str| Brief {
            spec: BriefSpec { node_name: node.to_owned() },
            status: BriefStatus::default(),
            metadata: BriefMetadata { creation_timestamp: None },
        };
        let (out, gone) = (HashSet::from(["out"]), HashSet::from(["gone".to_owned()]));
        for (deleted, node, expected) in [
            (false, "gone", Some(Why::Orphaned)),
            (false, "", None),
            (true, "", Some(Why::Unscheduled)),
            (false, "out", None),
            (true, "out", Some(Why::OutOfService)),
            (true, "here", None),
        ] {
            assert_eq!(reason(deleted, &on(node), &out, &gone), expected, "{deleted} {node}");
        }
    }
}
