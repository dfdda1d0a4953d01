//! The containers of a pod and the API objects that it refers to (upstream: `pkg/api/pod`), for other crates.

use nave_machinery::{FieldError, FieldErrors, FieldPath, Map, Value, meta};

use crate::def::ResourceDef;
use crate::read;

/// The annotation of a mirror pod, which represents a kubelet's static pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Volume types that do not refer to API objects. All other types refer to an API object or are unknown.
const INDEPENDENT_VOLUMES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// Volume types with a `secretRef`.
const VOLUMES_WITH_SECRET: [&str; 7] =
    ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];

/// A type of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// `spec.initContainers`.
    Init,
    /// `spec.containers`.
    Regular,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

impl ContainerKind {
    /// All types, in the order in which upstream visits them.
    pub const ALL: [Self; 3] = [Self::Init, Self::Regular, Self::Ephemeral];

    /// The field of the pod spec.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }

    /// The name of such a container in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Init => "init container",
            Self::Regular => "container",
            Self::Ephemeral => "ephemeral container",
        }
    }
}

/// Returns the path of the pod spec in the objects of a resource.
pub fn spec_path(group: &str, resource: &str) -> Option<&'static [&'static str]> {
    Some(match (group, resource) {
        ("", "pods") => &["spec"],
        ("", "podtemplates") => &["template", "spec"],
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => &["spec", "template", "spec"],
        ("batch", "cronjobs") => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => return None,
    })
}

/// Returns an error for each privileged container, if the resource refuses them.
pub fn refused_privileged(def: &ResourceDef, object: &Value) -> FieldErrors {
    let Some(path) = spec_path(&def.group, &def.resource).filter(|_| def.rules.refuses_privileged) else {
        return FieldErrors::new();
    };
    let Some((first, rest)) = path.split_first() else { return FieldErrors::new() };
    let spec = path.iter().try_fold(object, |value, field| value.get(field)).unwrap_or(&Value::Null);
    let at = rest.iter().fold(FieldPath::new(first), |at, field| at.child(field));
    let is_privileged =
        |container: &Value| container.pointer("/securityContext/privileged") == Some(&Value::Bool(true));
    containers_in(spec)
        .filter(|(_, _, container)| is_privileged(container))
        .map(|(kind, index, _)| {
            let at = at.child(kind.field()).index(index).child("securityContext").child("privileged");
            FieldError::forbidden(&at, "disallowed by cluster policy")
        })
        .collect()
}

/// Sets missing resources of a whole pod from those of its containers, in a pod spec.
pub fn default_pod_level_resources(spec: &mut Map) {
    crate::groups::pod_level_resources(spec);
}

/// Returns whether a pod is a mirror pod.
pub fn is_mirror(pod: &Value) -> bool {
    meta::annotation(pod, MIRROR_ANNOTATION).is_some()
}

/// Returns all containers of a pod.
pub fn containers(pod: &Value) -> impl Iterator<Item = (ContainerKind, &Value)> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    containers_in(spec).map(|(kind, _, container)| (kind, container))
}

/// Returns all containers of a pod spec, each with the index in its list.
pub fn containers_in(spec: &Value) -> impl Iterator<Item = (ContainerKind, usize, &Value)> {
    ContainerKind::ALL.into_iter().flat_map(move |kind| {
        read::list(spec, kind.field()).iter().enumerate().map(move |(index, it)| (kind, index, it))
    })
}

/// Returns the volumes of a pod.
pub fn volumes(pod: &Value) -> &[Value] {
    read::list(pod, "spec.volumes")
}

/// Returns whether a container or volume of a pod refers to a secret.
pub fn refers_to_secrets(pod: &Value) -> bool {
    if !read::list(pod, "spec.imagePullSecrets").is_empty() || environment(pod, "secretKeyRef", "secretRef") {
        return true;
    }
    volumes(pod).iter().any(|volume| {
        is_set(volume, "secret")
            || is_set(volume, "csi.nodePublishSecretRef")
            || !read::text(volume, "azureFile.secretName").is_empty()
            || sources(volume).any(|source| is_set(source, "secret"))
            || VOLUMES_WITH_SECRET
                .iter()
                .any(|kind| volume.get(*kind).is_some_and(|volume| is_set(volume, "secretRef")))
    })
}

/// Returns whether a container or volume of a pod refers to a config map.
pub fn refers_to_config_maps(pod: &Value) -> bool {
    environment(pod, "configMapKeyRef", "configMapRef")
        || volumes(pod).iter().any(|volume| {
            is_set(volume, "configMap") || sources(volume).any(|source| is_set(source, "configMap"))
        })
}

