//! The references of pods and persistent volumes (upstream: the visitors of secret and config map names in `api/v1/pod`
//! and `api/v1/persistentvolume`).
//!
//! The views deserialize only fields that can refer to other objects, and borrow from the JSON.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::graph::{Graph, Kind};

/// The fields of a pod that name its node and refer to other objects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodView<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: PodSpec<'a>,
    status: PodStatus<'a>,
}

/// The fields of a persistent volume that name its claim and refer to other objects.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeView<'a> {
    #[serde(borrow)]
    spec: Volume<'a>,
}

/// The fields of a volume attachment or resource slice that name its node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnedView<'a> {
    #[serde(borrow)]
    spec: OwnedSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Annotations,
}

/// The annotation of mirror pods, which represent static pods of a kubelet.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OwnedSpec<'a> {
    #[serde(borrow)]
    node_name: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec<'a> {
    #[serde(borrow)]
    node_name: Cow<'a, str>,
    #[serde(borrow)]
    service_account_name: Cow<'a, str>,
    image_pull_secrets: Vec<Reference<'a>>,
    volumes: Vec<Volume<'a>>,
    containers: Vec<Container<'a>>,
    init_containers: Vec<Container<'a>>,
    ephemeral_containers: Vec<Container<'a>>,
    resource_claims: Vec<PodClaim<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus<'a> {
    #[serde(borrow)]
    resource_claim_statuses: Vec<PodClaim<'a>>,
    extended_resource_claim_status: Option<PodClaim<'a>>,
}

/// A resource claim in the spec or status of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodClaim<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    resource_claim_name: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    env: Vec<Variable<'a>>,
    env_from: Vec<Variables<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variable<'a> {
    #[serde(borrow)]
    value_from: Option<VariableSource<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VariableSource<'a> {
    #[serde(borrow)]
    secret_key_ref: Option<Reference<'a>>,
    config_map_key_ref: Option<Reference<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variables<'a> {
    #[serde(borrow)]
    secret_ref: Option<Reference<'a>>,
    config_map_ref: Option<Reference<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
}

/// A volume of a pod, or the spec of a persistent volume. One struct has the fields of both, because with
/// `#[serde(flatten)]`, serde buffers all other fields in memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "persistentVolumeClaim")]
    claim: Option<Claim<'a>>,
    ephemeral: Option<IgnoredAny>,
    secret: Option<SecretFiles<'a>>,
    config_map: Option<Reference<'a>>,
    projected: Option<Projected<'a>>,
    /// The claim that a persistent volume is bound to.
    claim_ref: Option<Reference<'a>>,
    azure_file: Option<SecretFiles<'a>>,
    cephfs: Option<WithSecret<'a>>,
    cinder: Option<WithSecret<'a>>,
    #[serde(rename = "flexVolume")]
    flex: Option<WithSecret<'a>>,
    rbd: Option<WithSecret<'a>>,
    #[serde(rename = "scaleIO")]
    scale_io: Option<WithSecret<'a>>,
    iscsi: Option<WithSecret<'a>>,
    storageos: Option<WithSecret<'a>>,
    csi: Option<WithSecret<'a>>,
}

/// The secrets of a volume that the kubelet needs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WithSecret<'a> {
    #[serde(rename = "secretRef", borrow)]
    any: Option<Reference<'a>>,
    #[serde(rename = "nodePublishSecretRef")]
    publish: Option<Reference<'a>>,
    #[serde(rename = "nodeStageSecretRef")]
    stage: Option<Reference<'a>>,
    #[serde(rename = "nodeExpandSecretRef")]
    expand: Option<Reference<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SecretFiles<'a> {
    #[serde(borrow)]
    secret_name: Cow<'a, str>,
    secret_namespace: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Claim<'a> {
    #[serde(borrow)]
    claim_name: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Projected<'a> {
    #[serde(borrow)]
    sources: Vec<Projection<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Projection<'a> {
    #[serde(borrow)]
    secret: Option<Reference<'a>>,
    config_map: Option<Reference<'a>>,
}

