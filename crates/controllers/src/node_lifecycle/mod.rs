//! Node lifecycle controller: marks nodes without heartbeats as unknown, and taints nodes by their conditions
//! (upstream: `nodelifecycle`).
//!
//! | module | contents |
//! | --- | --- |
//! | [`health`] | heartbeats, conditions and taints of a node |
//! | [`pace`] | rate limiting of the taints that evict pods |

mod health;
mod pace;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod, Taint};
use kube::api::{Api, Patch, PatchParams};
use nave_client::{Action, Lister, ObjectName, on_delete};
use parking_lot::Mutex;
use serde_json::json;

use self::health::Heartbeat;
use self::pace::{TaintLimiter, Zones};
use crate::api::ignore_not_found;
use crate::frame::{
    Context, Descriptor, EventKind, EventRecorder, Reconciler, SyncError, Workers, reference_of,
};
use crate::pods;
use crate::selectors::label;
use crate::taint_eviction::{index_by_node, pods_of};

pub(crate) const NODE_LIFECYCLE: Descriptor = Descriptor {
    name: "node-lifecycle-controller",
    alias: "nodelifecycle",
    service_account: "node-controller",
    on_by_default: true,
    workers: Workers::fixed(8),
    start,
};

/// The namespace of the kubelets' leases.
const LEASES: &str = "kube-node-lease";
/// The interval between checks of a node.
const PERIOD: Duration = Duration::from_secs(5);
/// The minimum interval between counts of all nodes.
const COUNT_PERIOD: SignedDuration = SignedDuration::from_secs(1);
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

struct Controller {
    client: kube::Client,
    events: EventRecorder,
    nodes: Lister<Node>,
    leases: Lister<Lease>,
    pods: Lister<Pod>,
    /// The last heartbeat by node name.
    heartbeats: Arc<Mutex<HashMap<String, Heartbeat>>>,
    pace: TaintLimiter,
    /// The last count of nodes by zone.
    counted: Mutex<Option<(Timestamp, Arc<Zones>)>>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (mut builder, nodes) = context.controller_for::<Node>("node_lifecycle_controller");
    let pods = builder.informer::<Pod>();
    let leases = builder.informer::<Lease>();
    index_by_node(&pods);
    let heartbeats = Arc::<Mutex<HashMap<String, Heartbeat>>>::default();
    let (gone, events) = (Arc::clone(&heartbeats), context.events.clone());
    builder.add_handler(
        &nodes,
        on_delete(move |node| {
            if gone.lock().remove(node.name()).is_some() {
                let message = format!("Removing Node {} from Controller", node.name());
                record(&events, node.name(), node.uid(), "RemovingNode", &message);
            }
        }),
    );
    builder.run(Controller {
        client: context.client.clone(),
        events: context.events.clone(),
        nodes: nodes.lister(),
        leases: leases.lister(),
        pods: pods.lister(),
        heartbeats,
        pace: TaintLimiter::default(),
        counted: Mutex::default(),
    })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.nodes.get_by_key(&key) else { return Ok(Action::Done) };
        if cached.is_being_deleted() {
            return Ok(Action::Done);
        }
        let (node, now) = (cached.decode()?, Timestamp::now());
        let heartbeats = self.update_heartbeat(&node, key.name(), now)?;
        let labels = health::missing_labels(&node);
        if !labels.is_empty() {
            let patch = json!({"metadata": {"labels": labels}});
            let nodes: Api<Node> = Api::all(self.client.clone());
            let patched = nodes.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
            ignore_not_found(patched)?;
            // The event of this write triggers another sync.
            return Ok(Action::RequeueAfter(PERIOD));
        }
        if heartbeats.remaining_grace(&node, now).is_zero() {
            let unknown = health::unknown_conditions(&node, now);
            if !unknown.is_empty() {
                let was_ready = health::is_ready(&node);
                self.write_conditions(&node, unknown).await?;
                if was_ready {
                    self.record_not_ready(&node);
                }
                // The event of this write triggers another sync, which sets the taints.
                return Ok(Action::RequeueAfter(PERIOD));
            }
        }
        let evict = self.eviction_taint(&node, now);
        if let Some(taints) = health::corrected_taints(&node, evict, now) {
            self.write_taints(&node, &taints).await?;
        }
        if health::condition(&node, "Ready").is_some() && !health::is_ready(&node) {
            self.mark_pods_not_ready(key.name()).await?;
        }
        Ok(Action::RequeueAfter(PERIOD))
    }
}

