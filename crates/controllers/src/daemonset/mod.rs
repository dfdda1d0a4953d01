//! Daemon sets: a pod on each matching node.
//!
//! | module | contents |
//! | --- | --- |
//! | [`pod`] | which nodes run a pod; the pod for a node |
//! | [`plan`] | the pods to create and delete |
//! | [`status`] | the status |
//! | [`backoff`] | the backoff of failed pods |
//! | [`sync`] | the sync |

mod backoff;
mod plan;
mod pod;
mod status;
mod sync;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use nave_client::{Deleted, EventHandler, Lister, Object, Workqueue};

use crate::expectations::Expectations;
use crate::frame::{Context, Descriptor, ObjectControl, Workers};
use crate::int_or_percent::scaled;
use crate::owned::{self, DependentHandler};
use crate::selectors::{SelectorForm, SelectorIndex};

pub(crate) const DAEMON_SET: Descriptor = Descriptor {
    name: "daemonset-controller",
    alias: "daemonset",
    service_account: "daemon-set-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-daemonset-syncs", 2),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("daemonset");
    let (sets, pods) = (builder.informer::<DaemonSet>(), builder.informer::<Pod>());
    let (nodes, revisions) = (builder.informer::<Node>(), builder.informer::<ControllerRevision>());
    owned::index(&pods);
    owned::index(&revisions);
    let (queue, expectations) = (builder.queue(), Arc::new(Expectations::default()));
    builder.add_handler(&sets, SetHandler { queue: queue.clone(), expectations: Arc::clone(&expectations) });
    builder.add_handler(&nodes, NodeHandler { queue: queue.clone(), sets: sets.lister() });
    let adopters = SelectorIndex::new(sets.lister(), SelectorForm::Selector);
    let kind = ("apps", "DaemonSet");
    builder.add_handler(&pods, DependentHandler::new(queue, kind, adopters, Arc::clone(&expectations)));
    let events = context.events.with_component("daemonset-controller");
    builder.run(sync::Controller {
        client: context.client.clone(),
        control: ObjectControl::new(context.client.clone(), events.clone()),
        events,
        sets: sets.lister(),
        pods: pods.lister(),
        nodes: nodes.lister(),
        revisions: revisions.lister(),
        failed: backoff::FailedPods::default(),
        expectations,
    })
}

/// Enqueues sets, and removes the expectations of deleted sets.
struct SetHandler {
    queue: Workqueue,
    expectations: Arc<Expectations>,
}

impl EventHandler<DaemonSet> for SetHandler {
    fn on_add(&self, set: &Object<DaemonSet>, _: bool) {
        self.queue.add(set.key());
    }

    fn on_update(&self, old: &Object<DaemonSet>, new: &Object<DaemonSet>) {
        if old.uid() != new.uid() {
            self.expectations.forget(old.uid());
        }
        self.queue.add(new.key());
    }

    fn on_delete(&self, deleted: &Deleted<DaemonSet>) {
        self.expectations.forget(deleted.object().uid());
    }
}

/// Enqueues all sets when a node is added, deleted, or changed in a way that affects placement.
struct NodeHandler {
    queue: Workqueue,
    sets: Lister<DaemonSet>,
}

impl NodeHandler {
    fn enqueue_all(&self) {
        for set in self.sets.list() {
            self.queue.add(set.key());
        }
    }
}

impl EventHandler<Node> for NodeHandler {
    fn on_add(&self, _: &Object<Node>, _: bool) {
        self.enqueue_all();
    }

    fn on_update(&self, old: &Object<Node>, new: &Object<Node>) {
        let taints = ["spec", "taints"];
        if !old.labels().eq(new.labels()) || old.json_at(&taints) != new.json_at(&taints) {
            self.enqueue_all();
        }
    }

    fn on_delete(&self, _: &Deleted<Node>) {
        self.enqueue_all();
    }
}

fn spec_of(set: &DaemonSet) -> &DaemonSetSpec {
    static EMPTY: LazyLock<DaemonSetSpec> = LazyLock::new(DaemonSetSpec::default);
    set.spec.as_ref().unwrap_or(&EMPTY)
}

/// Returns whether the controller replaces old pods by a rolling update.
fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = spec_of(set).update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Returns `maxSurge` and `maxUnavailable` as numbers of pods. If both are 0, `maxUnavailable` becomes 1; otherwise an
/// update could never proceed.
fn max_surge_and_unavailable(set: &DaemonSet, desired: usize) -> (usize, usize) {
    let total = i32::try_from(desired).unwrap_or(i32::MAX);
    let none = RollingUpdateDaemonSet::default();
    let strategy = spec_of(set).update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref()).unwrap_or(&none);
    let number = |value| usize::try_from(scaled(value, total, true)).unwrap_or(0);
    let (surge, unavailable) = (number(rolling.max_surge.as_ref()), number(rolling.max_unavailable.as_ref()));
    if desired > 0 && surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Returns whether a node may have an old and a new pod at the same time.
fn surges(set: &DaemonSet) -> bool {
    is_rolling(set) && max_surge_and_unavailable(set, 1).0 > 0
}

#[cfg(test)]
mod fixtures {
    use serde_json::json;

    use super::DaemonSet;
    use crate::scheduling::NodeView;

    pub(super) fn set() -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "agent", "namespace": "default", "uid": "u", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "agent"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "template": {"metadata": {"labels": {"app": "agent"}},
                    "spec": {"containers": [{"name": "c", "image": "x"}]}}}
        }))
        .unwrap()
    }

    pub(super) fn node(name: &str) -> NodeView {
        NodeView { name: name.to_owned(), ..NodeView::default() }
    }
}
