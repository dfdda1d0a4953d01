//! Applies steps to claims and volumes in memory.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use nave_client::Object;
use serde_json::{Value, json};

use super::claim::{self, Cluster, Step};
use super::volume::{self, Reclaim};
use super::{edit, matching};

#[derive(Default)]
struct World {
    claims: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    classes: BTreeMap<String, Value>,
    pods: Vec<Value>,
}

impl Cluster for World {
    fn volume(&self, name: &str) -> Option<PersistentVolume> {
        Some(serde_json::from_value(self.volumes.get(name)?.clone()).unwrap())
    }

    fn candidates(&self, _: &PersistentVolumeClaim) -> Vec<PersistentVolume> {
        // Returns more volumes than the cache does; `best` must exclude volumes that do not match.
        self.volumes.values().map(|volume| serde_json::from_value(volume.clone()).unwrap()).collect()
    }

    fn class(&self, name: &str) -> Option<StorageClass> {
        Some(serde_json::from_value(self.classes.get(name)?.clone()).unwrap())
    }

    fn classes(&self) -> Vec<StorageClass> {
        self.classes.values().map(|class| serde_json::from_value(class.clone()).unwrap()).collect()
    }

    fn pods(&self, _: &PersistentVolumeClaim) -> Vec<Pod> {
        self.pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect()
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

impl World {
    fn add_claim(&mut self, name: &str, change: &Value) -> &mut Self {
        let mut claim = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "resourceVersion": "1"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}},
                     "storageClassName": ""},
            "status": {"phase": "Pending"}});
        merge(&mut claim, change);
        self.claims.insert(name.to_owned(), claim);
        self
    }

    fn add_volume(&mut self, name: &str, change: &Value) -> &mut Self {
        let mut volume = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"},
                     "persistentVolumeReclaimPolicy": "Retain"},
            "status": {"phase": "Available"}});
        merge(&mut volume, change);
        self.volumes.insert(name.to_owned(), volume);
        self
    }

    fn add_class(&mut self, name: &str, change: &Value) -> &mut Self {
        let mut class = json!({"metadata": {"name": name}, "provisioner": "csi.example.com",
            "volumeBindingMode": "Immediate"});
        merge(&mut class, change);
        self.classes.insert(name.to_owned(), class);
        self
    }

    fn step(&self, name: &str) -> Step {
        let claim = serde_json::from_value(self.claims[name].clone()).unwrap();
        claim::next_step(&claim, self).unwrap()
    }

    /// Returns the volume that a claim would be bound to.
    fn matched_volume(&self, name: &str) -> Option<String> {
        match self.step(name) {
            Step::Bind(volume) => volume.metadata.name,
            _ => None,
        }
    }

    /// Takes the next step for a claim and describes it.
    fn sync(&mut self, name: &str) -> String {
        let step = self.step(name);
        let claim = self.claims.get_mut(name).unwrap();
        match step {
            Step::Bind(bound) => {
                let volume = self.volumes.get_mut(bound.metadata.name.as_deref().unwrap()).unwrap();
                edit::bind_volume(volume, &Object::from_value(claim).unwrap());
                edit::volume_phase(volume, "Bound", "");
                edit::bind_claim(claim, bound.metadata.name.as_deref().unwrap());
                edit::claim_bound(claim, volume);
                "bound".to_owned()
            }
            Step::AssignClass(class) => {
                edit::assign_class(claim, &class);
                format!("class {class}")
            }
            Step::Provision(provisioner) => {
                edit::request_volume(claim, &provisioner);
                format!("provision {provisioner}")
            }
            Step::Wait(event) => {
                edit::claim_without_volume(claim, "Pending");
                event.map_or("wait".to_owned(), |event| format!("{}: {}", event.reason, event.message))
            }
            Step::Report(event) => format!("{}: {}", event.reason, event.message),
            Step::Retry(event) => format!("retry {}: {}", event.reason, event.message),
            Step::Lose(event) => {
                edit::claim_without_volume(claim, "Lost");
                event.reason.to_owned()
            }
        }
    }

    /// Takes the next step for a volume and describes it.
    fn sync_volume(&mut self, name: &str) -> String {
        let seen: PersistentVolume = serde_json::from_value(self.volumes[name].clone()).unwrap();
        let uid = matching::bound_to(&seen).map(|bound| bound.uid.to_owned());
        let mut claims = self.claims.values();
        let bound = claims.find(|claim| uid.as_deref().is_some_and(|uid| claim["metadata"]["uid"] == uid));
        let bound = bound.map(|claim| serde_json::from_value(claim.clone()).unwrap());
        let volume = self.volumes.get_mut(name).unwrap();
        match volume::next_step(&seen, bound.as_ref()) {
            volume::Step::Phase(phase) => {
                edit::volume_phase(volume, phase, "");
                phase.to_owned()
            }
            volume::Step::AwaitClaim(events) => format!("await {}", events.len()),
            volume::Step::Unbind => {
                edit::unbind_volume(volume);
                edit::volume_phase(volume, "Available", "");
                "unbound".to_owned()
            }
            volume::Step::Release(Reclaim::Leave) => {
                edit::volume_phase(volume, "Released", "");
                "released".to_owned()
            }
            volume::Step::Release(Reclaim::Fail(event)) => {
                edit::volume_phase(volume, "Failed", &event.message);
                format!("{}: {}", event.reason, event.message)
            }
        }
    }
}