impl Controller {
    /// Updates the last heartbeat of a node. Announces nodes that are new to this controller.
    fn update_heartbeat(&self, node: &Node, name: &str, now: Timestamp) -> Result<Heartbeat, SyncError> {
        let lease = self.leases.get(LEASES, name).map(|lease| lease.decode()).transpose()?;
        let renewed = lease.and_then(|lease| lease.spec?.renew_time).map(|time| time.0.to_string());
        let mut all = self.heartbeats.lock();
        let heartbeats = Heartbeat::update(node, renewed, all.get(name), now);
        let is_new = all.insert(name.to_owned(), heartbeats.clone()).is_none();
        drop(all);
        if is_new {
            let uid = node.metadata.uid.as_deref().unwrap_or_default();
            let message = format!("Registered Node {name} in Controller");
            record(&self.events, name, uid, "RegisteredNode", &message);
        }
        Ok(heartbeats)
    }

    /// Returns the `NoExecute` taint that a node keeps or receives now.
    fn eviction_taint(&self, node: &Node, now: Timestamp) -> Option<&'static str> {
        let wanted = health::eviction_taint(node)?;
        let zones = self.zones(now);
        if zones.none_ready() {
            return None;
        }
        let tainted = [health::NOT_READY, health::UNREACHABLE]
            .iter()
            .any(|key| health::has_taint(node, key, "NoExecute"));
        let labels = node.metadata.labels.as_ref();
        let zone = zone(label(labels, REGION), label(labels, ZONE));
        (tainted || self.pace.may_taint(&zones, &zone, now)).then_some(wanted)
    }

    /// Returns the node counts by zone. Counts at most once a second, as counting visits all nodes.
    fn zones(&self, now: Timestamp) -> Arc<Zones> {
        let mut counted = self.counted.lock();
        if let Some((at, zones)) = counted.as_ref()
            && at.duration_until(now) < COUNT_PERIOD
        {
            return Arc::clone(zones);
        }
        let mut zones = Zones::default();
        for node in self.nodes.list() {
            let json = node.json_at(&["status", "conditions"]).unwrap_or_default();
            let conditions: Vec<NodeCondition> = serde_json::from_slice(json).unwrap_or_default();
            let ready = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
            zones.add(&zone(node.label(REGION), node.label(ZONE)), ready);
        }
        let zones = Arc::new(zones);
        *counted = Some((now, Arc::clone(&zones)));
        zones
    }

    async fn write_conditions(&self, node: &Node, conditions: Vec<NodeCondition>) -> Result<(), SyncError> {
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions}});
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let nodes: Api<Node> = Api::all(self.client.clone());
        ignore_not_found(nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await)
    }

    async fn write_taints(&self, node: &Node, taints: &[Taint]) -> Result<(), SyncError> {
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints}});
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let nodes: Api<Node> = Api::all(self.client.clone());
        ignore_not_found(nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    /// Marks the pods of an unready node as not ready, so that services stop routing to them.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), SyncError> {
        for cached in pods_of(&self.pods, node) {
            let pod = pods::read(&cached)?;
            if !pods::is_ready(&pod) || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": at});
            let patch = json!({"metadata": {"uid": cached.uid()}, "status": {"conditions": [condition]}});
            let all: Api<Pod> = Api::namespaced(self.client.clone(), cached.namespace());
            let parameters = PatchParams::default();
            ignore_not_found(all.patch_status(cached.name(), &parameters, &Patch::Strategic(patch)).await)?;
            let message = "Node is not ready";
            self.events.record(&reference_of(&pod), EventKind::Warning, "NodeNotReady", message);
        }
        Ok(())
    }

    fn record_not_ready(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: NodeNotReady");
        self.events.record(&reference_of(node), EventKind::Normal, "NodeNotReady", &message);
    }
}

/// Records an event of a node, in the form of upstream's `RecordNodeEvent`.
fn record(events: &EventRecorder, name: &str, uid: &str, reason: &'static str, message: &str) {
    let reference = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    events.record(&reference, EventKind::Normal, reason, &format!("Node {name} event: {message}"));
}

/// Returns the zone of a node, qualified by its region.
fn zone(region: Option<&str>, zone: Option<&str>) -> String {
    format!("{}:{}", region.unwrap_or_default(), zone.unwrap_or_default())
}
