//! Scalars: their ranges, and the one text each value is written as.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nave_machinery::Value;
use nave_machinery::quantity::Quantity;
use nave_machinery::time::Timestamp;

use super::{Path, kind_of, mismatch};
use crate::types::Scalar;

/// Checks a value and writes it as Go would; the error is the message.
pub(super) fn canonical(scalar: Scalar, value: &mut Value, path: &Path) -> Result<(), String> {
    match scalar {
        Scalar::String | Scalar::Bool => wrong(scalar, value, path),
        Scalar::Int32 => integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), "int32", path),
        Scalar::Int64 => integer(value, i64::MIN..=i64::MAX, "int64", path),
        Scalar::Double => double(value, path),
        Scalar::Bytes => bytes(value, path),
        Scalar::Time => time(value, "2006-01-02T15:04:05Z07:00", Timestamp::rfc3339),
        Scalar::MicroTime => time(value, "2006-01-02T15:04:05.000000Z07:00", Timestamp::rfc3339_micro),
        Scalar::Duration => text(value).map(|_| ()),
        Scalar::Quantity => quantity(value),
        Scalar::IntOrString if value.is_string() => Ok(()),
        Scalar::IntOrString => {
            integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), "int32", &Path::Root)
        }
    }
}

/// What Go calls the type.
pub(super) fn go_name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes => "[]uint8",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Duration => "v1.Duration",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
    }
}

fn wrong(scalar: Scalar, value: &Value, path: &Path) -> Result<(), String> {
    Err(mismatch(kind_of(value), go_name(scalar), path))
}

fn integer(
    value: &Value,
    range: std::ops::RangeInclusive<i64>,
    name: &str,
    path: &Path,
) -> Result<(), String> {
    match value {
        Value::Number(number) if number.as_i64().is_some_and(|number| range.contains(&number)) => Ok(()),
        Value::Number(number) => Err(mismatch(&format!("number {number}"), name, path)),
        _ => Err(mismatch(kind_of(value), name, path)),
    }
}

/// Go writes a whole number without its fraction.
fn double(value: &mut Value, path: &Path) -> Result<(), String> {
    let Value::Number(number) = value else { return wrong(Scalar::Double, value, path) };
    if let Some(whole) = number.as_f64().filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < 1e15) {
        *value = Value::from(whole as i64);
    }
    Ok(())
}

fn bytes(value: &mut Value, path: &Path) -> Result<(), String> {
    let Value::String(text) = value else { return wrong(Scalar::Bytes, value, path) };
    if text.contains(['\r', '\n']) {
        text.retain(|c| c != '\r' && c != '\n');
    }
    let decoded = BASE64.decode(text.as_bytes()).map_err(|error| {
        use base64::DecodeError::{InvalidByte, InvalidLastSymbol, InvalidLength, InvalidPadding};
        let at = match error {
            InvalidByte(at, _) | InvalidLastSymbol(at, _) => at,
            InvalidLength(_) | InvalidPadding => text.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })?;
    let canonical = BASE64.encode(decoded);
    if *text != canonical {
        *text = canonical;
    }
    Ok(())
}

/// Times are in UTC; `null` is a time too.
fn time(value: &mut Value, layout: &str, write: impl Fn(Timestamp) -> String) -> Result<(), String> {
    let text = text(value)?;
    let parsed = Timestamp::parse(text)
        .ok_or_else(|| format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))?;
    let canonical = write(parsed);
    if *text != canonical {
        *text = canonical;
    }
    Ok(())
}

/// A quantity, or a number that is meant as one.
fn quantity(value: &mut Value) -> Result<(), String> {
    let (quantity, text) = match &mut *value {
        Value::String(text) if is_plain(text) => return Ok(()),
        Value::String(text) => (Quantity::parse(text), Some(text)),
        Value::Number(number) => (Quantity::parse(&number.to_string()), None),
        // What Go's parser is given there is the JSON text itself, which is none.
        _ => (Quantity::parse(""), None),
    };
    let canonical = quantity.map_err(|error| error.to_string())?.to_string();
    match text {
        Some(text) if *text == canonical => {}
        Some(text) => *text = canonical,
        None => *value = Value::String(canonical),
    }
    Ok(())
}

/// Whether the text is a small count that cannot be written in another way: digits, not ending in three zeros.
fn is_plain(text: &str) -> bool {
    let digits = text.as_bytes();
    let leads = digits.first().is_some_and(|first| *first != b'0' || digits.len() == 1);
    leads && digits.len() < 18 && digits.iter().all(u8::is_ascii_digit) && !digits.ends_with(b"000")
}

fn text(value: &mut Value) -> Result<&mut String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(mismatch(kind_of(other), "string", &Path::Root)),
    }
}

/// As lenient as Go's decoder: padding is needed, spare bits may be set.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);
