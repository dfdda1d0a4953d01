//! Resolves scalars by the rules of YAML 1.1.

use granit_parser::{ScalarStyle, Tag};
use nave_machinery::Value;

/// Returns the value of a scalar; `None` for numbers that JSON cannot express.
pub(super) fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Option<Value> {
    let forced_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || !tag.is_yaml_core_schema());
    if forced_text || (style != ScalarStyle::Plain && tag.is_none()) {
        return Some(Value::from(text));
    }
    let value = resolve(text)?;
    match (tag, &value) {
        (Some(tag), Value::Number(number)) if tag.is_yaml_core_schema_tag("float") => {
            number.as_f64().map(double)
        }
        _ => Some(value),
    }
}

/// Returns the value of plain text; `None` for numbers that JSON cannot express.
pub(super) fn resolve(text: &str) -> Option<Value> {
    let Some(first) = text.bytes().next() else { return Some(Value::Null) };
    let value = match first {
        b'~' | b'n' | b'N' if matches!(text, "~" | "null" | "Null" | "NULL") => Value::Null,
        b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'n' | b'N' | b'o' | b'O' => match text {
            "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
                Value::Bool(true)
            }
            "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
                Value::Bool(false)
            }
            _ => Value::from(text),
        },
        b'0'..=b'9' | b'+' | b'-' | b'.' => {
            if matches!(
                text.trim_start_matches(['+', '-']),
                ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
            ) {
                return None;
            }
            number(text).unwrap_or_else(|| Value::from(text))
        }
        _ => Value::from(text),
    };
    Some(value)
}

/// Parses plain text as a number.
fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let radix = |prefix: &str, radix: u32| {
        let digits = digits.strip_prefix(prefix)?;
        // `from_str_radix` would accept a second sign.
        let whole = digits.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(digits)?;
        i128::from_str_radix(whole, radix).ok()
    };
    let integer = radix("0x", 16)
        .or_else(|| radix("0b", 2))
        .or_else(|| radix("0o", 8))
        .or_else(|| if digits.len() > 1 { radix("0", 8) } else { None })
        .or_else(|| radix("", 10));
    if let Some(integer) = integer {
        let integer = if negative { -integer } else { integer };
        return Some(i64::try_from(integer).map_or_else(|_| double(integer as f64), Value::from));
    }
    let is_double = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().any(|byte| byte.is_ascii_digit());
    let number: f64 = is_double.then(|| plain.parse().ok())??;
    number.is_finite().then(|| double(number))
}

/// Converts a double. A whole number becomes an integer, because Go writes `420.0` to JSON as `420`.
fn double(number: f64) -> Value {
    // Like Go, Rust writes the shortest digits that identify the number, then zeros.
    let whole =
        if number.fract() == 0.0 && number.abs() < 1e19 { number.to_string().parse().ok() } else { None };
    whole.map_or_else(|| Value::from(number), |whole: i64| Value::from(whole))
}
