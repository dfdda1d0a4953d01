//! Conversions between types.

use super::Library;
use super::time::{format_duration, format_timestamp, parse_duration, parse_timestamp};
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Timestamp, Value, plain};

/// The conversions of the language.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("type", "type(A) type(A)", Some(type_of)),
        ("bool_to_bool", "bool(bool) bool", Some(to_bool)),
        ("string_to_bool", "bool(string) bool", Some(to_bool)),
        ("bytes_to_bytes", "bytes(bytes) bytes", Some(to_bytes)),
        ("string_to_bytes", "bytes(string) bytes", Some(to_bytes)),
        ("double_to_double", "double(double) double", Some(to_double)),
        ("int64_to_double", "double(int) double", Some(to_double)),
        ("string_to_double", "double(string) double", Some(to_double)),
        ("uint64_to_double", "double(uint) double", Some(to_double)),
        ("duration_to_duration", "duration(duration) duration", Some(to_duration)),
        ("int64_to_duration", "duration(int) duration", Some(to_duration)),
        ("string_to_duration", "duration(string) duration", Some(to_duration)),
        ("int64_to_int64", "int(int) int", Some(to_int)),
        ("double_to_int64", "int(double) int", Some(to_int)),
        ("duration_to_int64", "int(duration) int", Some(to_int)),
        ("string_to_int64", "int(string) int", Some(to_int)),
        ("timestamp_to_int64", "int(timestamp) int", Some(to_int)),
        ("uint64_to_int64", "int(uint) int", Some(to_int)),
        ("string_to_string", "string(string) string", Some(to_string)),
        ("bool_to_string", "string(bool) string", Some(to_string)),
        ("bytes_to_string", "string(bytes) string", Some(to_string)),
        ("double_to_string", "string(double) string", Some(to_string)),
        ("duration_to_string", "string(duration) string", Some(to_string)),
        ("int64_to_string", "string(int) string", Some(to_string)),
        ("timestamp_to_string", "string(timestamp) string", Some(to_string)),
        ("uint64_to_string", "string(uint) string", Some(to_string)),
        ("timestamp_to_timestamp", "timestamp(timestamp) timestamp", Some(to_timestamp)),
        ("int64_to_timestamp", "timestamp(int) timestamp", Some(to_timestamp)),
        ("string_to_timestamp", "timestamp(string) timestamp", Some(to_timestamp)),
        ("uint64_to_uint64", "uint(uint) uint", Some(to_uint)),
        ("double_to_uint64", "uint(double) uint", Some(to_uint)),
        ("int64_to_uint64", "uint(int) uint", Some(to_uint)),
        ("string_to_uint64", "uint(string) uint", Some(to_uint)),
        ("to_dyn", "dyn(A) dyn", Some(identity)),
    ],
    singletons: &[("type", type_of), ("dyn", identity)],
    unguarded: &[],
};

fn type_of<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    args.first().map(|arg| Value::Type(arg.kind())).ok_or_else(Failure::overload)
}

fn identity<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    args.first().cloned().ok_or_else(Failure::overload)
}

/// Error of a conversion. Types have their long names.
fn unconvertible(from: &Value<'_>, to: &str) -> Failure {
    Failure::new(format!("type conversion error from '{}' to '{to}'", from.type_name()))
}

fn integer_overflow() -> Failure {
    Failure::new("integer overflow")
}

fn unsigned_overflow() -> Failure {
    Failure::new("unsigned integer overflow")
}

fn to_bool<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Bool(it)] => Ok(Value::Bool(*it)),
        [value @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(unconvertible(value, "bool")),
        },
        _ => Err(Failure::overload()),
    }
}

fn to_bytes<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        [other] => Ok(other.clone()),
        _ => Err(Failure::overload()),
    }
}

fn to_double<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Double(match args {
        [Value::Double(it)] => *it,
        [Value::Int(it)] => *it as f64,
        [Value::Uint(it)] => *it as f64,
        [value @ Value::String(text)] => parse_double(text).ok_or_else(|| unconvertible(value, "double"))?,
        _ => return Err(Failure::overload()),
    }))
}

