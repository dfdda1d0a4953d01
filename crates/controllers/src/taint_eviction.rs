//! Taint eviction: deletes pods that do not tolerate a node's `NoExecute` taints, or whose toleration has expired
//! (upstream: `tainteviction`).

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use nave_client::{Action, Deleted, EventHandler, Lister, Object, ObjectName, SharedInformer, Workqueue};
use parking_lot::Mutex;
use serde_json::json;

use crate::api::ignore_not_found;
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};
use crate::scheduling::{NodeView, tolerates};
use crate::time_arithmetic::saturating_add;

pub(crate) const TAINT_EVICTION: Descriptor = Descriptor {
    name: "taint-eviction-controller",
    alias: "taint-eviction-controller",
    service_account: "node-controller",
    on_by_default: true,
    workers: Workers::fixed(8),
    start,
};

/// Index of pods by node.
const BY_NODE: &str = "node";

/// Adds the index to an informer.
pub(crate) fn index_by_node(pods: &SharedInformer<Pod>) {
    pods.add_index(BY_NODE, |pod| node_of(pod).into_iter().collect());
}

pub(crate) fn pods_of(pods: &Lister<Pod>, node: &str) -> Vec<Object<Pod>> {
    pods.by_index(BY_NODE, node).unwrap_or_default()
}

fn node_of<K>(pod: &Object<K>) -> Option<String> {
    let name: String = serde_json::from_slice(pod.json_at(&["spec", "nodeName"])?).ok()?;
    Some(name).filter(|name| !name.is_empty())
}

struct Controller {
    client: kube::Client,
    events: EventRecorder,
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    /// The time since which each pod, by UID, has been on a node with taints that limit its stay.
    since: Mutex<HashMap<String, Timestamp>>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("noexec_taint_pod");
    let (nodes, pods) = (builder.informer::<Node>(), builder.informer::<Pod>());
    index_by_node(&pods);
    builder.add_handler(&nodes, NodeHandler { queue: builder.queue(), pods: pods.lister() });
    let all = nodes.lister();
    builder.enqueue_mapped(&pods, move |pod| {
        let node = all.get("", &node_of(pod)?)?;
        may_evict(&node).then(|| pod.key())
    });
    builder.run(Controller {
        client: context.client.clone(),
        events: context.events.with_component("taint-eviction-controller"),
        nodes: nodes.lister(),
        pods: pods.lister(),
        since: Mutex::default(),
    })
}

/// Returns whether a node may have a `NoExecute` taint. Does not decode the node.
fn may_evict(node: &Object<Node>) -> bool {
    let taints = node.json_at(&["spec", "taints"]).unwrap_or_default();
    taints.windows(NO_EXECUTE.len()).any(|window| window == NO_EXECUTE.as_bytes())
}

const NO_EXECUTE: &str = "NoExecute";

/// Enqueues the pods of a node whose taints have changed.
struct NodeHandler {
    queue: Workqueue,
    pods: Lister<Pod>,
}

impl NodeHandler {
    fn enqueue(&self, node: &Object<Node>) {
        for pod in pods_of(&self.pods, node.name()) {
            self.queue.add(pod.key());
        }
    }
}

impl EventHandler<Node> for NodeHandler {
    fn on_add(&self, node: &Object<Node>, _: bool) {
        if may_evict(node) {
            self.enqueue(node);
        }
    }

    fn on_update(&self, old: &Object<Node>, new: &Object<Node>) {
        let taints = ["spec", "taints"];
        if old.json_at(&taints) != new.json_at(&taints) && (may_evict(old) || may_evict(new)) {
            self.enqueue(new);
        }
    }

    fn on_delete(&self, _: &Deleted<Node>) {}
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.pods.get_by_key(&key) else { return Ok(Action::Done) };
        let node = node_of(&cached).and_then(|name| self.nodes.get("", &name));
        let Some(node) = node.filter(|node| may_evict(node) && !cached.is_being_deleted()) else {
            self.cancel(&cached);
            return Ok(Action::Done);
        };
        let pod = cached.decode()?;
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let now = Timestamp::now();
        match time_left(tolerations, &NodeView::read(&node)?.taints) {
            Time::Unlimited => {
                self.cancel(&cached);
                Ok(Action::Done)
            }
            Time::Over => self.evict(&pod).await,
            Time::Limited(time) => {
                let since = *self.since.lock().entry(cached.uid().to_owned()).or_insert(now);
                let end =
                    saturating_add(since, SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX));
                match Duration::try_from(now.duration_until(end)) {
                    Ok(wait) if !wait.is_zero() => Ok(Action::RequeueAfter(wait)),
                    _ => self.evict(&pod).await,
                }
            }
        }
    }
}

