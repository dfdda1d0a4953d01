//! Checks of a converted object against the original.

use nave_machinery::{FieldError, FieldPath, GroupVersion, Map, Value, meta, names};

/// The metadata that a webhook may change.
const CHANGEABLE: [&str; 2] = ["labels", "annotations"];

/// Checks the version and kind of a converted object.
pub(super) fn group_and_kind(original: &Value, converted: &Value, to: &GroupVersion) -> Result<(), String> {
    let (expected, received) = (to.to_string(), meta::api_version(converted));
    if received != expected {
        return Err(format!("invalid groupVersion (expected {expected}, received {received})"));
    }
    let (expected, received) = (meta::kind(original), meta::kind(converted));
    if received != expected {
        return Err(format!("invalid kind (expected {expected}, received {received})"));
    }
    Ok(())
}

/// Checks that a converted object has the name, namespace and uid of the original.
pub(super) fn identity(original: &Value, converted: &Value) -> Result<(), String> {
    let parts = |object| {
        [("name", meta::name(object)), ("namespace", meta::namespace(object)), ("UID", meta::uid(object))]
    };
    for ((what, expected), (_, received)) in parts(original).into_iter().zip(parts(converted)) {
        if received != expected {
            return Err(format!("must have the same {what}: {expected} != {received}"));
        }
    }
    Ok(())
}

/// Returns the converted object with the metadata of the original, except for labels and annotations.
pub(super) fn with_metadata_of(mut original: Value, mut converted: Value) -> Result<Value, String> {
    let returned = match converted.get_mut("metadata").map(Value::take) {
        Some(Value::Object(returned)) => returned,
        Some(_) => return Err("metadata is not an object in converted object".to_owned()),
        None => return Err("missing metadata in converted object".to_owned()),
    };
    let metadata = original.get_mut("metadata").map(Value::take);
    let Some(Value::Object(mut metadata)) = metadata else {
        return Err("metadata is not an object in input object".to_owned());
    };
    for field in CHANGEABLE {
        match returned.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(Value::Object(texts)) => {
                check_texts(field, texts, metadata.get(field))?;
                metadata.insert(field.to_owned(), Value::Object(texts.clone()));
            }
            Some(_) => return Err(format!("metadata.{field} is not a map of strings in converted object")),
        }
    }
    if let Some(fields) = converted.as_object_mut() {
        fields.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Ok(converted)
}

/// Validates labels or annotations, unless they are those of the original.
fn check_texts(field: &str, texts: &Map, original: Option<&Value>) -> Result<(), String> {
    if let Some((key, _)) = texts.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
    }
    if original.and_then(Value::as_object) == Some(texts) {
        return Ok(());
    }
    let at = FieldPath::new("metadata").child(field);
    let errors = match field {
        "labels" => names::validate_labels(texts, &at),
        _ => names::validate_annotations(texts, &at),
    };
    match &errors[..] {
        [] => Ok(()),
        [only] => Err(only.to_string()),
        several => {
            let texts: Vec<String> = several.iter().map(FieldError::to_string).collect();
            Err(format!("[{}]", texts.join(", ")))
        }
    }
}
