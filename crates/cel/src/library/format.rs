//! `string.format`: a format in C's notation, with cel-go's error messages.

use std::fmt::Write as _;

use nave_machinery::go_value::GoQuoted;

use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Value, display_double, plain};

/// A clause of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    String,
    Decimal,
    Fixed(Option<usize>),
    Scientific(Option<usize>),
    Binary,
    Hex { upper: bool },
    Octal,
}

/// A part of a format.
pub(crate) enum Part<'f> {
    Text(&'f str),
    Clause(Clause),
}

const DEFAULT_PRECISION: usize = 6;
const MAX_PRECISION: usize = 1000;

/// Calls a function for each part, with the number of preceding clauses. Returns the total number of clauses.
pub(crate) fn each_part<'f>(
    format: &'f str,
    args: usize,
    visit: &mut dyn FnMut(Part<'f>, usize) -> Result<(), String>,
) -> Result<usize, String> {
    let (mut rest, mut requested) = (format, 0);
    while let Some(at) = rest.find('%') {
        visit(Part::Text(rest.get(..at).unwrap_or_default()), requested)?;
        rest = rest.get(at + 1..).unwrap_or_default();
        if rest.is_empty() {
            return Err("unexpected end of string".to_owned());
        }
        if let Some(after) = rest.strip_prefix('%') {
            visit(Part::Text("%"), requested)?;
            rest = after;
            continue;
        }
        if requested >= args {
            return Err(format!("index {requested} out of range"));
        }
        let (clause, after) =
            parse_clause(rest).map_err(|why| format!("could not parse formatting clause: {why}"))?;
        visit(Part::Clause(clause), requested).map_err(|why| format!("error during formatting: {why}"))?;
        requested += 1;
        rest = after;
    }
    visit(Part::Text(rest), requested)?;
    Ok(requested)
}

fn parse_clause(text: &str) -> Result<(Clause, &str), String> {
    let (precision, rest) = match text.strip_prefix('.') {
        None => (None, text),
        Some(after) => {
            let end = after
                .find(|it: char| !it.is_ascii_digit())
                .ok_or("error while parsing precision: could not find end of precision specifier")?;
            let digits = after.get(..end).unwrap_or_default();
            let precision: usize = digits.parse().map_err(|_| {
                let why = if digits.is_empty() { "invalid syntax" } else { "value out of range" };
                format!(
                    "error while parsing precision: error while converting precision to integer: \
                     strconv.Atoi: parsing \"{digits}\": {why}"
                )
            })?;
            (Some(precision), after.get(end..).unwrap_or_default())
        }
    };
    let letter = rest.chars().next().unwrap_or_default();
    let clause = match letter {
        's' => Clause::String,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific(precision),
        'b' => Clause::Binary,
        'x' => Clause::Hex { upper: false },
        'X' => Clause::Hex { upper: true },
        'o' => Clause::Octal,
        // Go reads a single byte here.
        _ => {
            let byte = rest.bytes().next().unwrap_or_default();
            return Err(format!("unrecognized formatting clause \"{}\"", char::from(byte)));
        }
    };
    Ok((clause, rest.get(letter.len_utf8()..).unwrap_or_default()))
}

/// Error of a clause with a value of this type.
pub(crate) fn clause_error(clause: Clause, type_name: &str) -> String {
    let (name, only) = match clause {
        Clause::String => {
            ("string", "strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps")
        }
        Clause::Decimal => ("decimal", "integers"),
        Clause::Fixed(_) => ("fixed-point", "doubles"),
        Clause::Scientific(_) => ("scientific", "doubles"),
        Clause::Binary => {
            return format!("only integers and bools can be formatted as binary, was given {type_name}");
        }
        Clause::Hex { .. } => {
            return format!(
                "only integers, byte buffers, and strings can be formatted as hex, was given {type_name}"
            );
        }
        Clause::Octal => ("octal", "integers"),
    };
    format!("{name} clause can only be used on {only}, was given {type_name}")
}

/// Formats a list of arguments.
pub(super) fn format<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::String(format), Value::List(values)] = args else { return Err(Failure::overload()) };
    let mut text = String::new();
    let mut fatal = None;
    let result = each_part(format, values.len(), &mut |part, index| {
        let before = text.len();
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Clause(clause) => match values.get(index) {
                Some(Ok(value)) => text.push_str(&apply(clause, &value)?),
                Some(Err(failure)) => return Err(failure.to_string()),
                None => return Err(format!("index {index} out of range")),
            },
        }
        if let Err(failure) = context.allocate(text.len() - before) {
            fatal = Some(failure);
            return Err(String::new());
        }
        Ok(())
    });
    match (result, fatal) {
        (_, Some(failure)) => Err(failure),
        (Err(message), None) => Err(Failure::new(message)),
        (Ok(_), None) => Ok(Value::text(text)),
    }
}