impl PodView<'_> {
    /// Adds the pod to the graph. A pod without a node is removed.
    pub(super) fn enter(&self, graph: &mut Graph, namespace: &str, name: &str) {
        let node = &self.spec.node_name;
        if node.is_empty() {
            graph.remove(Kind::Pod, namespace, name);
        } else if self.metadata.annotations.mirror.is_some() {
            // A kubelet creates mirror pods itself, so their references must not give it access.
            graph.set_pod(namespace, name, node, []);
        } else {
            let refers_to = self.refers_to(name);
            let refers_to = refers_to.iter().map(|(kind, name)| (*kind, &**name));
            graph.set_pod(namespace, name, node, refers_to);
        }
    }

    /// Returns all objects in the pod's namespace to which it refers.
    fn refers_to(&self, pod: &str) -> Vec<(Kind, Cow<'_, str>)> {
        let mut found: Vec<(Kind, Cow<'_, str>)> = Vec::new();
        found.push((Kind::ServiceAccount, Cow::Borrowed(&self.spec.service_account_name)));
        found.extend(self.secrets().into_iter().map(|name| (Kind::Secret, Cow::Borrowed(name))));
        found.extend(self.config_maps().into_iter().map(|name| (Kind::ConfigMap, Cow::Borrowed(name))));
        for volume in &self.spec.volumes {
            if let Some(claim) = &volume.claim {
                found.push((Kind::Claim, Cow::Borrowed(&claim.claim_name)));
            } else if volume.ephemeral.is_some() {
                found.push((Kind::Claim, format!("{pod}-{}", volume.name).into()));
            }
        }
        let claims = self.resource_claims().map(|name| (Kind::ResourceClaim, Cow::Borrowed(name)));
        found.extend(claims);
        found.retain(|(_, name)| !name.is_empty());
        found
    }

    fn secrets(&self) -> Vec<&str> {
        let mut found: Vec<&str> = names(&self.spec.image_pull_secrets).collect();
        for container in self.containers() {
            let sources = container.env.iter().filter_map(|variable| variable.value_from.as_ref());
            found.extend(names(sources.filter_map(|source| source.secret_key_ref.as_ref())));
            found.extend(names(container.env_from.iter().filter_map(|from| from.secret_ref.as_ref())));
        }
        for volume in &self.spec.volumes {
            found.extend(volume.secret.iter().map(|files| &*files.secret_name));
            let projections = volume.projected.iter().flat_map(|it| &it.sources);
            found.extend(names(projections.filter_map(|it| it.secret.as_ref())));
            found.extend(volume.remote_secrets().map(|(_, name)| name));
        }
        found
    }

    fn config_maps(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for container in self.containers() {
            let sources = container.env.iter().filter_map(|variable| variable.value_from.as_ref());
            found.extend(names(sources.filter_map(|source| source.config_map_key_ref.as_ref())));
            found.extend(names(container.env_from.iter().filter_map(|from| from.config_map_ref.as_ref())));
        }
        for volume in &self.spec.volumes {
            found.extend(names(volume.config_map.as_ref()));
            let projections = volume.projected.iter().flat_map(|it| &it.sources);
            found.extend(names(projections.filter_map(|it| it.config_map.as_ref())));
        }
        found
    }

    /// Returns the names of the pod's resource claims. The status has the names of claims created from templates or for
    /// extended resources.
    fn resource_claims(&self) -> impl Iterator<Item = &str> {
        let made = |name: &str| self.status.resource_claim_statuses.iter().find(|status| status.name == name);
        let claims = self.spec.resource_claims.iter().filter_map(move |claim| {
            let named = claim.resource_claim_name.as_deref();
            named.or_else(|| made(&claim.name)?.resource_claim_name.as_deref())
        });
        let extended = self.status.extended_resource_claim_status.iter();
        claims.chain(extended.filter_map(|claim| claim.resource_claim_name.as_deref()))
    }

    fn containers(&self) -> impl Iterator<Item = &Container<'_>> {
        let PodSpec { containers, init_containers, ephemeral_containers, .. } = &self.spec;
        containers.iter().chain(init_containers).chain(ephemeral_containers)
    }
}

impl VolumeView<'_> {
    /// Adds the volume to the graph. A volume that is not bound is removed.
    pub fn enter(&self, graph: &mut Graph, name: &str) {
        let Some(claim) = &self.spec.claim_ref else {
            return graph.remove(Kind::Volume, "", name);
        };
        let own = &*claim.namespace;
        let secrets = self.spec.remote_secrets();
        let secrets =
            secrets.map(|(namespace, name)| (if namespace.is_empty() { own } else { namespace }, name));
        graph.set_volume(name, (own, &claim.name), secrets.collect::<Vec<_>>());
    }
}

impl OwnedView<'_> {
    /// Adds the object to the graph.
    pub fn enter(&self, graph: &mut Graph, kind: Kind, name: &str) {
        graph.set_owned(kind, name, &self.spec.node_name);
    }
}

impl Volume<'_> {
    /// Returns the secrets needed to mount the volume, by namespace and name. The namespace is empty if the volume does
    /// not specify it.
    fn remote_secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        let Self { azure_file, cephfs, cinder, flex, rbd, scale_io, iscsi, storageos, csi, .. } = self;
        let with_secret = [cephfs, cinder, flex, rbd, scale_io, iscsi, storageos, csi];
        let references = with_secret.into_iter().flatten().flat_map(|volume| {
            let WithSecret { any, publish, stage, expand } = volume;
            [any, publish, stage, expand]
        });
        let references = references.flatten().map(|it| (&*it.namespace, &*it.name));
        let azure = azure_file
            .iter()
            .map(|it| (it.secret_namespace.as_deref().unwrap_or_default(), &*it.secret_name));
        references.chain(azure).filter(|(_, name)| !name.is_empty())
    }
}

