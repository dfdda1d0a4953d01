//! Deployments with their replica sets and pods, with kubectl and a fake node.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use nave_tests::cluster::FakeNode;
use nave_tests::{Server, eventually};

/// Starts a server and a node.
async fn cluster() -> (Server, FakeNode) {
    let server = Server::start().await;
    let node = FakeNode::start(server.client().await).await;
    (server, node)
}

async fn up(server: &Server) -> String {
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=110s"]).await
}

async fn images(server: &Server) -> Vec<String> {
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let pods = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    let live = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    live.map(|pod| pod.spec.unwrap().containers[0].image.clone().unwrap()).collect()
}

#[tokio::test]
async fn deployment_rolls_out_and_back() {
    let (server, _node) = cluster().await;
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=3"]).await;
    assert!(up(&server).await.contains("successfully rolled out"));
    assert_eq!(images(&server).await, ["x:1"; 3]);

    server.kubectl(&["set", "image", "deployment/web", "x=x:2"]).await;
    up(&server).await;
    eventually("old pods are gone", async || images(&server).await == ["x:2"; 3]).await;
    let history = server.kubectl(&["rollout", "history", "deployment/web"]).await;
    assert!(history.lines().any(|line| line.starts_with("2 ")), "{history}");

    server.kubectl(&["rollout", "undo", "deployment/web"]).await;
    up(&server).await;
    eventually("the first template is back", async || images(&server).await == ["x:1"; 3]).await;
    let history = server.kubectl(&["rollout", "history", "deployment/web"]).await;
    let revisions: Vec<&str> = history.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(&revisions[2..4], ["2", "3"], "{history}");

    let events = server.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await;
    assert!(events.contains("ScalingReplicaSet") && events.contains("SuccessfulCreate"), "{events}");
}

#[tokio::test]
async fn deployment_scales_pauses_and_is_deleted() {
    let (server, _node) = cluster().await;
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=2"]).await;
    up(&server).await;
    server.kubectl(&["scale", "deployment/web", "--replicas=5"]).await;
    up(&server).await;
    assert_eq!(images(&server).await.len(), 5);
    server.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=110s"]).await;

    server.kubectl(&["rollout", "pause", "deployment/web"]).await;
    server.kubectl(&["set", "image", "deployment/web", "x=x:2"]).await;
    let reason = "jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}";
    eventually("the pause is noted", async || {
        server.kubectl(&["get", "deployment", "web", "-o", reason]).await == "DeploymentPaused"
    })
    .await;
    server.kubectl(&["scale", "deployment/web", "--replicas=3"]).await;
    eventually("a paused deployment scales", async || images(&server).await.len() == 3).await;
    assert_eq!(images(&server).await, ["x:1"; 3], "and does nothing else");
    server.kubectl(&["rollout", "resume", "deployment/web"]).await;
    up(&server).await;
    eventually("the rollout goes on", async || images(&server).await == ["x:2"; 3]).await;
}

#[tokio::test]
async fn recreate_stops_old_pods_before_new_ones_start() {
    let (server, _node) = cluster().await;
    let manifest = |image: &str| {
        format!(
            r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "web"}}, "spec": {{
                "replicas": 3, "strategy": {{"type": "Recreate"}}, "selector": {{"matchLabels": {{"app": "web"}}}},
                "template": {{"metadata": {{"labels": {{"app": "web"}}}},
                    "spec": {{"containers": [{{"name": "c", "image": "{image}"}}]}}}}}}}}"#
        )
    };
    server.apply(&manifest("x:1")).await;
    up(&server).await;
    let mut both = false;
    server.apply(&manifest("x:2")).await;
    eventually("the new pods are there", async || {
        let images = images(&server).await;
        both |= images.iter().any(|image| image == "x:1") && images.iter().any(|image| image == "x:2");
        images == ["x:2"; 3]
    })
    .await;
    assert!(!both, "pods of both templates existed at once");
    up(&server).await;
}

#[tokio::test]
async fn stuck_rollout_reports_progress_deadline() {
    let (server, _node) = cluster().await;
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=2"]).await;
    up(&server).await;
    let broken = r#"{"spec": {"progressDeadlineSeconds": 1, "minReadySeconds": 0, "template": {"metadata":
        {"annotations": {"nave.test/unready": "true"}}}}}"#;
    server.kubectl(&["patch", "deployment", "web", "-p", broken]).await;
    let status = server.kubectl_fails(&["rollout", "status", "deployment/web", "--timeout=110s"]).await;
    assert!(status.contains("exceeded its progress deadline"), "{status}");
    server.kubectl(&["rollout", "undo", "deployment/web"]).await;
    up(&server).await;
}

