//! Texts of values, in Go's formats.

use super::{Timestamp, Value};
use crate::library::time::{format_duration, format_timestamp};

/// Formats a number as `string()` and error messages do: the shortest form.
pub(crate) fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponential = format!("{value:e}");
    let (mantissa, exponent) = exponential.split_once('e').unwrap_or((&exponential, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // Go uses an exponent below -4 and from 6 on.
    if value == 0.0 || (-4..SHORTEST).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The decimal exponent from which numbers are written in exponential notation.
const SHORTEST: i32 = 6;

/// Returns the plain text of a scalar.
pub(crate) fn plain(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => (**text).to_owned(),
        other => display(other),
    }
}

/// Formats a value in an error message.
pub(crate) fn display(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(it) => it.to_string(),
        Value::Int(it) => it.to_string(),
        Value::Uint(it) => it.to_string(),
        Value::Double(it) => double(*it),
        Value::String(text) => (**text).to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(nanos) => format_duration(*nanos),
        Value::Timestamp(at) => timestamp(*at),
        Value::Type(ty) => ty.runtime_name().to_owned(),
        Value::Quantity(it) => it.to_string(),
        Value::Ip(it) => it.to_string(),
        Value::Cidr(it) => it.to_string(),
        Value::Url(it) => it.text.clone(),
        Value::Semver(it) => it.to_string(),
        Value::Format(it) => it.name.to_owned(),
        Value::List(list) => {
            let items: Vec<String> = list.iter().flatten().map(|item| display(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let entries = map.entries().unwrap_or_default();
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", display(key), display(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Optional(None) => "optional.none()".to_owned(),
        Value::Optional(Some(value)) => format!("optional({})", display(value)),
        other => other.type_name().to_owned(),
    }
}

fn timestamp(at: Timestamp) -> String {
    format_timestamp(at)
}

/// Returns the name of the Go type of a value, which some messages show.
pub(crate) fn go_type(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        Value::Duration(_) => "types.Duration",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Type(_) => "*types.Type",
        Value::Optional(_) => "*types.Optional",
        Value::Quantity(_) => "cel.Quantity",
        Value::Ip(_) => "cel.IP",
        Value::Cidr(_) => "cel.CIDR",
        Value::Url(_) => "cel.URL",
        Value::Semver(_) => "cel.Semver",
        Value::Format(_) => "cel.Format",
        Value::Preserved(_) => "*common.unknownPreserved",
        _ => "types.Unknown",
    }
}
