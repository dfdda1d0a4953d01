//! The compact form of values, written directly. This takes a third of the time of serde's serializer, because most
//! strings have no escapes and are scanned eight bytes at a time.

use nave_machinery::Value;
use serde_json::Number;

use super::write_double;

/// Appends the compact form of `value` to `out`.
pub fn encode_value_into(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => encode_text_into(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                encode_value_into(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                encode_text_into(name, out);
                out.push(b':');
                encode_value_into(value, out);
            }
            out.push(b'}');
        }
    }
}

/// Appends a string with its quotes to `out`.
pub fn encode_text_into(text: &str, out: &mut Vec<u8>) {
    // Also has room for a colon or comma.
    out.reserve(text.len() + 3);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        write_escape(*byte, out);
        rest = after;
    }
    out.push(b'"');
}

/// Returns the number of bytes before the first one that JSON strings escape: a quote, a backslash or a control
/// character.
pub(super) fn plain_len(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<WORD>();
    for (at, word) in words.iter().enumerate() {
        if let Some(place) = first_special(*word) {
            return at * WORD + place;
        }
    }
    if rest.is_empty() {
        return text.len();
    }
    match text.last_chunk::<WORD>() {
        // The word overlaps bytes that are known to be plain.
        Some(word) => first_special(*word).map_or(text.len(), |place| text.len() - WORD + place),
        None => text.iter().position(|byte| is_special(*byte)).unwrap_or(text.len()),
    }
}

const WORD: usize = size_of::<u64>();
const ONES: u64 = u64::from_ne_bytes([1; WORD]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; WORD]);

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Returns the place of the first special byte of a word. A borrow of the subtractions reaches only the bytes after a
/// special one.
fn first_special(word: [u8; WORD]) -> Option<usize> {
    let word = u64::from_le_bytes(word);
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let special = (below(word, b' ') | equal(b'"') | equal(b'\\')) & HIGH_BITS;
    (special != 0).then(|| special.trailing_zeros() as usize / 8)
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        8 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        12 => b'f',
        b'\r' => b'r',
        _ => {
            let digit = |value: u8| char::from_digit(u32::from(value), 16).map_or(b'0', |digit| digit as u8);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(integer) = number.as_i64() {
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
    } else if let Some(integer) = number.as_u64() {
        out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
    } else {
        // Writing into a `Vec` cannot fail.
        let written = write_double(out, number.as_f64().unwrap_or_default());
        debug_assert!(written.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::encode;
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        encode_value_into(value, &mut out);
        out
    }

    /// Strings with special bytes at all places of words.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,20}", "[a-z\"\\\\\u{0}-\u{20}\u{7f}\u{80}é€𝄞]{0,40}"]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text(), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_are_written_as_by_the_serializer(value in value()) {
            prop_assert_eq!(written(&value), encode(&value));
        }
    }

    #[test]
    fn special_bytes_are_found_at_each_place() {
        for byte in 0..=u8::MAX {
            for len in 1..40 {
                for place in 0..len {
                    let mut text = vec![b'a'; len];
                    text[place] = byte;
                    let wanted = if is_special(byte) { place } else { len };
                    assert_eq!(plain_len(&text), wanted, "{byte} at {place} of {len}");
                }
            }
        }
        assert_eq!(plain_len(b""), 0);
    }

    #[test]
    fn all_control_characters_are_escaped() {
        let text: String = (0..=0x80).filter_map(char::from_u32).collect();
        assert_eq!(written(&json!(text)), encode(&json!(text)));
        assert_eq!(
            written(&json!([1, -1, u64::MAX, 1.5, 1e21, -0.0])),
            b"[1,-1,18446744073709551615,1.5,1e+21,0]"
        );
    }
}
