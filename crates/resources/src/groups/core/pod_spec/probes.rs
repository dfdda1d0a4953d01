//! Probes and lifecycle hooks.

use nave_machinery::FieldError;

use crate::validate::{At, Errors, not_negative, one_of, port_number, port_number_or_name, required_text};

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];

/// Checks the hooks and probes of a long-running container.
pub(super) fn all(container: At, spec: At, errors: &mut Errors) {
    let grace = spec.field("terminationGracePeriodSeconds").int();
    let lifecycle = container.field("lifecycle");
    for hook in ["postStart", "preStop"] {
        if lifecycle.field(hook).is_set() {
            handler(lifecycle.field(hook), grace, errors);
        }
    }
    for (kind, must_succeed_once) in
        [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)]
    {
        let at = container.field(kind).with_field_filter();
        if !at.is_set() {
            continue;
        }
        probe(at, grace, errors);
        let threshold = at.field("successThreshold");
        if must_succeed_once && threshold.int().unwrap_or_default() != 1 {
            let found = threshold.int().unwrap_or_default();
            errors.push(FieldError::invalid(&threshold.path(), found, "must be 1"));
        }
        let own_grace = at.field("terminationGracePeriodSeconds");
        if own_grace.int().is_some_and(|seconds| seconds <= 0) {
            errors.push(own_grace.invalid("must be greater than 0"));
        }
        if kind == "readinessProbe" && own_grace.is_set() {
            errors.push(own_grace.invalid("must not be set for readinessProbes"));
        }
    }
}

fn probe(probe: At, grace: Option<i64>, errors: &mut Errors) {
    handler(probe, grace, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(probe.field(field), errors);
    }
}

/// Checks that a probe or hook has exactly one valid handler.
fn handler(at: At, grace: Option<i64>, errors: &mut Errors) {
    let mut given = HANDLERS.into_iter().filter(|kind| at.field(kind).is_set());
    let Some(first) = given.next() else {
        errors.push(at.required("must specify a handler type"));
        return;
    };
    errors.extend(given.map(|other| at.field(other).forbidden("may not specify more than 1 handler type")));
    let chosen = at.field(first);
    match (first, grace) {
        ("exec", _) if chosen.field("command").len() == 0 => {
            errors.push(chosen.field("command").required(""));
        }
        ("httpGet", _) => http_get(chosen, errors),
        ("tcpSocket", _) => port_number_or_name(chosen.field("port"), errors),
        ("grpc", _) => port_number(chosen.field("port"), errors),
        ("sleep", Some(grace)) => sleep(chosen, grace, errors),
        _ => {}
    }
}

fn http_get(get: At, errors: &mut Errors) {
    required_text(get.field("path"), errors);
    port_number_or_name(get.field("port"), errors);
    one_of(get.field("scheme"), &SCHEMES, errors);
    let headers = get.field("httpHeaders");
    for header in headers.items().map(|header| header.field("name").text()) {
        if !is_header_name(header) {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(FieldError::invalid(&headers.path(), header, why));
        }
    }
}

fn sleep(sleep: At, grace: i64, errors: &mut Errors) {
    let seconds = sleep.field("seconds").int().unwrap_or_default();
    if seconds < 0 || seconds > grace {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(FieldError::invalid(&sleep.path(), seconds, why));
    }
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn fields(container: Value) -> Vec<String> {
        let spec = json!({"terminationGracePeriodSeconds": 30});
        let mut errors = Errors::new();
        all(At::named("c", Some(&container)), At::named("spec", Some(&spec)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn exactly_one_handler_is_set() {
        for (handler, expected) in [
            (json!({"exec": {"command": ["a"]}}), &[][..]),
            (json!({}), &["c.lifecycle.preStop"]),
            (json!({"exec": {"command": ["a"]}, "sleep": {"seconds": 1}}), &["c.lifecycle.preStop.sleep"]),
            (json!({"exec": {}}), &["c.lifecycle.preStop.exec.command"]),
            (json!({"sleep": {"seconds": 31}}), &["c.lifecycle.preStop.sleep"]),
            (json!({"sleep": {"seconds": -1}}), &["c.lifecycle.preStop.sleep"]),
            (json!({"sleep": {"seconds": 0}}), &[]),
            (
                json!({"httpGet": {"path": "/", "port": 80, "scheme": "FTP", "httpHeaders": [{"name": "a b"}]}}),
                &["c.lifecycle.preStop.httpGet.scheme", "c.lifecycle.preStop.httpGet.httpHeaders"],
            ),
        ] {
            assert_eq!(fields(json!({"lifecycle": {"preStop": handler}})), expected, "{handler}");
        }
    }

    #[test]
    fn rejects_invalid_probe_numbers() {
        let probe = |more: Value| {
            let mut probe = json!({"tcpSocket": {"port": 80}, "successThreshold": 1});
            probe.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            probe
        };
        for (kind, more, expected) in [
            ("livenessProbe", json!({}), &[][..]),
            ("livenessProbe", json!({"successThreshold": 2}), &["c.livenessProbe.successThreshold"]),
            ("readinessProbe", json!({"successThreshold": 2}), &[]),
            (
                "readinessProbe",
                json!({"terminationGracePeriodSeconds": 1}),
                &["c.readinessProbe.terminationGracePeriodSeconds"],
            ),
            ("startupProbe", json!({"periodSeconds": -1}), &["c.startupProbe.periodSeconds"]),
        ] {
            assert_eq!(fields(json!({kind: probe(more.clone())})), expected, "{kind} {more}");
        }
    }
}
