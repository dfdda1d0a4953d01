//! Encodes a value in block style.

use nave_machinery::Value;

use super::resolve::resolve;
use crate::json;

/// Encodes `value` as a block style document with sorted keys.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write(value, 0, Position::Document, &mut out);
    out
}

/// The position of a value in its parent.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    Document,
    Field,
    Item,
}

fn write(value: &Value, indent: usize, position: Position, out: &mut Vec<u8>) {
    if indent > MAX_INDENT {
        if position != Position::Document {
            out.push(b' ');
        }
        flow(value, out);
        out.push(b'\n');
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            if position == Position::Field {
                out.push(b'\n');
            }
            for (at, (name, value)) in fields.iter().enumerate() {
                // The first field of a list item is on the line of the dash.
                if at > 0 || position != Position::Item {
                    pad(indent, out);
                }
                key(name, indent, out);
                out.push(b':');
                // A list is not indented relative to its field.
                let deeper = if value.is_array() { indent } else { indent + 2 };
                write(value, deeper, Position::Field, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            if position == Position::Field {
                out.push(b'\n');
            }
            for (at, item) in items.iter().enumerate() {
                if at > 0 || position != Position::Item {
                    pad(indent, out);
                }
                out.push(b'-');
                let holds_values = matches!(item, Value::Object(fields) if !fields.is_empty())
                    || matches!(item, Value::Array(items) if !items.is_empty());
                if holds_values && indent + 2 <= MAX_INDENT {
                    out.push(b' ');
                }
                write(item, indent + 2, Position::Item, out);
            }
        }
        leaf => {
            if position != Position::Document {
                out.push(b' ');
            }
            match leaf {
                Value::String(value) if is_block(value) => block(value, indent.max(2), out),
                Value::String(value) => text(value, out),
                _ => json::encode_into(leaf, out),
            }
            out.push(b'\n');
        }
    }
}

/// Maximum indentation. Deeper values are written in flow style, because indentation would multiply the size of small
/// values.
pub(super) const MAX_INDENT: usize = 60;

/// Writes a value on one line, as JSON with long names marked as keys.
fn flow(value: &Value, out: &mut Vec<u8>) {
    let separate = |at: usize, out: &mut Vec<u8>| {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
    };
    match value {
        Value::Object(fields) => {
            out.push(b'{');
            for (at, (name, value)) in fields.iter().enumerate() {
                separate(at, out);
                let start = out.len();
                quoted(name, out);
                if out.len() - start > SIMPLE_KEY_MAX {
                    out.splice(start..start, *b"? ");
                }
                out.extend_from_slice(b": ");
                flow(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                flow(item, out);
            }
            out.push(b']');
        }
        Value::String(value) => quoted(value, out),
        leaf => json::encode_into(leaf, out),
    }
}

/// Maximum length in bytes, including quotes, of a key without a mark.
const SIMPLE_KEY_MAX: usize = 1000;

/// Writes a field's name. YAML parsers accept names of more than 1024 characters only if they are marked as keys.
fn key(name: &str, indent: usize, out: &mut Vec<u8>) {
    let start = out.len();
    text(name, out);
    if out.len() - start > SIMPLE_KEY_MAX {
        out.splice(start..start, *b"? ");
        out.push(b'\n');
        pad(indent, out);
    }
}

fn pad(indent: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + indent, b' ');
}

/// Writes a string as plain text if it decodes to the same string, otherwise in quotes. Uses single quotes if only
/// punctuation requires them, as the clients' library does. Uses double quotes if plain text would have another type.
fn text(value: &str, out: &mut Vec<u8>) {
    if !means_itself(value) {
        quoted(value, out);
    } else if is_plain(value) {
        out.extend_from_slice(value.as_bytes());
    } else {
        out.push(b'\'');
        out.extend_from_slice(value.replace('\'', "''").as_bytes());
        out.push(b'\'');
    }
}

/// Writes a string in double quotes: JSON, with escapes for line breaks and for characters that YAML considers
/// unprintable.
fn quoted(value: &str, out: &mut Vec<u8>) {
    let start = out.len();
    json::encode_into(value, out);
    if !value.contains(is_unprintable) {
        return;
    }
    let plain = String::from_utf8_lossy(&out.split_off(start)).into_owned();
    for c in plain.chars() {
        if is_unprintable(c) {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

/// Returns whether a character must be escaped in double quotes, beyond JSON's escapes.
fn is_unprintable(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Returns whether any YAML parser certainly reads the plain text as this string.
fn means_itself(value: &str) -> bool {
    let starts_as_number = value.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    // Some parsers support dates and base 60 numbers.
    let of_date = |byte: u8| byte.is_ascii_digit() || b"-:.+ TtZz".contains(&byte);
    let dated = starts_as_number
        && value.bytes().all(of_date)
        && value.bytes().filter(|byte| *byte == b'-').count() >= 2;
    let sexagesimal = starts_as_number && value.contains(':');
    !value.is_empty()
        && value.chars().all(|c| c == ' ' || c.is_ascii_graphic() || !c.is_ascii() && c.is_alphanumeric())
        && !dated
        && !sexagesimal
        && resolve(value).is_some_and(|resolved| resolved.is_string())
}

/// Returns whether a string of printable characters certainly needs no quotes.
fn is_plain(value: &str) -> bool {
    let safe = |byte: u8| !byte.is_ascii() || byte.is_ascii_graphic() && !matches!(byte, b':' | b'#');
    let next_is_safe = |at: usize| value.as_bytes().get(at + 1).is_some_and(|next| safe(*next));
    let starts = value.bytes().next().is_some_and(|byte| match byte {
        b'_' | b'/' | b'(' | b'$' | b'^' | b'+' | b'=' | b'<' | b'.' | b'~' => true,
        b'-' | b'?' | b':' => next_is_safe(0),
        _ => !byte.is_ascii() || byte.is_ascii_alphanumeric(),
    });
    // Parsers of YAML 1.1 give `=` and `<<` a meaning of their own.
    let is_marker = value.starts_with("---") || value.starts_with("...") || matches!(value, "=" | "<<");
    let inner = |(at, byte): (usize, u8)| match byte {
        b':' | b' ' => next_is_safe(at),
        b'#' => at > 0 && value.as_bytes().get(at - 1).is_some_and(|before| *before != b' '),
        _ => safe(byte),
    };
    starts && !is_marker && value.len() <= 256 && value.bytes().enumerate().all(inner)
}

/// Returns whether a string is more readable as a block of lines.
fn is_block(value: &str) -> bool {
    value.trim_end_matches('\n').contains('\n')
        && !value.starts_with([' ', '\n', '\t'])
        && value.chars().all(|c| {
            c == '\n' || c == '\t' || (' '..'\u{7f}').contains(&c) || (c > '\u{a0}' && c.is_alphanumeric())
        })
}

fn block(value: &str, indent: usize, out: &mut Vec<u8>) {
    let body = value.trim_end_matches('\n');
    out.push(b'|');
    match value.len() - body.len() {
        0 => out.push(b'-'),
        1 => {}
        _ => out.push(b'+'),
    }
    for line in body.split('\n') {
        out.push(b'\n');
        if !line.is_empty() {
            pad(indent, out);
            out.extend_from_slice(line.as_bytes());
        }
    }
    for _ in body.len() + 1..value.len() {
        out.push(b'\n');
    }
}
