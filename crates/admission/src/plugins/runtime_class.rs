//! RuntimeClass sets the overhead and scheduling of pods from their runtime class (upstream:
//! `plugin/pkg/admission/runtimeclass`).

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::quantity::Quantity;
use nave_machinery::{Map, Object, Status, Value};

use super::pods::{list, list_mut};
use super::{Parts, tolerations};
use crate::{Attributes, Lister, Mutate, Plugin, Validate};

const NOT_MATCHING: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const WITHOUT_CLASS: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

/// RuntimeClass.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::both(RuntimeClass { classes: Arc::clone(&parts.cluster.runtime_classes) })
}

struct RuntimeClass {
    classes: Arc<dyn Lister>,
}

fn handles(attributes: &Attributes<'_>) -> bool {
    attributes.is_create() && attributes.is_pods() && attributes.is_object()
}

#[async_trait]
impl Mutate for RuntimeClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let Some(class) = self.class_of(attributes, pod).await? else { return Ok(()) };
        if let Some(overhead) = overhead_of(&class) {
            if let Some(given) = overhead_in(pod)
                && !same_quantities(&overhead, given)
            {
                return Err(attributes.forbidden(&*pod, NOT_MATCHING));
            }
            pod.map_mut("spec").insert("overhead".to_owned(), Value::Object(overhead.into_owned()));
        }
        set_scheduling(attributes, pod, &class)
    }
}

#[async_trait]
impl Validate for RuntimeClass {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        handles(attributes)
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        let class = self.class_of(attributes, pod).await?;
        match (class.as_deref().and_then(overhead_of), overhead_in(pod)) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(attributes.forbidden(pod, WITHOUT_CLASS)),
            (Some(wanted), Some(given)) if same_quantities(&wanted, given) => Ok(()),
            (Some(wanted), None) if wanted.is_empty() => Ok(()),
            (Some(_), _) => Err(attributes.forbidden(pod, NOT_MATCHING)),
        }
    }
}

impl RuntimeClass {
    /// Returns the runtime class of a pod; `None` if the pod does not name a class.
    async fn class_of(
        &self,
        attributes: &Attributes<'_>,
        pod: &Object,
    ) -> Result<Option<Arc<Object>>, Status> {
        let Some(name) = pod.str_at(&["spec", "runtimeClassName"]) else { return Ok(None) };
        let mut class = self.classes.get("", name)?;
        if class.is_none() {
            class = self.classes.get_live("", name).await?;
        }
        let not_found =
            || attributes.forbidden(pod, format_args!("pod rejected: RuntimeClass {name:?} not found"));
        class.ok_or_else(not_found).map(Some)
    }
}

/// The overhead that a class defines; may be empty.
fn overhead_of(class: &Object) -> Option<Cow<'_, Map>> {
    let overhead = class.get("overhead").filter(|overhead| overhead.is_object())?;
    let fixed = overhead.get("podFixed").and_then(Value::as_object);
    Some(fixed.map_or_else(|| Cow::Owned(Map::new()), Cow::Borrowed))
}

fn overhead_in(pod: &Object) -> Option<&Map> {
    pod.map_at(&["spec", "overhead"])
}

/// Returns whether two resource lists have equal quantities, in any notation.
fn same_quantities(a: &Map, b: &Map) -> bool {
    let amount = |value: &Value| Quantity::parse(value.as_str().unwrap_or_default()).ok();
    a.len() == b.len()
        && a.iter().all(|(name, left)| {
            let right = b.get(name);
            right == Some(left)
                || right.is_some_and(|right| {
                    amount(left).partial_cmp(&amount(right)) == Some(std::cmp::Ordering::Equal)
                })
        })
}

