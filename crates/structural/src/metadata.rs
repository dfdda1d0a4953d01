//! `apiVersion`, `kind` and `metadata` of resources inside an object (upstream: `apiserver/schema/objectmeta`).

use nave_machinery::names::{self, validate_object_meta};
use nave_machinery::{FieldError, FieldPath, GroupVersion, Map, Value};
use nave_schema::normalize::{Mode, normalize};

use crate::excerpt::excerpt;
use crate::node::Node;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Treatment of malformed metadata of embedded resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Return an error, for objects from clients.
    Refuse,
    /// Drop the malformed fields, for objects from storage.
    Drop,
}

/// Coerces the metadata of all embedded resources below the root to `ObjectMeta`. Drops unknown metadata fields and
/// returns their paths.
///
/// # Errors
/// The first malformed field, with [`Malformed::Refuse`].
pub(crate) fn coerce(
    root: &Node,
    object: &mut Value,
    malformed: Malformed,
) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    if root.has_embedded {
        Coercer { malformed, unknown: &mut unknown }.below(root, object, &FieldPath::default())?;
    }
    unknown.sort_unstable();
    Ok(unknown)
}

/// Coerces the metadata of a value and of the embedded resources below it to `ObjectMeta`.
///
/// # Errors
/// The first malformed field, with [`Malformed::Refuse`].
pub(crate) fn coerce_value(
    node: &Node,
    value: &mut Value,
    path: &FieldPath,
    malformed: Malformed,
) -> Result<(), FieldError> {
    Coercer { malformed, unknown: &mut Vec::new() }.value(node, value, path)
}

struct Coercer<'u> {
    malformed: Malformed,
    unknown: &'u mut Vec<String>,
}

impl Coercer<'_> {
    fn value(&mut self, node: &Node, value: &mut Value, path: &FieldPath) -> Result<(), FieldError> {
        if !node.embedded_resource && !node.has_embedded {
            return Ok(());
        }
        if let Value::Object(fields) = value
            && node.embedded_resource
        {
            self.resource(fields, path)?;
        }
        self.below(node, value, path)
    }

    fn below(&mut self, node: &Node, value: &mut Value, path: &FieldPath) -> Result<(), FieldError> {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(below) = node.property(name) {
                        self.value(below, value, &path.child(name))?;
                    } else if let Some(below) = node.additional_schema() {
                        self.value(below, value, &path.key(name))?;
                    }
                }
                Ok(())
            }
            Value::Array(items) => {
                let Some(below) = node.items.as_deref() else { return Ok(()) };
                items
                    .iter_mut()
                    .enumerate()
                    .try_for_each(|(index, item)| self.value(below, item, &path.index(index)))
            }
            _ => Ok(()),
        }
    }

    fn resource(&mut self, fields: &mut Map, path: &FieldPath) -> Result<(), FieldError> {
        for name in ["apiVersion", "kind"] {
            match fields.get(name) {
                None | Some(Value::String(_)) => {}
                Some(_) if self.malformed == Malformed::Drop => {
                    fields.remove(name);
                }
                Some(value) => {
                    return Err(FieldError::invalid(&path.child(name), excerpt(value), "must be a string"));
                }
            }
        }
        let Some(metadata) = fields.get_mut("metadata") else { return Ok(()) };
        let at = path.child("metadata");
        let mut coerced = metadata.clone();
        match coerce_object_meta(&mut coerced) {
            Ok(found) => self.unknown.extend(found.into_iter().map(|field| format!("{at}.{field}"))),
            Err(why) if self.malformed == Malformed::Refuse => {
                return Err(FieldError::invalid(&at, excerpt(metadata), why));
            }
            Err(_) => self.drop_malformed(metadata, &mut coerced, &at),
        }
        *metadata = coerced;
        Ok(())
    }

    /// Keeps only the well-formed fields of malformed metadata.
    fn drop_malformed(&mut self, metadata: &Value, coerced: &mut Value, at: &FieldPath) {
        let Value::Object(fields) = metadata else {
            metadata.clone_into(coerced);
            return;
        };
        let mut kept = Map::new();
        for (name, value) in fields {
            let mut single = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
            if let Ok(found) = coerce_object_meta(&mut single)
                && let Value::Object(single) = single
            {
                self.unknown.extend(found.into_iter().map(|field| format!("{at}.{field}")));
                kept.extend(single);
            }
        }
        *coerced = Value::Object(kept);
    }
}

/// Coerces metadata to `ObjectMeta`. Returns the paths of unknown fields, or the reason why the metadata is malformed.
fn coerce_object_meta(metadata: &mut Value) -> Result<Vec<String>, String> {
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let schema = nave_schema::builtin();
    let Some(id) = schema.find(OBJECT_META) else { return Ok(Vec::new()) };
    let found = normalize(schema, id, metadata, Mode::Report).map_err(|error| error.to_string())?;
    if let Value::Object(fields) = metadata
        && fields.get("creationTimestamp").is_some_and(Value::is_null)
    {
        fields.remove("creationTimestamp");
    }
    Ok(found.unknown)
}

/// Validates the embedded resources below `node`, but not the value of `node` itself.
pub(crate) fn validate_below(node: &Node, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if !node.has_embedded {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(below) = node.property(name) {
                    validate(below, value, &path.child(name), errors);
                } else if let Some(below) = node.additional_schema() {
                    validate(below, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = node.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                validate(below, item, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

/// Validates a value and the embedded resources below it.
pub(crate) fn validate(node: &Node, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Value::Object(fields) = value
        && node.embedded_resource
    {
        resource(fields, path, errors);
    }
    validate_below(node, value, path, errors);
}

fn resource(fields: &Map, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (name, check) in [("apiVersion", api_version as fn(&str) -> Vec<String>), ("kind", kind)] {
        let at = path.child(name);
        match fields.get(name) {
            None => errors.push(FieldError::required(&at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(&at, "", "must not be empty"));
            }
            Some(Value::String(text)) => {
                errors
                    .extend(check(text).into_iter().map(|why| FieldError::invalid(&at, text.as_str(), why)));
            }
            Some(value) => errors.push(FieldError::invalid(&at, excerpt(value), "must be a string")),
        }
    }
    if let Some(metadata) = fields.get("metadata") {
        object_meta(metadata, &path.child("metadata"), errors);
    }
}

fn api_version(text: &str) -> Vec<String> {
    if GroupVersion::parse(text).is_some() {
        Vec::new()
    } else {
        vec![format!("unexpected GroupVersion string: {text}")]
    }
}

fn kind(text: &str) -> Vec<String> {
    let wrong = names::is_dns1035_label(&text.to_lowercase());
    if wrong.is_empty() {
        return wrong;
    }
    vec![format!("may have mixed case, but should otherwise match: {}", wrong.join(","))]
}

fn object_meta(metadata: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut coerced = metadata.clone();
    if let Err(why) = coerce_object_meta(&mut coerced) {
        errors.push(FieldError::invalid(path, excerpt(metadata), why));
        return;
    }
    if let Value::Object(fields) = &mut coerced
        && fields.get("name").and_then(Value::as_str).unwrap_or_default().is_empty()
    {
        fields.insert("name".to_owned(), Value::from("fakename"));
    }
    let namespaced = coerced.get("namespace").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    errors.extend(validate_object_meta(&coerced, namespaced, names::is_path_segment_name, path));
}
