use std::sync::Arc;

use async_trait::async_trait;
use nave_authz::{Authorizer, Chain, Metrics, NamedAuthorizer, Verdict};
use serde_json::json;

use super::*;
use crate::testing::{Memory, MemoryCluster, Request, outcome, registry};

/// Allows tokens of the service account `ns/robot` for the audience `granted`.
struct Granted;

#[async_trait]
impl Authorizer for Granted {
    async fn authorize(&self, attributes: &nave_authz::Attributes<'_>) -> Verdict {
        let on =
            (attributes.verb, attributes.group, attributes.resource, attributes.namespace, attributes.name);
        if on == ("request-serviceaccounts-token-audience", "", "granted", "ns", "robot") {
            return Verdict::allow("");
        }
        Verdict::no_opinion("")
    }
}

fn chain() -> Chain {
    let authorizer =
        NamedAuthorizer { kind: "RBAC", name: "rbac".into(), authorizer: Arc::new(Granted), resolver: None };
    Chain::new(vec![authorizer], Metrics::new(&prometheus::Registry::new()).unwrap())
}

fn plugin(cluster: &MemoryCluster) -> Plugin {
    let parts = cluster.parts(chain());
    super::plugin(&parts)
}

/// The result of a kubelet's token request with these audiences, bound to a pod with these volumes.
async fn request(volumes: &Value, audiences: &Value) -> Result<(), String> {
    let cluster = MemoryCluster::default();
    let put = |memory: &Memory, namespace: &str, name: &str, spec: Value| {
        memory.put(json!({"metadata": {"name": name, "namespace": namespace, "uid": "u"}, "spec": spec}));
    };
    let driver = |audience: &str| json!({"tokenRequests": [{"audience": "x"}, {"audience": audience}]});
    for (namespace, name, volume) in [
        ("ns", "c", "v"),
        ("ns", "p-scratch", "v"),
        ("ns", "azure", "azure"),
        ("ns", "lost", "gone"),
        ("other", "foreign", "v"),
    ] {
        put(&cluster.persistent_volume_claims, namespace, name, json!({"volumeName": volume}));
    }
    put(&cluster.persistent_volumes, "", "v", json!({"csi": {"driver": "d"}}));
    put(&cluster.persistent_volumes, "", "azure", json!({"azureFile": {"secretName": "s"}}));
    put(&cluster.csi_drivers, "", "d", driver("driver"));
    put(&cluster.csi_drivers, "", "file.csi.azure.com", driver("files"));
    put(&cluster.csi_drivers, "", "quiet", json!({}));
    put(&cluster.pods, "ns", "p", json!({"volumes": volumes, "nodeName": "n"}));
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let object = json!({"spec": {"audiences": audiences, "boundObjectRef": bound}});
    let mut request = by_kubelet(
        Request::new(registry(), "", "serviceaccounts", object, Value::Null).with_subresource("token"),
    );
    request.name = "robot";
    outcome(request.admit(&plugin(&cluster)).await).map_err(|(code, message)| {
        assert_eq!(code, 403);
        let text = "serviceaccounts \"robot\" is forbidden: ";
        message.strip_prefix(text).unwrap_or(&message).to_owned()
    })
}

