//! Converts values and types of the tests to the JSON that `nave_cel::facts` reads and shows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use crate::textproto::{Field, Message};

/// Returns the form in which `facts::show` shows a value; `None` if this environment does not have the value's type.
pub(crate) fn shown(value: &Message) -> Option<Json> {
    let (kind, field) = value.fields().next()?;
    let text = field.text();
    Some(match kind {
        "null_value" => json!({"null": null}),
        "bool_value" => json!({"bool": text == "true"}),
        "int64_value" => json!({"int": text.parse::<i64>().ok()?}),
        "uint64_value" => json!({"uint": text.parse::<u64>().ok()?}),
        "double_value" => json!({"double": double(&text)?}),
        "string_value" => json!({"string": text}),
        "bytes_value" => json!({"bytes": STANDARD.encode(field.bytes())}),
        "type_value" => json!({"type": text}),
        "list_value" => {
            let items = field.message()?.all("values").map(shown);
            json!({"list": items.collect::<Option<Vec<_>>>()?})
        }
        "map_value" => {
            let entry =
                |entry: &Message| Some((shown(entry.message("key")?)?, shown(entry.message("value")?)?));
            let mut entries: Vec<_> = field.message()?.all("entries").map(entry).collect::<Option<_>>()?;
            entries.sort_by_key(|(key, _)| key.to_string());
            json!({"map": entries})
        }
        "object_value" => object(field.message()?)?,
        _ => return None,
    })
}

/// Returns the shown form of a well-known message.
fn object(any: &Message) -> Option<Json> {
    let (url, field) = any.fields().next()?;
    let message = field.message()?;
    let word = |name: &str| message.get(name).map(Field::text);
    let number = |name: &str| word(name).map_or(Some(0), |text| text.parse::<i64>().ok());
    Some(match url.strip_prefix("type.googleapis.com/google.protobuf.")? {
        "Duration" => json!({"duration": number("seconds")? * 1_000_000_000 + number("nanos")?}),
        "Timestamp" => {
            let instant =
                jiff::Timestamp::new(number("seconds")?, i32::try_from(number("nanos")?).ok()?).ok()?;
            json!({"timestamp": instant.to_string()})
        }
        "BoolValue" => json!({"bool": word("value").as_deref() == Some("true")}),
        "BytesValue" => json!({"bytes": STANDARD.encode(message.get("value").map_or(&[][..], Field::bytes))}),
        "StringValue" => json!({"string": word("value").unwrap_or_default()}),
        "Int32Value" | "Int64Value" => json!({"int": number("value")?}),
        "UInt32Value" | "UInt64Value" => json!({"uint": number("value")?}),
        "FloatValue" | "DoubleValue" => {
            json!({"double": double(&word("value").unwrap_or_else(|| "0".into()))?})
        }
        "Value" => json_value(message)?,
        "ListValue" => json_list(message)?,
        "Struct" => json_struct(message)?,
        _ => return None,
    })
}

fn json_value(message: &Message) -> Option<Json> {
    let Some((kind, field)) = message.fields().next() else { return Some(json!({"null": null})) };
    Some(match kind {
        "null_value" => json!({"null": null}),
        "bool_value" => json!({"bool": field.text() == "true"}),
        "number_value" => json!({"double": double(&field.text())?}),
        "string_value" => json!({"string": field.text()}),
        "list_value" => json_list(field.message()?)?,
        "struct_value" => json_struct(field.message()?)?,
        _ => return None,
    })
}

fn json_list(message: &Message) -> Option<Json> {
    Some(json!({"list": message.all("values").map(json_value).collect::<Option<Vec<_>>>()?}))
}

fn json_struct(message: &Message) -> Option<Json> {
    let entry =
        |entry: &Message| Some((json!({"string": entry.text("key")}), json_value(entry.message("value")?)?));
    let mut entries: Vec<_> = message.all("fields").map(entry).collect::<Option<_>>()?;
    entries.sort_by_key(|(key, _)| key.to_string());
    Some(json!({"map": entries}))
}

fn double(text: &str) -> Option<Json> {
    let number: f64 = match text.trim_end_matches(['f', 'F']) {
        "in" | "inf" | "infinity" => f64::INFINITY,
        "-in" | "-inf" | "-infinity" => f64::NEG_INFINITY,
        "nan" => f64::NAN,
        digits => digits.parse().ok()?,
    };
    Some(match number {
        it if it.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        it if it == 0.0 && it.is_sign_negative() => json!("-0"),
        it => json!(it),
    })
}

/// Returns the form of a binding that `facts::Recorded` reads as a dynamic value, from its shown form.
pub(crate) fn binding(shown: &Json) -> Option<Json> {
    let (kind, value) = shown.as_object()?.iter().next()?;
    Some(match kind.as_str() {
        "null" => Json::Null,
        "list" => json!(value.as_array()?.iter().map(binding).collect::<Option<Vec<_>>>()?),
        "map" => {
            let mut fields = serde_json::Map::new();
            let mut keys = "string";
            for entry in value.as_array()? {
                let (kind, key) = entry[0].as_object()?.iter().next()?;
                keys = match kind.as_str() {
                    "int" => "int",
                    "uint" => "uint",
                    "bool" => "bool",
                    _ => "string",
                };
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                fields.insert(key, binding(&entry[1])?);
            }
            let mut marked = serde_json::Map::new();
            marked.insert(format!("$map({keys}, dyn)"), Json::Object(fields));
            Json::Object(marked)
        }
        "duration" => json!({"$duration": format!("{value}ns")}),
        "type" => return None,
        kind => {
            let mut marked = serde_json::Map::new();
            marked.insert(format!("${kind}"), value.clone());
            Json::Object(marked)
        }
    })
}

/// Returns the name of a declared type; `None` if this environment does not have the type.
pub(crate) fn type_name(ty: &Message) -> Option<String> {
    let (kind, field) = ty.fields().next()?;
    let word = field.text();
    let inner = |message: Option<&Message>| message.map_or_else(|| Some("dyn".to_owned()), type_name);
    Some(match (kind, word.as_str()) {
        ("dyn", _) | ("message_type", "google.protobuf.Value") => "dyn".to_owned(),
        ("null", _) => "null".to_owned(),
        ("primitive", "INT64") => "int".to_owned(),
        ("primitive", "UINT64") => "uint".to_owned(),
        ("primitive", other) => other.to_ascii_lowercase(),
        ("wrapper", "INT64") => "wrapper(int)".to_owned(),
        ("wrapper", "UINT64") => "wrapper(uint)".to_owned(),
        ("wrapper", other) => format!("wrapper({})", other.to_ascii_lowercase()),
        ("well_known", "DURATION") | ("message_type", "google.protobuf.Duration") => "duration".to_owned(),
        ("well_known", "TIMESTAMP") | ("message_type", "google.protobuf.Timestamp") => "timestamp".to_owned(),
        ("list_type", _) => format!("list({})", inner(field.message()?.message("elem_type"))?),
        ("map_type", _) => {
            let map = field.message()?;
            format!("map({}, {})", inner(map.message("key_type"))?, inner(map.message("value_type"))?)
        }
        ("type", _) => format!("type({})", inner(field.message())?),
        ("abstract_type", _) => {
            let ty = field.message()?;
            let parameters = ty.all("parameter_types").map(type_name).collect::<Option<Vec<_>>>()?;
            match parameters.as_slice() {
                [] => ty.text("name"),
                several => format!("{}({})", ty.text("name"), several.join(", ")),
            }
        }
        _ => return None,
    })
}
