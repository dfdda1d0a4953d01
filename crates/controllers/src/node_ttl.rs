//! TTL controller: annotates nodes with the time for which kubelets may cache secrets and config maps. The time
//! grows with the size of the cluster (upstream: `ttl`).

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use nave_client::{Action, Lister, ObjectName};
use serde_json::json;

use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

pub(crate) const NODE_TTL: Descriptor = Descriptor {
    name: "ttl-controller",
    alias: "ttl",
    service_account: "ttl-controller",
    on_by_default: true,
    workers: Workers::fixed(5),
    start,
};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Minimum number of nodes, maximum number of nodes, and TTL in seconds. The ranges overlap, so that a cluster near
/// a boundary does not repeatedly update all its nodes.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

struct Controller {
    client: kube::Client,
    nodes: Lister<Node>,
    step: AtomicUsize,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (builder, nodes) = context.controller_for::<Node>("ttlcontroller");
    builder.run(Controller {
        client: context.client.clone(),
        nodes: nodes.lister(),
        step: AtomicUsize::new(0),
    })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(node) = self.nodes.get_by_key(&key) else { return Ok(Action::Done) };
        let step = step(self.step.load(Ordering::Relaxed), self.nodes.indexer().len());
        self.step.store(step, Ordering::Relaxed);
        let seconds = STEPS.get(step).map_or(0, |(_, _, seconds)| *seconds).to_string();
        if node.annotation(ANNOTATION).as_ref() == Some(&seconds) {
            return Ok(Action::Done);
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({"metadata": {"annotations": {ANNOTATION: seconds}}}));
        ignore_not_found(nodes.patch_metadata(key.name(), &PatchParams::default(), &patch).await)?;
        Ok(Action::Done)
    }
}

/// Returns the step for a number of nodes, given the previous step.
fn step(mut step: usize, nodes: usize) -> usize {
    while STEPS.get(step).is_some_and(|(_, most, _)| nodes > *most) {
        step += 1;
    }
    while STEPS.get(step).is_some_and(|(least, _, _)| nodes < *least) {
        step = step.saturating_sub(1);
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        let mut at = 0;
        let sizes = [
            (100, 0),
            (101, 1),
            (90, 1),
            (89, 0),
            (500, 1),
            (501, 2),
            (1999, 3),
            (2001, 4),
            (1800, 4),
            (1799, 3),
            (0, 0),
        ];
        for (nodes, expected) in sizes {
            at = step(at, nodes);
            assert_eq!(at, expected, "{nodes}");
        }
    }
}
