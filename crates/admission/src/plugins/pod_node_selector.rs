//! PodNodeSelector merges the namespace's node selector into pods (upstream: `plugin/pkg/admission/podnodeselector`).
//!
//! The configuration file has its own format:
//!
//! ```yaml
//! podNodeSelectorPluginConfig:
//!   clusterDefaultNodeSelector: a=b   # for namespaces without the annotation
//!   some-namespace: c=d               # the allowed selector of the namespace's pods
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{GroupResource, Object, Status, Value};
use serde::Deserialize;

use super::{Parts, plain_error};
use crate::config::{ConfigError, PluginConfig};
use crate::{Attributes, Lister, Mutate, Plugin, Validate};

const NAME: &str = "PodNodeSelector";
/// The annotation of a namespace with the node selector of its pods.
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The configuration key of the default selector, for namespaces without the annotation.
const CLUSTER_DEFAULT: &str = "clusterDefaultNodeSelector";
const CONFLICT: &str = "pod node label selector conflicts with its namespace node label selector";
const NOT_ALLOWED: &str = "pod node label selector labels conflict with its namespace whitelist";

/// PodNodeSelector.
pub(super) fn plugin(parts: &Parts, config: &PluginConfig) -> Result<Plugin, ConfigError> {
    let selectors = config.read::<Configuration>(NAME)?.map(|(configuration, _)| configuration.selectors);
    let namespaces = Arc::clone(&parts.cluster.namespaces);
    Ok(Plugin::both(PodNodeSelector { namespaces, selectors: selectors.unwrap_or_default() }))
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(rename = "podNodeSelectorPluginConfig", default)]
    selectors: BTreeMap<String, String>,
}

struct PodNodeSelector {
    namespaces: Arc<dyn Lister>,
    selectors: BTreeMap<String, String>,
}

type Labels = BTreeMap<String, String>;

fn handles(attributes: &Attributes<'_>) -> bool {
    attributes.is_create() && attributes.is_pods() && attributes.is_object()
}

#[async_trait]
impl Mutate for PodNodeSelector {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let labels = self.labels_of(attributes.namespace).await?;
        check_conflicts(attributes, pod, &labels)?;
        if !labels.is_empty() {
            let spec = pod.map_mut("spec");
            let selector = spec.entry("nodeSelector").or_insert(Value::Null);
            if selector.is_null() {
                *selector = Value::Object(serde_json::Map::new());
            }
            if let Some(selector) = selector.as_object_mut() {
                for (key, value) in labels {
                    selector.entry(key).or_insert(Value::String(value));
                }
            }
        }
        self.check_allowed(attributes, pod)
    }
}

#[async_trait]
impl Validate for PodNodeSelector {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let labels = self.labels_of(attributes.namespace).await?;
        check_conflicts(attributes, pod, &labels)?;
        self.check_allowed(attributes, pod)
    }
}

impl PodNodeSelector {
    /// The node selector of a namespace's pods.
    async fn labels_of(&self, name: &str) -> Result<Labels, Status> {
        let mut namespace = self.namespaces.get("", name)?;
        if namespace.is_none() {
            namespace = self.namespaces.get_live("", name).await?;
        }
        let not_found = || Status::not_found(&GroupResource::new("", "namespaces"), name);
        let namespace = namespace.ok_or_else(not_found)?;
        let default = || self.selectors.get(CLUSTER_DEFAULT).map(String::as_str);
        parse(namespace.annotation(ANNOTATION).or_else(default).unwrap_or_default())
    }

    /// Checks that a pod selects only labels that the configuration allows for its namespace.
    fn check_allowed(&self, attributes: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
        let Some(allowed) = self.selectors.get(attributes.namespace) else { return Ok(()) };
        let allowed = parse(allowed)?;
        let is_allowed = |(key, value): (&String, &str)| allowed.get(key).is_some_and(|found| found == value);
        if allowed.is_empty() || selector(pod).all(is_allowed) {
            Ok(())
        } else {
            Err(forbidden(attributes, pod, NOT_ALLOWED))
        }
    }
}

fn check_conflicts(attributes: &Attributes<'_>, pod: &Object, labels: &Labels) -> Result<(), Status> {
    let conflicts = |(key, value): (&String, &str)| labels.get(key).is_some_and(|wanted| wanted != value);
    if selector(pod).any(conflicts) { Err(forbidden(attributes, pod, CONFLICT)) } else { Ok(()) }
}

fn forbidden(attributes: &Attributes<'_>, pod: &Object, why: &str) -> Status {
    Status::forbidden(&attributes.def.group_resource(), pod.name(), why)
}

fn selector(pod: &Object) -> impl Iterator<Item = (&String, &str)> {
    let selector = pod.map_at(&["spec", "nodeSelector"]).into_iter().flatten();
    selector.map(|(key, value)| (key, value.as_str().unwrap_or_default()))
}

/// Parses labels written as `a=b,c=d`.
fn parse(text: &str) -> Result<Labels, Status> {
    let mut labels = Labels::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
        let (key, value) = pair.ok_or_else(|| {
            let shown: Vec<&str> = part.split('=').collect();
            plain_error(format!("invalid selector: [{}]", shown.join(" ")))
        })?;
        labels.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    async fn create(
        annotation: Option<&str>,
        selectors: &[(&str, &str)],
        given: Value,
    ) -> Result<Value, (u16, String)> {
        let namespaces = Arc::new(Memory::default());
        let annotations = annotation.map(|text| json!({ANNOTATION: text}));
        namespaces.put_uncached(json!({"metadata": {"name": "ns", "annotations": annotations}}));
        let selectors =
            selectors.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let plugin = Plugin::both(PodNodeSelector { namespaces, selectors });
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeSelector": given}});
        let mut request = Request::new(registry(), "", "pods", pod, Value::Null);
        outcome(request.admit(&plugin).await)?;
        Ok(request.object["spec"]["nodeSelector"].take())
    }

    #[tokio::test]
    async fn merges_the_namespace_selector() {
        let refused = |why: &str| Err((403, format!(r#"pods "p" is forbidden: {why}"#)));
        let default = [(CLUSTER_DEFAULT, "env=prod")];
        for (annotation, selectors, given, expected) in [
            (None, &[][..], json!({"a": "b"}), Ok(json!({"a": "b"}))),
            (Some("env=dev,x=y"), &[], json!({"a": "b"}), Ok(json!({"a": "b", "env": "dev", "x": "y"}))),
            (Some("env=dev"), &[], json!({"env": "prod"}), refused(CONFLICT)),
            (None, &default, json!(null), Ok(json!({"env": "prod"}))),
            (Some(""), &default, json!(null), Ok(json!(null))),
            (None, &[("ns", "a=b")], json!({"a": "b"}), Ok(json!({"a": "b"}))),
            (None, &[("ns", "a=b")], json!({"a": "c"}), refused(NOT_ALLOWED)),
            (None, &[("other", "a=b")], json!({"a": "c"}), Ok(json!({"a": "c"}))),
            (Some("env"), &[], json!(null), Err((500, "invalid selector: [env]".to_owned()))),
        ] {
            assert_eq!(
                create(annotation, selectors, given.clone()).await,
                expected,
                "{annotation:?} {given}"
            );
        }
    }
}
