//! Where a webhook is called: what its URL or its service must be (upstream: `apiserver/pkg/util/webhook`).

use nave_machinery::names;

use crate::validate::{At, Errors, required_text};

const URL_FORM: &str = "desired format: https://host[/path]";

/// The text must be a URL that a webhook can have: HTTPS, a host, and nothing that a server must not be told.
pub(crate) fn webhook_url(at: At, errors: &mut Errors) {
    let Some((scheme, rest)) = at.text().split_once("://") else {
        errors.push(at.required(format!("url must be a valid URL; {URL_FORM}")));
        return;
    };
    if scheme != "https" {
        errors.push(at.invalid(format!("'https' is the only allowed URL scheme; {URL_FORM}")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() {
        errors.push(at.invalid(format!("host must be specified; {URL_FORM}")));
    }
    if authority.contains('@') {
        errors.push(at.invalid("user information is not permitted in the URL"));
    }
    if rest.contains('#') {
        errors.push(at.invalid("fragments are not permitted in the URL"));
    }
    if rest.contains('?') {
        errors.push(at.invalid("query parameters are not permitted in the URL"));
    }
}

/// The service of a webhook must be named, and its port and path must be such.
pub(crate) fn webhook_service(service: At, errors: &mut Errors) {
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

/// Each segment of a path is a domain name. The first character of the path is not part of one, whatever it is.
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

/// A service by namespace, name and port.
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
    fn a_url_is_https_and_tells_nothing() {
        for (url, wrong) in [
            ("https://a.example/x", 0),
            ("https://127.0.0.1:9", 0),
            ("nonsense", 1),
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
    fn a_service_has_a_name_and_a_whole_path() {
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
