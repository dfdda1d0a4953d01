//! A kubelet has access only to objects that the pods on its node need, and cannot extend this access by itself.

use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Attributes, Authorizer, NamedAuthorizer, Verdict};
use serde_json::{Value, json};

use crate::common::{Call, Cluster, check, cluster_role, cluster_role_in, namespace, row};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Allows node `a` to request the audience `waited`. Like a webhook, never answers immediately.
struct Waiting;

#[async_trait]
impl Authorizer for Waiting {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        tokio::task::yield_now().await;
        let requested = (attributes.verb, attributes.resource, attributes.user.name.as_str());
        if requested == ("request-serviceaccounts-token-audience", "waited", "system:node:a") {
            Verdict::allow("")
        } else {
            Verdict::no_opinion("")
        }
    }
}

/// Starts a cluster. Its namespace `team` has a claim `p-data` whose volume needs a secret, all unrelated to node `a`,
/// and a pod `web` on node `a`.
async fn cluster() -> (Cluster, String) {
    let in_team = |kind: &str, name: &str, rest: Value| {
        let mut object =
            json!({"apiVersion": "v1", "kind": kind, "metadata": {"namespace": "team", "name": name}});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        object
    };
    let size = || json!({"storage": "1Gi"});
    let objects = [
        namespace("team"),
        in_team("ServiceAccount", "default", json!({})),
        in_team("Secret", "volume-key", json!({})),
        in_team(
            "PersistentVolumeClaim",
            "p-data",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": size()}, "volumeName": "v"}}),
        ),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": size(),
                "claimRef": {"namespace": "team", "name": "p-data"},
                "csi": {
                    "driver": "d.example.com", "volumeHandle": "h",
                    "nodePublishSecretRef": {"namespace": "team", "name": "volume-key"},
                },
            },
        }),
        cluster_role(
            "audience",
            &json!([{
                "apiGroups": [""], "resources": ["granted"],
                "verbs": ["request-serviceaccounts-token-audience"],
            }]),
        ),
        cluster_role_in("team", "audience", "system:node:a"),
    ];
    let authorizer = NamedAuthorizer {
        kind: "Webhook",
        name: "waiting".into(),
        authorizer: Arc::new(Waiting),
        resolver: None,
    };
    let cluster = Cluster::start_with(&objects, vec![authorizer]).await;
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let uid = cluster.create(&node("a")).await["metadata"]["uid"].as_str().unwrap().to_owned();
    cluster.create(&node("b")).await;
    let token = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}});
    let spec = json!({"nodeName": "a", "containers": [{"name": "c", "image": "i"}], "volumes": [token]});
    cluster.create(&in_team("Pod", "web", json!({"spec": spec}))).await;
    cluster.caught_up().await;
    (cluster, uid)
}

/// Returns a mirror pod `p` of node `a`.
fn mirror_pod(node_uid: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "team",
            "name": "p",
            "annotations": {MIRROR: "hash"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": node_uid, "controller": true},
            ],
        },
        "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "i"}]},
    })
}