#[tokio::test]
async fn rollout_survives_kill_9() {
    let (mut server, node) = cluster().await;
    server.kubectl(&["create", "deployment", "web", "--image=x:1", "--replicas=4"]).await;
    up(&server).await;
    drop(node);
    server.kubectl(&["set", "image", "deployment/web", "x=x:2"]).await;
    eventually("the rollout has begun", async || images(&server).await.contains(&"x:2".to_owned())).await;
    server.kill9();
    server.restart().await;
    let _node = FakeNode::start(server.client().await).await;
    up(&server).await;
    eventually("the rollout is done", async || images(&server).await == ["x:2"; 4]).await;
    let sets: Api<ReplicaSet> = Api::default_namespaced(server.client().await);
    assert_eq!(sets.list(&ListParams::default()).await.unwrap().items.len(), 2, "no set was made twice");
    let deployments: Api<Deployment> = Api::default_namespaced(server.client().await);
    let status = deployments.get("web").await.unwrap().status.unwrap();
    assert_eq!(
        (status.updated_replicas, status.available_replicas, status.unavailable_replicas),
        (Some(4), Some(4), None)
    );
}

#[tokio::test]
async fn replica_set_adopts_and_releases_pods_by_selector() {
    let (server, _node) = cluster().await;
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "x:1"}]}}"#;
    server.apply(pod).await;
    let controller = r#"{"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"app": "web"}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "x:1"}]}}}}"#;
    server.apply(controller).await;
    let ready = "--for=jsonpath={.status.readyReplicas}=2";
    server.kubectl(&["wait", ready, "rc/web", "--timeout=110s"]).await;
    let owner = ["get", "pod", "stray", "-o", "jsonpath={.metadata.ownerReferences[*].kind}"];
    assert_eq!(server.kubectl(&owner).await, "ReplicationController");
    assert_eq!(images(&server).await.len(), 2);

    server.kubectl(&["label", "pod", "stray", "app=other", "--overwrite"]).await;
    eventually("it is let go", async || server.kubectl(&owner).await.is_empty()).await;
    eventually("and replaced", async || images(&server).await.len() == 2).await;
}

#[tokio::test]
async fn large_replica_set_has_exact_number_of_pods() {
    // Without a node, pods stay pending and are removed immediately when deleted.
    let server = Server::start().await;
    server.kubectl(&["create", "deployment", "web", "--image=x", "--replicas=1200"]).await;
    let pods: Api<Pod> = Api::default_namespaced(server.client().await);
    let count = async || pods.list_metadata(&ListParams::default()).await.unwrap().items.len();
    let sets: Api<ReplicaSet> = Api::default_namespaced(server.client().await);
    let told = async || {
        let sets = sets.list(&ListParams::default()).await.unwrap().items;
        sets.first().and_then(|set| Some(set.status.as_ref()?.replicas)).unwrap_or(0)
    };
    eventually("all pods are there", async || told().await == 1200).await;
    assert_eq!(count().await, 1200);
    server.kubectl(&["scale", "deployment", "web", "--replicas=100"]).await;
    eventually("most pods are gone", async || told().await == 100).await;
    assert_eq!(count().await, 100);
    server.kubectl(&["delete", "deployment", "web"]).await;
    eventually("no pod is left", async || count().await == 0).await;
}

#[tokio::test]
async fn kubectl_describe_shows_events() {
    let (server, _node) = cluster().await;
    server.kubectl(&["create", "deployment", "web", "--image=x", "--replicas=2"]).await;
    up(&server).await;
    server.kubectl(&["scale", "deployment", "web", "--replicas=1"]).await;
    let sets: Api<ReplicaSet> = Api::default_namespaced(server.client().await);
    let set = sets.list(&ListParams::default()).await.unwrap().items.remove(0).metadata.name.unwrap();
    for (object, events) in [
        (
            "deployment/web".to_owned(),
            [
                (
                    "ScalingReplicaSet",
                    "deployment-controller",
                    format!("Scaled up replica set {set} from 0 to 2"),
                ),
                (
                    "ScalingReplicaSet",
                    "deployment-controller",
                    format!("Scaled down replica set {set} from 2 to 1"),
                ),
            ],
        ),
        (
            format!("replicaset/{set}"),
            [
                ("SuccessfulCreate", "replicaset-controller", format!("Created pod: {set}-")),
                ("SuccessfulDelete", "replicaset-controller", format!("Deleted pod: {set}-")),
            ],
        ),
    ] {
        eventually(&format!("{object} is described"), async || {
            let described = server.kubectl(&["describe", &object]).await;
            events.iter().all(|(reason, from, message)| {
                described.lines().any(|line| [*reason, *from, message].iter().all(|part| line.contains(part)))
            })
        })
        .await;
    }
}
