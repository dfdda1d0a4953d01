//! Authorization checks in expressions.

use std::sync::Arc;

use nave_machinery::names;

use super::Library;
use crate::authorizer::{GroupCheck, PathCheck, ResourceCheck, Subject};
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// Kubernetes' authorizer library.
pub(super) const LIBRARY: Library = Library {
    since: 27,
    patch: false,
    overloads: &[
        ("authorizer_path", "authorizer::path(string) path_check", Some(path)),
        ("authorizer_group", "authorizer::group(string) group_check", Some(group)),
        (
            "authorizer_serviceaccount",
            "authorizer::serviceAccount(string, string) authorizer",
            Some(service_account),
        ),
        ("groupcheck_resource", "group_check::resource(string) resource_check", Some(resource)),
        (
            "resourcecheck_subresource",
            "resource_check::subresource(string) resource_check",
            Some(subresource),
        ),
        ("resourcecheck_namespace", "resource_check::namespace(string) resource_check", Some(namespace)),
        ("resourcecheck_name", "resource_check::name(string) resource_check", Some(name)),
        ("pathcheck_check", "path_check::check(string) decision", Some(check)),
        ("resourcecheck_check", "resource_check::check(string) decision", Some(check)),
        ("decision_errored", "decision::errored() bool", Some(errored)),
        ("decision_error", "decision::error() string", Some(error)),
        ("decision_allowed", "decision::allowed() bool", Some(allowed)),
        ("decision_reason", "decision::reason() string", Some(reason)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// Field and label selectors in authorization checks.
pub(super) const SELECTORS: Library = Library {
    since: 31,
    patch: false,
    overloads: &[
        (
            "authorizer_fieldselector",
            "resource_check::fieldSelector(string) resource_check",
            Some(field_selector),
        ),
        (
            "authorizer_labelselector",
            "resource_check::labelSelector(string) resource_check",
            Some(label_selector),
        ),
    ],
    singletons: &[],
    unguarded: &[],
};

fn path<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::Authorizer(subject), Value::String(path)] = args else { return Err(Failure::overload()) };
    if path.trim().is_empty() {
        return Err(Failure::new("path must not be empty"));
    }
    Ok(Value::PathCheck(Arc::new(PathCheck { subject: Arc::clone(subject), path: (**path).to_owned() })))
}

fn group<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::Authorizer(subject), Value::String(group)] = args else { return Err(Failure::overload()) };
    Ok(Value::GroupCheck(Arc::new(GroupCheck { subject: Arc::clone(subject), group: (**group).to_owned() })))
}

fn service_account<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::Authorizer(_), Value::String(namespace), Value::String(name)] = args else {
        return Err(Failure::overload());
    };
    if !names::is_dns1123_subdomain(name).is_empty() {
        return Err(Failure::new("Invalid service account name"));
    }
    if !names::is_dns1123_label(namespace).is_empty() {
        return Err(Failure::new("Invalid service account namespace"));
    }
    Ok(Value::Authorizer(Arc::new(Subject::service_account(namespace, name))))
}

fn resource<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::GroupCheck(group), Value::String(resource)] = args else { return Err(Failure::overload()) };
    if resource.trim().is_empty() {
        return Err(Failure::new("resource must not be empty"));
    }
    let check = ResourceCheck {
        subject: Arc::clone(&group.subject),
        group: group.group.clone(),
        resource: (**resource).to_owned(),
        ..ResourceCheck::default()
    };
    Ok(Value::ResourceCheck(Arc::new(check)))
}

fn with<'a>(args: &[Value<'a>], set: fn(&mut ResourceCheck, String)) -> Result<Value<'a>, Failure> {
    let [Value::ResourceCheck(check), Value::String(text)] = args else { return Err(Failure::overload()) };
    let mut check = (**check).clone();
    set(&mut check, (**text).to_owned());
    Ok(Value::ResourceCheck(Arc::new(check)))
}

fn subresource<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    with(args, |check, text| check.subresource = text)
}

fn namespace<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    with(args, |check, text| check.namespace = text)
}

fn name<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    with(args, |check, text| check.name = text)
}

fn field_selector<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    with(args, |check, text| check.field_selector = text)
}

fn label_selector<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    with(args, |check, text| check.label_selector = text)
}

fn check<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let authorizer = context.authorizer();
    let decision = match args {
        [Value::PathCheck(check), Value::String(verb)] => authorizer.check_path(check, verb),
        [Value::ResourceCheck(check), Value::String(verb)] => authorizer.check_resource(check, verb),
        _ => return Err(Failure::overload()),
    };
    Ok(Value::Decision(Arc::new(decision)))
}

fn errored<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Decision(decision)] => Ok(Value::Bool(decision.error.is_some())),
        _ => Err(Failure::overload()),
    }
}

fn error<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Decision(decision)] => Ok(Value::text(decision.error.clone().unwrap_or_default())),
        _ => Err(Failure::overload()),
    }
}

fn allowed<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Decision(decision)] => Ok(Value::Bool(decision.allowed)),
        _ => Err(Failure::overload()),
    }
}

fn reason<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    match args {
        [Value::Decision(decision)] => Ok(Value::text(decision.reason.as_str())),
        _ => Err(Failure::overload()),
    }
}
