//! Claims and volumes: binding, external provisioning, release. No node is needed.

use nave_tests::{Server, eventually};
use serde_json::{Value, json};

async fn get(server: &Server, what: &str, path: &str) -> String {
    server.kubectl(&["get", what, "--ignore-not-found", "-o", &format!("jsonpath={path}")]).await
}

async fn is(server: &Server, what: &str, path: &str, wanted: &str) {
    eventually(&format!("{path} of {what} is {wanted}"), async || get(server, what, path).await == wanted)
        .await;
}

/// Returns the names of the objects with events of a reason.
async fn event_objects(server: &Server, reason: &str) -> String {
    let selector = format!("--field-selector=reason={reason}");
    let names = "jsonpath={.items[*].involvedObject.name}";
    server.kubectl(&["get", "events", &selector, "-o", names]).await
}

fn claim(name: &str, spec: &Value) -> String {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    spec.as_object().unwrap().iter().for_each(|(key, value)| claim["spec"][key] = value.clone());
    claim.to_string()
}

fn volume(name: &str, spec: &Value) -> String {
    let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
                 "csi": {"driver": "csi.example.com", "volumeHandle": name}}});
    spec.as_object().unwrap().iter().for_each(|(key, value)| volume["spec"][key] = value.clone());
    volume.to_string()
}

fn class(name: &str, is_default: bool, mode: &str) -> String {
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": is_default.to_string()});
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations}, "provisioner": "csi.example.com",
        "volumeBindingMode": mode})
    .to_string()
}

#[tokio::test]
async fn binds_claims_to_matching_volumes_in_any_order() {
    let server = Server::start().await;
    server.apply(&volume("small", &json!({}))).await;
    server.apply(&volume("large", &json!({"capacity": {"storage": "9Gi"}}))).await;
    is(&server, "pv/small", "{.status.phase}", "Available").await;
    is(&server, "pv/large", "{.status.phase}", "Available").await;
    server.apply(&claim("first", &json!({}))).await;
    is(
        &server,
        "pvc/first",
        "{.status.phase} {.spec.volumeName} {.status.capacity.storage}",
        "Bound small 2Gi",
    )
    .await;
    is(&server, "pv/small", "{.status.phase} {.spec.claimRef.name}", "Bound first").await;

    // A claim without a matching volume records an event. It is bound when a volume is created.
    server.apply(&claim("second", &json!({"resources": {"requests": {"storage": "10Gi"}}}))).await;
    eventually("the claim says that it finds no volume", async || {
        event_objects(&server, "FailedBinding").await.contains("second")
    })
    .await;
    server.apply(&volume("huge", &json!({"capacity": {"storage": "20Gi"}}))).await;
    is(&server, "pvc/second", "{.status.phase} {.spec.volumeName}", "Bound huge").await;

    // Deleting the claim releases the volume. The volume is not bound to another claim.
    server.kubectl(&["delete", "pvc", "first", "--timeout=110s"]).await;
    is(&server, "pv/small", "{.status.phase}", "Released").await;
    server.apply(&claim("first", &json!({}))).await;
    is(&server, "pvc/first", "{.status.phase} {.spec.volumeName}", "Bound large").await;
    assert_eq!(get(&server, "pv/small", "{.status.phase}").await, "Released");
}

#[tokio::test]
async fn external_provisioner_of_the_class_creates_volumes() {
    let server = Server::start().await;
    server.apply(&claim("early", &json!({}))).await;
    eventually("there is no class yet", async || {
        event_objects(&server, "FailedBinding").await.contains("early")
    })
    .await;
    server.apply(&class("fast", true, "Immediate")).await;
    server.apply(&claim("data", &json!({}))).await;
    is(&server, "pvc/data", "{.spec.storageClassName}", "fast").await;
    let asked = r"{.metadata.annotations.volume\.kubernetes\.io/storage-provisioner}";
    is(&server, "pvc/data", asked, "csi.example.com").await;
    let told = async || event_objects(&server, "ExternalProvisioning").await.contains("data");
    eventually("users are told who provisions", told).await;
    // A claim created before the default class also gets the class.
    is(&server, "pvc/early", "{.spec.storageClassName}", "fast").await;

    // The provisioner creates the volume for the claim.
    let uid = get(&server, "pvc/data", "{.metadata.uid}").await;
    let reference = json!({"namespace": "default", "name": "data", "uid": uid});
    let spec =
        json!({"claimRef": reference, "storageClassName": "fast", "persistentVolumeReclaimPolicy": "Delete"});
    server.apply(&volume("pvc-1", &spec)).await;
    is(&server, "pvc/data", "{.status.phase}", "Bound").await;
    server.kubectl(&["delete", "pvc", "data", "--timeout=110s"]).await;
    is(&server, "pv/pvc-1", "{.status.phase}", "Released").await;
}

#[tokio::test]
async fn claim_waits_for_its_first_consumer() {
    let server = Server::start().await;
    server.apply(&class("late", false, "WaitForFirstConsumer")).await;
    server.apply(&claim("data", &json!({"storageClassName": "late"}))).await;
    let waits = async || event_objects(&server, "WaitForFirstConsumer").await.contains("data");
    eventually("the claim waits for a pod", waits).await;
    // The scheduler chooses a node and requests the volume there.
    let node = r#"{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"n"}}}"#;
    server.kubectl(&["patch", "pvc", "data", "--type=merge", "-p", node]).await;
    let asked = r"{.metadata.annotations.volume\.kubernetes\.io/storage-provisioner}";
    is(&server, "pvc/data", asked, "csi.example.com").await;
}

#[tokio::test]
async fn ephemeral_claims_are_created_with_the_pod() {
    let server = Server::start().await;
    let template = json!({"metadata": {"labels": {"of": "p"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "x"}],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}});
    server.apply(&pod.to_string()).await;
    is(&server, "pvc/p-scratch", "{.metadata.labels.of} {.metadata.ownerReferences[0].kind}", "p Pod").await;
    server.kubectl(&["delete", "pvc", "p-scratch", "--timeout=110s"]).await;
    is(&server, "pvc/p-scratch", "{.metadata.labels.of}", "p").await;
    server.kubectl(&["delete", "pod", "p", "--timeout=110s"]).await;
    is(&server, "pvc/p-scratch", "{.metadata.name}", "").await;
}

#[tokio::test]
async fn resource_claim_is_created_from_a_template() {
    let server = Server::start().await;
    let devices = json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu.example.com"}}]});
    let template = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "t"}, "spec": {"spec": {"devices": devices}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "x", "resources": {"claims": [{"name": "gpu"}]}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}});
    server.apply(&pod.to_string()).await;
    let told = async || event_objects(&server, "FailedResourceClaimCreation").await.contains('p');
    eventually("the template is missed", told).await;
    server.apply(&template.to_string()).await;
    let noted = "{.status.resourceClaimStatuses[0].resourceClaimName}";
    eventually("the claim is noted", async || !get(&server, "pod/p", noted).await.is_empty()).await;
    let name = get(&server, "pod/p", noted).await;
    assert!(name.starts_with("p-gpu-"), "{name}");
    let all = get(&server, "resourceclaims", "{.items[*].metadata.name}").await;
    assert_eq!(all, name, "the claim is made once");
    // A reservation ends with its pod.
    server
        .kubectl(&[
            "patch",
            "pod",
            "p",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"phase":"Succeeded"}}"#,
        ])
        .await;
    is(&server, "resourceclaims", "{.items[*].metadata.name}", "").await;
}
