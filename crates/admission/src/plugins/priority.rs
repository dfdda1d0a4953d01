//! Priority resolves the priority class of pods to a number (upstream: `plugin/pkg/admission/priority`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value};
use serde_json::json;

use super::Parts;
use crate::{Attributes, Lister, Mutate, Plugin, Validate};

/// The priority of pods without a default class.
const DEFAULT_PRIORITY: i64 = 0;
const PREEMPTS: &str = "PreemptLowerPriority";

/// Priority.
pub(super) fn plugin(parts: &Parts) -> Plugin {
    Plugin::both(Priority { classes: Arc::clone(&parts.cluster.priority_classes) })
}

struct Priority {
    classes: Arc<dyn Lister>,
}

#[async_trait]
impl Mutate for Priority {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write() && attributes.is_pods() && attributes.is_object()
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let Some(pod) = object else { return Ok(()) };
        match attributes.old {
            Some(old) if attributes.is_update() => {
                keep_computed_fields(pod, old);
                Ok(())
            }
            _ => self.set_priority(attributes, pod).await,
        }
    }
}

#[async_trait]
impl Validate for Priority {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write()
            && attributes.is_resource("scheduling.k8s.io", "priorityclasses")
            && attributes.is_object()
    }

    /// Refuses a second default class.
    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(class) = object.filter(|class| class.is_true_at(&["globalDefault"])) else { return Ok(()) };
        let Some(default) = self.default_class()? else { return Ok(()) };
        if attributes.is_update() && default.name() == class.name() {
            return Ok(());
        }
        let name = default.name();
        let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
        Err(attributes.forbidden(class, why))
    }
}

impl Priority {
    async fn set_priority(&self, attributes: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        let name = pod.str_at(&["spec", "priorityClassName"]).unwrap_or_default();
        let class = if name.is_empty() {
            self.default_class()?
        } else {
            self.find(attributes, pod, name).await?.into()
        };
        let class = class.as_deref();
        let priority = class.and_then(|class| class.i64_at(&["value"])).unwrap_or(DEFAULT_PRIORITY);
        let policy = class.and_then(|class| class.str_at(&["preemptionPolicy"])).unwrap_or(PREEMPTS);
        if let Some(given) = pod.i64_at(&["spec", "priority"]).filter(|given| *given != priority) {
            return Err(attributes.forbidden(&*pod, format_args!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
            )));
        }
        if let Some(given) =
            pod.str_at(&["spec", "preemptionPolicy"]).filter(|given| !given.is_empty() && *given != policy)
        {
            return Err(attributes.forbidden(&*pod, format_args!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            )));
        }
        let Some(spec) = pod.map_at_mut(&["spec"]) else { return Ok(()) };
        if let Some(class) = class {
            spec.insert("priorityClassName".to_owned(), class.name().into());
        }
        spec.insert("priority".to_owned(), json!(priority));
        spec.insert("preemptionPolicy".to_owned(), policy.into());
        Ok(())
    }

    async fn find(
        &self,
        attributes: &Attributes<'_>,
        pod: &Object,
        name: &str,
    ) -> Result<Arc<Object>, Status> {
        if let Some(class) = self.classes.get("", name)? {
            return Ok(class);
        }
        let class = self.classes.get_live("", name).await?;
        class.ok_or_else(|| {
            attributes.forbidden(pod, format_args!("no PriorityClass with name {name} was found"))
        })
    }

    /// Returns the default class; if there are several, the class with the lowest priority.
    fn default_class(&self) -> Result<Option<Arc<Object>>, Status> {
        let classes = self.classes.list(None)?.into_iter();
        let defaults = classes.filter(|class| class.is_true_at(&["globalDefault"]));
        Ok(defaults.min_by_key(|class| class.i64_at(&["value"])))
    }
}

