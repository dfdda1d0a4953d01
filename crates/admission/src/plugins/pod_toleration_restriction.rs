//! PodTolerationRestriction adds and restricts tolerations of pods by namespace (upstream:
//! `plugin/pkg/admission/podtolerationrestriction`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::quantity::Quantity;
use nave_machinery::{GroupResource, Object, Status, Value};
use serde::Deserialize;
use serde_json::json;

use super::pods::{ContainerKind, containers};
use super::{Parts, plain_error, tolerations};
use crate::config::{ConfigError, PluginConfig};
use crate::{Attributes, Lister, Mutate, Plugin, Validate};

const NAME: &str = "PodTolerationRestriction";
/// The annotations of a namespace with the default and the allowed tolerations of its pods.
const DEFAULT: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const TOLERATIONS: [&str; 2] = ["spec", "tolerations"];

/// PodTolerationRestriction.
pub(super) fn plugin(parts: &Parts, config: &PluginConfig) -> Result<Plugin, ConfigError> {
    let configuration = config.read::<Configuration>(NAME)?.map(|(configuration, _)| configuration);
    let namespaces = Arc::clone(&parts.cluster.namespaces);
    Ok(Plugin::both(PodTolerationRestriction { namespaces, cluster: configuration.unwrap_or_default() }))
}

/// The tolerations for namespaces without annotations (`podtolerationrestriction.admission.k8s.io/v1alpha1`).
#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    default: Vec<Value>,
    #[serde(default, rename = "whitelist")]
    allowed: Vec<Value>,
}

struct PodTolerationRestriction {
    namespaces: Arc<dyn Lister>,
    cluster: Configuration,
}

fn handles(attributes: &Attributes<'_>) -> bool {
    attributes.is_write() && attributes.is_pods() && attributes.is_object()
}

#[async_trait]
impl Mutate for PodTolerationRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let mut merged = pod.list_at(&TOLERATIONS).to_vec();
        if attributes.is_create() {
            let default = self.of_namespace(attributes.namespace, DEFAULT).await?;
            merged = tolerations::merge(default.as_deref().unwrap_or(&self.cluster.default), &merged);
        }
        if !is_best_effort(pod) {
            let pressure = json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"});
            merged = tolerations::merge(&merged, &[pressure]);
        }
        if !merged.is_empty() {
            pod.map_mut("spec").insert("tolerations".to_owned(), Value::Array(merged));
        }
        self.check(attributes, pod).await
    }
}

#[async_trait]
impl Validate for PodTolerationRestriction {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        match object {
            Some(pod) => self.check(attributes, pod).await,
            None => Ok(()),
        }
    }
}

impl PodTolerationRestriction {
    async fn check(&self, attributes: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
        let given = pod.list_at(&TOLERATIONS);
        if given.is_empty() {
            return Ok(());
        }
        let of_namespace = self.of_namespace(attributes.namespace, ALLOWED).await?;
        let (allowed, scope) = match &of_namespace {
            Some(allowed) => (allowed, "namespace"),
            None => (&self.cluster.allowed, "cluster"),
        };
        if tolerations::are_covered(given, allowed) {
            return Ok(());
        }
        let why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its";
        Err(plain_error(format!("{why} {scope} whitelist")))
    }

    /// Returns the tolerations in an annotation of a namespace; `None` if the annotation is absent.
    async fn of_namespace(&self, name: &str, annotation: &str) -> Result<Option<Vec<Value>>, Status> {
        let mut namespace = self.namespaces.get("", name)?;
        if namespace.is_none() {
            namespace = self.namespaces.get_live("", name).await?;
        }
        let not_found = || Status::not_found(&GroupResource::new("", "namespaces"), name);
        let namespace = namespace.ok_or_else(not_found)?;
        match namespace.annotation(annotation) {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => {
                let decoded = nave_codec::json::decode(text.as_bytes())
                    .map_err(|error| plain_error(error.to_string()))?;
                serde_json::from_value(decoded.value)
                    .map(Some)
                    .map_err(|error| plain_error(error.to_string()))
            }
        }
    }
}

/// Returns whether a pod requests neither CPU nor memory.
fn is_best_effort(pod: &Object) -> bool {
    let Some(spec) = pod.get("spec") else { return true };
    let regular = containers(spec).filter(|container| container.kind != ContainerKind::Ephemeral);
    let mut lists = regular
        .map(|container| container.value)
        .chain([spec])
        .filter_map(|value| value.get("resources"))
        .flat_map(|resources| [resources.get("requests"), resources.get("limits")])
        .flatten();
    let is_positive = |amount: &Value| {
        let amount = amount.as_str().and_then(|amount| Quantity::parse(amount).ok());
        amount.is_some_and(|amount| !amount.is_zero() && !amount.is_negative())
    };
    !lists.any(|list| ["cpu", "memory"].iter().any(|name| list.get(name).is_some_and(is_positive)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    fn toleration(key: &str) -> Value {
        json!({"key": key, "operator": "Exists"})
    }

    async fn create(annotations: Value, cluster: Configuration, spec: Value) -> Result<Value, (u16, String)> {
        let namespaces = Arc::new(Memory::default());
        namespaces.put(json!({"metadata": {"name": "ns", "annotations": annotations}}));
        let plugin = Plugin::both(PodTolerationRestriction { namespaces, cluster });
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut request = Request::new(registry(), "", "pods", pod, Value::Null);
        outcome(request.admit(&plugin).await)?;
        Ok(request.object["spec"]["tolerations"].take())
    }

    #[tokio::test]
    async fn merges_defaults_and_restricts_others() {
        let list = |keys: &[&str]| Value::Array(keys.iter().map(|key| toleration(key)).collect());
        let cluster = |default: &[&str], allowed: &[&str]| Configuration {
            default: default.iter().map(|key| toleration(key)).collect(),
            allowed: allowed.iter().map(|key| toleration(key)).collect(),
        };
        let given = json!({"tolerations": list(&["own"])});
        let refused = |scope: &str| {
            Err((
                500,
                format!(
                    "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
                ),
            ))
        };
        for (annotations, cluster, expected) in [
            (json!({}), cluster(&[], &[]), Ok(list(&["own"]))),
            (json!({}), cluster(&["c"], &[]), Ok(list(&["c", "own"]))),
            (json!({DEFAULT: list(&["n"]).to_string()}), cluster(&["c"], &[]), Ok(list(&["n", "own"]))),
            (json!({DEFAULT: ""}), cluster(&["c"], &[]), Ok(list(&["own"]))),
            (json!({}), cluster(&[], &["c"]), refused("cluster")),
            (json!({ALLOWED: list(&["n"]).to_string()}), cluster(&[], &["own"]), refused("namespace")),
            (json!({ALLOWED: list(&["own"]).to_string()}), cluster(&[], &["c"]), Ok(list(&["own"]))),
            (json!({ALLOWED: ""}), cluster(&[], &["c"]), Ok(list(&["own"]))),
            (
                json!({DEFAULT: "nope"}),
                cluster(&[], &[]),
                Err((500, "invalid character 'o' in literal null (expecting 'u')".to_owned())),
            ),
        ] {
            assert_eq!(create(annotations.clone(), cluster, given.clone()).await, expected, "{annotations}");
        }
    }

    #[tokio::test]
    async fn pods_with_requests_tolerate_memory_pressure() {
        let spec =
            |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let pressure = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]);
        assert_eq!(create(json!({}), Configuration::default(), spec("1")).await, Ok(pressure));
        assert_eq!(create(json!({}), Configuration::default(), spec("0")).await, Ok(Value::Null));
    }
}
