//! Which pods go first: the number behind the name of a priority class (upstream: `plugin/pkg/admission/priority`).

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Status, Value, meta};
use nave_resources::ResourceDef;
use serde_json::json;

use super::{Attributes, Operation, Plugin, is};
use crate::storage::ResourceStorage;

/// The priority of pods where no class is the default.
const NO_CLASS: i64 = 0;
const PREEMPTS: &str = "PreemptLowerPriority";
/// What stands in the JSON of a default class; other classes leave the field out.
const IS_DEFAULT: &[u8] = br#""globalDefault":true"#;

/// The plugin.
pub struct Priority {
    /// The priority classes.
    pub classes: Arc<ResourceStorage>,
}

/// What a class gives a pod.
struct Class {
    name: String,
    value: i64,
    preemption: String,
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    /// The class may have been created a moment ago.
    async fn prepare_for_create(&self, def: &ResourceDef, _: &str, pod: &Value) -> Result<(), Status> {
        let name = class_name(pod);
        if !is(def, "pods") || name.is_empty() || self.classes.find("", name).is_some() {
            return Ok(());
        }
        self.classes.wait_until(self.classes.current_revision().await?).await
    }

    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| attributes.subresource.is_empty()) else { return Ok(()) };
        let def = attributes.def;
        if is(def, "pods") {
            return match attributes.operation {
                Operation::Create => self.create_pod(attributes, object),
                Operation::Update(old) => {
                    keep(object, old);
                    Ok(())
                }
                Operation::Delete => Ok(()),
            };
        }
        if def.group == "scheduling.k8s.io"
            && def.resource == "priorityclasses"
            && object["globalDefault"] == true
        {
            return self.check_default(attributes, object);
        }
        Ok(())
    }
}

impl Priority {
    fn create_pod(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let forbidden = |why: &str| Status::forbidden(&attributes.def.group_resource(), attributes.name, why);
        let name = class_name(pod).to_owned();
        let class = if name.is_empty() {
            self.default_class()?
        } else {
            let found = self.classes.find("", &name);
            let found =
                found.ok_or_else(|| forbidden(&format!("no PriorityClass with name {name} was found")))?;
            Some(Class::of(&self.classes.codec().parse_cached(&found)?))
        };
        let class = class.unwrap_or(Class { name, value: NO_CLASS, preemption: PREEMPTS.to_owned() });
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        if let Some(given) =
            spec.get("priority").and_then(Value::as_i64).filter(|given| *given != class.value)
        {
            return Err(forbidden(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.value
            )));
        }
        let given = spec.get("preemptionPolicy").and_then(Value::as_str).filter(|given| !given.is_empty());
        if let Some(given) = given.filter(|given| *given != class.preemption) {
            return Err(forbidden(&format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                class.preemption
            )));
        }
        if !class.name.is_empty() {
            spec.insert("priorityClassName".to_owned(), json!(class.name));
        }
        spec.insert("priority".to_owned(), json!(class.value));
        spec.insert("preemptionPolicy".to_owned(), json!(class.preemption));
        Ok(())
    }

    /// The default class; should there be several, the lowest of them.
    fn default_class(&self) -> Result<Option<Class>, Status> {
        let mut lowest = None::<Class>;
        for found in self.classes.cacher().snapshot().range("", None) {
            // Every pod without a class asks: of classes that say nothing of being the default no tree is made.
            if !found.json().windows(IS_DEFAULT.len()).any(|part| part == IS_DEFAULT) {
                continue;
            }
            let class = self.classes.codec().parse_cached(found)?;
            if class["globalDefault"] == true {
                let class = Class::of(&class);
                if lowest.as_ref().is_none_or(|lowest| class.value < lowest.value) {
                    lowest = Some(class);
                }
            }
        }
        Ok(lowest)
    }

    /// There is one default class at most.
    fn check_default(&self, attributes: &Attributes<'_>, class: &Value) -> Result<(), Status> {
        let Some(default) = self.default_class()? else { return Ok(()) };
        let creates = matches!(attributes.operation, Operation::Create);
        if !creates && default.name == meta::name(class) {
            return Ok(());
        }
        let why = format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            default.name
        );
        Err(Status::forbidden(&attributes.def.group_resource(), attributes.name, &why))
    }
}

impl Class {
    fn of(class: &Value) -> Self {
        let policy = class["preemptionPolicy"].as_str().filter(|policy| !policy.is_empty());
        Self {
            name: meta::name(class).to_owned(),
            value: class["value"].as_i64().unwrap_or(NO_CLASS),
            preemption: policy.unwrap_or(PREEMPTS).to_owned(),
        }
    }
}

fn class_name(pod: &Value) -> &str {
    meta::str_at(pod, &["spec", "priorityClassName"]).unwrap_or_default()
}

/// Who updates a pod need not know what was made of its class.
fn keep(pod: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if let (Some(spec), Some(before)) =
            (pod.get_mut("spec").and_then(Value::as_object_mut), meta::at(old, &["spec", field]))
            && spec.get(field).is_none_or(Value::is_null)
        {
            spec.insert(field.to_owned(), before.clone());
        }
    }
}