/// Returns the resource of the first API object that a pod refers to (upstream: `HasAPIObjectReference`).
///
/// # Errors
/// A volume or a source of a projected volume has an unknown type, which may refer to any API object.
pub fn api_reference(pod: &Value) -> Result<Option<&'static str>, String> {
    if !read::text(pod, "spec.serviceAccountName").is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    if refers_to_secrets(pod) {
        return Ok(Some("secrets"));
    }
    if refers_to_config_maps(pod) {
        return Ok(Some("configmaps"));
    }
    if !read::list(pod, "spec.resourceClaims").is_empty() {
        return Ok(Some("resourceclaims"));
    }
    for volume in volumes(pod) {
        if let Some(resource) = volume_reference(volume)? {
            return Ok(Some(resource));
        }
    }
    Ok(None)
}

fn volume_reference(volume: &Value) -> Result<Option<&'static str>, String> {
    let name = read::text(volume, "name");
    for kind in set_fields(volume).filter(|kind| *kind != "name") {
        let resource = match kind {
            kind if INDEPENDENT_VOLUMES.contains(&kind) => continue,
            "configMap" => "configmaps (via configmap volumes)",
            "secret" => "secrets (via secret volumes)",
            "csi" => "csidrivers (via CSI volumes)",
            "glusterfs" => "endpoints (via glusterFS volumes)",
            "persistentVolumeClaim" => "persistentvolumeclaims",
            "ephemeral" => "persistentvolumeclaims (via ephemeral volumes)",
            "azureFile" => "secrets (via azureFile volumes)",
            "projected" => match projected_reference(volume)? {
                Some(resource) => resource,
                None => continue,
            },
            _ => return Err(format!("unknown volume type for volume  {name:?}")),
        };
        return Ok(Some(resource));
    }
    Ok(None)
}

fn projected_reference(volume: &Value) -> Result<Option<&'static str>, String> {
    for source in sources(volume) {
        for kind in set_fields(source) {
            return Ok(Some(match kind {
                "downwardAPI" => continue,
                "configMap" => "configmaps (via projected volumes)",
                "secret" => "secrets (via projected volumes)",
                "serviceAccountToken" => "serviceaccounts (via projected volumes)",
                "clusterTrustBundle" => "clustertrustbundles",
                "podCertificate" => "podcertificates",
                _ => {
                    let name = read::text(volume, "name");
                    return Err(format!("unknown source for projected volume {name:?}"));
                }
            }));
        }
    }
    Ok(None)
}

/// Returns whether a variable has a source of type `key`, or `envFrom` has a source of type `all`.
fn environment(pod: &Value, key: &str, all: &str) -> bool {
    containers(pod).any(|(_, container)| {
        read::list(container, "env")
            .iter()
            .any(|variable| variable.get("valueFrom").is_some_and(|from| is_set(from, key)))
            || read::list(container, "envFrom").iter().any(|source| is_set(source, all))
    })
}

/// Returns the sources of a projected volume.
fn sources(volume: &Value) -> impl Iterator<Item = &Value> {
    read::list(volume, "projected.sources").iter()
}

fn set_fields(object: &Value) -> impl Iterator<Item = &str> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).map(|(field, _)| field.as_str())
}