#[test]
fn binds_claim_and_releases_volume_after_its_deletion() {
    let mut world = World::default();
    world.add_claim("c", &json!({})).add_volume("v", &json!({"spec": {"volumeAttributesClassName": ""}}));
    assert_eq!(world.sync("c"), "bound");
    let (claim, volume) = (&world.claims["c"], &world.volumes["v"]);
    assert_eq!(claim["spec"]["volumeName"], "v");
    assert_eq!(
        claim["metadata"]["annotations"],
        json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"})
    );
    assert_eq!(claim["status"]["phase"], "Bound");
    assert_eq!(claim["status"]["capacity"], json!({"storage": "10Gi"}));
    assert_eq!(claim["status"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(
        volume["spec"]["claimRef"],
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "ns", "name": "c",
               "uid": "uid-c", "resourceVersion": "1"})
    );
    assert_eq!(volume["metadata"]["annotations"], json!({"pv.kubernetes.io/bound-by-controller": "yes"}));
    let before = (claim.clone(), volume.clone());
    assert_eq!((world.sync("c"), world.sync_volume("v")), ("bound".to_owned(), "Bound".to_owned()));
    assert_eq!(
        (&world.claims["c"], &world.volumes["v"]),
        (&before.0, &before.1),
        "a second sync changes nothing"
    );

    world.claims.clear();
    assert_eq!(world.sync_volume("v"), "released");
    // A claim with the same name but a different UID is a different claim.
    world.add_claim("c", &json!({"metadata": {"uid": "uid-other"}}));
    assert_eq!(world.matched_volume("c"), None);
    assert_eq!(world.sync_volume("v"), "released");
}

