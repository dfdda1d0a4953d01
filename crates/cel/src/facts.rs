//! Supports comparisons with recorded evaluations: converts values of any type from and to JSON with type names.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::kinds::Type;
use crate::library::quantity::Quantity;
use crate::library::read_type_name;
use crate::library::semver::Semver;
use crate::library::urls::Url;
use crate::library::{network, time};
use crate::program::{Activation, Outcome};
use crate::schema::Decl;
use crate::value::{Key, Map, OwnedMap, Text, Timestamp, Value, from_json, to_json, typed};

/// A recorded variable.
#[derive(Debug)]
pub struct Recorded {
    /// The declared type.
    pub ty: Type,
    value: Json,
    decl: Option<Decl>,
}

impl Recorded {
    /// Reads a variable: its type and value, or its schema and value.
    pub fn read(json: &Json) -> Option<Self> {
        let value = json.get("value").cloned().unwrap_or_default();
        if let Some(schema) = json.get("schema") {
            let decl = Decl::from_schema(schema, true)?;
            return Some(Self { ty: decl.to_type("selfType"), value, decl: Some(decl) });
        }
        Some(Self { ty: read_type(json.get("type")?.as_str()?)?, value, decl: None })
    }

    /// Returns the schema.
    pub fn decl(&self) -> Option<&Decl> {
        self.decl.as_ref()
    }

    /// Adds the variable to an activation.
    #[must_use]
    pub fn add<'a>(&'a self, activation: Activation<'a>, name: &'a str) -> Activation<'a> {
        let value = match &self.decl {
            Some(decl) => typed(&self.value, decl),
            None => read_value(&self.value, &self.ty).ok_or_else(|| Failure::new("unreadable variable")),
        };
        activation.with_value(name, value)
    }
}

/// Reads the name of a type.
pub fn read_type(text: &str) -> Option<Type> {
    read_type_name(text)
}

fn read_value<'a>(json: &'a Json, ty: &Type) -> Option<Value<'a>> {
    let text = json.as_str().unwrap_or_default();
    let bytes = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text).ok().map(|it| Value::Bytes(it.into()))
    };
    Some(match ty {
        Type::Dyn | Type::Any => return read_dyn(json),
        Type::Null => Value::Null,
        Type::Bool => Value::Bool(json.as_bool()?),
        Type::Int => Value::Int(json.as_i64().or_else(|| text.parse().ok())?),
        Type::Uint => Value::Uint(json.as_u64().or_else(|| text.parse().ok())?),
        Type::Double => Value::Double(match text {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            "-0" => -0.0,
            _ => json.as_f64()?,
        }),
        Type::String => Value::String(Text::Borrowed(json.as_str()?)),
        Type::Bytes => return bytes(text),
        Type::Duration => Value::Duration(time::parse_duration(text)?),
        Type::Timestamp => Value::Timestamp(time::parse_timestamp(text)?),
        Type::Opaque("net.IP", _) => Value::Ip(network::parse_ip(text).ok()?),
        Type::Opaque("net.CIDR", _) => Value::Cidr(network::parse_cidr(text).ok()?),
        Type::Opaque(_, Some(of)) => match json.get("of") {
            Some(value) => Value::some(read_value(value, of)?),
            None => Value::Optional(None),
        },
        Type::Object(object) => match &*object.name {
            "kubernetes.Quantity" => Value::Quantity(Arc::new(Quantity::parse(text).ok()?)),
            "kubernetes.URL" => Value::Url(Arc::new(Url::parse(text).ok()?)),
            "kubernetes.Semver" => Value::Semver(Arc::new(Semver::parse(text).ok()?)),
            _ => return None,
        },
        Type::List(of) => {
            let items = json.as_array()?.iter().map(|item| read_value(item, of));
            Value::list(items.collect::<Option<_>>()?)
        }
        Type::Map(from, to) => {
            let mut entries = OwnedMap::new();
            for (key, value) in json.as_object()? {
                let key = match &**from {
                    Type::Int => Key::Int(key.parse().ok()?),
                    Type::Uint => Key::Uint(key.parse().ok()?),
                    Type::Bool => Key::Bool(key == "true"),
                    _ => Key::String(Text::Borrowed(key)),
                };
                entries.insert(key, read_value(value, to)?);
            }
            Value::Map(Map::owned(entries))
        }
        _ => return None,
    })
}

