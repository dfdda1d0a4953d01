//! Validation of fields that depend on the operating system of a pod.

use nave_machinery::{FieldError, names};

use super::CONTAINERS;
use crate::validate::{At, Errors, checked};

const SYSTEMS: [&str; 2] = ["linux", "windows"];
const CREDENTIAL_SPEC_MAX: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
/// Pod spec fields that Windows does not support.
const NOT_ON_WINDOWS: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
/// Pod security context fields that Windows does not support.
const NOT_IN_POD: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// Container security context fields that Windows does not support.
const NOT_IN_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Checks that the pod's operating system supports the fields that are set.
pub(super) fn operating_system(spec: At, errors: &mut Errors) {
    let os = spec.field("os");
    if !os.is_set() {
        return;
    }
    let context = spec.field("securityContext");
    match os.field("name").text() {
        "" => errors.push(os.field("name").required("")),
        "linux" => {
            let why = "windows options cannot be set for a linux pod";
            forbid(context, &["windowsOptions"], why, errors);
            each_context(spec, |context| forbid(context, &["windowsOptions"], why, errors));
        }
        "windows" => {
            let why = "cannot be set for a windows pod";
            forbid(spec, &NOT_ON_WINDOWS, why, errors);
            forbid(context, &NOT_IN_POD, why, errors);
            each_context(spec, |context| forbid(context, &NOT_IN_CONTAINER, why, errors));
        }
        other => errors.push(FieldError::not_supported(&os.path(), other, &SYSTEMS)),
    }
}

fn forbid(at: At, fields: &[&'static str], why: &str, errors: &mut Errors) {
    errors.extend(fields.iter().map(|field| at.field(field)).filter(At::is_set).map(|it| it.forbidden(why)));
}

fn each_context(spec: At, mut check: impl FnMut(At)) {
    for kind in CONTAINERS {
        spec.field(kind).items().for_each(|container| check(container.field("securityContext")));
    }
}

/// Checks that either all containers or no containers are host processes, and that host processes use the host
/// network.
pub(super) fn host_processes(spec: At, errors: &mut Errors) {
    let context = spec.field("securityContext");
    let of_context = |context: At| {
        let options = context.field("windowsOptions");
        Some(options.field("hostProcess")).filter(At::is_set).map(|it| it.flag())
    };
    let of_pod = of_context(context);
    let (mut containers, mut on_host) = (0, 0);
    each_context(spec, |context| {
        let own = of_context(context);
        containers += 1;
        on_host += u32::from(own.or(of_pod).unwrap_or_default());
        if let (Some(own), Some(pod)) = (own, of_pod)
            && own != pod
        {
            let options = context.field("windowsOptions");
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(options.field("hostProcess").invalid(why));
        }
    });
    if on_host == 0 {
        return;
    }
    if on_host != containers {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(&spec.path(), "", why));
    }
    if !spec.field("hostNetwork").flag() {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&spec.path().child("hostNetwork"), false, why));
    }
}

/// Checks the Windows options of a security context.
pub(super) fn options(options: At, errors: &mut Errors) {
    let (name, spec, user) = (
        options.field("gmsaCredentialSpecName"),
        options.field("gmsaCredentialSpec"),
        options.field("runAsUserName"),
    );
    if name.is_set() {
        checked(name, names::is_dns1123_subdomain, errors);
    }
    if spec.is_set() && spec.text().is_empty() {
        errors.push(spec.invalid("gmsaCredentialSpec cannot be an empty string"));
    } else if spec.text().len() > CREDENTIAL_SPEC_MAX {
        let why = format!("gmsaCredentialSpec size must be under {} KiB", CREDENTIAL_SPEC_MAX / 1024);
        errors.push(spec.invalid(why));
    }
    if user.is_set() {
        errors.extend(user_name(user.text()).into_iter().map(|why| user.invalid(why)));
    }
}

/// Checks a user name of the form `DOMAIN\user` or `user`.
fn user_name(name: &str) -> Vec<String> {
    let one = |why: &str| vec![format!("runAsUserName {why}")];
    if name.is_empty() {
        return one("cannot be an empty string");
    }
    if name.contains(|c: char| c.is_ascii_control()) {
        return one("cannot contain control characters");
    }
    if name.matches('\\').count() > 1 {
        return one("cannot contain more than one backslash");
    }
    let (domain, user) = match name.split_once('\\') {
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut found = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX) {
        found.push(format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters"));
    }
    if domain.is_some_and(|domain| !is_netbios(domain) && !is_domain(domain)) {
        found.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        found.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        found.push(format!("runAsUserName's User length must not be longer than {USER_MAX} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        found.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        let why = r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#;
        found.push(why.to_owned());
    }
    found
}

fn is_netbios(name: &str) -> bool {
    (1..=15).contains(&name.chars().count())
        && !name.starts_with('.')
        && !name.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_domain(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;
    use crate::validate::testing::fields;

    #[test]
    fn rejects_fields_of_other_operating_systems() {
        let context = json!({"runAsUser": 1, "windowsOptions": {}});
        for (os, expected) in [
            (json!(null), &[][..]),
            (json!({"name": "windows"}), &["spec.hostPID", "spec.securityContext.runAsUser"]),
            (json!({"name": "linux"}), &["spec.securityContext.windowsOptions"]),
            (json!({"name": "plan9"}), &["spec.os"]),
            (json!({}), &["spec.os.name"]),
        ] {
            let spec = json!({"os": os, "hostPID": true, "securityContext": context});
            assert_eq!(fields(operating_system, spec), expected, "{os}");
        }
    }

    #[test]
    fn all_or_no_containers_are_host_processes() {
        let container =
            |on_host: Value| json!({"securityContext": {"windowsOptions": {"hostProcess": on_host}}});
        for (spec, expected) in [
            (json!({"containers": [container(json!(null))]}), &[][..]),
            (json!({"containers": [container(json!(true))], "hostNetwork": true}), &[]),
            (json!({"containers": [container(json!(true))]}), &["spec.hostNetwork"]),
            (json!({"containers": [container(json!(true)), {}], "hostNetwork": true}), &["spec"]),
        ] {
            assert_eq!(fields(host_processes, spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn rejects_invalid_windows_user_names() {
        for (name, errors) in [
            ("NT AUTHORITY\\SYSTEM", 0),
            ("user", 0),
            ("", 1),
            ("a\\b\\c", 1),
            ("a@b", 1),
            ("..", 1),
            ("\\u", 1),
        ] {
            assert_eq!(user_name(name).len(), errors, "{name}");
        }
        assert_eq!(
            fields(options, json!({"gmsaCredentialSpecName": "X Y", "gmsaCredentialSpec": ""})).len(),
            2
        );
    }
}