fn is_set(object: &Value, path: &str) -> bool {
    read::value_at(object, path).is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns pods that refer to each type of API object in each possible way.
    fn referring() -> Vec<(Value, &'static str)> {
        let mut cases = vec![
            (json!({"serviceAccountName": "a"}), "serviceaccounts"),
            (json!({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
            (json!({"resourceClaims": [{"name": "r", "resourceClaimName": "c"}]}), "resourceclaims"),
            (json!({"resourceClaims": [{"name": "r", "resourceClaimTemplateName": "t"}]}), "resourceclaims"),
        ];
        for kind in ContainerKind::ALL {
            for (container, resource) in [
                (json!({"env": [{"name": "E"}, {"valueFrom": {"secretKeyRef": {"name": "s"}}}]}), "secrets"),
                (json!({"envFrom": [{"secretRef": {"name": "s"}}]}), "secrets"),
                (json!({"env": [{"valueFrom": {"configMapKeyRef": {"name": "m"}}}]}), "configmaps"),
                (json!({"envFrom": [{"configMapRef": {"name": "m"}}]}), "configmaps"),
            ] {
                cases.push((json!({kind.field(): [{"name": "harmless"}, container]}), resource));
            }
        }
        let secret = || json!({"secretRef": {"name": "s"}});
        let mut volumes = vec![
            (json!({"secret": {"secretName": "s"}}), "secrets"),
            (json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}), "secrets"),
            (json!({"csi": {"driver": "d"}}), "csidrivers (via CSI volumes)"),
            (json!({"azureFile": {"secretName": "s"}}), "secrets"),
            (json!({"azureFile": {}}), "secrets (via azureFile volumes)"),
            (json!({"configMap": {"name": "m"}}), "configmaps"),
            (json!({"glusterfs": {"endpoints": "e"}}), "endpoints (via glusterFS volumes)"),
            (json!({"persistentVolumeClaim": {"claimName": "c"}}), "persistentvolumeclaims"),
            (json!({"ephemeral": {}}), "persistentvolumeclaims (via ephemeral volumes)"),
        ];
        volumes.extend(VOLUMES_WITH_SECRET.map(|kind| (json!({kind: secret()}), "secrets")));
        for (source, resource) in [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
            ("clusterTrustBundle", "clustertrustbundles"),
            ("podCertificate", "podcertificates"),
        ] {
            let sources = json!([{"downwardAPI": {}}, {source: {}}]);
            volumes.push((json!({"projected": {"sources": sources}}), resource));
        }
        cases.extend(volumes.into_iter().map(|(mut volume, resource)| {
            volume["name"] = json!("v");
            (json!({"volumes": [{"name": "e", "emptyDir": {}}, volume]}), resource)
        }));
        cases
    }

    #[test]
    fn finds_every_reference_to_an_api_object() {
        for (spec, resource) in referring() {
            assert_eq!(api_reference(&json!({"spec": spec})), Ok(Some(resource)), "{spec}");
        }
    }

    #[test]
    fn accepts_volumes_that_refer_to_nothing() {
        let mut volumes: Vec<Value> =
            INDEPENDENT_VOLUMES.iter().map(|kind| json!({"name": "v", *kind: {}, "secret": null})).collect();
        volumes.push(json!({"name": "v"}));
        volumes.push(json!({"name": "v", "projected": {"sources": [{"downwardAPI": {}}]}}));
        assert_eq!(api_reference(&json!({"spec": {"volumes": volumes}})), Ok(None));
        assert_eq!(api_reference(&json!({})), Ok(None));
    }

    #[test]
    fn refuses_unknown_volumes_and_sources() {
        for volume in [
            json!({"name": "v", "emptyDir": {}, "later": {}}),
            json!({"name": "v", "projected": {"sources": [{"downwardAPI": {}}, {"later": {}}]}}),
        ] {
            let why = api_reference(&json!({"spec": {"volumes": [volume]}})).unwrap_err();
            assert!(why.starts_with("unknown ") && why.ends_with("\"v\""), "{why}");
        }
    }

    /// Fails if the API gets a volume type that is neither handled nor listed as independent.
    #[test]
    fn knows_every_kind_of_volume_of_the_api() {
        let set = nave_schema::builtin();
        let volume = set.find("io.k8s.api.core.v1.Volume").unwrap();
        for field in &set.get(volume).fields {
            let name = &*field.name;
            let spec = json!({"volumes": [{"name": "v", name: {}}]});
            assert!(name == "name" || api_reference(&json!({"spec": spec})).is_ok(), "{name}");
        }
    }

    #[test]
    fn refuses_privileged_containers_of_pods_and_templates() {
        let registry = crate::Registry::builtin(nave_schema::builtin());
        let restricted = registry.clone().without_privileged();
        let privileged = json!({"securityContext": {"privileged": true}});
        let spec = json!({
            "initContainers": [{"securityContext": {"privileged": false}}, privileged],
            "containers": [privileged],
            "ephemeralContainers": [{}, privileged],
        });
        for (group, resource, path) in [
            ("", "pods", "spec"),
            ("", "podtemplates", "template.spec"),
            ("", "replicationcontrollers", "spec.template.spec"),
            ("apps", "deployments", "spec.template.spec"),
            ("apps", "statefulsets", "spec.template.spec"),
            ("apps", "daemonsets", "spec.template.spec"),
            ("apps", "replicasets", "spec.template.spec"),
            ("batch", "jobs", "spec.template.spec"),
            ("batch", "cronjobs", "spec.jobTemplate.spec.template.spec"),
        ] {
            let object = path.rsplit('.').fold(spec.clone(), |value, field| json!({field: value}));
            let errors = |registry: &crate::Registry| {
                let resource = nave_machinery::GroupVersionResource::new(group, "v1", resource);
                let errors = refused_privileged(registry.lookup(&resource).unwrap(), &object);
                errors.iter().map(|error| error.field.to_string()).collect::<Vec<_>>()
            };
            assert_eq!(errors(&registry), [""; 0], "{resource}");
            let containers = ["initContainers[1]", "containers[0]", "ephemeralContainers[1]"];
            let expected = containers.map(|it| format!("{path}.{it}.securityContext.privileged"));
            assert_eq!(errors(&restricted), expected, "{resource}");
        }
    }
}
