//! Finds the parts of a JSON text without building a tree or recursing. Checks only the structure: invalid JSON in a
//! part is detected when the part is decoded.

use std::ops::Range;

/// Iterates over the members of the object at the start of `text`. Each item is the range of the key (without quotes)
/// and the range of the value. Ends early if the text is not JSON; see [`Members::is_complete`].
pub fn members(text: &[u8]) -> Members<'_> {
    let at = skip_space(text, 0);
    let state = if text.get(at) == Some(&b'{') { State::First } else { State::Broken };
    Members(Walk { text, at: at + 1, state })
}

/// Iterates over the elements of the array at the start of `text`.
pub fn elements(text: &[u8]) -> Elements<'_> {
    let at = skip_space(text, 0);
    let state = if text.get(at) == Some(&b'[') { State::First } else { State::Broken };
    Elements(Walk { text, at: at + 1, state })
}

/// Returns the range of the value of member `key` of the object in `text`. Stops at the member, so reading a member
/// near the start is cheap.
pub fn member(text: &[u8], key: &str) -> Option<Range<usize>> {
    members(text).find(|(name, _)| &text[name.clone()] == key.as_bytes()).map(|(_, value)| value)
}

/// Iterator returned by [`members`].
pub struct Members<'a>(Walk<'a>);

/// Iterator returned by [`elements`].
pub struct Elements<'a>(Walk<'a>);

impl Members<'_> {
    /// Returns whether the object was read to its end.
    pub fn is_complete(&self) -> bool {
        self.0.state == State::Ended
    }
}

impl Elements<'_> {
    /// Returns whether the array was read to its end.
    pub fn is_complete(&self) -> bool {
        self.0.state == State::Ended
    }
}

impl Iterator for Members<'_> {
    type Item = (Range<usize>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.0.separator(b'}')?.then(|| self.0.member()).flatten();
        self.0.breaks_unless(found)
    }
}

impl Iterator for Elements<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.0.separator(b']')?.then(|| self.0.value()).flatten();
        self.0.breaks_unless(found)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    Next,
    Ended,
    Broken,
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    state: State,
}

impl Walk<'_> {
    /// Skips the separator before the next part. Returns `Some(true)` if a part follows, `Some(false)` if the separator
    /// is missing, and `None` at the end or after an error.
    fn separator(&mut self, close: u8) -> Option<bool> {
        if matches!(self.state, State::Ended | State::Broken) {
            return None;
        }
        self.at = skip_space(self.text, self.at);
        match (self.text.get(self.at), self.state) {
            (Some(&byte), _) if byte == close => {
                self.state = State::Ended;
                None
            }
            (Some(_), State::First) => Some(true),
            (Some(b','), _) => {
                self.at = skip_space(self.text, self.at + 1);
                Some(true)
            }
            _ => Some(false),
        }
    }

    fn member(&mut self) -> Option<(Range<usize>, Range<usize>)> {
        let key = self.value().filter(|key| self.text[key.start] == b'"')?;
        self.at = skip_space(self.text, self.at);
        if self.text.get(self.at) != Some(&b':') {
            return None;
        }
        self.at = skip_space(self.text, self.at + 1);
        Some((key.start + 1..key.end - 1, self.value()?))
    }

    fn value(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.at = value_end(self.text, start)?;
        Some(start..self.at)
    }

    fn breaks_unless<T>(&mut self, found: Option<T>) -> Option<T> {
        self.state = if found.is_some() { State::Next } else { State::Broken };
        found
    }
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// Returns the end of the value that starts at `at`.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => nested_end(text, at),
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
            let length = text[at..].iter().position(ends).unwrap_or(text.len() - at);
            Some(at + length).filter(|_| length > 0)
        }
    }
}

fn string_end(text: &[u8], quote: usize) -> Option<usize> {
    let mut at = quote + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

fn nested_end(text: &[u8], open: usize) -> Option<usize> {
    let (mut at, mut depth) = (open, 0_usize);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = string_end(text, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(&str, &str)> {
        members(text.as_bytes()).map(|(key, value)| (&text[key], &text[value])).collect()
    }

    #[test]
    fn finds_members_with_any_spacing() {
        let text = " {\n\"a\" : [1, {\"b\":\"}\"}] ,\"c\":\"x\\\"y\",\"d\":-1.5e3,\"e\":{} } tail";
        assert_eq!(
            parts(text),
            [("a", r#"[1, {"b":"}"}]"#), ("c", r#""x\"y""#), ("d", "-1.5e3"), ("e", "{}")]
        );
        assert_eq!(parts("{}"), []);
        assert_eq!(member(br#"{"x":1,"y":2}"#, "y"), Some(11..12));
    }

    #[test]
    fn finds_elements_in_order() {
        let text = br#"[{"a":1}, "b" ,[],null]"#;
        let mut walk = elements(text);
        let found: Vec<_> = walk.by_ref().map(|range| &text[range]).collect();
        assert_eq!(found, [&br#"{"a":1}"#[..], br#""b""#, b"[]", b"null"]);
        assert!(walk.is_complete());
    }

    #[test]
    fn invalid_json_is_not_complete() {
        for text in
            ["", "7", "{", r#"{"a"}"#, r#"{"a":1"#, r#"{"a":1 "b":2}"#, "{a:1}", r#"{"a":"x\"#, "{1:2}"]
        {
            let mut walk = members(text.as_bytes());
            walk.by_ref().for_each(drop);
            assert!(!walk.is_complete(), "{text}");
        }
        for text in ["[", "[1", "[1 2]", "[[}", r#"["x"#] {
            let mut walk = elements(text.as_bytes());
            walk.by_ref().for_each(drop);
            assert!(!walk.is_complete(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn scanning_never_panics(text: Vec<u8>) {
            members(&text).for_each(drop);
            elements(&text).for_each(drop);
        }

        #[test]
        fn brackets_in_any_order_do_not_panic(text in r#"[\[\]{}",:\\a ]{0,40}"#) {
            members(text.as_bytes()).for_each(drop);
            elements(text.as_bytes()).for_each(drop);
        }
    }
}
