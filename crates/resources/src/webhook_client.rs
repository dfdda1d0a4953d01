//! Validation of the URL or service of a webhook (upstream: `apiserver/pkg/util/webhook`).

use nave_machinery::url::split_scheme;
use nave_machinery::{FieldError, Value, names};

use crate::validate::{At, Errors, required_text};

const URL_FORM: &str = "desired format: https://host[/path]";

/// Checks the URL of a webhook: HTTPS with a host, without user information, query or fragment.
pub(crate) fn webhook_url(at: At, errors: &mut Errors) {
    let Some(url) = Url::parse(at.text()) else {
        errors.push(at.required(format!("url must be a valid URL; {URL_FORM}")));
        return;
    };
    let mut wrong = |shown: &str, why: &str| errors.push(FieldError::invalid(&at.path(), shown, why));
    if !url.scheme.eq_ignore_ascii_case("https") {
        wrong(url.scheme, &format!("'https' is the only allowed URL scheme; {URL_FORM}"));
    }
    if url.host.is_empty() {
        wrong(url.host, &format!("host must be specified; {URL_FORM}"));
    }
    if let Some(user) = url.user {
        wrong(user, "user information is not permitted in the URL");
    }
    if !url.fragment.is_empty() {
        wrong(url.fragment, "fragments are not permitted in the URL");
    }
    if !url.query.is_empty() {
        wrong(url.query, "query parameters are not permitted in the URL");
    }
}

/// The parts of a URL, split like Go's `net/url`.
struct Url<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    /// Parses a URL; `None` if the text is not a valid URL.
    fn parse(text: &'a str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self { scheme, user: None, host: "", query, fragment };
        let authority = rest.strip_prefix("//").filter(|it| !scheme.is_empty() || !it.starts_with('/'));
        let path = if let Some(authority) = authority {
            let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
            (url.user, url.host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(user), host),
                None => (None, authority),
            };
            path
        } else {
            // A URL without a scheme must not have a colon in the first segment, where it would end a scheme.
            let first = rest.split('/').next().unwrap_or_default();
            if scheme.is_empty() && first.contains(':') {
                return None;
            }
            // After a scheme, text that does not begin with a slash is ignored.
            if rest.starts_with('/') || scheme.is_empty() { rest } else { "" }
        };
        let is_sound =
            is_host(url.host) && [path, fragment, url.user.unwrap_or("")].into_iter().all(is_escaped);
        is_sound.then_some(url)
    }
}

/// Returns whether a text is a host with an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let Some((literal, port)) = literal.rsplit_once(']') else { return false };
            (literal, port)
        }
        None => text.split_at(text.rfind(':').unwrap_or(text.len())),
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let is_odd = |byte: u8| byte == b' ' || b"\\^`{|}%".contains(&byte);
    is_port && !host.bytes().any(is_odd)
}

/// Returns whether each percent sign starts a valid escape.
fn is_escaped(text: &str) -> bool {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit));
    text.split('%').skip(1).all(is_escape)
}

/// Checks the service of a webhook. Upstream swaps its name and namespace, so errors have the path of the other field.
pub(crate) fn swapped_webhook_service(service: At, errors: &mut Errors) {
    let mut swapped = service.map().cloned().unwrap_or_default();
    let (name, namespace) = (swapped.remove("name"), swapped.remove("namespace"));
    swapped.extend(name.map(|name| ("namespace".to_owned(), name)));
    swapped.extend(namespace.map(|namespace| ("name".to_owned(), namespace)));
    webhook_service(service.with(Some(&Value::Object(swapped))), errors);
}

/// Checks that the service of a webhook has a name, a namespace, and a valid port and path.
fn webhook_service(service: At, errors: &mut Errors) {
    named_service(service, errors);
    let path = service.field("path");
    if !path.is_set() {
        return;
    }
    match path.text() {
        "" | "/" => {}
        "//" => errors.push(path.invalid("segment[0] may not be empty")),
        text => {
            if !text.starts_with('/') {
                errors.push(path.invalid("must start with a '/'"));
            }
            segments(path, text, errors);
        }
    }
}

/// Checks that each segment of the path is a domain name. The first character of the path is not checked.
fn segments(path: At, text: &str, errors: &mut Errors) {
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            errors.push(path.invalid(format!("segment[{index}] may not be empty")));
            continue;
        }
        let wrong = names::is_dns1123_subdomain(segment);
        errors.extend(wrong.into_iter().map(|why| path.invalid(format!("segment[{index}]: {why}"))));
    }
}

/// Checks a service reference: namespace, name and port.
pub(crate) fn named_service(service: At, errors: &mut Errors) {
    required_text(service.field("name"), errors);
    required_text(service.field("namespace"), errors);
    let port = service.field("port");
    if port.int().is_some_and(|number| !(1..=65535).contains(&number)) {
        errors.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn url_is_https_without_credentials_and_query() {
        for (url, wrong) in [
            ("https://a.example/x", 0),
            ("https://127.0.0.1:9", 0),
            ("nonsense", 2),
            ("", 2),
            ("a:b", 2),
            ("1:b", 1),
            ("https://a b/", 1),
            ("https://a:b/", 1),
            ("https://[::1]:8/%41", 0),
            ("https://a/%4", 1),
            ("HTTPS://a", 0),
            ("http://a", 1),
            ("https:///x", 1),
            ("https://u:p@a/x", 1),
            ("https://a/x?y#z", 2),
        ] {
            let object = json!({"url": url});
            let root = At::root(&object);
            let mut errors = Errors::new();
            webhook_url(root.field("url"), &mut errors);
            assert_eq!(errors.len(), wrong, "{url}: {errors:?}");
        }
    }

    #[test]
    fn service_has_name_and_valid_path() {
        let object = json!({"service": {"name": "s", "port": 0, "path": "/a//b"}});
        let root = At::root(&object);
        let mut errors = Errors::new();
        webhook_service(root.field("service"), &mut errors);
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "service.namespace: Required value",
                "service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                r#"service.path: Invalid value: "/a//b": segment[1] may not be empty"#,
            ]
        );
    }
}