/// Reads a value without a declared type. Objects such as `{"$uint": 5}` specify a type that JSON does not have.
fn read_dyn(json: &Json) -> Option<Value<'_>> {
    match json {
        Json::Object(fields) => {
            if let Some((name, value)) = fields.iter().next().filter(|(name, _)| name.starts_with('$')) {
                return read_value(value, &read_type(name.trim_start_matches('$'))?);
            }
            if has_marks(json) {
                let entries = fields
                    .iter()
                    .map(|(name, value)| Some((Key::String(Text::Borrowed(name)), read_dyn(value)?)));
                return Some(Value::Map(Map::owned(entries.collect::<Option<BTreeMap<_, _>>>()?)));
            }
            Some(from_json(json))
        }
        Json::Array(items) if has_marks(json) => {
            Some(Value::list(items.iter().map(read_dyn).collect::<Option<_>>()?))
        }
        _ => Some(from_json(json)),
    }
}

fn has_marks(json: &Json) -> bool {
    match json {
        Json::Array(items) => items.iter().any(has_marks),
        Json::Object(fields) => fields.iter().any(|(name, value)| name.starts_with('$') || has_marks(value)),
        _ => false,
    }
}

/// Converts the result of an evaluation to JSON with type names.
pub fn show(outcome: &Outcome<'_>) -> Json {
    match outcome.value() {
        Ok(value) => json!({"value": show_value(value)}),
        Err(failure) => json!({"error": failure.to_string()}),
    }
}

fn show_value(value: &Value<'_>) -> Json {
    let plain = || json!(crate::value::plain(value));
    match value {
        Value::Null => json!({"null": null}),
        Value::Bool(it) => json!({"bool": it}),
        Value::Int(it) => json!({"int": it}),
        Value::Uint(it) => json!({"uint": it}),
        Value::Double(it) => json!({"double": show_double(*it)}),
        Value::String(it) => json!({"string": &**it}),
        Value::Bytes(_) => json!({"bytes": to_json(value)}),
        Value::Duration(nanos) => json!({"duration": nanos}),
        Value::Timestamp(at) => json!({"timestamp": time::format_timestamp(Timestamp { offset: 0, ..*at })}),
        Value::List(list) => {
            json!({"list": list.iter().map(|item| item.map_or(Json::Null, |it| show_value(&it))).collect::<Vec<_>>()})
        }
        // Upstream cannot iterate over fields without a schema.
        Value::Map(map) if map.keys().len() < map.len() => {
            json!({"struct": {"type": "map", "json": to_json(value)}})
        }
        Value::Map(map) => {
            let entries = map.entries().unwrap_or_default();
            let mut shown: Vec<_> = entries.iter().map(|(k, v)| (show_value(k), show_value(v))).collect();
            shown.sort_by_key(|(key, _)| key.to_string());
            json!({"map": shown})
        }
        Value::Type(Type::Object(object)) if crate::env::is_patch_object(&object.name) => {
            json!({"type": format!("type({})", object.name)})
        }
        Value::Type(ty @ (Type::List(_) | Type::Map(..))) => json!({"type": ty.long_name()}),
        Value::Type(ty) => json!({"type": ty.runtime_name()}),
        Value::Optional(None) => json!({"optional": null}),
        Value::Optional(Some(value)) => json!({"optional": show_value(value)}),
        Value::Quantity(it) if it.computed => {
            json!({"struct": {"type": "kubernetes.Quantity", "json": it.to_string()}})
        }
        Value::Quantity(_) => json!({"quantity": plain()}),
        Value::Ip(_) => json!({"ip": plain()}),
        Value::Cidr(_) => json!({"cidr": plain()}),
        Value::Url(_) => json!({"url": plain()}),
        Value::Semver(_) => json!({"semver": plain()}),
        Value::Format(_) => json!({"format": plain()}),
        Value::Object(object) if &*object.name == "JSONPatch" => {
            let mut fields = serde_json::Map::new();
            for name in ["op", "path", "from"] {
                let text = object.fields.get(name).map(crate::value::plain).unwrap_or_default();
                fields.insert(name.to_owned(), json!(text));
            }
            if let Some(value) = object.fields.get("value") {
                fields.insert("value".to_owned(), show_value(value));
            }
            json!({"jsonpatch": fields})
        }
        Value::Object(object) if object.name.starts_with("google.protobuf.") => {
            json!({"struct": {"type": &*object.name, "json": to_json(value)}})
        }
        Value::Object(object) => {
            let mut shown = json!({"type": &*object.name, "native": to_json(value)});
            let mismatches = object.type_mismatches();
            if !mismatches.is_empty() {
                shown["type_mismatch"] = json!(mismatches);
            }
            json!({"object": shown})
        }
        other => json!({"opaque": other.type_name()}),
    }
}

fn show_double(value: f64) -> Json {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else if value == 0.0 && value.is_sign_negative() {
        json!("-0")
    } else {
        json!(value)
    }
}
