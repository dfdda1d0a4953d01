//! Splits a JSON document into the bytes of its values, without building them: a response may be large.

use serde::de::IgnoredAny;

/// Returns the fields of an object, in order, with the bytes of their values. Of duplicate fields, the last one counts.
pub(super) fn fields(document: &[u8]) -> Result<Vec<(String, &[u8])>, String> {
    let mut fields = Vec::new();
    let mut rest = opened(document, b'{', b'}')?;
    while let Some(place) = rest {
        let (name, after) = value(place)?;
        let name: String = serde_json::from_slice(name).map_err(|error| error.to_string())?;
        let after = after.trim_ascii_start().strip_prefix(b":").ok_or("expected ':'")?;
        let (bytes, after) = value(after)?;
        fields.push((name, bytes));
        rest = next(after, b'}')?;
    }
    Ok(fields)
}

/// Returns the bytes of the elements of an array; an empty list for `null`.
pub(super) fn elements(document: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut elements = Vec::new();
    if document.trim_ascii() == b"null" {
        return Ok(elements);
    }
    let mut rest = opened(document, b'[', b']')?;
    while let Some(place) = rest {
        let (bytes, after) = value(place)?;
        elements.push(bytes);
        rest = next(after, b']')?;
    }
    Ok(elements)
}

/// Returns the text after an opening bracket; `None` if the closing bracket follows.
fn opened(document: &[u8], open: u8, close: u8) -> Result<Option<&[u8]>, String> {
    let wrong = || format!("expected '{}'", char::from(open));
    let inner = document.trim_ascii_start().strip_prefix(&[open]).ok_or_else(wrong)?;
    Ok(if inner.trim_ascii_start().first() == Some(&close) { None } else { Some(inner) })
}

/// Returns the text after a comma; `None` at the closing bracket.
fn next(after: &[u8], close: u8) -> Result<Option<&[u8]>, String> {
    match after.trim_ascii_start().split_first() {
        Some((b',', rest)) => Ok(Some(rest)),
        Some((end, _)) if *end == close => Ok(None),
        _ => Err(format!("expected ',' or '{}'", char::from(close))),
    }
}

/// Splits off the first value.
fn value(text: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let text = text.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(text.split_at(values.byte_offset())),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("unexpected end of JSON input".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn splits_objects_and_arrays() {
        let document = br#" { "a" : [1, {"b": "}"}] , "c\n":null, "d":"x" } "#;
        let fields = fields(document).unwrap();
        let shown: Vec<_> = fields.iter().map(|(name, bytes)| (name.as_str(), text(bytes))).collect();
        assert_eq!(shown, [("a", r#"[1, {"b": "}"}]"#), ("c\n", "null"), ("d", "\"x\"")]);
        let shown: Vec<_> = elements(fields[0].1).unwrap().into_iter().map(text).collect();
        assert_eq!(shown, ["1", r#"{"b": "}"}"#]);
        assert!(elements(b" [ ] ").unwrap().is_empty() && elements(b"null").unwrap().is_empty());
        assert!(super::fields(b"{}").unwrap().is_empty());
    }

    #[test]
    fn refuses_malformed_documents() {
        for document in
            ["", "[", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1", "{\"a\":1 \"b\":2}", "{1:2}", "null", "x"]
        {
            assert!(fields(document.as_bytes()).is_err(), "{document}");
        }
        for document in ["", "[", "[1", "[1 2]", "[,]", "{}", "[1,]"] {
            assert!(elements(document.as_bytes()).is_err(), "{document}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(elements(deep.as_bytes()).is_err());
    }
}