#[test]
fn chooses_the_smallest_matching_volume() {
    let wants = |change: Value, volumes: &[(&str, Value)]| {
        let mut world = World::default();
        world.add_claim("c", &change);
        for (name, change) in volumes {
            world.add_volume(name, change);
        }
        world.matched_volume("c")
    };
    let size = |size: &str| json!({"spec": {"capacity": {"storage": size}}});
    let sizes = [("a", size("20Gi")), ("b", size("5Gi")), ("c", size("4Gi")), ("d", size("8Gi"))];
    assert_eq!(wants(json!({}), &sizes).as_deref(), Some("b"));
    let modes = json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}});
    assert_eq!(wants(modes.clone(), &sizes), None);
    let more_modes = json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
                                     "capacity": {"storage": "5Gi"}}});
    assert_eq!(wants(modes, &[("a", more_modes.clone())]).as_deref(), Some("a"));
    let fewer_first = [("a", more_modes), ("b", size("50Gi"))];
    assert_eq!(wants(json!({}), &fewer_first).as_deref(), Some("b"), "fewer access modes go before size");
    for unfit in [
        json!({"spec": {"storageClassName": "fast"}}),
        json!({"spec": {"volumeMode": "Block"}}),
        json!({"spec": {"volumeAttributesClassName": "gold"}}),
        json!({"spec": {"claimRef": {"namespace": "ns", "name": "other"}}}),
        json!({"status": {"phase": "Released"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "slow"}}}),
    ] {
        assert_eq!(wants(json!({}), &[("a", unfit.clone())]), None, "{unfit}");
    }
    let selects = json!({"spec": {"selector": {"matchLabels": {"zone": "a"}}}});
    let labelled = [("a", json!({})), ("b", json!({"metadata": {"labels": {"zone": "a"}}}))];
    assert_eq!(wants(selects, &labelled).as_deref(), Some("b"));
}

#[test]
fn volume_with_claim_reference_is_reserved() {
    let mut world = World::default();
    let reserved = json!({"spec": {"storageClassName": "any",
        "claimRef": {"namespace": "ns", "name": "mine"}, "capacity": {"storage": "50Gi"}}});
    world.add_claim("mine", &json!({})).add_claim("other", &json!({}));
    world.add_volume("reserved", &reserved).add_volume("free", &json!({}));
    assert_eq!(world.sync_volume("reserved"), "Available");
    assert_eq!(world.matched_volume("other").as_deref(), Some("free"));
    assert_eq!(world.sync("mine"), "bound");
    let volume = &world.volumes["reserved"];
    assert_eq!(volume["spec"]["claimRef"]["uid"], "uid-mine");
    assert_eq!(volume["metadata"].get("annotations"), None, "the user has bound it");
    // The claim is bound to another volume. The reference that the user set is kept.
    world.claims.get_mut("mine").unwrap()["spec"]["volumeName"] = "elsewhere".into();
    assert_eq!(world.sync_volume("reserved"), "unbound");
    assert_eq!(
        (
            &world.volumes["reserved"]["spec"]["claimRef"]["name"],
            &world.volumes["reserved"]["status"]["phase"]
        ),
        (&json!("mine"), &json!("Available"))
    );
    assert_eq!(world.volumes["reserved"]["spec"]["claimRef"].get("uid"), None);
}

#[test]
fn claim_waits_for_the_volume_it_names() {
    let mut world = World::default();
    world.add_claim("c", &json!({"spec": {"volumeName": "v"}}));
    assert_eq!(world.sync("c"), "wait");
    world.add_volume("v", &json!({"spec": {"capacity": {"storage": "1Gi"}}}));
    assert_eq!(
        world.sync("c"),
        "VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small"
    );
    world.add_volume("v", &json!({"spec": {"claimRef": {"namespace": "ns", "name": "o", "uid": "x"}}}));
    assert_eq!(world.sync("c"), "FailedBinding: volume \"v\" already bound to a different claim.");
    world.add_volume("v", &json!({}));
    assert_eq!(world.sync("c"), "bound");
    let annotations = &world.claims["c"]["metadata"]["annotations"];
    assert_eq!(annotations, &json!({"pv.kubernetes.io/bind-completed": "yes"}), "the user has bound it");
}

