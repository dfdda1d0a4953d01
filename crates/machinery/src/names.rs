//! Rules for names, labels, annotations and metadata (upstream: `apimachinery/pkg/util/validation` and
//! `apimachinery/pkg/api/validation`).
//!
//! Each check returns one message per violated rule, so a valid text has no messages.

mod field_manager;
mod metadata;

use crate::field::{FieldError, FieldPath};
use rand::Rng;

pub use field_manager::{FIELD_MANAGER_MAX, is_printable, validate_field_manager};
pub use metadata::{
    validate_annotations, validate_labels, validate_object_meta, validate_object_meta_update,
    validate_qualified_finalizers,
};

/// Maximum length of a DNS label.
pub const LABEL_MAX: usize = 63;
/// Maximum length of a DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// Length of the random suffix for `generateName`.
const RANDOM_SUFFIX: usize = 5;
/// Letters and digits of the random suffix, without vowels so that it contains no words.
const RANDOM_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const NO_DOTS_MESSAGE: &str = "must not contain dots";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_MESSAGE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_MESSAGE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_MESSAGE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const EMPTY_MESSAGE: &str = "must be non-empty";

/// Checks a DNS label (RFC 1123).
pub fn is_dns1123_label(text: &str) -> Vec<String> {
    let mut found = too_long(text, LABEL_MAX, "characters");
    if !is_lower_label(text) {
        found.push(if is_lower_subdomain(text) { NO_DOTS_MESSAGE } else { LABEL_MESSAGE }.to_owned());
    }
    found
}

/// Checks a DNS subdomain (RFC 1123).
pub fn is_dns1123_subdomain(text: &str) -> Vec<String> {
    subdomain(text, "characters")
}

/// Checks a DNS subdomain. `unit` is that of the maximum in the message: upstream has two copies of this check.
fn subdomain(text: &str, unit: &str) -> Vec<String> {
    let mut found = too_long(text, SUBDOMAIN_MAX, unit);
    if !is_lower_subdomain(text) {
        found.push(SUBDOMAIN_MESSAGE.to_owned());
    }
    found
}

/// Checks a DNS label that starts with a letter (RFC 1035).
pub fn is_dns1035_label(text: &str) -> Vec<String> {
    let mut found = too_long(text, LABEL_MAX, "characters");
    if !is_lower_label(text) || text.starts_with(|c: char| c.is_ascii_digit()) {
        found.push(LABEL_1035_MESSAGE.to_owned());
    }
    found
}

/// Checks a label key, annotation key or finalizer: a name with an optional DNS prefix and a slash.
pub fn is_qualified_name(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {QUALIFIED_MESSAGE} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            found.push(format!("prefix part {EMPTY_MESSAGE}"));
            name
        }
        Some((prefix, name)) => {
            let wrong = subdomain(prefix, "bytes");
            found.extend(wrong.into_iter().map(|why| format!("prefix part {why}")));
            name
        }
    };
    if name.is_empty() {
        found.push(format!("name part {EMPTY_MESSAGE}"));
    } else if name.len() > LABEL_MAX {
        found.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_qualified_part(name) {
        found.push(format!("name part {QUALIFIED_MESSAGE}"));
    }
    found
}

/// Checks a label value, which may be empty.
pub fn is_valid_label_value(text: &str) -> Vec<String> {
    let mut found = too_long(text, LABEL_MAX, "bytes");
    if !text.is_empty() && !is_qualified_part(text) {
        found.push(LABEL_VALUE_MESSAGE.to_owned());
    }
    found
}

/// Checks a key of a config map or secret, which is used as a file name.
pub fn is_config_map_key(text: &str) -> Vec<String> {
    let mut found = too_long(text, SUBDOMAIN_MAX, "characters");
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        found.push(CONFIG_KEY_MESSAGE.to_owned());
    }
    match text {
        "." => found.push("must not be '.'".to_owned()),
        ".." => found.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => found.push("must not start with '..'".to_owned()),
        _ => {}
    }
    found
}