fn apply(clause: Clause, value: &Value<'_>) -> Result<String, String> {
    let wrong = || Err(clause_error(clause, value.type_name()));
    match (clause, value) {
        (Clause::String, _) => string_clause(value),
        (Clause::Decimal, Value::Int(it)) => Ok(it.to_string()),
        (Clause::Decimal, Value::Uint(it)) => Ok(it.to_string()),
        (Clause::Fixed(precision), _) => match number(value) {
            Some(it) => Ok(fixed(it, precision.unwrap_or(DEFAULT_PRECISION))),
            None => wrong(),
        },
        (Clause::Scientific(width), _) => match number(value) {
            Some(it) => Ok(scientific(it, width.unwrap_or(DEFAULT_PRECISION))),
            None => wrong(),
        },
        (Clause::Binary, Value::Bool(it)) => Ok(u8::from(*it).to_string()),
        (Clause::Binary, Value::Int(it)) => Ok(signed(*it, |it| format!("{it:b}"))),
        (Clause::Binary, Value::Uint(it)) => Ok(format!("{it:b}")),
        (Clause::Octal, Value::Int(it)) => Ok(signed(*it, |it| format!("{it:o}"))),
        (Clause::Octal, Value::Uint(it)) => Ok(format!("{it:o}")),
        (Clause::Hex { upper }, _) => {
            let text = match value {
                Value::Int(it) => signed(*it, |it| format!("{it:x}")),
                Value::Uint(it) => format!("{it:x}"),
                Value::String(text) => hex(text.as_bytes()),
                Value::Bytes(bytes) => hex(bytes),
                _ => return wrong(),
            };
            Ok(if upper { text.to_uppercase() } else { text })
        }
        _ => wrong(),
    }
}

fn signed(value: i64, show: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", show(value.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(it) => Some(*it),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Formats with a fixed number of decimals and grouped thousands, as the locale en_US does.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = not_finite(value) {
        return text;
    }
    let text = format!("{:.*}", precision.min(MAX_PRECISION), value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

fn not_finite(value: f64) -> Option<String> {
    match value {
        it if it.is_nan() => Some("NaN".to_owned()),
        f64::INFINITY => Some("∞".to_owned()),
        f64::NEG_INFINITY => Some("-∞".to_owned()),
        _ => None,
    }
}

/// Formats with six decimals and a power of ten in superscript digits, as the locale en_US does. As in cel-go, the
/// precision of the clause is the width.
fn scientific(value: f64, width: usize) -> String {
    let text = not_finite(value).unwrap_or_else(|| scientific_digits(value));
    let missing = width.min(MAX_PRECISION).saturating_sub(text.chars().count());
    format!("{}{text}", " ".repeat(missing))
}

fn scientific_digits(value: f64) -> String {
    let text = format!("{value:.DEFAULT_PRECISION$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { "⁻" } else { "" };
    let digits = format!("{:02}", exponent.abs());
    let raised: String =
        digits.chars().filter_map(|it| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(it.to_digit(10)? as usize)).collect();
    format!("{mantissa}×10{sign}{raised}")
}

fn string_clause(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(
                "could not convert argument \"invalid UTF-8 in bytes, cannot convert to string\" to string"
                    .to_owned(),
            ),
        },
        Value::List(_) | Value::Map(_) => nested(value),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Duration(_)
        | Value::Timestamp(_)
        | Value::Type(_) => Ok(plain(value)),
        other => Err(clause_error(Clause::String, other.type_name())),
    }
}

/// Formats a value within a list or a map.
fn nested(value: &Value<'_>) -> Result<String, String> {
    Ok(match value {
        Value::String(text) => go_quote(text),
        Value::Bytes(_) => format!("b{}", go_quote(&string_clause(value)?)),
        Value::Double(it) if it.is_finite() => format!("{it:.DEFAULT_PRECISION$}"),
        Value::Double(it) => go_quote(&display_double(*it)),
        Value::Duration(_) => format!("duration({})", go_quote(&plain(value))),
        Value::Timestamp(_) => format!("timestamp({})", go_quote(&plain(value))),
        Value::List(list) => {
            let mut items = Vec::with_capacity(list.len());
            for item in list.iter() {
                items.push(nested(&item.map_err(|failure| failure.to_string())?)?);
            }
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map.entries().map_err(|failure| failure.to_string())? {
                let key = match &key {
                    Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_) => nested(&key)?,
                    other => {
                        let name = other.type_name();
                        return Err(format!("no formatting function for map key of type {name}"));
                    }
                };
                entries.push((key, nested(&value)?));
            }
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Type(_) => {
            string_clause(value)?
        }
        other => return Err(format!("no formatting function for {}", other.type_name())),
    })
}

/// Quotes a string as Go's `%q` does.
pub(crate) fn go_quote(text: &str) -> String {
    GoQuoted(text).to_string()
}