fn names<'a>(references: impl IntoIterator<Item = &'a Reference<'a>>) -> impl Iterator<Item = &'a str> {
    references.into_iter().map(|reference| &*reference.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &serde_json::Value) -> Vec<(Kind, String)> {
        let json = json!({"metadata": {"name": "p"}, "spec": spec}).to_string();
        let view: PodView<'_> = serde_json::from_str(&json).unwrap();
        view.refers_to("p").into_iter().map(|(kind, name)| (kind, name.into_owned())).collect()
    }

    #[test]
    fn finds_every_kind_of_secret_reference() {
        let named = |name: &str| json!({"secretRef": {"name": name}});
        let container = |name: &str| {
            json!({
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": format!("{name}-env"), "key": "k"}}}],
                "envFrom": [{"secretRef": {"name": format!("{name}-from")}}],
            })
        };
        let found = pod(&json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [container("c")],
            "initContainers": [container("i")],
            "ephemeralContainers": [container("e")],
            "volumes": [
                {"name": "1", "secret": {"secretName": "files"}},
                {"name": "2", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"name": "3", "azureFile": {"secretName": "azure", "shareName": "s"}},
                {"name": "4", "cephfs": named("cephfs")},
                {"name": "5", "cinder": named("cinder")},
                {"name": "6", "flexVolume": named("flex")},
                {"name": "7", "rbd": named("rbd")},
                {"name": "8", "scaleIO": named("scaleio")},
                {"name": "9", "iscsi": named("iscsi")},
                {"name": "10", "storageos": named("storageos")},
                {"name": "11", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
            ],
        }));
        let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
        let expected = [
            "pull",
            "c-env",
            "c-from",
            "i-env",
            "i-from",
            "e-env",
            "e-from",
            "files",
            "projected",
            "azure",
            "cephfs",
            "cinder",
            "flex",
            "rbd",
            "scaleio",
            "iscsi",
            "storageos",
            "csi",
        ];
        assert_eq!(names, expected);
        assert!(found.iter().all(|(kind, _)| *kind == Kind::Secret));
    }

    #[test]
    fn finds_named_and_generated_claims() {
        let view = json!({
            "spec": {
                "serviceAccountName": "robot",
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "c"}},
                    {"name": "scratch", "ephemeral": {}},
                    {"name": "conf", "configMap": {"name": "m"}},
                ],
                "resourceClaims": [
                    {"name": "x", "resourceClaimName": "rx"},
                    {"name": "y", "resourceClaimTemplateName": "t"},
                    {"name": "z", "resourceClaimTemplateName": "t"},
                ],
            },
            "status": {"resourceClaimStatuses": [{"name": "y", "resourceClaimName": "p-y"}, {"name": "z"}]},
        });
        let view = PodView::deserialize(&view).unwrap();
        let found = view.refers_to("p");
        let found: Vec<(Kind, &str)> = found.iter().map(|(kind, name)| (*kind, &**name)).collect();
        assert_eq!(
            found,
            [
                (Kind::ServiceAccount, "robot"),
                (Kind::ConfigMap, "m"),
                (Kind::Claim, "c"),
                (Kind::Claim, "p-scratch"),
                (Kind::ResourceClaim, "rx"),
                (Kind::ResourceClaim, "p-y"),
            ]
        );
    }

    #[test]
    fn mirror_pods_add_no_relations() {
        let mut graph = Graph::default();
        let mut json = json!({
            "metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "n", "imagePullSecrets": [{"name": "s"}]},
        });
        PodView::deserialize(&json).unwrap().enter(&mut graph, "a", "p");
        assert!(graph.is_related(Kind::Pod, "a", "p", "n"));
        assert!(!graph.is_related(Kind::Secret, "a", "s", "n"));
        json["metadata"] = json!({});
        PodView::deserialize(&json).unwrap().enter(&mut graph, "a", "p");
        assert!(graph.is_related(Kind::Secret, "a", "s", "n"));
        assert!(!graph.is_related(Kind::Secret, "b", "s", "n"));
    }

    #[test]
    fn secret_namespace_of_a_volume_defaults_to_its_claim() {
        let mut graph = Graph::default();
        let volume = json!({"spec": {
            "claimRef": {"namespace": "a", "name": "c"},
            "csi": {
                "nodeStageSecretRef": {"namespace": "b", "name": "s"},
                "controllerPublishSecretRef": {"namespace": "b", "name": "hidden"},
            },
        }});
        VolumeView::deserialize(&volume).unwrap().enter(&mut graph, "v");
        graph.set_pod("a", "p", "n", [(Kind::Claim, "c")]);
        assert!(graph.is_related(Kind::Volume, "", "v", "n"));
        assert!(graph.is_related(Kind::Secret, "b", "s", "n"));
        assert!(!graph.is_related(Kind::Secret, "b", "hidden", "n"));
        let azure =
            json!({"spec": {"claimRef": {"namespace": "a", "name": "c"}, "azureFile": {"secretName": "s"}}});
        VolumeView::deserialize(&azure).unwrap().enter(&mut graph, "v");
        assert!(
            graph.is_related(Kind::Secret, "a", "s", "n") && !graph.is_related(Kind::Secret, "b", "s", "n")
        );
    }
}
