//! A right to a subresource covers only that part of the object.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use nave_machinery::GroupVersionResource;
use nave_resources::SubresourceKind;
use serde_json::{Value, json};

use crate::common::{Call, Client, Cluster, collection, namespace};

/// The metadata that an update of `status` may change (upstream: the status strategies of the kinds), except for owner
/// references: here, no subresource changes them.
const STATUS_METADATA: [(&[&str], &[&str]); 5] = [
    (&["pods"], &["annotations", "finalizers", "labels"]),
    (&["deployments"], &["annotations", "finalizers"]),
    (&["apiservices"], &[]),
    (
        &[
            "flowschemas",
            "prioritylevelconfigurations",
            "resourceclaims",
            "servicecidrs",
            "validatingadmissionpolicies",
            "volumeattachments",
        ],
        &[],
    ),
    (
        &[
            "certificatesigningrequests",
            "cronjobs",
            "customresourcedefinitions",
            "daemonsets",
            "horizontalpodautoscalers",
            "ingresses",
            "jobs",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "poddisruptionbudgets",
            "replicasets",
            "replicationcontrollers",
            "resourcequotas",
            "services",
            "statefulsets",
        ],
        &["annotations", "finalizers", "labels"],
    ),
];

/// The metadata that updates through other subresources may change.
const SUBRESOURCE_METADATA: [(&str, &[&str]); 4] = [
    ("certificatesigningrequests/approval", &["annotations", "finalizers", "labels"]),
    ("namespaces/finalize", &["annotations", "finalizers", "labels"]),
    ("pods/ephemeralcontainers", &[]),
    ("pods/resize", &[]),
];

/// Starts a cluster with an object of each kind that has a `status`. Also returns the path of each object by resource.
async fn cluster() -> (Cluster, BTreeMap<String, String>) {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "team", "name": "default"},
    });
    let cluster = Cluster::start(&[namespace("team"), account]).await;
    let mut paths = BTreeMap::new();
    for (api_version, resource, kind, name, spec) in specs() {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvr = GroupVersionResource::new(group, version, resource);
        let namespaced = cluster.storages.registry().lookup(&gvr).unwrap().namespaced;
        let mut metadata = json!({
            "name": name, "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.com/a"],
        });
        let path = collection(&gvr, if namespaced { "team" } else { "" });
        if namespaced {
            metadata["namespace"] = json!("team");
        }
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
        if !spec.is_null() {
            object["spec"] = spec;
        }
        cluster.create(&object).await;
        paths.insert(resource.to_owned(), format!("{path}/{name}"));
    }
    (cluster, paths)
}

/// Returns the API version, resource, kind, name and spec of an object of each kind that has a `status`.
fn specs() -> Vec<(&'static str, &'static str, &'static str, &'static str, Value)> {
    let containers = json!([{"name": "c", "image": "i"}]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
    let once = json!({"spec": {"restartPolicy": "Never", "containers": containers}});
    let workload = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let mut set = workload.clone();
    set["serviceName"] = json!("s");
    let gigabyte = json!({"storage": "1Gi"});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": gigabyte}});
    let volume = json!({"accessModes": ["ReadWriteOnce"], "capacity": gigabyte, "hostPath": {"path": "/x"}});
    let names = json!({"plural": "xs", "singular": "x", "kind": "X", "listKind": "XList"});
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let pods =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    vec![
        ("v1", "namespaces", "Namespace", "n", Value::Null),
        ("v1", "nodes", "Node", "n", Value::Null),
        ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", "c", claim),
        ("v1", "persistentvolumes", "PersistentVolume", "v", volume),
        ("v1", "pods", "Pod", "p", json!({"containers": containers})),
        (
            "v1",
            "replicationcontrollers",
            "ReplicationController",
            "r",
            json!({"selector": {"a": "b"}, "template": template}),
        ),
        ("v1", "resourcequotas", "ResourceQuota", "q", json!({"hard": {"configmaps": "100"}})),
        ("v1", "services", "Service", "s", json!({"ports": [{"port": 80}]})),
        ("apps/v1", "daemonsets", "DaemonSet", "d", workload.clone()),
        ("apps/v1", "deployments", "Deployment", "d", workload.clone()),
        ("apps/v1", "replicasets", "ReplicaSet", "r", workload),
        ("apps/v1", "statefulsets", "StatefulSet", "s", set),
        (
            "batch/v1",
            "cronjobs",
            "CronJob",
            "c",
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": once}}}),
        ),
        ("batch/v1", "jobs", "Job", "j", json!({"template": once})),
        (
            "autoscaling/v2",
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            "h",
            json!({"scaleTargetRef": target, "maxReplicas": 3}),
        ),
        (
            "policy/v1",
            "poddisruptionbudgets",
            "PodDisruptionBudget",
            "p",
            json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}),
        ),
        ("networking.k8s.io/v1", "ingresses", "Ingress", "i", json!({"defaultBackend": backend})),
        ("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", "s", json!({"cidrs": ["10.9.0.0/24"]})),
        (
            "certificates.k8s.io/v1",
            "certificatesigningrequests",
            "CertificateSigningRequest",
            "c",
            json!({"request": certificate_request(), "signerName": "example.com/s", "usages": ["client auth"]}),
        ),
        (
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            "xs.example.com",
            json!({
                "group": "example.com", "names": names, "scope": "Namespaced",
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
            }),
        ),
        (
            "apiregistration.k8s.io/v1",
            "apiservices",
            "APIService",
            "v1.example.org",
            json!({
                "group": "example.org", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
                "service": {"namespace": "team", "name": "s"}, "insecureSkipTLSVerify": true,
            }),
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "flowschemas",
            "FlowSchema",
            "f",
            json!({"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1000}),
        ),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "prioritylevelconfigurations",
            "PriorityLevelConfiguration",
            "p",
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}),
        ),
        (
            "resource.k8s.io/v1",
            "resourceclaims",
            "ResourceClaim",
            "r",
            json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}),
        ),
        (
            "storage.k8s.io/v1",
            "volumeattachments",
            "VolumeAttachment",
            "v",
            json!({"attacher": "example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}),
        ),
        (
            "admissionregistration.k8s.io/v1",
            "validatingadmissionpolicies",
            "ValidatingAdmissionPolicy",
            "v",
            json!({"matchConstraints": {"resourceRules": [pods]}, "validations": [{"expression": "true"}]}),
        ),
    ]
}