/// Reads a number in Go's notations, including hexadecimal numbers, infinity and NaN.
fn parse_double(text: &str) -> Option<f64> {
    // Underscores may separate digits.
    let bytes = text.as_bytes();
    // The prefix of hexadecimal numbers counts as a digit.
    let is_digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at)).is_some_and(|it| it.is_ascii_hexdigit() || matches!(it, b'x' | b'X'))
    };
    let misplaced =
        |(at, byte): (usize, &u8)| *byte == b'_' && !(is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)));
    if bytes.iter().enumerate().any(misplaced) {
        return None;
    }
    let text = &*text.replace('_', "");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let negative = text.starts_with('-');
    let lower = unsigned.to_ascii_lowercase();
    let value = if let Some(hex) = lower.strip_prefix("0x") {
        parse_hex(hex)?
    } else if matches!(lower.as_str(), "inf" | "infinity") {
        f64::INFINITY
    } else if lower == "nan" {
        return (unsigned.len() == text.len()).then_some(f64::NAN);
    } else {
        let value: f64 = lower.parse().ok()?;
        if !lower.starts_with(|it: char| it.is_ascii_digit() || it == '.') || value.is_infinite() {
            return None;
        }
        value
    };
    Some(if negative { -value } else { value })
}

fn parse_hex(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let exponent: i32 = exponent.parse().ok()?;
    let scaled = value * 2f64.powi(exponent.clamp(-2000, 2000) - 4 * fraction.len().min(300) as i32);
    scaled.is_finite().then_some(scaled)
}

fn to_duration<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [value @ Value::String(text)] => match parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => Err(unconvertible(value, "google.protobuf.Duration")),
        },
        [value @ Value::Int(_)] => Err(unconvertible(value, "google.protobuf.Duration")),
        [other] => Ok(other.clone()),
        _ => Err(Failure::overload()),
    }
}

fn to_int<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Int(match args {
        [Value::Int(it)] => *it,
        [Value::Uint(it)] => i64::try_from(*it).map_err(|_| integer_overflow())?,
        [Value::Double(it)] => {
            // Both ends are excluded, because they cannot be distinguished from numbers out of range.
            if it.is_nan() || *it <= i64::MIN as f64 || *it >= i64::MAX as f64 {
                return Err(integer_overflow());
            }
            *it as i64
        }
        [Value::Duration(nanos)] => *nanos,
        [Value::Timestamp(at)] => at.seconds,
        [value @ Value::String(text)] => text.parse().map_err(|_| unconvertible(value, "int"))?,
        _ => return Err(Failure::overload()),
    }))
}

fn to_uint<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Uint(match args {
        [Value::Uint(it)] => *it,
        [Value::Int(it)] => u64::try_from(*it).map_err(|_| unsigned_overflow())?,
        [Value::Double(it)] => {
            if it.is_nan() || *it < 0.0 || *it >= u64::MAX as f64 {
                return Err(unsigned_overflow());
            }
            *it as u64
        }
        [value @ Value::String(text)] => {
            let digits = (!text.starts_with('+')).then(|| text.parse().ok()).flatten();
            digits.ok_or_else(|| unconvertible(value, "uint"))?
        }
        _ => return Err(Failure::overload()),
    }))
}

fn to_string<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(match args {
        [Value::String(text)] => Value::String(text.clone()),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Value::text(text),
            Err(_) => return Err(Failure::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [Value::Duration(nanos)] => Value::text(format_duration(*nanos)),
        [Value::Timestamp(at)] => Value::text(format_timestamp(*at)),
        [other] => Value::text(plain(other)),
        _ => return Err(Failure::overload()),
    })
}

fn to_timestamp<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [value @ Value::String(text)] => match parse_timestamp(text) {
            Some(at) if Timestamp::RANGE.contains(&at.seconds) => Ok(Value::Timestamp(at)),
            Some(_) => Err(Failure::new("timestamp overflow")),
            None => Err(unconvertible(value, "google.protobuf.Timestamp")),
        },
        [Value::Int(seconds)] if Timestamp::RANGE.contains(seconds) => {
            Ok(Value::Timestamp(Timestamp { seconds: *seconds, nanos: 0, offset: 0 }))
        }
        [Value::Int(_)] => Err(Failure::new("timestamp overflow")),
        [other] => Ok(other.clone()),
        _ => Err(Failure::overload()),
    }
}
