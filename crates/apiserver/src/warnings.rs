//! Warnings in response headers (RFC 9110's `Warning`; upstream: `filters/warning.go`).

use http::{HeaderMap, HeaderValue, header};
use nave_machinery::limits;

/// Adds warnings to the response headers.
pub(crate) fn add(headers: &mut HeaderMap, warnings: Vec<String>) {
    for warning in shortened(warnings) {
        if let Ok(value) = HeaderValue::try_from(format!("299 - {}", quoted(&warning))) {
            headers.append(header::WARNING, value);
        }
    }
}

/// Limits the total size of warnings: if it is exceeded, truncates each warning and drops the surplus ones (upstream:
/// `warning.recorder`).
fn shortened(warnings: Vec<String>) -> impl Iterator<Item = String> {
    let all: usize = warnings.iter().map(String::len).sum();
    let longest = if all > MAX_WARNINGS_BYTES { MAX_WARNING_BYTES } else { MAX_WARNINGS_BYTES };
    let mut written = 0;
    warnings.into_iter().map(move |warning| limits::clip(warning, longest)).take_while(move |warning| {
        written += warning.len();
        written <= MAX_WARNINGS_BYTES
    })
}

/// Quotes a warning as an HTTP quoted string.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => vec![' '],
            c => vec![c],
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Maximum size of the warnings of a response, in bytes.
const MAX_WARNINGS_BYTES: usize = 4 * 1024;

/// Maximum size of each warning if warnings are truncated, in bytes.
const MAX_WARNING_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(warnings: Vec<String>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        add(&mut headers, warnings);
        headers.get_all(header::WARNING).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn warnings_are_limited_in_size() {
        for (count, len) in [(1, 100), (3, 100), (1, 100_000), (200, 100), (200, 10_000)] {
            let sent = sent(vec!["x".repeat(len); count]);
            let bytes: usize = sent.iter().map(String::len).sum();
            assert!(!sent.is_empty() && bytes < 6_000, "{count} of {len}: {sent:?}");
            assert!(count * len > 4_000 || sent.len() == count, "{count} of {len}: {sent:?}");
        }
    }

    #[test]
    fn warnings_are_quoted() {
        assert_eq!(
            sent(vec![r#"a "b" \c"#.to_owned(), "d\ne".to_owned()]),
            [r#"299 - "a \"b\" \\c""#, r#"299 - "d e""#]
        );
    }
}