fn certificate_request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap())
}

/// Returns changes of metadata: field name, JSON pointer to the changed value, and new value.
fn changes() -> Vec<(&'static str, &'static str, Value)> {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "1"});
    vec![
        ("labels", "/metadata/labels/changed", json!("x")),
        ("annotations", "/metadata/annotations/changed", json!("x")),
        ("finalizers", "/metadata/finalizers", json!(["example.com/b"])),
        ("ownerReferences", "/metadata/ownerReferences", json!([owner])),
        ("deletionTimestamp", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
    ]
}

fn set(object: &mut Value, pointer: &str, value: &Value) {
    let mut place = object;
    for part in pointer.split('/').skip(1) {
        place = &mut place[part];
    }
    *place = value.clone();
}

/// Returns the metadata fields that a subresource can change, by PUT and by PATCH.
async fn changeable(client: &Client, object: &str, subresource: &str, patch: bool) -> BTreeSet<&'static str> {
    let mut changed = BTreeSet::new();
    for (field, pointer, value) in changes() {
        let before = client.call(&format!("GET {object}")).await.json();
        let path = format!("{object}/{subresource}");
        let answer = if patch {
            let mut change = json!({});
            set(&mut change, pointer, &value);
            client.send(Call::new("PATCH", &path).json(&change)).await
        } else {
            let mut update = before.clone();
            set(&mut update, pointer, &value);
            client.send(Call::new("PUT", &path).json(&update)).await
        };
        assert!(matches!(answer.code, 200 | 422), "{path}: {field}: {}: {}", answer.code, answer.text());
        let after = client.call(&format!("GET {object}")).await.json();
        assert_eq!(after.get("spec"), before.get("spec"), "{path}: {field}");
        if after.pointer(pointer) == Some(&value) {
            changed.insert(field);
        }
        // Reverts the changes, so that PUT and PATCH start with the same state.
        let restored = json!({"metadata": {"finalizers": ["example.com/a"], "labels": {"changed": null}, "annotations": {"changed": null}}});
        let answer = client.send(Call::new("PATCH", object).json(&restored)).await;
        assert_eq!(answer.code, 200, "{object}: {}", answer.text());
    }
    changed
}