#[test]
fn claim_is_lost_with_its_volume_and_recovers() {
    let mut world = World::default();
    world.add_claim("c", &json!({})).add_volume("v", &json!({}));
    world.sync("c");
    let volume = world.volumes.remove("v").unwrap();
    assert_eq!(world.sync("c"), "ClaimLost");
    assert_eq!(world.claims["c"]["status"], json!({"phase": "Lost"}));
    world.volumes.insert("v".to_owned(), volume);
    assert_eq!(world.sync("c"), "bound");
    assert_eq!(world.claims["c"]["status"]["phase"], "Bound");
    world.volumes.get_mut("v").unwrap()["spec"]["claimRef"]["uid"] = "uid-other".into();
    assert_eq!(world.sync("c"), "ClaimMisbound");
}

#[test]
fn provisions_by_storage_class() {
    let mut world = World::default();
    let none = "no persistent volumes available for this claim and no storage class is set";
    world.add_claim("c", &json!({}));
    assert_eq!(world.sync("c"), format!("FailedBinding: {none}"));
    world.add_claim("c", &json!({"spec": {"storageClassName": "fast"}}));
    assert_eq!(world.sync("c"), "ProvisioningFailed: storageclass.storage.k8s.io \"fast\" not found");
    world.add_class("fast", &json!({}));
    assert_eq!(world.sync("c"), "provision csi.example.com");
    let annotations = world.claims["c"]["metadata"]["annotations"].clone();
    assert_eq!(
        annotations,
        json!({"volume.kubernetes.io/storage-provisioner": "csi.example.com",
               "volume.beta.kubernetes.io/storage-provisioner": "csi.example.com"})
    );
    for (provisioner, expected) in [
        (
            "kubernetes.io/no-provisioner",
            "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner",
        ),
        ("kubernetes.io/aws-ebs", "provision ebs.csi.aws.com"),
    ] {
        world.add_class("fast", &json!({"provisioner": provisioner}));
        assert_eq!(world.sync("c"), expected);
    }
}

#[test]
fn claim_without_class_gets_the_newest_default() {
    let default = |created: &str| {
        json!({"metadata": {"creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}})
    };
    let mut world = World::default();
    world.add_class("plain", &json!({})).add_class("old", &default("2026-01-01T00:00:00Z"));
    world.add_class("b", &default("2026-02-01T00:00:00Z")).add_class("a", &default("2026-02-01T00:00:00Z"));
    world.add_claim("none", &json!({}));
    assert!(world.sync("none").starts_with("FailedBinding"), "no class is a choice too");
    world.add_claim("c", &json!({}));
    world.claims.get_mut("c").unwrap()["spec"].as_object_mut().unwrap().remove("storageClassName");
    assert_eq!(world.sync("c"), "class a");
    assert_eq!(world.sync("c"), "provision csi.example.com");
}

#[test]
fn waits_for_first_consumer() {
    let mut world = World::default();
    world.add_class("late", &json!({"volumeBindingMode": "WaitForFirstConsumer"}));
    world.add_claim("c", &json!({"spec": {"storageClassName": "late"}}));
    world.add_volume("v", &json!({"spec": {"storageClassName": "late"}}));
    assert_eq!(
        world.sync("c"),
        "WaitForFirstConsumer: waiting for first consumer to be created before binding"
    );
    let pod = |name: &str, node: &str, phase: &str| {
        json!({"metadata": {"name": name}, "spec": {"containers": [], "nodeName": node},
               "status": {"phase": phase}})
    };
    world.pods = vec![pod("p", "", "Pending"), pod("placed", "n", "Running"), pod("ended", "", "Failed")];
    assert_eq!(world.sync("c"), "WaitForPodScheduled: waiting for pod p to be scheduled");
    world.pods.push(pod("a", "", "Pending"));
    assert_eq!(world.sync("c"), "WaitForPodScheduled: waiting for pods a,p to be scheduled");
    // The scheduler can select a node, on which a provisioner creates a volume.
    let mut provisioned = World::default();
    std::mem::swap(&mut provisioned.classes, &mut world.classes);
    let selected = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}},
        "spec": {"storageClassName": "late"}});
    provisioned.add_claim("c", &selected);
    assert_eq!(provisioned.sync("c"), "provision csi.example.com");
    // The scheduler can also reserve an existing volume.
    world.volumes.get_mut("v").unwrap()["spec"]["claimRef"] = json!({"namespace": "ns", "name": "c"});
    std::mem::swap(&mut provisioned.classes, &mut world.classes);
    assert_eq!(world.sync("c"), "bound");
}