fn set_scheduling(attributes: &Attributes<'_>, pod: &mut Object, class: &Object) -> Result<(), Status> {
    let Some(scheduling) = class.get("scheduling").filter(|scheduling| scheduling.is_object()) else {
        return Ok(());
    };
    let wanted = scheduling.get("nodeSelector").and_then(Value::as_object);
    let given = pod.map_at(&["spec", "nodeSelector"]);
    for (key, value) in wanted.into_iter().flatten() {
        if let Some(found) = given.and_then(|given| given.get(key))
            && found != value
        {
            let (value, found) = (value.as_str().unwrap_or_default(), found.as_str().unwrap_or_default());
            return Err(attributes.forbidden(
                &*pod,
                format_args!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {found}"
                ),
            ));
        }
    }
    let spec = pod.map_mut("spec");
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        let selector = spec.entry("nodeSelector").or_insert_with(|| Value::Object(Map::new()));
        if !selector.is_object() {
            *selector = Value::Object(Map::new());
        }
        if let Some(selector) = selector.as_object_mut() {
            selector.extend(wanted.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    let wanted = list(scheduling.get("tolerations"));
    if let Some(given) = list_mut(spec, "tolerations") {
        *given = tolerations::merge(given, wanted);
        if given.is_empty() {
            spec.remove("tolerations");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    fn plugin(class: Value) -> Plugin {
        let classes = Arc::new(Memory::default());
        classes.put_uncached(class);
        Plugin::both(RuntimeClass { classes })
    }

    async fn create(plugin: &Plugin, spec: Value) -> Result<Value, (u16, String)> {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut request = Request::new(registry(), "", "pods", pod, Value::Null);
        outcome(request.admit(plugin).await)?;
        Ok(request.object["spec"].take())
    }

    fn refused(why: &str) -> Result<Value, (u16, String)> {
        Err((403, format!(r#"pods "p" is forbidden: {why}"#)))
    }

    #[tokio::test]
    async fn sets_overhead_of_the_class() {
        let plugin = plugin(
            json!({"metadata": {"name": "kata"}, "overhead": {"podFixed": {"cpu": "1", "memory": "1Gi"}}}),
        );
        let with = |overhead: Value| json!({"runtimeClassName": "kata", "overhead": overhead});
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let found = create(&plugin, json!({"runtimeClassName": "kata"})).await.unwrap();
        assert_eq!(found["overhead"], full);
        assert!(create(&plugin, with(json!({"cpu": "1000m", "memory": "1024Mi"}))).await.is_ok());
        assert_eq!(create(&plugin, with(json!({"cpu": "2", "memory": "1Gi"}))).await, refused(NOT_MATCHING));
        assert_eq!(create(&plugin, with(json!({}))).await, refused(NOT_MATCHING));
        assert_eq!(create(&plugin, json!({"overhead": full})).await, refused(WITHOUT_CLASS));
        assert_eq!(create(&plugin, json!({})).await, Ok(json!({})));
        let missing = refused(r#"pod rejected: RuntimeClass "gone" not found"#);
        assert_eq!(create(&plugin, json!({"runtimeClassName": "gone"})).await, missing);
    }

    #[tokio::test]
    async fn merges_scheduling_of_the_class() {
        let toleration = json!({"key": "kata", "operator": "Exists"});
        let plugin = plugin(json!({"metadata": {"name": "kata"},
            "scheduling": {"nodeSelector": {"runtime": "kata"}, "tolerations": [toleration]}}));
        let own = json!({"key": "own", "operator": "Exists"});
        let spec = json!({"runtimeClassName": "kata", "nodeSelector": {"disk": "ssd"}, "tolerations": [own]});
        let found = create(&plugin, spec).await.unwrap();
        assert_eq!(found["nodeSelector"], json!({"disk": "ssd", "runtime": "kata"}));
        assert_eq!(found["tolerations"], json!([own, toleration]));
        let conflict = json!({"runtimeClassName": "kata", "nodeSelector": {"runtime": "runc"}});
        let why = "conflict: runtimeClass.scheduling.nodeSelector[runtime] = kata; pod.spec.nodeSelector[runtime] = runc";
        assert_eq!(create(&plugin, conflict).await, refused(why));
    }
}
