//! Validation of ingresses and ingress classes (upstream: `pkg/apis/networking/validation`).

use std::net::IpAddr;

use nave_machinery::{FieldError, FieldPath, Value, names};

use crate::strategy::Strategy;
use crate::validate::{
    At, Errors, checked, immutable, one_of, port_name, port_number, required_checked, required_text,
};
use crate::{ip, read};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const CONTROLLER_MAX: usize = 250;
/// Sequences that are invalid in paths of type `Exact` and `Prefix`.
const NOT_IN_PATHS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const NOT_AT_THE_END: [&str; 2] = ["/..", "/."];

/// The strategy of ingresses.
pub(super) struct IngressStrategy;

impl Strategy for IngressStrategy {
    fn validate(&self, ingress: &Value) -> Errors {
        let mut errors = self.validate_update(ingress, &Value::Null);
        let root = At::root(ingress);
        let (metadata, spec) = (root.field("metadata"), root.field("spec"));
        let annotations = metadata.field("annotations");
        let annotation = annotations.key(CLASS_ANNOTATION);
        let class = spec.field("ingressClassName");
        if annotation.is_set() && class.is_set() && annotation.text() != class.text() {
            // In upstream's path, the annotation is a field (`annotations.<key>`), not a key.
            let path = FieldPath::new("annotations").child(CLASS_ANNOTATION);
            let why = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(&path, annotation.text(), why));
        }
        errors
    }

    /// Checks the points of entry. An address that was stored before may be invalid.
    fn validate_status_update(&self, ingress: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let known = read::list(old, "status.loadBalancer.ingress");
        let (root, old) = (At::root(ingress), known.iter().map(|point| read::text(point, "ip")));
        let known: Vec<&str> = old.collect();
        for point in root.field("status").field("loadBalancer").field("ingress").items() {
            let (address, host) = (point.field("ip"), point.field("hostname"));
            if !address.text().is_empty() && !known.contains(&address.text()) {
                ip::ip(address, &mut errors);
            }
            if !host.text().is_empty() {
                checked(host, names::is_dns1123_subdomain, &mut errors);
                if host.text().parse::<IpAddr>().is_ok() {
                    errors.push(host.invalid("must be a DNS name, not an IP address"));
                }
            }
        }
        errors
    }

    fn validate_update(&self, ingress: &Value, _old: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(ingress);
        let spec = root.field("spec");
        let (rules, default) = (spec.field("rules"), spec.field("defaultBackend"));
        if rules.len() == 0 && !default.is_set() {
            let why = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid(&spec.path(), Value::Null, why));
        }
        if default.is_set() {
            backend(default, &mut errors);
        }
        for rule in rules.items() {
            self::rule(rule, &mut errors);
        }
        for tls in spec.field("tls").items() {
            tls.field("hosts").items().for_each(|host| self::host(host, &mut errors));
            let secret = tls.field("secretName");
            if !secret.text().is_empty() {
                checked(secret, names::is_dns1123_subdomain, &mut errors);
            }
        }
        let class = spec.field("ingressClassName");
        if class.is_set() {
            checked(class, names::is_dns1123_subdomain, &mut errors);
        }
        errors
    }

    fn warnings(&self, ingress: &Value, old: Option<&Value>) -> Vec<String> {
        let root = At::root(ingress);
        let (metadata, spec) = (root.field("metadata"), root.field("spec"));
        let annotations = metadata.field("annotations");
        if old.is_none()
            && annotations.key(CLASS_ANNOTATION).is_set()
            && !spec.field("ingressClassName").is_set()
        {
            let text = format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            );
            return vec![text];
        }
        Vec::new()
    }
}

/// Checks a DNS name with an optional wildcard prefix.
fn host(at: At, errors: &mut Errors) {
    let host = at.text();
    if let Some(rest) = host.strip_prefix("*.") {
        errors.extend(names::is_dns1123_subdomain(rest).into_iter().map(|why| at.invalid(why)));
    } else {
        checked(at, names::is_dns1123_subdomain, errors);
    }
}

