//! Well-known protobuf messages that expressions can create: wrappers, JSON values, durations and timestamps.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::Failure;
use crate::kinds::{ObjectType, Type};
use crate::value::{Key, Map, Object, Timestamp, Value};

/// The name of wrapper types, which are nullable scalars.
pub(crate) const WRAPPER: &str = "wrapper";
/// The only enum value that expressions can name.
pub(crate) const NULL_VALUE: &str = "google.protobuf.NullValue.NULL_VALUE";

/// Returns the type of a message's values.
pub(crate) fn message_type(name: &str) -> Option<Type> {
    let name = name.strip_prefix("google.protobuf.")?;
    if let Some(scalar) = wrapped(name) {
        return Some(Type::Opaque(WRAPPER, Some(Arc::new(scalar))));
    }
    Some(match name {
        "Value" => Type::Dyn,
        "Struct" => Type::map(Type::String, Type::Dyn),
        "ListValue" => Type::list(Type::Dyn),
        "Duration" => Type::Duration,
        "Timestamp" => Type::Timestamp,
        "Empty" => Type::object("google.protobuf.Empty", []),
        "Any" => Type::object("google.protobuf.Any", []),
        _ => return None,
    })
}

/// Returns the fields of a message.
pub(crate) fn fields(name: &str) -> Option<ObjectType> {
    let short = name.strip_prefix("google.protobuf.")?;
    let fields: Vec<(&str, Type)> = match short {
        "Value" => vec![
            ("null_value", Type::Int),
            ("number_value", Type::Double),
            ("string_value", Type::String),
            ("bool_value", Type::Bool),
            ("struct_value", Type::map(Type::String, Type::Dyn)),
            ("list_value", Type::list(Type::Dyn)),
        ],
        "Struct" => vec![("fields", Type::map(Type::String, Type::Dyn))],
        "ListValue" => vec![("values", Type::list(Type::Dyn))],
        "Duration" | "Timestamp" => vec![("seconds", Type::Int), ("nanos", Type::Int)],
        "Empty" => Vec::new(),
        "Any" => vec![("type_url", Type::String), ("value", Type::Bytes)],
        other => vec![("value", wrapped(other)?)],
    };
    let fields = fields.into_iter().map(|(name, ty)| (name.into(), ty)).collect();
    Some(ObjectType { name: name.into(), fields })
}

fn wrapped(name: &str) -> Option<Type> {
    Some(match name {
        "BoolValue" => Type::Bool,
        "BytesValue" => Type::Bytes,
        "DoubleValue" | "FloatValue" => Type::Double,
        "Int32Value" | "Int64Value" => Type::Int,
        "StringValue" => Type::String,
        "UInt32Value" | "UInt64Value" => Type::Uint,
        _ => return None,
    })
}

/// Creates the value of a message.
///
/// # Errors
/// A field has an invalid value.
pub(crate) fn create<'a>(
    name: &Arc<str>,
    mut fields: BTreeMap<Arc<str>, Value<'a>>,
) -> Result<Value<'a>, Failure> {
    let short = name.strip_prefix("google.protobuf.").unwrap_or(name);
    let mut take = |field: &str| fields.remove(field);
    let overflow =
        |why: &str| Failure::new(format!("field type conversion error for {name}.value value type: {why}"));
    let time = |seconds: Option<Value<'a>>, nanos: Option<Value<'a>>| {
        let number = |value: Option<Value<'a>>| match value {
            Some(Value::Int(number)) => number,
            _ => 0,
        };
        (number(seconds), number(nanos))
    };
    Ok(match short {
        "Value" => {
            let names = ["number_value", "string_value", "bool_value", "struct_value", "list_value"];
            names.into_iter().find_map(take).unwrap_or(Value::Null)
        }
        "Struct" => match take("fields") {
            Some(fields) => json_value(&fields)?,
            None => Value::Map(Map::owned(BTreeMap::new())),
        },
        "ListValue" => match take("values") {
            Some(values) => json_value(&values)?,
            None => Value::list(Vec::new()),
        },
        "Duration" => {
            let (seconds, nanos) = time(take("seconds"), take("nanos"));
            let total = seconds.checked_mul(1_000_000_000).and_then(|it| it.checked_add(nanos));
            Value::Duration(total.ok_or_else(|| Failure::new("integer overflow"))?)
        }
        "Timestamp" => {
            let (seconds, nanos) = time(take("seconds"), take("nanos"));
            let start = Timestamp { seconds, nanos: 0, offset: 0 };
            Value::Timestamp(start.plus(nanos).ok_or_else(|| Failure::new("timestamp overflow"))?)
        }
        "Any" => return Err(Failure::new("unsupported conversion to ref.Val: (*dynamicpb.Message)")),
        "Empty" => Value::Object(Arc::new(Object { name: Arc::clone(name), fields })),
        _ => match (short, take("value")) {
            ("Int32Value", Some(Value::Int(it))) if i32::try_from(it).is_err() => {
                return Err(overflow("integer overflow"));
            }
            ("UInt32Value", Some(Value::Uint(it))) if u32::try_from(it).is_err() => {
                return Err(overflow("unsigned integer overflow"));
            }
            ("FloatValue", Some(Value::Double(it))) => Value::Double(f64::from(it as f32)),
            (_, Some(value)) => value,
            ("BoolValue", None) => Value::Bool(false),
            ("BytesValue", None) => Value::Bytes(Arc::from(&b""[..])),
            ("DoubleValue" | "FloatValue", None) => Value::Double(0.0),
            ("StringValue", None) => Value::text(""),
            ("UInt32Value" | "UInt64Value", None) => Value::Uint(0),
            _ => Value::Int(0),
        },
    })
}

/// Converts the parts of a value to types that JSON has. Numbers become doubles, or texts if they are not exact.
fn json_value<'a>(value: &Value<'a>) -> Result<Value<'a>, Failure> {
    const EXACT: u64 = (1 << 53) - 1;
    Ok(match value {
        Value::Int(it) if it.unsigned_abs() <= EXACT => Value::Double(*it as f64),
        Value::Uint(it) if *it <= EXACT => Value::Double(*it as f64),
        Value::Int(it) => Value::text(it.to_string()),
        Value::Uint(it) => Value::text(it.to_string()),
        Value::List(list) => {
            let items = list.iter().map(|item| json_value(&item?));
            Value::list(items.collect::<Result<_, _>>()?)
        }
        Value::Map(map) => {
            let mut entries = BTreeMap::new();
            for (key, value) in map.entries()? {
                let key = Key::new(&key).ok_or_else(Failure::overload)?;
                entries.insert(key, json_value(&value)?);
            }
            Value::Map(Map::owned(entries))
        }
        other => other.clone(),
    })
}