/// Restores computed fields that an update omits.
fn keep_computed_fields(pod: &mut Object, old: &Object) {
    for field in ["priority", "preemptionPolicy"] {
        let before = old.value_at(&["spec", field]).filter(|value| !value.is_null());
        if let (Some(before), Some(spec)) = (before, pod.map_at_mut(&["spec"]))
            && spec.get(field).is_none_or(Value::is_null)
        {
            spec.insert(field.to_owned(), before.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Memory, Request, outcome, registry};

    fn priority() -> (Arc<Memory>, Plugin) {
        let classes = Arc::new(Memory::default());
        classes.put(json!({"metadata": {"name": "gold"}, "value": 5000, "preemptionPolicy": PREEMPTS}));
        classes.put(json!({"metadata": {"name": "gentle"}, "value": -10, "preemptionPolicy": "Never"}));
        let plugin = Plugin::both(Priority { classes: Arc::clone(&classes) as _ });
        (classes, plugin)
    }

    async fn create(plugin: &Plugin, spec: Value) -> Result<Value, String> {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut request = Request::new(registry(), "", "pods", pod, Value::Null);
        outcome(request.admit(plugin).await).map_err(|(code, message)| {
            assert_eq!(code, 403);
            message.trim_start_matches(r#"pods "p" is forbidden: "#).to_owned()
        })?;
        Ok(request.object["spec"].take())
    }

    #[tokio::test]
    async fn resolves_class_to_priority() {
        let (classes, plugin) = priority();
        let spec = |name: &str, value: i64, policy: &str| json!({"priorityClassName": name, "priority": value, "preemptionPolicy": policy});
        let create = async |spec| create(&plugin, spec).await;
        assert_eq!(create(json!({})).await, Ok(json!({"priority": 0, "preemptionPolicy": PREEMPTS})));
        assert_eq!(create(json!({"priorityClassName": "gold"})).await, Ok(spec("gold", 5000, PREEMPTS)));
        assert_eq!(create(json!({"priorityClassName": "gentle"})).await, Ok(spec("gentle", -10, "Never")));
        assert_eq!(create(spec("gold", 5000, PREEMPTS)).await, Ok(spec("gold", 5000, PREEMPTS)));
        let number = "the integer value of priority (6) must not be provided in pod spec; priority admission controller computed 5000 from the given PriorityClass name";
        assert_eq!(create(json!({"priorityClassName": "gold", "priority": 6})).await, Err(number.to_owned()));
        let policy = "the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name";
        assert_eq!(create(json!({"preemptionPolicy": "Never"})).await, Err(policy.to_owned()));
        let missing = "no PriorityClass with name new was found";
        assert_eq!(create(json!({"priorityClassName": "new"})).await, Err(missing.to_owned()));
        classes.put_uncached(json!({"metadata": {"name": "new"}, "value": 1}));
        assert_eq!(create(json!({"priorityClassName": "new"})).await, Ok(spec("new", 1, PREEMPTS)));
    }

    #[tokio::test]
    async fn allows_one_default_class() {
        let (classes, plugin) = priority();
        let class = |name: &str| json!({"metadata": {"name": name}, "value": 7, "globalDefault": true});
        let write = async |new: Value, old: Value| {
            let mut request = Request::new(registry(), "scheduling.k8s.io", "priorityclasses", new, old);
            outcome(request.admit(&plugin).await)
        };
        assert_eq!(write(class("a"), Value::Null).await, Ok(()));
        classes.put(class("a"));
        assert_eq!(create(&plugin, json!({})).await.unwrap()["priorityClassName"], "a");
        let refused = r#"priorityclasses.scheduling.k8s.io "b" is forbidden: PriorityClass a is already marked as default. Only one default can exist"#;
        assert_eq!(write(class("b"), Value::Null).await, Err((403, refused.to_owned())));
        assert_eq!(write(class("b"), class("b")).await, Err((403, refused.to_owned())));
        assert_eq!(write(class("a"), class("a")).await, Ok(()));
    }

    #[tokio::test]
    async fn update_keeps_computed_fields() {
        let (_, plugin) = priority();
        let old = json!({"metadata": {"name": "p"}, "spec": {"priority": 5, "preemptionPolicy": "Never"}});
        let new = json!({"metadata": {"name": "p"}, "spec": {"priority": null}});
        let mut request = Request::new(registry(), "", "pods", new, old.clone());
        request.admit(&plugin).await.unwrap();
        assert_eq!(request.object, old);
    }
}