impl Controller {
    /// Cancels the pending deletion of a pod.
    fn cancel(&self, pod: &Object<Pod>) {
        if self.since.lock().remove(pod.uid()).is_some() && !pod.is_being_deleted() {
            let Ok(pod) = pod.metadata().map(|metadata| Pod { metadata, ..Pod::default() }) else { return };
            self.record(&pod, "Cancelling deletion of Pod");
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<Action, SyncError> {
        let meta = &pod.metadata;
        let [namespace, name] = [&meta.namespace, &meta.name].map(|it| it.as_deref().unwrap_or_default());
        self.record(pod, "Marking for deletion Pod");
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
        let patch = json!({"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}});
        ignore_not_found(pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        let preconditions = Some(Preconditions { uid: meta.uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        ignore_not_found(pods.delete(name, &parameters).await)?;
        self.since.lock().remove(meta.uid.as_deref().unwrap_or_default());
        Ok(Action::Done)
    }

    fn record(&self, pod: &Pod, what: &str) {
        let meta = &pod.metadata;
        let [namespace, name] = [&meta.namespace, &meta.name].map(|it| it.as_deref().unwrap_or_default());
        let message = format!("{what} {namespace}/{name}");
        self.events.record(&reference_of(pod), EventKind::Normal, "TaintManagerEviction", &message);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Time {
    Unlimited,
    Limited(Duration),
    Over,
}

/// Returns the time for which a pod with these tolerations may stay on a node with these taints.
fn time_left(tolerations: &[Toleration], taints: &[Taint]) -> Time {
    let mut least: Option<i64> = None;
    for taint in taints.iter().filter(|taint| taint.effect == NO_EXECUTE) {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Time::Over;
        };
        if let Some(seconds) = toleration.toleration_seconds {
            least = Some(least.map_or(seconds, |least| least.min(seconds)));
        }
    }
    match least {
        None => Time::Unlimited,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Time::Limited(Duration::from_secs(seconds)),
            _ => Time::Over,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn shortest_toleration_limits_the_stay() {
        let taints = |keys: &[&str]| -> Vec<Taint> {
            let taint = |key: &&str| json!({"key": key, "effect": NO_EXECUTE});
            keys.iter().map(|key| serde_json::from_value(taint(key)).unwrap()).collect()
        };
        let toleration = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
        let seconds = |seconds| Time::Limited(Duration::from_secs(seconds));
        let cases = [
            (vec![], taints(&[]), Time::Unlimited),
            (vec![], taints(&["a"]), Time::Over),
            (vec![toleration("a", Value::Null)], taints(&["a"]), Time::Unlimited),
            (vec![toleration("a", json!(300))], taints(&["a"]), seconds(300)),
            (vec![toleration("a", json!(0))], taints(&["a"]), Time::Over),
            (vec![toleration("a", json!(-5))], taints(&["a"]), Time::Over),
            (vec![toleration("a", json!(300)), toleration("b", json!(20))], taints(&["a", "b"]), seconds(20)),
            (
                vec![toleration("a", json!(300)), toleration("b", Value::Null)],
                taints(&["a", "b"]),
                seconds(300),
            ),
            (vec![toleration("a", json!(300))], taints(&["a", "b"]), Time::Over),
            (vec![toleration("a", json!(i64::MAX))], taints(&["a"]), seconds(i64::MAX.unsigned_abs())),
        ];
        for (tolerations, taints, expected) in cases {
            let parsed: Vec<Toleration> =
                tolerations.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
            assert_eq!(time_left(&parsed, &taints), expected, "{tolerations:?} {taints:?}");
        }
        let other: Taint = serde_json::from_value(json!({"key": "a", "effect": "NoSchedule"})).unwrap();
        assert_eq!(time_left(&[], &[other]), Time::Unlimited);
    }
}