fn rule(rule: At, errors: &mut Errors) {
    let host = rule.field("host");
    if host.text().parse::<IpAddr>().is_ok() {
        errors.push(host.invalid("must be a DNS name, not an IP address"));
    }
    if !host.text().is_empty() {
        self::host(host, errors);
    }
    let http = rule.field("http");
    if !http.is_set() {
        return;
    }
    let paths = http.field("paths");
    if paths.len() == 0 {
        errors.push(paths.required(""));
    }
    for path in paths.items() {
        let kind = path.field("pathType");
        match kind.text() {
            "" if !kind.is_set() => {
                errors.push(kind.required("pathType must be specified"));
                continue;
            }
            "Exact" | "Prefix" => whole_path(path.field("path"), errors),
            "ImplementationSpecific" => {
                let text = path.field("path");
                if !text.text().is_empty() && !text.text().starts_with('/') {
                    errors.push(text.invalid("must be an absolute path"));
                }
            }
            _ => errors.push(kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"])),
        }
        backend(path.field("backend"), errors);
    }
}

fn whole_path(path: At, errors: &mut Errors) {
    let text = path.text();
    if !text.starts_with('/') {
        errors.push(path.invalid_text("must be an absolute path"));
    }
    for part in NOT_IN_PATHS.iter().filter(|part| text.contains(**part)) {
        errors.push(path.invalid(format!("must not contain '{part}'")));
    }
    for end in NOT_AT_THE_END.iter().filter(|end| text.ends_with(**end)) {
        errors.push(path.invalid(format!("cannot end with '{end}'")));
    }
}

/// Checks that a backend has either a service or a resource.
fn backend(backend: At, errors: &mut Errors) {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    let nothing = |why: &str| FieldError::invalid(&backend.path(), "", why);
    match (service.is_set(), resource.is_set()) {
        (true, true) => errors.push(nothing("cannot set both resource and service backends")),
        (false, false) => errors.push(nothing("resource or service backend is required")),
        (false, true) => reference(resource, errors),
        (true, false) => {
            required_checked(service.field("name"), names::is_dns1123_label, errors);
            let port = service.field("port");
            let (name, number) = (port.field("name"), port.field("number"));
            match (name.text().is_empty(), number.int().unwrap_or_default() == 0) {
                (false, false) => errors.push(nothing("cannot set both port name & port number")),
                (false, true) => {
                    errors.extend(port_name(name.text()).into_iter().map(|why| name.invalid(why)));
                }
                (true, false) => port_number(number, errors),
                (true, true) => errors.push(backend.required("port name or number is required")),
            }
        }
    }
}

fn reference(resource: At, errors: &mut Errors) {
    let group = resource.field("apiGroup");
    if group.is_set() {
        checked(group, names::is_dns1123_subdomain, errors);
    }
    required_checked(resource.field("kind"), names::is_path_segment_name, errors);
    required_checked(resource.field("name"), names::is_path_segment_name, errors);
}

/// The strategy of ingress classes.
pub(super) struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    fn default(&self, class: &mut Value, _version: &str) {
        super::defaults::ingress_class(class);
    }

    fn validate(&self, class: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(class);
        let spec = root.field("spec");
        let controller = spec.field("controller");
        if controller.text().len() > CONTROLLER_MAX {
            errors.push(FieldError::too_long(&controller.path(), CONTROLLER_MAX));
        }
        if required_text(controller, &mut errors) {
            errors.extend(names::validate_domain_prefixed_path(controller.text(), &controller.path()));
        }
        let parameters = spec.field("parameters");
        if parameters.is_set() {
            reference(parameters, &mut errors);
            scope(parameters, &mut errors);
        }
        errors
    }

    fn validate_update(&self, class: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(class);
        let (root, old) = (At::root(class), At::root(old));
        let (spec, old) = (root.field("spec"), old.field("spec"));
        immutable(spec.field("controller"), old.field("controller"), &mut errors);
        errors
    }
}

fn scope(parameters: At, errors: &mut Errors) {
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    if !scope.is_set() {
        errors.push(scope.required(""));
        return;
    }
    one_of(scope, &["Cluster", "Namespace"], errors);
    match scope.text() {
        "Namespace" if !namespace.is_set() => {
            errors.push(namespace.required("`parameters.scope` is set to 'Namespace'"));
        }
        "Namespace" => checked(namespace, names::is_dns1123_label, errors),
        "Cluster" if namespace.is_set() => {
            errors.push(namespace.forbidden("`parameters.scope` is set to 'Cluster'"));
        }
        _ => {}
    }
}