/// Checks that node `a` cannot read the claim, its volume, or the volume's secret.
async fn check_nothing_is_readable(cluster: &Cluster) {
    cluster.caught_up().await;
    check(
        cluster,
        &[
            row("node:a", "GET /api/v1/namespaces/team/persistentvolumeclaims/p-data", Value::Null, 403),
            row("node:a", "GET /api/v1/persistentvolumes/v", Value::Null, 403),
            row("node:a", "GET /api/v1/namespaces/team/secrets/volume-key", Value::Null, 403),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_mirror_pod_refers_to_no_api_object() {
    let (cluster, uid) = cluster().await;
    let claim =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let projected = |source: Value| json!({"projected": {"sources": [source]}});
    let volumes = [
        json!({"ephemeral": {"volumeClaimTemplate": claim}}),
        json!({"persistentVolumeClaim": {"claimName": "p-data"}}),
        json!({"secret": {"secretName": "volume-key"}}),
        json!({"configMap": {"name": "m"}}),
        json!({"csi": {"driver": "d.example.com"}}),
        json!({"csi": {"driver": "d.example.com", "nodePublishSecretRef": {"name": "volume-key"}}}),
        json!({"cephfs": {"monitors": ["m"], "secretRef": {"name": "volume-key"}}}),
        projected(json!({"secret": {"name": "volume-key"}})),
        projected(json!({"configMap": {"name": "m"}})),
        projected(json!({"serviceAccountToken": {"path": "t"}})),
        projected(json!({"clusterTrustBundle": {"name": "b", "path": "t"}})),
        projected(
            json!({"podCertificate": {"signerName": "e.com/s", "keyType": "ED25519", "certificateChainPath": "c", "keyPath": "k"}}),
        ),
    ];
    let mut specs: Vec<Value> = volumes
        .into_iter()
        .map(|mut volume| {
            volume["name"] = json!("data");
            json!({"volumes": [volume]})
        })
        .collect();
    specs.push(json!({"serviceAccountName": "default"}));
    specs.push(json!({"imagePullSecrets": [{"name": "volume-key"}]}));
    specs.push(json!({"resourceClaims": [{"name": "r", "resourceClaimName": "r"}]}));
    for kind in ["containers", "initContainers"] {
        let from = |reference: &str| json!([{"name": "c", "image": "i", "envFrom": [{reference: {"name": "volume-key"}}]}]);
        specs.push(json!({kind: from("secretRef")}));
        specs.push(json!({kind: from("configMapRef")}));
    }
    let rows: Vec<_> = specs
        .iter()
        .map(|spec| {
            let mut pod = mirror_pod(&uid);
            pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            row("node:a", "POST /api/v1/namespaces/team/pods", pod, 403)
        })
        .collect();
    check(&cluster, &rows).await;
    check_nothing_is_readable(&cluster).await;
    let pods = "POST /api/v1/namespaces/team/pods";
    check(&cluster, &[row("node:a", pods, mirror_pod(&uid), 201)]).await;
}

#[tokio::test]
async fn a_mirror_pod_stays_a_mirror_pod() {
    let (cluster, uid) = cluster().await;
    // Another user may create a mirror pod that refers to a claim.
    let mut pod = mirror_pod(&uid);
    let claim =
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    pod["spec"]["volumes"] = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": claim}}]);
    let stored = cluster.create(&pod).await;
    let mut without = stored.clone();
    without["metadata"]["annotations"] = json!({});
    let patch = |value: Value| json!({"metadata": {"annotations": {MIRROR: value}}});
    let (path, none) = ("/api/v1/namespaces/team/pods/p", Value::Null);
    let mut rows = Vec::new();
    for (who, path) in [
        ("node:a", format!("{path}/status")),
        ("admin", format!("{path}/status")),
        ("admin", path.to_owned()),
    ] {
        rows.push(row(who, &format!("PATCH {path}"), patch(none.clone()), 422));
        rows.push(row(who, &format!("PATCH {path}"), patch(json!("other")), 422));
        rows.push(row(who, &format!("PUT {path}"), without.clone(), 422));
    }
    check(&cluster, &rows).await;
    // The annotation cannot be written through other subresources either.
    for part in ["ephemeralcontainers", "resize"] {
        let client = cluster.admin();
        client.send(Call::new("PATCH", &format!("{path}/{part}")).json(&patch(none.clone()))).await;
        let annotations = client.call(&format!("GET {path}")).await.value_at("/metadata/annotations");
        assert_eq!(annotations, json!({MIRROR: "hash"}), "{part}");
    }
    check_nothing_is_readable(&cluster).await;
    // An ordinary pod cannot become a mirror pod.
    let web = "PATCH /api/v1/namespaces/team/pods/web/status";
    check(&cluster, &[row("node:a", web, patch(json!("hash")), 422)]).await;
}

#[tokio::test]
async fn a_kubelet_gets_tokens_for_the_audiences_of_its_pods() {
    let (cluster, _) = cluster().await;
    let pod = cluster.admin().call("GET /api/v1/namespaces/team/pods/web").await;
    let request = |audiences: Value| {
        let bound =
            json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod.value_at("/metadata/uid")});
        json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": audiences, "boundObjectRef": bound},
        })
    };
    let line = "POST /api/v1/namespaces/team/serviceaccounts/default/token";
    check(
        &cluster,
        &[
            row("node:a", line, request(json!([])), 201),
            row("node:a", line, request(json!(["vault"])), 201),
            row("node:a", line, request(json!(["granted"])), 201),
            row("node:a", line, request(json!(["waited"])), 201),
            row("node:a", line, request(json!(["other"])), 403)
                .containing("not found in pod spec volume, system:node:a is not authorized"),
            row("node:a", line, request(json!(["https://kubernetes.default.svc"])), 403),
            row("node:a", line, request(json!(["vault", "other"])), 403),
            row("node:b", line, request(json!(["vault"])), 403),
            row("admin", line, request(json!(["other"])), 201),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_kubelet_changes_no_owners() {
    let (cluster, uid) = cluster().await;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "1"}]);
    let patch = json!({"metadata": {"ownerReferences": owner}});
    check(
        &cluster,
        &[
            row("node:a", "POST /api/v1/namespaces/team/pods", mirror_pod(&uid), 201),
            row("node:a", "PATCH /api/v1/namespaces/team/pods/p/status", patch.clone(), 200),
            row("node:a", "PATCH /api/v1/namespaces/team/pods/web/status", patch.clone(), 200),
            row("node:a", "PATCH /api/v1/nodes/a/status", patch.clone(), 403),
            row("node:a", "PATCH /api/v1/nodes/a", patch, 403),
        ],
    )
    .await;
    let owners = async |path: &str| cluster.admin().call(path).await.value_at("/metadata/ownerReferences");
    assert_eq!(owners("GET /api/v1/namespaces/team/pods/web").await, Value::Null);
    assert_eq!(owners("GET /api/v1/namespaces/team/pods/p").await[0]["name"], "a");
    assert_eq!(owners("GET /api/v1/nodes/a").await, Value::Null);
}
