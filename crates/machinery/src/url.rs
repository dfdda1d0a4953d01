//! URLs as read by Go's `net/url`.

/// Splits off the scheme, which is empty if absent. Returns `None` for a text that begins with a colon.
pub fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    match text.split_once(':') {
        Some(("", _)) => None,
        Some((scheme, rest))
            if scheme.bytes().all(is_part)
                && scheme.starts_with(|first: char| first.is_ascii_alphabetic()) =>
        {
            Some((scheme, rest))
        }
        _ => Some(("", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_off_valid_schemes_only() {
        for (text, expected) in [
            ("https://host", Some(("https", "//host"))),
            ("a+b-c.d:x", Some(("a+b-c.d", "x"))),
            ("1a:x", Some(("", "1a:x"))),
            ("a b:x", Some(("", "a b:x"))),
            ("/path", Some(("", "/path"))),
            (":x", None),
        ] {
            assert_eq!(split_scheme(text), expected, "{text}");
        }
    }
}
