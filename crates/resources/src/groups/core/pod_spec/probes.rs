//! Probes and lifecycle hooks.

use nave_machinery::FieldError;

use crate::validate::{At, Errors, not_negative, one_of, port_number, port_number_or_name, required_text};

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];

/// Checks the hooks and probes of a container that runs on.
pub(super) fn all(container: At, errors: &mut Errors) {
    let lifecycle = container.field("lifecycle");
    for hook in ["postStart", "preStop"] {
        if lifecycle.field(hook).is_set() {
            handler(lifecycle.field(hook), errors);
        }
    }
    for (kind, must_succeed_once) in
        [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)]
    {
        let at = container.field(kind);
        if !at.is_set() {
            continue;
        }
        probe(at, errors);
        let threshold = at.field("successThreshold");
        if must_succeed_once && threshold.int().unwrap_or_default() != 1 {
            let found = threshold.int().unwrap_or_default();
            errors.push(FieldError::invalid(&threshold.path(), found, "must be 1"));
        }
        let grace = at.field("terminationGracePeriodSeconds");
        if kind == "readinessProbe" && grace.is_set() {
            errors.push(grace.invalid("must not be set for readinessProbes"));
        } else if grace.int().is_some_and(|seconds| seconds <= 0) {
            errors.push(grace.invalid("must be greater than 0"));
        }
    }
}

fn probe(probe: At, errors: &mut Errors) {
    handler(probe, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(probe.field(field), errors);
    }
}

/// What a probe or a hook does: exactly one thing.
fn handler(at: At, errors: &mut Errors) {
    let mut given = HANDLERS.iter().map(|kind| at.field(kind)).filter(At::is_set);
    if given.next().is_none() {
        errors.push(at.required("must specify a handler type"));
        return;
    }
    errors.extend(given.map(|other| other.forbidden("may not specify more than 1 handler type")));
    let (exec, get, tcp, grpc) =
        (at.field("exec"), at.field("httpGet"), at.field("tcpSocket"), at.field("grpc"));
    if exec.is_set() && exec.field("command").len() == 0 {
        errors.push(exec.field("command").required(""));
    }
    if get.is_set() {
        required_text(get.field("path"), errors);
        port_number_or_name(get.field("port"), errors);
        one_of(get.field("scheme"), &SCHEMES, errors);
        for header in get.field("httpHeaders").items() {
            required_text(header.field("name"), errors);
        }
    }
    if tcp.is_set() {
        port_number_or_name(tcp.field("port"), errors);
    }
    if grpc.is_set() {
        port_number(grpc.field("port"), errors);
    }
}