fn by_kubelet(request: Request<'_>) -> Request<'_> {
    request.by("system:node:n", &["system:nodes"])
}

#[tokio::test]
async fn kubelet_gets_tokens_for_audiences_of_volumes() {
    let token = |audience: Value| json!({"name": "t", "projected": {"sources": [{}, {"serviceAccountToken": audience}]}});
    for (volume, audience) in [
        (token(json!({"audience": "vault"})), "vault"),
        (json!({"name": "i", "csi": {"driver": "d"}}), "driver"),
        (json!({"name": "data", "persistentVolumeClaim": {"claimName": "c"}}), "driver"),
        (json!({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}), "driver"),
        (json!({"name": "data", "persistentVolumeClaim": {"claimName": "azure"}}), "files"),
        (json!({"name": "data", "azureFile": {"secretName": "s"}}), "files"),
    ] {
        let volumes = json!([{"name": "e", "emptyDir": {}}, volume]);
        assert_eq!(request(&volumes, &json!([audience])).await, Ok(()), "{volume}");
        for other in ["other", "", "x y"] {
            let refused = request(&volumes, &json!([other])).await.unwrap_err();
            let why = "not found in pod spec volume, system:node:n is not authorized to request tokens for this audience";
            assert_eq!(refused, format!("audience {other:?} {why}"), "{volume}");
        }
    }
    // Without an audience, a projected token and a token request are for the API server.
    for audiences in [json!([]), json!(null), json!([""])] {
        assert_eq!(request(&json!([token(json!({"path": "token"}))]), &audiences).await, Ok(()));
        assert!(request(&json!([]), &audiences).await.is_err());
    }
}

#[tokio::test]
async fn kubelet_with_the_verb_gets_other_audiences() {
    assert_eq!(request(&json!([]), &json!(["granted"])).await, Ok(()));
    assert!(request(&json!([]), &json!(["other"])).await.is_err());
    let refused = request(&json!([]), &json!(["granted", "other"])).await.unwrap_err();
    assert_eq!(refused, "node may only request 0 or 1 audiences");
}

#[tokio::test]
async fn rejects_audiences_behind_missing_objects() {
    for (volume, why) in [
        (json!({"csi": {"driver": "unknown"}}), r#"csidriver.storage.k8s.io "unknown" not found"#),
        (
            json!({"persistentVolumeClaim": {"claimName": "none"}}),
            r#"persistentvolumeclaim "none" not found"#,
        ),
        (
            json!({"persistentVolumeClaim": {"claimName": "foreign"}}),
            r#"persistentvolumeclaim "foreign" not found"#,
        ),
        (json!({"persistentVolumeClaim": {"claimName": "lost"}}), r#"persistentvolume "gone" not found"#),
    ] {
        let refused = request(&json!([volume]), &json!(["a"])).await.unwrap_err();
        assert_eq!(refused, format!("error validating audience \"a\": {why}"));
    }
    assert!(request(&json!([{"csi": {"driver": "quiet"}}]), &json!(["a"])).await.is_err());
}

async fn kubelet(
    resource: (&str, &str),
    subresource: &'static str,
    new: Value,
    old: Value,
) -> Result<(), String> {
    let cluster = MemoryCluster::default();
    cluster.nodes.put(json!({"metadata": {"name": "n", "uid": "node"}}));
    for node in ["n", "m"] {
        cluster.pods.put(json!({"metadata": {"name": format!("on-{node}"), "namespace": "ns"}, "spec": {"nodeName": node}}));
    }
    let mut request =
        by_kubelet(Request::new(registry(), resource.0, resource.1, new, old).with_subresource(subresource));
    outcome(request.admit(&plugin(&cluster)).await).map_err(|(_, message)| message)
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test]
async fn kubelet_may_write_pods_of_its_node() {
    let pods = ("", "pods");
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node", "controller": true});
    let mirror = |owners: Value, spec: Value| json!({"metadata": {"name": "p", "annotations": {MIRROR_ANNOTATION: "x"}, "ownerReferences": owners}, "spec": spec});
    let told = |why: &str| Err(format!(r#"pods "p" is forbidden: {why}"#));
    let mut blocking = owner.clone();
    blocking["blockOwnerDeletion"] = json!(true);
    let mut other = owner.clone();
    other["uid"] = json!("other");
    for (pod, expected) in [
        (mirror(json!([owner]), json!({"nodeName": "n"})), Ok(())),
        (
            named("p"),
            told(
                r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n" can only create mirror pods"#,
            ),
        ),
        (
            mirror(json!([owner]), json!({"nodeName": "m"})),
            told(r#"node "n" can only create pods with spec.nodeName set to itself"#),
        ),
        (
            mirror(json!([]), json!({"nodeName": "n"})),
            told(r#"node "n" can only create pods with an owner reference set to itself"#),
        ),
        (
            mirror(json!([owner, owner]), json!({"nodeName": "n"})),
            told(r#"node "n" can only create pods with a single owner reference set to itself"#),
        ),
        (
            mirror(json!([blocking]), json!({"nodeName": "n"})),
            told(r#"node "n" must not set blockOwnerDeletion on an owner reference"#),
        ),
        (
            mirror(json!([other]), json!({"nodeName": "n"})),
            told("node n UID mismatch: expected other got node"),
        ),
        (
            mirror(json!([owner]), json!({"nodeName": "n", "volumes": [{"name": "v", "secret": {}}]})),
            told(r#"node "n" can not create pods that reference secrets"#),
        ),
    ] {
        assert_eq!(kubelet(pods, "", pod.clone(), Value::Null).await, expected, "{pod}");
    }
    let on = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    assert_eq!(kubelet(pods, "", Value::Null, on("n")).await, Ok(()));
    let delete = told(r#"node "n" can only delete pods with spec.nodeName set to itself"#);
    assert_eq!(kubelet(pods, "", Value::Null, on("m")).await, delete);
    assert!(kubelet(pods, "", on("n"), on("n")).await.is_err(), "kubelets may only update the status");
    assert_eq!(kubelet(pods, "status", on("n"), on("n")).await, Ok(()));
    assert!(kubelet(pods, "status", on("m"), on("m")).await.is_err());
    let mut labelled = on("n");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(
        kubelet(pods, "status", labelled, on("n")).await,
        told(r#"node "n" cannot update labels through pod status"#)
    );
    assert_eq!(kubelet(pods, "eviction", named("on-n"), Value::Null).await, Ok(()));
    assert!(kubelet(pods, "eviction", named("on-m"), Value::Null).await.is_err());
    assert!(kubelet(pods, "eviction", named("gone"), Value::Null).await.unwrap_err().ends_with("not found"));
    assert!(kubelet(pods, "binding", named("on-n"), Value::Null).await.is_err());
}

#[tokio::test]
async fn kubelet_may_write_its_own_node() {
    let nodes = ("", "nodes");
    assert_eq!(kubelet(nodes, "", named("n"), Value::Null).await, Ok(()));
    assert!(kubelet(nodes, "", named("m"), Value::Null).await.is_err());
    let with = |part: &str, value: Value| {
        let mut node = named("n");
        match part {
            "labels" | "ownerReferences" => node["metadata"][part] = value,
            _ => node["spec"][part] = value,
        }
        node
    };
    for (part, value, expected) in [
        ("labels", json!({"kubernetes.io/hostname": "n", "mine": "x"}), Ok(())),
        (
            "labels",
            json!({"node-restriction.kubernetes.io/x": "y"}),
            Err("is not allowed to modify labels: node-restriction.kubernetes.io/x"),
        ),
        ("taints", json!([{"key": "a"}]), Err(r#"node "n" is not allowed to modify taints"#)),
        (
            "ownerReferences",
            json!([{"uid": "o"}]),
            Err(r#"node "n" is not allowed to modify ownerReferences"#),
        ),
        (
            "configSource",
            json!({}),
            Err(r#"node "n" is not allowed to update configSource to a new non-nil configSource"#),
        ),
    ] {
        let found = kubelet(nodes, "", with(part, value), named("n")).await;
        assert_eq!(
            found,
            expected.map_err(|why: &str| format!(r#"nodes "n" is forbidden: {why}"#)),
            "{part}"
        );
    }
}

#[tokio::test]
async fn kubelet_may_write_its_leases_slices_and_claims() {
    let leases = ("coordination.k8s.io", "leases");
    assert!(kubelet(leases, "", named("n"), Value::Null).await.unwrap_err().contains("kube-node-lease"));
    let nodes = ("storage.k8s.io", "csinodes");
    assert_eq!(kubelet(nodes, "", named("n"), Value::Null).await, Ok(()));
    assert!(kubelet(nodes, "", named("m"), Value::Null).await.is_err());
    let slices = ("resource.k8s.io", "resourceslices");
    let slice = |node: &str| json!({"metadata": {"name": "s"}, "spec": {"nodeName": node}});
    for (new, old, allowed) in [
        (slice("n"), Value::Null, true),
        (slice("m"), Value::Null, false),
        (Value::Null, slice("n"), true),
        (Value::Null, slice("m"), false),
    ] {
        assert_eq!(kubelet(slices, "", new, old).await.is_ok(), allowed);
    }
    let claims = ("", "persistentvolumeclaims");
    let claim = |field: &str| json!({"metadata": {"name": "c"}, "spec": {}, "status": {field: {"a": "b"}}});
    assert_eq!(kubelet(claims, "status", claim("capacity"), named_claim()).await, Ok(()));
    assert!(kubelet(claims, "status", claim("phase"), named_claim()).await.is_err());
    assert!(kubelet(claims, "", named_claim(), named_claim()).await.is_err());
}

fn named_claim() -> Value {
    json!({"metadata": {"name": "c"}, "spec": {}})
}

#[tokio::test]
async fn rejects_kubelets_without_a_node_name() {
    let mut request = Request::new(registry(), "", "nodes", named("n"), Value::Null);
    request = request.by("system:node:", &["system:nodes"]);
    let (code, message) = outcome(request.admit(&plugin(&MemoryCluster::default())).await).unwrap_err();
    assert_eq!((code, message.contains("could not determine node from user")), (403, true), "{message}");
    let mut other = Request::new(registry(), "", "nodes", named("n"), Value::Null).by("jane", &[]);
    assert_eq!(outcome(other.admit(&plugin(&MemoryCluster::default())).await), Ok(()));
}
