//! Indentation of JSON text.

/// Indents a JSON document by two spaces per level, as Go's `json.Indent`. Keeps the order and the text of all values.
/// The text must be JSON.
pub fn indented(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                out.push(byte);
                while let Some(byte) = rest.next() {
                    out.push(byte);
                    match byte {
                        b'"' => break,
                        b'\\' => out.extend(rest.next()),
                        _ => {}
                    }
                }
            }
            b'{' | b'[' => {
                out.push(byte);
                while rest.next_if(u8::is_ascii_whitespace).is_some() {}
                if let Some(end) = rest.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(depth, &mut out);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, &mut out);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(depth, &mut out);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out
}

fn new_line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.extend(std::iter::repeat_n(b' ', 2 * depth));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_indented_as_by_the_encoder() {
        for value in [
            json!({"b": [1, 2.5, null, true, "a\"\\,:{}[]\u{e9}\n"], "a": {}, "c": [], "d": {"e": [{}, {"f": [[]]}]}}),
            json!([]),
            json!("x"),
            json!(-1),
        ] {
            let wanted = serde_json::to_vec_pretty(&value).unwrap();
            for text in [serde_json::to_vec(&value).unwrap(), wanted.clone()] {
                assert_eq!(indented(&text), wanted);
            }
        }
        assert_eq!(indented(br#"{ "z":1, "a":[ ] }"#), b"{\n  \"z\": 1,\n  \"a\": []\n}");
        // Other text is not JSON, but ends.
        assert_eq!(indented(b"\"a"), b"\"a");
        assert_eq!(indented(b"]}"), b"\n]\n}");
    }
}
