//! Security contexts, and the use of host namespaces.

use std::collections::HashSet;

use nave_machinery::FieldError;

use super::volumes::descending;
use super::windows;
use crate::validate::{At, Errors, absent_or_one_of, in_range};

const GROUP_POLICIES: [&str; 2] = ["Always", "OnRootMismatch"];
const SUPPLEMENTAL_POLICIES: [&str; 2] = ["Merge", "Strict"];
/// The other policy, `MountOption`, requires a feature gate that is disabled.
const SELINUX_POLICIES: [&str; 1] = ["Recursive"];
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const PROC_MOUNTS: [&str; 2] = ["Default", "Unmasked"];

/// The maximum user and group ID.
const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_MAX: usize = 253;
pub(super) const PATH_MAX: usize = 4095;

/// Checks the security context of a pod spec.
pub(super) fn pod(spec: At, errors: &mut Errors) {
    let context = spec.field("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context.field(field), errors);
    }
    context.field("supplementalGroups").items().for_each(|group| id(group, errors));
    if spec.field("shareProcessNamespace").flag() && spec.field("hostPID").flag() {
        // In upstream's internal type, this field is part of the security context.
        let path = context.path().child("shareProcessNamespace");
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path, true, why));
    }
    sysctls(spec, context.field("sysctls"), errors);
    absent_or_one_of(context.field("fsGroupChangePolicy"), &GROUP_POLICIES, errors);
    seccomp(context.field("seccompProfile"), errors);
    windows::options(context.field("windowsOptions"), errors);
    app_armor(context.field("appArmorProfile"), errors);
    absent_or_one_of(context.field("supplementalGroupsPolicy"), &SUPPLEMENTAL_POLICIES, errors);
    absent_or_one_of(context.field("seLinuxChangePolicy"), &SELINUX_POLICIES, errors);
}

fn sysctls(spec: At, list: At, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for sysctl in list.items() {
        let name = sysctl.field("name");
        if name.text().is_empty() {
            errors.push(name.required(""));
        } else if !is_sysctl(name.text()) {
            let why = format!(
                r"must have at most {SYSCTL_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(name.invalid(why));
        } else if seen.contains(name.text()) {
            errors.push(name.duplicate());
        }
        let is_within = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.text().starts_with(prefix));
        if spec.field("hostNetwork").flag() && is_within(&["net.", "net/"]) {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        } else if spec.field("hostIPC").flag()
            && is_within(&[
                "kernel.sem",
                "kernel.shm",
                "kernel.msg",
                "fs.mqueue.",
                "kernel/sem",
                "kernel/shm",
                "kernel/msg",
                "fs/mqueue/",
            ])
        {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
        seen.insert(name.text());
    }
}

/// Returns whether a name is a valid sysctl: lowercase parts with inner dashes and underscores, separated by dots or
/// slashes.
fn is_sysctl(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            is_end(bytes.first())
                && is_end(bytes.last())
                && bytes.iter().all(|b| is_end(Some(b)) || matches!(b, b'-' | b'_'))
        })
}

/// Checks the security context of a container in a pod with this spec.
pub(super) fn container(context: At, spec: At, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    id(context.field("runAsUser"), errors);
    id(context.field("runAsGroup"), errors);
    let mount = context.field("procMount");
    absent_or_one_of(mount, &PROC_MOUNTS, errors);
    let host_users = spec.field("hostUsers");
    if mount.text() == "Unmasked" && (!host_users.is_set() || host_users.flag()) {
        errors.push(mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    seccomp(context.field("seccompProfile"), errors);
    escalation(context, errors);
    windows::options(context.field("windowsOptions"), errors);
    app_armor(context.field("appArmorProfile"), errors);
}

fn escalation(context: At, errors: &mut Errors) {
    let escalation = context.field("allowPrivilegeEscalation");
    if !escalation.is_set() || escalation.flag() {
        return;
    }
    if context.field("privileged").flag() {
        errors
            .push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
    }
    let capabilities = context.field("capabilities");
    // Upstream recognizes only the long form of the capability.
    for _ in capabilities.field("add").items().filter(|it| it.text() == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(context.invalid(detail));
    }
}

fn id(at: At, errors: &mut Errors) {
    if at.is_set() {
        in_range(at, 0, ID_MAX, errors);
    }
}

fn seccomp(profile: At, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.field("type"), profile.field("localhostProfile"));
    if kind.text().is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else if !PROFILES.contains(&kind.text()) {
        errors.push(kind.not_supported(&PROFILES));
    }
    match (kind.text(), file.is_set()) {
        ("Localhost", false) => errors.push(file.required("must be set when seccomp type is Localhost")),
        ("Localhost", true) => descending(file, errors),
        (_, true) => errors.push(file.invalid("can only be set when seccomp type is Localhost")),
        (_, false) => {}
    }
}

fn app_armor(profile: At, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, name) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            let text = name.text();
            if text.trim() != text {
                errors.push(name.invalid("must not be padded with whitespace"));
            } else if text.is_empty() {
                errors.push(name.required("must be set when AppArmor type is Localhost"));
            }
            if text.len() > PATH_MAX {
                errors.push(FieldError::too_long(&name.path(), PATH_MAX));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if name.is_set() {
                errors.push(name.invalid("can only be set when AppArmor type is Localhost"));
            }
        }
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        _ => errors.push(kind.not_supported(&PROFILES)),
    }
}

