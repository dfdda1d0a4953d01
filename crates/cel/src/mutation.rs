//! The results of mutations: configurations to apply and JSON patches (upstream: `apiserver/pkg/cel/mutation`).

use serde_json::{Map as JsonMap, Value as Json, json};

use crate::program::Outcome;
use crate::value::{Object, Value, go_type, to_json};

impl Outcome<'_> {
    /// Returns the result of an `ApplyConfiguration` expression: the configuration to merge.
    ///
    /// # Errors
    /// The evaluation failed, an inner object has the wrong type, or a value cannot be applied.
    pub fn apply_configuration(&self) -> Result<Json, String> {
        let object = match self.value() {
            Ok(Value::Object(object)) => object,
            Ok(other) => {
                let found = other.type_name();
                return Err(format!("unsupported return type from ApplyConfiguration expression: {found}"));
            }
            Err(failure) => return Err(failure.to_string()),
        };
        check_names(object)?;
        applied_object(object, "").map_err(|why| {
            format!("error applying patch: failed to convert patch object to typed object: {why}")
        })
    }

    /// Returns the result of a `JSONPatch` expression: the list of operations.
    ///
    /// # Errors
    /// The evaluation failed, an inner object has the wrong type, or a value has no JSON form.
    pub fn json_patch(&self) -> Result<Json, String> {
        let list = match self.value() {
            Ok(Value::List(list)) => list,
            Ok(_) => {
                return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
            }
            Err(failure) => return Err(failure.to_string()),
        };
        let operations = list.iter().map(|item| match item {
            Ok(Value::Object(object)) if &*object.name == "JSONPatch" => operation(&object),
            _ => {
                let why = "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch";
                Err(why.to_owned())
            }
        });
        operations.collect::<Result<_, _>>().map(Json::Array)
    }
}

fn check_names(object: &Object<'_>) -> Result<(), String> {
    match object.type_mismatches().as_slice() {
        [] => Ok(()),
        wrong => Err(format!("type mismatch: {}", wrong.join("\n"))),
    }
}

/// Converts an object to apply. Only an object that an expression read may contain null: a null that the expression
/// wrote has no type.
fn applied_object(object: &Object<'_>, path: &str) -> Result<Json, String> {
    let fields = object.fields.iter().map(|(name, value)| {
        let converted = applied(value, &format!("{path}.{name}"))?;
        Ok((name.to_string(), converted))
    });
    fields.collect::<Result<JsonMap<_, _>, String>>().map(Json::Object)
}

fn applied(value: &Value<'_>, path: &str) -> Result<Json, String> {
    match value {
        Value::Object(object) => applied_object(object, path),
        Value::List(list) => {
            let items = list.iter().enumerate().map(|(index, item)| match item {
                Ok(item) => applied(&item, &format!("{path}[{index}]")),
                Err(failure) => Err(failure.to_string()),
            });
            items.collect::<Result<_, _>>().map(Json::Array)
        }
        Value::Null => Err(format!("{path}: unexpected null")),
        Value::Uint(_) => Err(format!("{path}: expected numeric (int or float), got uint64")),
        value => to_json(value).ok_or_else(|| format!("{path}: unexpected {}", value.type_name())),
    }
}

fn operation(object: &Object<'_>) -> Result<Json, String> {
    let mut operation = JsonMap::new();
    for name in ["op", "path", "from"] {
        let text = match object.fields.get(name) {
            Some(Value::String(text)) => (**text).to_owned(),
            _ => String::new(),
        };
        if name != "from" || !text.is_empty() {
            operation.insert(name.to_owned(), text.into());
        }
    }
    if let Some(value) = object.fields.get("value") {
        if let Value::Object(object) = value {
            check_names(object)?;
        }
        operation.insert("value".to_owned(), patch_value(value)?);
    }
    Ok(Json::Object(operation))
}

/// Converts the value of an operation. As in protobuf's JSON, integers that a double cannot hold become strings.
fn patch_value(value: &Value<'_>) -> Result<Json, String> {
    const MAX_SAFE: i64 = 1 << 53;
    let unmarshalable = |why: String| {
        format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}")
    };
    match value {
        Value::Int(number) if number.unsigned_abs() > MAX_SAFE.unsigned_abs() => {
            Ok(Json::String(number.to_string()))
        }
        Value::Double(number) if !number.is_finite() => Err(unmarshalable(format!("invalid {number} value"))),
        Value::Quantity(_) | Value::Ip(_) | Value::Cidr(_) | Value::Url(_) | Value::Semver(_) => {
            let from = go_type(value);
            Err(unmarshalable(format!("type conversion error from '{from}' to '*structpb.Value'")))
        }
        Value::List(list) => {
            let items = list.iter().map(|item| match item {
                Ok(item) => patch_value(&item),
                Err(failure) => Err(unmarshalable(failure.to_string())),
            });
            items.collect::<Result<_, _>>().map(Json::Array)
        }
        Value::Object(object) => {
            let fields =
                object.fields.iter().map(|(name, value)| Ok((name.to_string(), patch_value(value)?)));
            fields.collect::<Result<JsonMap<_, _>, String>>().map(Json::Object)
        }
        value => to_json(value).ok_or_else(|| unmarshalable(json!(value.type_name()).to_string())),
    }
}