#[test]
fn external_deleter_deletes_released_volume() {
    let released = |policy: &str, change: Value| {
        let mut world = World::default();
        world.add_volume(
            "v",
            &json!({"spec": {"claimRef": {"namespace": "ns", "name": "gone", "uid": "x"},
            "persistentVolumeReclaimPolicy": policy}}),
        );
        merge(world.volumes.get_mut("v").unwrap(), &change);
        let done = world.sync_volume("v");
        let message = world.volumes["v"]["status"].get("message").cloned();
        assert_eq!(message.is_some(), done != "released");
        done
    };
    assert_eq!(released("Retain", json!({})), "released");
    let csi = json!({"spec": {"csi": {"driver": "d", "volumeHandle": "h"}}});
    assert_eq!(released("Delete", csi), "released");
    let by = |provisioner: &str| json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": provisioner}}});
    assert_eq!(released("Delete", by("csi.example.com")), "released");
    assert_eq!(released("Delete", by("kubernetes.io/gce-pd")), "released");
    assert_eq!(
        released("Delete", by("kubernetes.io/old")),
        "VolumeFailedDelete: no volume plugin matched name: kubernetes.io/old"
    );
    assert_eq!(
        released("Delete", json!({"spec": {"local": {"path": "/x"}}})),
        "VolumeFailedDelete: error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched"
    );
    assert_eq!(
        released("Delete", json!({"spec": {"hostPath": {"path": "/mnt"}}})),
        "VolumeFailedDelete: host_path deleter only supports /tmp/.+ but received provided /mnt"
    );
    assert_eq!(
        released("Recycle", json!({})),
        "VolumeFailedRecycle: No recycler plugin found for the volume!"
    );
}

#[test]
fn undoes_binding_if_claim_has_another_volume() {
    let mut world = World::default();
    world.add_claim("c", &json!({"spec": {"volumeName": "winner"}}));
    let bound = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
        "spec": {"claimRef": {"namespace": "ns", "name": "c", "uid": "uid-c"}}});
    world.add_volume("loser", &bound);
    assert_eq!(world.sync_volume("loser"), "unbound");
    assert_eq!(world.volumes["loser"]["spec"].get("claimRef"), None);
    assert_eq!(world.volumes["loser"]["metadata"]["annotations"], json!({}));
    // A volume that was provisioned for the claim is released instead.
    let mut provisioned = bound;
    merge(
        &mut provisioned,
        &json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "d"}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
    );
    world.add_volume("extra", &provisioned);
    assert_eq!(world.sync_volume("extra"), "released");
    // A volume stays reserved while its claim is unbound.
    world.add_claim("c", &json!({}));
    world.add_volume("v", &bound_to_c());
    assert_eq!(world.sync_volume("v"), "await 0");
    world.volumes.get_mut("v").unwrap()["spec"]["volumeMode"] = "Block".into();
    assert_eq!(world.sync_volume("v"), "await 2");
}

fn bound_to_c() -> Value {
    json!({"spec": {"claimRef": {"namespace": "ns", "name": "c", "uid": "uid-c"}}})
}

#[test]
fn shows_old_capacity_until_file_system_is_expanded() {
    let mut world = World::default();
    let growing = json!({"metadata": {"annotations": {edit::PRE_RESIZE_CAPACITY: "5Gi"}}});
    world.add_claim("c", &json!({})).add_volume("v", &growing);
    world.sync("c");
    assert_eq!(world.claims["c"]["status"]["capacity"], json!({"storage": "5Gi"}));
}
