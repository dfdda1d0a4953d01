//! Tests of whole writes and of properties of all writes.

#![expect(clippy::needless_pass_by_value, reason = "parts of objects are given as literals")]

mod applies;
mod cost;
mod custom;
mod properties;
mod scales;
mod sets;
mod updates;

use nave_machinery::Value;
use nave_schema::normalize::{Mode, normalize};
use nave_schema::{TypeId, builtin};
use serde_json::json;

use super::{ApplyError, FieldManager, FieldSet, TypeRef, Versions};

/// A built-in kind with one version, optionally with a second version of the same structure.
struct Kind {
    api_version: &'static str,
    name: &'static str,
    second: Option<&'static str>,
    type_id: TypeId,
    reset: FieldSet,
    empty: Value,
}

impl Kind {
    fn new(api_version: &'static str, name: &'static str, type_name: &str) -> Self {
        let type_id = builtin().find(type_name).unwrap();
        let mut empty = json!({"apiVersion": api_version, "kind": name});
        normalize(builtin(), type_id, &mut empty, Mode::Ignore).unwrap();
        Self { api_version, name, second: None, type_id, reset: FieldSet::default(), empty }
    }

    fn config_map() -> Self {
        Self::new("v1", "ConfigMap", "io.k8s.api.core.v1.ConfigMap")
    }

    fn deployment() -> Self {
        Self::new("apps/v1", "Deployment", "io.k8s.api.apps.v1.Deployment")
    }

    fn manager<'a>(&'a self, now: &'a str) -> FieldManager<'a> {
        FieldManager {
            versions: self,
            api_version: self.api_version,
            kind: self.name,
            subresource: "",
            now,
            empty: &self.empty,
        }
    }

    /// Returns an object of the kind with these fields.
    fn object(&self, parts: Value) -> Value {
        let mut object =
            json!({"apiVersion": self.api_version, "kind": self.name, "metadata": {"name": "x"}});
        object.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        object
    }

    fn normalized(&self, mut object: Value) -> Value {
        normalize(builtin(), self.type_id, &mut object, Mode::Ignore).unwrap();
        object
    }

    fn apply(&self, live: Option<&Value>, manager: &str, parts: Value) -> Result<Value, ApplyError> {
        self.manager(NOW)
            .apply(live, &self.object(parts), manager, false)
            .map(|object| self.normalized(object))
    }

    fn force(&self, live: &Value, manager: &str, parts: Value) -> Value {
        let forced = self.manager(NOW).apply(Some(live), &self.object(parts), manager, true);
        self.normalized(forced.unwrap())
    }

    fn update(&self, live: Option<&Value>, manager: &str, new: Value) -> Value {
        let mut new = self.normalized(new);
        self.update_at(NOW, live, &mut new, manager);
        new
    }

    /// Updates the managed fields and converts them to trees.
    fn update_at(&self, now: &str, live: Option<&Value>, new: &mut Value, manager: &str) {
        self.manager(now).update(live, new, manager);
        nave_machinery::managed_fields::expand(new);
    }
}

impl Versions for Kind {
    fn type_of(&self, api_version: &str) -> Option<TypeRef<'_>> {
        let known = api_version == self.api_version || Some(api_version) == self.second;
        known.then_some(TypeRef::Struct(builtin(), self.type_id))
    }

    fn convert(&self, object: &Value, api_version: &str) -> Result<Value, String> {
        let mut object = object.clone();
        object["apiVersion"] = json!(api_version);
        Ok(object)
    }

    fn reset_fields(&self, _: &str) -> Option<&FieldSet> {
        Some(&self.reset)
    }
}

const NOW: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2026-01-02T03:04:06Z";

/// Returns the fields of a manager's entry.
fn fields<'v>(object: &'v Value, manager: &str, operation: &str) -> Option<&'v Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let found =
        entries.iter().find(|entry| entry["manager"] == manager && entry["operation"] == operation)?;
    Some(&found["fieldsV1"])
}

/// Returns the managers and their operations, in order.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|entry| format!("{} {}", text(entry, "manager"), text(entry, "operation"))).collect()
}

/// Returns the causes of a rejected apply.
fn causes(error: ApplyError) -> Vec<(String, String)> {
    let status = error.into_status();
    assert_eq!(status.code, 409);
    let causes = status.details.unwrap().causes;
    causes.into_iter().map(|cause| (cause.message, cause.field)).collect()
}

fn without_entries(object: &Value) -> Value {
    let mut object = object.clone();
    nave_machinery::meta::remove(&mut object, "managedFields");
    object
}
