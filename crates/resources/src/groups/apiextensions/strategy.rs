//! Defaults, preparation, validation and warnings of definitions (upstream: `registry/customresourcedefinition`).

use nave_machinery::{FieldErrors, GroupVersion, Map, Value};
use nave_structural::rules;

use super::beta;
use super::definition::{self, Old};
use super::versions::Parts;
use crate::convert::{self, ConversionError};
use crate::custom::deletion;
use crate::defaults::{object, set};
use crate::strategy::Strategy;
use crate::validate::{At, Errors};

/// The strategy of definitions of custom resources.
pub(super) struct DefinitionStrategy;

impl Strategy for DefinitionStrategy {
    fn default(&self, object: &mut Value, _version: &str) {
        let Some(fields) = object.as_object_mut() else { return };
        let storage = fields.get("spec").and_then(storage_version).map(str::to_owned);
        if let Some(spec) = self::object(fields, "spec") {
            default_spec(spec);
        }
        if let Some(storage) = storage {
            add_stored_version(fields, &storage, StoredVersions::IfEmpty);
        }
    }

    fn convert(
        &self,
        object: &mut Value,
        from: &GroupVersion,
        to: &GroupVersion,
    ) -> Result<(), ConversionError> {
        if from.version == beta::V1BETA1
            && let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
        {
            beta::convert_spec(spec);
        }
        convert::relabel(object, from, to)
    }

    fn prepare_for_create(&self, object: &mut Value) {
        let Some(fields) = object.as_object_mut() else { return };
        let storage = fields.get("spec").and_then(storage_version).map(str::to_owned);
        if let Some(status) = self::object(fields, "status") {
            status.remove("storedVersions");
        }
        if let Some(storage) = storage {
            add_stored_version(fields, &storage, StoredVersions::IfMissing);
        }
    }

    fn prepare_for_update(&self, object: &mut Value, _old: &Value) {
        let Some(fields) = object.as_object_mut() else { return };
        if let Some(storage) = fields.get("spec").and_then(storage_version).map(str::to_owned) {
            add_stored_version(fields, &storage, StoredVersions::IfMissing);
        }
    }

    fn validate(&self, object: &Value) -> FieldErrors {
        definition::validate(At::root(object))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> FieldErrors {
        definition::validate_update(At::root(object), &Old::new(old))
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> FieldErrors {
        let mut errors = Errors::new();
        let root = At::root(object);
        super::names::check(root.field("status").field("acceptedNames"), &mut errors);
        errors
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        deletion::is_held(object)
    }

    fn begin_deletion(&self, object: &mut Value) {
        deletion::begin(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let formats = |definition: &Value| -> Vec<String> {
            Parts::schemas(definition).into_iter().flat_map(rules::unrecognized_formats).collect()
        };
        let known = old.map(formats).unwrap_or_default();
        let mut found: Vec<String> = formats(object);
        found.retain(|format| !known.contains(format));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|format| format!("unrecognized format {format:?}")).collect()
    }
}

fn default_spec(spec: &mut Map) {
    if let Some(names) = object(spec, "names") {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !kind.is_empty() {
            set(names, "singular", kind.to_lowercase());
            set(names, "listKind", format!("{kind}List"));
        }
    }
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".to_owned(), serde_json::json!({"strategy": "None"}));
    }
    let service = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.pointer_mut("/webhook/clientConfig/service"));
    if let Some(Value::Object(service)) = service {
        crate::defaults::set_absent(service, "port", 443);
    }
}

/// Returns the name of the first storage version.
fn storage_version(spec: &Value) -> Option<&str> {
    let versions = spec.get("versions")?.as_array()?;
    let storage = versions.iter().find(|version| version.get("storage") == Some(&Value::Bool(true)))?;
    storage.get("name")?.as_str()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StoredVersions {
    /// Add the version if the list is empty.
    IfEmpty,
    /// Add the version if the list lacks it.
    IfMissing,
}

fn add_stored_version(fields: &mut Map, version: &str, when: StoredVersions) {
    let Some(status) = object(fields, "status") else { return };
    let stored = status.entry("storedVersions").or_insert(Value::Null);
    if stored.is_null() {
        *stored = Value::Array(Vec::new());
    }
    let Some(stored) = stored.as_array_mut() else { return };
    let is_wanted = match when {
        StoredVersions::IfEmpty => stored.is_empty(),
        StoredVersions::IfMissing => !stored.iter().any(|known| known == version),
    };
    if is_wanted {
        stored.push(Value::from(version));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_defaults_of_names_conversion_and_stored_versions() {
        let service = json!({"name": "s", "namespace": "n"});
        let mut definition = json!({"spec": {
            "names": {"kind": "CronTab", "plural": "crontabs"},
            "versions": [{"name": "v1", "storage": false}, {"name": "v2", "storage": true}],
        }});
        DefinitionStrategy.default(&mut definition, "v1");
        let names = json!({"kind": "CronTab", "plural": "crontabs", "singular": "crontab", "listKind": "CronTabList"});
        assert_eq!(definition["spec"]["names"], names);
        assert_eq!(definition["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(definition["status"]["storedVersions"], json!(["v2"]));
        let once = definition.clone();
        DefinitionStrategy.default(&mut definition, "v1");
        assert_eq!(definition, once);

        let mut webhook =
            json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": service}}}}});
        DefinitionStrategy.default(&mut webhook, "v1");
        assert_eq!(webhook.pointer("/spec/conversion/webhook/clientConfig/service/port"), Some(&json!(443)));
    }

    #[test]
    fn adds_a_new_storage_version_to_stored_versions() {
        let mut definition = json!({
            "spec": {"versions": [{"name": "v2", "storage": true}]}, "status": {"storedVersions": ["v1"]},
        });
        DefinitionStrategy.prepare_for_update(&mut definition, &json!({}));
        assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
        DefinitionStrategy.prepare_for_update(&mut definition, &json!({}));
        assert_eq!(definition["status"]["storedVersions"], json!(["v1", "v2"]));
        DefinitionStrategy.prepare_for_create(&mut definition);
        assert_eq!(definition["status"]["storedVersions"], json!(["v2"]));
    }

    #[test]
    fn warns_about_new_unchecked_formats() {
        let definition = |format: &str| {
            let schema =
                json!({"openAPIV3Schema": {"properties": {"a": {"type": "string", "format": format}}}});
            json!({"spec": {"versions": [{"name": "v1", "schema": schema}]}})
        };
        let (odd, known) = (definition("postcode"), definition("uuid"));
        assert_eq!(DefinitionStrategy.warnings(&odd, None), [r#"unrecognized format "postcode""#]);
        assert!(DefinitionStrategy.warnings(&odd, Some(&odd)).is_empty());
        assert_eq!(DefinitionStrategy.warnings(&odd, Some(&known)).len(), 1);
        assert!(DefinitionStrategy.warnings(&known, None).is_empty());
    }
}