#[tokio::test]
async fn the_status_subresource_changes_only_the_status() {
    let (cluster, paths) = cluster().await;
    let client = cluster.admin();
    let mut wrong = Vec::new();
    for def in cluster.storages.registry().all().filter(|def| def.versions[0].has_status()) {
        let resource = def.resource.as_str();
        let row = STATUS_METADATA.iter().find(|(resources, _)| resources.contains(&resource));
        let (_, expected) = row.unwrap_or_else(|| panic!("no row for {resource}"));
        let path = paths.get(resource).unwrap_or_else(|| panic!("no object of {resource}"));
        for patch in [false, true] {
            let found = changeable(&client, path, "status", patch).await;
            if !found.iter().eq(*expected) {
                wrong.push(format!("{resource}: {found:?} instead of {expected:?}"));
            }
        }
        // An update without a spec leaves the spec unchanged.
        let before = client.call(&format!("GET {path}")).await.json();
        let mut update = before.clone();
        update.as_object_mut().unwrap().remove("spec");
        let answer = client.send(Call::new("PUT", &format!("{path}/status")).json(&update)).await;
        assert_eq!(answer.code, 200, "{resource}: {}", answer.text());
        assert_eq!(answer.json().get("spec"), before.get("spec"), "{resource}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Status fields that only the server may set: a right to `status` does not allow changing them.
#[tokio::test]
async fn the_status_subresource_cannot_change_server_decided_fields() {
    let (cluster, paths) = cluster().await;
    let client = cluster.admin();
    let decided = [
        ("pods", "qosClass", json!("Guaranteed")),
        ("pods", "qosClass", json!("Bogus")),
        ("namespaces", "phase", json!("Terminating")),
        ("namespaces", "phase", json!("Bogus")),
    ];
    for (resource, field, value) in decided {
        let path = &paths[resource];
        let before = client.call(&format!("GET {path}")).await.json();
        let mut update = before.clone();
        update["status"][field] = value.clone();
        let (change, status) = (json!({"status": {field: value}}), format!("{path}/status"));
        for (method, body) in [("PUT", &update), ("PATCH", &change)] {
            let answer = client.call_with(&format!("{method} {status}"), body).await;
            assert_eq!(answer.code, 422, "{method} {status} {change}: {}", answer.text());
        }
        // An update without the field, as from a client that does not know it, leaves the field unchanged.
        update["status"].as_object_mut().unwrap().remove(field);
        let answer = client.call_with(&format!("PUT {status}"), &update).await;
        assert_eq!(answer.code, 200, "{status}: {}", answer.text());
        let after = client.call(&format!("GET {path}")).await.json();
        assert_eq!(after["status"][field], before["status"][field], "{status}");
    }
}

#[tokio::test]
async fn other_subresources_change_only_their_fields() {
    let (cluster, paths) = cluster().await;
    let client = cluster.admin();
    let mut wrong = Vec::new();
    for def in cluster.storages.registry().all() {
        for subresource in
            def.versions[0].subresources.iter().filter(|it| it.kind == SubresourceKind::RestrictedUpdate)
        {
            let name = format!("{}/{}", def.resource, subresource.name);
            let row = SUBRESOURCE_METADATA.iter().find(|(path, _)| *path == name);
            let (_, expected) = row.unwrap_or_else(|| panic!("no row for {name}"));
            let path = &paths[&def.resource];
            let found = changeable(&client, path, &subresource.name, false).await;
            if !found.iter().eq(*expected) {
                wrong.push(format!("{name}: {found:?} instead of {expected:?}"));
            }
            let before = client.call(&format!("GET {path}")).await.json();
            let mut update = before.clone();
            let foreign = match def.resource.as_str() {
                "certificatesigningrequests" => json!({"certificate": "QQ=="}),
                _ => json!({"phase": "Failed"}),
            };
            update["status"] = foreign;
            client.send(Call::new("PUT", &format!("{path}/{}", subresource.name)).json(&update)).await;
            let after = client.call(&format!("GET {path}")).await.json();
            assert_eq!(after.get("status"), before.get("status"), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn scale_changes_only_the_replicas() {
    let (cluster, paths) = cluster().await;
    let client = cluster.admin();
    let mut tried = 0;
    for def in cluster.storages.registry().all().filter(|def| def.versions[0].subresource("scale").is_some())
    {
        let path = &paths[&def.resource];
        let mut before = client.call(&format!("GET {path}")).await.json();
        let mut scale = client.call(&format!("GET {path}/scale")).await.json();
        for (_, pointer, value) in changes() {
            set(&mut scale, pointer, &value);
        }
        scale["spec"]["replicas"] = json!(7);
        scale["metadata"]["uid"] = json!("another");
        let answer = client.send(Call::new("PUT", &format!("{path}/scale")).json(&scale)).await;
        assert_eq!(answer.code, 409, "{path}: {}", answer.text());
        scale["metadata"]["uid"] = before["metadata"]["uid"].clone();
        let answer = client.send(Call::new("PUT", &format!("{path}/scale")).json(&scale)).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
        let mut after = client.call(&format!("GET {path}")).await.json();
        assert_eq!(after["spec"]["replicas"], 7, "{path}");
        after["spec"]["replicas"] = before["spec"]["replicas"].clone();
        for object in [&mut before, &mut after] {
            let metadata = object["metadata"].as_object_mut().unwrap();
            for field in ["resourceVersion", "generation", "managedFields"] {
                metadata.remove(field);
            }
        }
        assert_eq!(after, before, "{path}");
        tried += 1;
    }
    assert_eq!(tried, 4);
}