/// Checks a name that is used as one segment of a path.
pub fn is_path_segment_name(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => [b'/', b'%']
            .into_iter()
            .filter(|byte| text.as_bytes().contains(byte))
            .map(|byte| format!("may not contain '{}'", char::from(byte)))
            .collect(),
    }
}

/// Checks a path with a domain before its first slash, such as `acme.io/foo` (upstream: `IsDomainPrefixedPath`).
pub fn validate_domain_prefixed_path(text: &str, at: &FieldPath) -> Vec<FieldError> {
    if text.is_empty() {
        return vec![FieldError::required(at, "")];
    }
    let (domain, path) = text.split_once('/').unwrap_or_default();
    if domain.is_empty() || path.is_empty() {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![FieldError::invalid(at, text, why)];
    }
    let wrong = is_dns1123_subdomain(domain).into_iter().map(|why| FieldError::invalid(at, domain, why));
    let mut errors: Vec<FieldError> = wrong.collect();
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
        let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(at, path, why));
    }
    errors
}

/// Returns a name for `generateName`: the base, truncated if too long, and five random characters.
pub fn generate_name(base: &str) -> String {
    let mut end = base.len().min(LABEL_MAX - RANDOM_SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut random = rand::rng();
    let suffix = (0..RANDOM_SUFFIX)
        .map(|_| char::from(RANDOM_ALPHABET[random.random_range(0..RANDOM_ALPHABET.len())]));
    base[..end].chars().chain(suffix).collect()
}

fn too_long(text: &str, max: usize, unit: &str) -> Vec<String> {
    if text.len() > max { vec![format!("must be no more than {max} {unit}")] } else { Vec::new() }
}

fn is_lower_subdomain(text: &str) -> bool {
    text.as_bytes().split(|b| *b == b'.').all(has_lower_label_form)
}

fn is_lower_label(text: &str) -> bool {
    has_lower_label_form(text.as_bytes())
}

fn has_lower_label_form(bytes: &[u8]) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    has_form(bytes, alphanumeric, |b| alphanumeric(b) || b == b'-')
}

fn is_qualified_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    has_form(text.as_bytes(), |b| b.is_ascii_alphanumeric(), inner)
}

/// Returns whether the first and last byte satisfy `edge` and the bytes between them `inner`.
fn has_form(bytes: &[u8], edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match bytes {
        [] => false,
        [only] => edge(*only),
        [first, between @ .., last] => edge(*first) && edge(*last) && between.iter().all(|b| inner(*b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_labels_and_subdomains() {
        for good in ["a", "a-b", "0a", "a9"] {
            assert!(is_dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é"] {
            assert_eq!(is_dns1123_label(bad).len(), 1, "{bad}");
        }
        assert!(is_dns1123_subdomain("a.b-c.d").is_empty());
        for bad in ["", "a..b", ".a", "a.", "a.-b"] {
            assert_eq!(is_dns1123_subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(is_dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(is_dns1123_label("a.b"), [NO_DOTS_MESSAGE]);
        assert_eq!(is_dns1123_label("a..b"), [LABEL_MESSAGE]);
        assert!(is_dns1035_label("a0").is_empty());
        assert_eq!(is_dns1035_label("0a").len(), 1);
    }

    #[test]
    fn checks_qualified_names_and_label_values() {
        for good in ["a", "A_b.c", "example.com/Name", "a/b"] {
            assert!(is_qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Example.com/a", "-a", "a b"] {
            assert!(!is_qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(is_valid_label_value("").is_empty());
        assert!(!is_valid_label_value("a b").is_empty());
    }

    #[test]
    fn checks_config_keys() {
        assert!(is_config_map_key("tls.crt").is_empty());
        for bad in ["", ".", "..", "..a", "a b", "a/b"] {
            assert!(!is_config_map_key(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn rejects_dots_and_slashes_in_path_segments() {
        assert!(is_path_segment_name("system:node:a").is_empty());
        for bad in [".", "..", "a/b", "a%2fb"] {
            assert!(!is_path_segment_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn generated_names_fit_into_a_label() {
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generate_name(&"a".repeat(100)).len(), LABEL_MAX);
        assert!(generate_name(&"é".repeat(40)).len() <= LABEL_MAX);
    }
}
