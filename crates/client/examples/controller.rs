//! A complete controller. It stores the number of pods in each namespace in an annotation of the namespace.
//!
//! Run it with `cargo run -p nave-client --example controller`. It uses the cluster in the current kubeconfig and
//! runs until Ctrl+C.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, Patch, PatchParams};
use nave_client::{
    Action, Lister, NAMESPACE_INDEX, ObjectName, SharedInformerFactory, Workqueue, on_each, run_workers,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const COUNT: &str = "example.com/pods";

#[tokio::main]
async fn main() -> Result<(), kube::Error> {
    let client = kube::Client::try_default().await?;
    let informers = SharedInformerFactory::new(client.clone());
    let (namespaces, pods) = (informers.informer::<Namespace>(), informers.informer::<Pod>());

    // Any event of a namespace or of a pod in it enqueues the namespace.
    let queue = Workqueue::<ObjectName>::new();
    let add = queue.clone();
    namespaces.add_event_handler(on_each(move |namespace| add.add(namespace.key())));
    let add = queue.clone();
    pods.add_event_handler(on_each(move |pod| add.add(ObjectName::new("", pod.namespace()))));

    informers.start();
    informers.wait_for_cache_sync().await;

    let stop = CancellationToken::new();
    let ctrl_c = stop.clone();
    tokio::spawn(async move { tokio::signal::ctrl_c().await.map(|()| ctrl_c.cancel()) });

    let (namespaces, pods) = (namespaces.lister(), pods.lister());
    run_workers(&queue, 4, stop, |key| reconcile(&client, &namespaces, &pods, key)).await;
    informers.shutdown().await;
    Ok(())
}

/// Compares the actual state with the desired state, and updates it if needed. Idempotent: can run at any time.
async fn reconcile(
    client: &kube::Client,
    namespaces: &Lister<Namespace>,
    pods: &Lister<Pod>,
    key: ObjectName,
) -> Result<Action, kube::Error> {
    let Some(namespace) = namespaces.get_by_key(&key) else { return Ok(Action::Done) };
    let count = pods.by_index(NAMESPACE_INDEX, key.name()).map_or(0, |pods| pods.len()).to_string();
    if !namespace.is_being_deleted() && namespace.annotation(COUNT).as_ref() != Some(&count) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {COUNT: count}}}));
        Api::<Namespace>::all(client.clone()).patch(key.name(), &PatchParams::default(), &patch).await?;
    }
    Ok(Action::Done)
}
