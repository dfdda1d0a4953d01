//! Security contexts.

use crate::validate::{At, Errors, in_range};

const GROUP_POLICIES: [&str; 2] = ["Always", "OnRootMismatch"];

/// The highest user or group.
const ID_MAX: i64 = i32::MAX as i64;

/// Checks what a pod asks of its host.
pub(super) fn pod(spec: At, errors: &mut Errors) {
    let context = spec.field("securityContext");
    if spec.field("hostNetwork").flag() {
        for kind in super::CONTAINERS {
            for container in spec.field(kind).items() {
                for port in container.field("ports").items() {
                    let (inside, outside) = (port.field("containerPort").int(), port.field("hostPort"));
                    if outside.is_set() && outside.int() != inside {
                        errors.push(outside.invalid("must match `containerPort` when `hostNetwork` is true"));
                    }
                }
            }
        }
    }
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context.field(field), errors);
    }
    for group in context.field("supplementalGroups").items() {
        id(group, errors);
    }
    let policy = context.field("fsGroupChangePolicy");
    if policy.is_set() && !GROUP_POLICIES.contains(&policy.text()) {
        errors.push(policy.not_supported(&GROUP_POLICIES));
    }
    profile(context.field("seccompProfile"), errors);
    if spec.field("shareProcessNamespace").flag() && spec.field("hostPID").flag() {
        let at = spec.field("shareProcessNamespace");
        errors.push(at.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
}

/// Checks what a container asks of its host.
pub(super) fn container(context: At, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    id(context.field("runAsUser"), errors);
    id(context.field("runAsGroup"), errors);
    profile(context.field("seccompProfile"), errors);
    let escalation = context.field("allowPrivilegeEscalation");
    if !escalation.is_set() || escalation.flag() {
        return;
    }
    if context.field("privileged").flag() {
        errors
            .push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
    }
    let capabilities = context.field("capabilities");
    if capabilities.field("add").items().any(|it| matches!(it.text(), "SYS_ADMIN" | "CAP_SYS_ADMIN")) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(context.invalid(detail));
    }
}

fn id(at: At, errors: &mut Errors) {
    if at.is_set() {
        in_range(at, 0, ID_MAX, errors);
    }
}

fn profile(profile: At, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.text() {
        "Localhost" if file.text().is_empty() => {
            errors.push(file.required("must be set when seccomp type is Localhost"));
        }
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" => {
            if file.is_set() {
                errors.push(file.invalid("can only be set when seccomp type is Localhost"));
            }
        }
        "" => errors.push(kind.required("type is required when seccompProfile is set")),
        _ => errors.push(kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"])),
    }
}
