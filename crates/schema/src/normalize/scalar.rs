//! Scalars: ranges and canonical texts.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nave_machinery::quantity::Quantity;
use nave_machinery::time::{Layout, Timestamp};
use nave_machinery::{Value, duration};

use super::{Path, kind_of, mismatch};
use crate::types::Scalar;

/// Checks a value and replaces it by Go's form. The error is the message.
pub(super) fn canonical(scalar: Scalar, value: &mut Value, path: &Path) -> Result<(), String> {
    match scalar {
        Scalar::String | Scalar::Bool => wrong(scalar, value, path),
        Scalar::Int32 => integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), "int32", path),
        Scalar::Int64 => integer(value, i64::MIN..=i64::MAX, "int64", path),
        Scalar::Double => double(value, path),
        Scalar::Bytes => bytes(value, path),
        Scalar::Time if value.as_str().is_some_and(is_utc) => Ok(()),
        Scalar::Time => time(value, Layout::Seconds),
        Scalar::MicroTime => time(value, Layout::Micros),
        Scalar::Duration => duration(value),
        Scalar::Quantity => quantity(value),
        Scalar::IntOrString if value.is_string() => Ok(()),
        Scalar::IntOrString => {
            integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), "int32", &Path::Root)
        }
    }
}

/// Returns Go's name of the type.
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

/// Checks a double. Whole numbers become integers, as Go writes them.
fn double(value: &mut Value, path: &Path) -> Result<(), String> {
    let Value::Number(number) = value else { return wrong(Scalar::Double, value, path) };
    if let Some(whole) = number.as_f64().filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < 1e15) {
        *value = Value::from(whole as i64);
    }
    Ok(())
}

/// Reads an element of bytes that are written as a list of numbers, which Go reads too.
fn byte(value: &Value, path: &Path) -> Result<u8, String> {
    let number = match value {
        Value::Null => Some(0),
        value => value.as_u64().and_then(|number| u8::try_from(number).ok()),
    };
    number.ok_or_else(|| match value {
        Value::Number(number) => mismatch(&format!("number {number}"), "uint8", path),
        value => mismatch(kind_of(value), "uint8", path),
    })
}

fn bytes(value: &mut Value, path: &Path) -> Result<(), String> {
    if let Value::Array(list) = value {
        let decoded = list.iter().enumerate().map(|(at, item)| byte(item, &Path::Index(path, at)));
        *value = Value::from(BASE64.encode(decoded.collect::<Result<Vec<u8>, _>>()?));
        return Ok(());
    }
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
    rewrite(text, BASE64.encode(decoded));
    Ok(())
}

/// Checks a time and converts it to UTC. `null` is a valid time.
fn time(value: &mut Value, layout: Layout) -> Result<(), String> {
    let text = text(value)?;
    let time = Timestamp::parse_as(text, layout).map_err(|error| error.to_string())?;
    rewrite(
        text,
        match layout {
            Layout::Seconds => time.rfc3339(),
            Layout::Micros => time.rfc3339_micro(),
        },
    );
    Ok(())
}

fn duration(value: &mut Value) -> Result<(), String> {
    let text = text(value)?;
    let nanos = duration::parse_nanos(text).map_err(|error| error.to_string())?;
    rewrite(text, duration::write_nanos(nanos));
    Ok(())
}

/// Replaces a text by its canonical form, if it differs.
fn rewrite(text: &mut String, canonical: String) {
    if *text != canonical {
        *text = canonical;
    }
}

/// Parses a quantity given as a string or a number.
fn quantity(value: &mut Value) -> Result<(), String> {
    let (quantity, text) = match &mut *value {
        Value::String(text) if is_plain(text) => return Ok(()),
        Value::String(text) => (Quantity::parse(text), Some(text)),
        Value::Number(number) => (Quantity::parse(&number.to_string()), None),
        // Go's parser receives the JSON text, which is not a quantity.
        _ => (Quantity::parse(""), None),
    };
    let canonical = quantity.map_err(|error| error.to_string())?.to_string();
    match text {
        Some(text) => rewrite(text, canonical),
        None => *value = Value::String(canonical),
    }
    Ok(())
}

/// Rounds a canonical amount in a resource list up to thousandths.
pub(super) fn round_resource(value: &mut Value) {
    let Value::String(text) = value else { return };
    let finer = |text: &str| text.ends_with(['n', 'u']) || text.contains("e-");
    if let Some(quantity) =
        Some(&*text).filter(|text| finer(text)).and_then(|text| Quantity::parse(text).ok())
    {
        *text = quantity.rounded_to_milli().to_string();
    }
}

/// Returns true only if the text is canonical: a short whole number with the largest possible suffix. Most quantities
/// are canonical, and this check is cheaper than parsing. May return false for canonical texts.
fn is_plain(text: &str) -> bool {
    let split = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, suffix) = text.split_at(split);
    if digits.is_empty() || digits.len() > 9 || digits.starts_with('0') {
        return text == "0";
    }
    match suffix {
        "" | "m" | "k" | "M" | "G" => !digits.ends_with("000"),
        "Ki" | "Mi" | "Gi" => digits.parse::<u32>().is_ok_and(|count| count % 1024 != 0),
        _ => false,
    }
}

/// Returns true only if the text is a time with seconds in UTC, such as `2026-01-02T03:04:05Z`. Returns false for the
/// last days of a month, which the parser checks.
fn is_utc(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != 20 {
        return false;
    }
    let number = |at: usize| {
        let (high, low) = (bytes[at].wrapping_sub(b'0'), bytes[at + 1].wrapping_sub(b'0'));
        if high < 10 && low < 10 { high * 10 + low } else { u8::MAX }
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    marks.iter().all(|&(at, mark)| bytes[at] == mark)
        && number(0) < 100
        && number(2) < 100
        && (1..=12).contains(&number(5))
        && (1..=28).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60
}

fn text(value: &mut Value) -> Result<&mut String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(mismatch(kind_of(other), "string", &Path::Root)),
    }
}

/// The rules of Go's decoder: padding is required, trailing bits may be set.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Checks that parsing a plain text leaves it unchanged.
        #[test]
        fn plain_quantities_are_canonical(text in "[0-9]{1,10}(m|k|M|G|Ki|Mi|Gi)?|[0-9]{1,2}000(m|k)?|[1-9]?1024(Ki|Mi)") {
            if is_plain(&text) {
                prop_assert_eq!(Quantity::parse(&text).unwrap().to_string(), text);
            }
        }

        #[test]
        fn plain_times_are_canonical(text in "[0-9]{4}-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z") {
            if is_utc(&text) {
                prop_assert_eq!(Timestamp::parse(&text).unwrap().rfc3339(), text);
            }
        }
    }

    #[test]
    fn most_texts_are_plain() {
        assert!(["100m", "1", "0", "128Mi", "1Gi", "20k"].into_iter().all(is_plain));
        assert!(
            ["1000m", "0m", "01", "1024Mi", "1e3", "0.5", "", "m", "1Ti"]
                .into_iter()
                .all(|text| !is_plain(text))
        );
        assert!(
            is_utc("2026-01-02T03:04:05Z")
                && !is_utc("2026-01-02T03:04:60Z")
                && !is_utc("2026-01-02T03:04:05+")
        );
    }
}
