//! Warnings in the head of a response (RFC 9110's `Warning`; upstream: `filters/warning.go`).

use http::{HeaderMap, HeaderValue, header};
use nave_machinery::limits;

/// Adds warnings for the client.
pub(crate) fn add(headers: &mut HeaderMap, warnings: Vec<String>) {
    for warning in shortened(warnings) {
        if let Ok(value) = HeaderValue::try_from(format!("299 - {}", quoted(&warning))) {
            headers.append(header::WARNING, value);
        }
    }
}

/// Warnings that fit into the head of a response: where they are too long together, each is cut, and those that are too
/// many are left out (upstream: `warning.recorder`).
fn shortened(warnings: Vec<String>) -> impl Iterator<Item = String> {
    let all: usize = warnings.iter().map(String::len).sum();
    let longest = if all > MAX_WARNINGS_BYTES { MAX_WARNING_BYTES } else { MAX_WARNINGS_BYTES };
    let mut written = 0;
    warnings.into_iter().map(move |warning| limits::clip(warning, longest)).take_while(move |warning| {
        written += warning.len();
        written <= MAX_WARNINGS_BYTES
    })
}

/// A warning's text as a quoted string of HTTP.
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

/// The longest warnings of one response, together.
const MAX_WARNINGS_BYTES: usize = 4 * 1024;

/// How much of each is shown where all are longer.
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
    fn warnings_fit_into_the_head_of_a_response() {
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