/// Checks that a pod with a user namespace does not use other host namespaces.
pub(super) fn own_users(spec: At, errors: &mut Errors) {
    let users = spec.field("hostUsers");
    if !users.is_set() || users.flag() {
        return;
    }
    let why = "when `hostUsers` is false";
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.field(field).flag() {
            errors.push(spec.field(shown).forbidden(why));
        }
    }
    for kind in super::CONTAINERS {
        for container in spec.field(kind).items() {
            if container.field("volumeDevices").len() > 0 {
                errors.push(container.field("volumeDevices").forbidden(why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nave_machinery::Value;
    use serde_json::json;

    use super::*;

    fn of_pod(spec: Value) -> Vec<String> {
        let mut errors = Errors::new();
        pod(At::named("spec", Some(&spec)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }

    #[test]
    fn rejects_invalid_pod_contexts() {
        for (context, expected) in [
            (json!({"runAsUser": 0, "fsGroup": 1, "supplementalGroups": [2]}), &[][..]),
            (json!({"runAsUser": -1}), &["spec.securityContext.runAsUser"]),
            (
                json!({"sysctls": [{"name": "net.core.x"}, {"name": "net.core.x"}, {"name": "a b"}]}),
                &["spec.securityContext.sysctls[1].name", "spec.securityContext.sysctls[2].name"],
            ),
            (
                json!({"supplementalGroupsPolicy": "x", "seLinuxChangePolicy": "MountOption"}),
                &[
                    "spec.securityContext.supplementalGroupsPolicy",
                    "spec.securityContext.seLinuxChangePolicy",
                ],
            ),
            (
                json!({"seccompProfile": {"type": "Localhost"}}),
                &["spec.securityContext.seccompProfile.localhostProfile"],
            ),
            (
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../a"}}),
                &["spec.securityContext.seccompProfile.localhostProfile"],
            ),
            (
                json!({"appArmorProfile": {"type": "Localhost"}}),
                &["spec.securityContext.appArmorProfile.localhostProfile"],
            ),
            (json!({"appArmorProfile": {"type": "x"}}), &["spec.securityContext.appArmorProfile.type"]),
        ] {
            assert_eq!(of_pod(json!({"securityContext": context})), expected, "{context}");
        }
        let shared = json!({"shareProcessNamespace": true, "hostPID": true, "hostNetwork": true,
            "securityContext": {"sysctls": [{"name": "net.a"}]}});
        assert_eq!(of_pod(shared).len(), 2);
    }

    #[test]
    fn rejects_invalid_container_contexts() {
        for (context, host_users, expected) in [
            (json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["SYS_ADMIN"]}}), true, 0),
            (json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}), true, 1),
            (json!({"allowPrivilegeEscalation": false, "privileged": true}), true, 1),
            (json!({"procMount": "Unmasked"}), true, 1),
            (json!({"procMount": "Unmasked"}), false, 0),
            (json!({"procMount": "x"}), true, 1),
        ] {
            let spec = json!({"hostUsers": host_users});
            let mut errors = Errors::new();
            container(At::named("c", Some(&context)), At::named("spec", Some(&spec)), &mut errors);
            assert_eq!(errors.len(), expected, "{context}");
        }
    }

    #[test]
    fn user_namespace_excludes_host_namespaces() {
        let fields = |spec: Value| {
            let mut errors = Errors::new();
            own_users(At::named("spec", Some(&spec)), &mut errors);
            errors.len()
        };
        assert_eq!(fields(json!({"hostUsers": false, "hostNetwork": true, "hostPID": true})), 2);
        assert_eq!(fields(json!({"hostUsers": true, "hostNetwork": true})), 0);
        assert_eq!(fields(json!({"hostUsers": false, "containers": [{"volumeDevices": [{}]}]})), 1);
    }
}
