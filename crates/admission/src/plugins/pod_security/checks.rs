//! The checks of each level, by version of the policy (upstream: `pod-security-admission/policy`).

use std::collections::BTreeSet;

use nave_machinery::{Map, Value};

use super::policy::{Level, LevelVersion, Version};
use crate::plugins::pods::{Container, containers, list, text};

/// A pod or a pod template.
pub(super) struct PodView<'a> {
    annotations: Option<&'a Map>,
    pub(super) spec: &'a Value,
}

impl<'a> PodView<'a> {
    pub(super) fn new(pod: &'a Value) -> Self {
        let annotations = pod.get("metadata").and_then(|metadata| metadata.get("annotations")?.as_object());
        Self { annotations, spec: pod.get("spec").unwrap_or(&Value::Null) }
    }
}

/// The violations of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Violations(Vec<Violation>);

#[derive(Clone, Debug)]
struct Violation {
    reason: String,
    detail: String,
}

impl Violations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reasons only.
    pub(super) fn reasons(&self) -> String {
        self.0.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The reasons with details.
    pub(super) fn detail(&self) -> String {
        let details = self.0.iter().map(|Violation { reason, detail }| format!("{reason} ({detail})"));
        details.collect::<Vec<_>>().join(", ")
    }
}

type CheckFn = fn(&PodView<'_>) -> Option<Violation>;

/// A check. Its newest version that is not newer than the policy applies.
struct Check {
    id: &'static str,
    versions: &'static [(u32, CheckFn)],
    /// The baseline check that a restricted check replaces.
    overrides: Option<&'static str>,
}

/// The newest minor version of any check. The policy version `latest` means this version.
const LATEST: u32 = 35;

/// Checks of the level `baseline`, by id.
const BASELINE: [Check; 12] = [
    check("appArmorProfile", &[(0, app_armor)]),
    check("capabilities_baseline", &[(0, capabilities_baseline)]),
    check("hostNamespaces", &[(0, host_namespaces)]),
    check("hostPathVolumes", &[(0, host_path_volumes)]),
    check("hostPorts", &[(0, host_ports)]),
    check("hostProbesAndHostLifecycle", &[(34, host_probes)]),
    check("privileged", &[(0, privileged)]),
    check("procMount", &[(0, proc_mount), (35, |pod| unless_user_namespace(pod, proc_mount))]),
    check("seLinuxOptions", &[(0, |pod| selinux(pod, 3)), (31, |pod| selinux(pod, 4))]),
    check("seccompProfile_baseline", &[(0, seccomp_annotations), (19, seccomp_baseline)]),
    check(
        "sysctls",
        &[
            (0, |pod| sysctls(pod, 5)),
            (27, |pod| sysctls(pod, 6)),
            (29, |pod| sysctls(pod, 10)),
            (32, |pod| sysctls(pod, 12)),
        ],
    ),
    check("windowsHostProcess", &[(0, windows_host_process)]),
];

/// Checks that the level `restricted` adds to those of `baseline`, by id.
const RESTRICTED: [Check; 7] = [
    check(
        "allowPrivilegeEscalation",
        &[(8, allow_privilege_escalation), (25, |pod| unless_windows(pod, allow_privilege_escalation))],
    ),
    Check {
        overrides: Some("capabilities_baseline"),
        ..check(
            "capabilities_restricted",
            &[(22, capabilities_restricted), (25, |pod| unless_windows(pod, capabilities_restricted))],
        )
    },
    Check { overrides: Some("procMount"), ..check("procMount_restricted", &[(35, proc_mount)]) },
    Check { overrides: Some("hostPathVolumes"), ..check("restrictedVolumes", &[(0, restricted_volumes)]) },
    check("runAsNonRoot", &[(0, run_as_non_root), (35, |pod| unless_user_namespace(pod, run_as_non_root))]),
    check("runAsUser", &[(23, run_as_user), (35, |pod| unless_user_namespace(pod, run_as_user))]),
    Check {
        overrides: Some("seccompProfile_baseline"),
        ..check(
            "seccompProfile_restricted",
            &[(19, seccomp_restricted), (25, |pod| unless_windows(pod, seccomp_restricted))],
        )
    },
];

const fn check(id: &'static str, versions: &'static [(u32, CheckFn)]) -> Check {
    Check { id, versions, overrides: None }
}

impl Check {
    fn for_minor(&self, minor: u32) -> Option<CheckFn> {
        self.versions.iter().rev().find(|(since, _)| *since <= minor).map(|(_, check)| *check)
    }
}

/// Returns a pod's violations of a level.
pub(super) fn evaluate(level: LevelVersion, pod: &PodView<'_>) -> Violations {
    let minor = match level.version {
        Version::Minor(minor) => minor.min(LATEST),
        Version::Latest => LATEST,
    };
    let restricted = level.level == Level::Restricted;
    let is_overridden = |id: &str| {
        restricted
            && RESTRICTED.iter().any(|check| check.overrides == Some(id) && check.for_minor(minor).is_some())
    };
    let mut violations = Vec::new();
    if level.level >= Level::Baseline {
        let checks = BASELINE.iter().filter(|check| !is_overridden(check.id));
        violations.extend(checks.filter_map(|check| check.for_minor(minor)?(pod)));
    }
    if restricted {
        violations.extend(RESTRICTED.iter().filter_map(|check| check.for_minor(minor)?(pod)));
    }
    Violations(violations)
}

fn unless_user_namespace(pod: &PodView<'_>, check: CheckFn) -> Option<Violation> {
    if pod.spec.get("hostUsers").and_then(Value::as_bool) == Some(false) { None } else { check(pod) }
}

fn unless_windows(pod: &PodView<'_>, check: CheckFn) -> Option<Violation> {
    if str_at(pod.spec, &["os", "name"]) == Some("windows") { None } else { check(pod) }
}

fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Violation {
    Violation { reason: reason.into(), detail: detail.into() }
}

/// Returns the value at a path; `None` if it is absent or null.
fn value_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
}

fn str_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    value_at(value, path)?.as_str()
}

fn is_true(value: &Value, path: &[&str]) -> bool {
    value_at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The value in the security context of a container.
fn context<'a>(container: &Container<'a>, path: &[&str]) -> Option<&'a Value> {
    value_at(container.value.get("securityContext")?, path)
}

/// The value in the security context of a pod.
fn pod_context<'a>(pod: &PodView<'a>, path: &[&str]) -> Option<&'a Value> {
    value_at(pod.spec.get("securityContext")?, path)
}

/// The names of the containers that satisfy a condition.
fn containers_where<'a>(pod: &PodView<'a>, mut holds: impl FnMut(&Container<'a>) -> bool) -> Vec<&'a str> {
    containers(pod.spec).filter(|container| holds(container)).map(|container| container.name()).collect()
}

fn quote(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.as_ref().to_owned()).collect();
    format!("\"{}\"", items.join("\", \""))
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, or `containers "a", "b"`.
fn quote_containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quote(names))
}

/// Formats the pod and containers that set a field as the subject of a message; `None` if the field is not set.
fn setters(by_pod: bool, by_containers: &[&str]) -> Option<String> {
    match (by_pod, by_containers) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(quote_containers(names)),
        (true, names) => Some(format!("pod and {}", quote_containers(names))),
    }
}

fn app_armor(pod: &PodView<'_>) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    const TYPE: [&str; 2] = ["appArmorProfile", "type"];
    let mut values = BTreeSet::new();
    let mut is_bad = |profile: Option<&Value>| {
        let Some(profile) = profile.and_then(Value::as_str) else { return false };
        let bad = !matches!(profile, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(profile.to_owned());
        }
        bad
    };
    let by_pod = is_bad(pod_context(pod, &TYPE));
    let names = containers_where(pod, |container| is_bad(context(container, &TYPE)));
    let annotations = pod.annotations.into_iter().flatten().filter_map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        let allowed = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        (key.starts_with(ANNOTATION) && !allowed).then(|| format!("{key}={value:?}"))
    });
    let annotations: Vec<String> = annotations.collect();
    let mut subjects: Vec<String> = setters(by_pod, &names).into_iter().collect();
    if !annotations.is_empty() {
        subjects.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if subjects.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    Some(violation(
        reason,
        format!("{} must not set AppArmor profile type to {}", subjects.join(" and "), quote(values)),
    ))
}

/// Returns the containers that add capabilities other than `allowed`, and these capabilities.
fn added_capabilities<'a>(pod: &PodView<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
    let mut forbidden = BTreeSet::new();
    let names = containers_where(pod, |container| {
        let added = list(context(container, &["capabilities", "add"])).iter().filter_map(Value::as_str);
        let bad: Vec<_> = added.filter(|added| !allowed.contains(added)).collect();
        forbidden.extend(bad.iter().map(|added| (*added).to_owned()));
        !bad.is_empty()
    });
    (names, forbidden)
}

fn capabilities_baseline(pod: &PodView<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (names, added) = added_capabilities(pod, &ALLOWED);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        quote_containers(&names),
        quote(added)
    );
    Some(violation("non-default capabilities", detail))
}

fn capabilities_restricted(pod: &PodView<'_>) -> Option<Violation> {
    let missing = containers_where(pod, |container| {
        !list(context(container, &["capabilities", "drop"])).iter().any(|dropped| dropped == "ALL")
    });
    let (adding, added) = added_capabilities(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!(
            r#"{} must set securityContext.capabilities.drop=["ALL"]"#,
            quote_containers(&missing)
        ));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            quote_containers(&adding),
            quote(added)
        ));
    }
    if details.is_empty() { None } else { Some(violation("unrestricted capabilities", details.join("; "))) }
}

fn host_namespaces(pod: &PodView<'_>) -> Option<Violation> {
    let fields =
        ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| is_true(pod.spec, &[field]));
    let set: Vec<_> = fields.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { Some(violation("host namespaces", set.join(", "))) }
}

fn host_path_volumes(pod: &PodView<'_>) -> Option<Violation> {
    let volumes =
        list(pod.spec.get("volumes")).iter().filter(|volume| value_at(volume, &["hostPath"]).is_some());
    let names: Vec<_> = volumes.map(|volume| text(volume, "name")).collect();
    if names.is_empty() {
        return None;
    }
    Some(violation(
        "hostPath volumes",
        format!("{} {}", plural("volume", "volumes", names.len()), quote(names)),
    ))
}

fn host_ports(pod: &PodView<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = containers_where(pod, |container| {
        let used =
            list(container.value.get("ports")).iter().filter_map(|port| port.get("hostPort")?.as_i64());
        let used: Vec<_> = used.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        ports.extend(used.iter().cloned());
        !used.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        quote_containers(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    );
    Some(violation("hostPort", detail))
}

fn host_probes(pod: &PodView<'_>) -> Option<Violation> {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let mut hosts = BTreeSet::new();
    let names: BTreeSet<_> = containers_where(pod, |container| {
        let handlers = HANDLERS.iter().filter_map(|path| value_at(container.value, path));
        let used = handlers.flat_map(|handler| {
            ["httpGet", "tcpSocket"].into_iter().filter_map(|action| str_at(handler, &[action, "host"]))
        });
        let used: Vec<_> = used.filter(|host| !host.is_empty()).collect();
        hosts.extend(used.iter().map(|host| (*host).to_owned()));
        !used.is_empty()
    })
    .into_iter()
    .collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<_> = names.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        quote_containers(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quote(hosts)
    );
    Some(violation("probe or lifecycle host", detail))
}

fn privileged(pod: &PodView<'_>) -> Option<Violation> {
    let names =
        containers_where(pod, |it| context(it, &["privileged"]).and_then(Value::as_bool) == Some(true));
    let subject = setters(false, &names)?;
    Some(violation("privileged", format!("{subject} must not set securityContext.privileged=true")))
}

fn proc_mount(pod: &PodView<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let names = containers_where(pod, |container| {
        let kind =
            context(container, &["procMount"]).and_then(Value::as_str).filter(|kind| *kind != "Default");
        types.extend(kind.map(str::to_owned));
        kind.is_some()
    });
    let subject = setters(false, &names)?;
    let detail = format!("{subject} must not set securityContext.procMount to {}", quote(types));
    Some(violation("procMount", detail))
}

/// Checks SELinux options. Allows the first `types` entries of `ALLOWED`; later policy versions allow more entries.
fn selinux(pod: &PodView<'_>, types: usize) -> Option<Violation> {
    const ALLOWED: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let allowed = ALLOWED.get(..types).unwrap_or(&ALLOWED);
    let (mut bad_types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |options: Option<&Value>| {
        let Some(options) = options else { return false };
        let kind = text(options, "type");
        let bad_type = !kind.is_empty() && !allowed.contains(&kind);
        if bad_type {
            bad_types.insert(kind.to_owned());
        }
        let (has_user, has_role) = (!text(options, "user").is_empty(), !text(options, "role").is_empty());
        user |= has_user;
        role |= has_role;
        bad_type || has_user || has_role
    };
    let by_pod = is_bad(pod_context(pod, &["seLinuxOptions"]));
    let names = containers_where(pod, |container| is_bad(context(container, &["seLinuxOptions"])));
    let subject = setters(by_pod, &names)?;
    let mut data = Vec::new();
    if !bad_types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", bad_types.len()), quote(bad_types)));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let detail = format!("{subject} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    Some(violation("seLinuxOptions", detail))
}

fn seccomp_annotations(pod: &PodView<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let bad = |key: String| {
        let value = pod.annotations?.get(&key)?.as_str()?;
        let allowed =
            matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
        (!allowed).then(|| format!("{key}={value:?}"))
    };
    let of_containers = containers(pod.spec).map(|container| format!("{CONTAINER}{}", container.name()));
    let found: BTreeSet<_> = std::iter::once(POD.to_owned()).chain(of_containers).filter_map(bad).collect();
    if found.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", found.len());
    let found: Vec<_> = found.into_iter().collect();
    Some(violation("seccompProfile", format!("forbidden {word} {}", found.join(", "))))
}

/// Returns the violation by forbidden profiles, and the containers without a profile.
fn seccomp<'a>(pod: &PodView<'a>) -> (Option<Violation>, Vec<&'a str>) {
    const TYPE: [&str; 2] = ["seccompProfile", "type"];
    const PROFILE: [&str; 1] = ["seccompProfile"];
    let is_good = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let mut values = BTreeSet::new();
    let mut is_bad = |profile: Option<&Value>, kind: Option<&Value>| {
        if profile.is_none() {
            return false;
        }
        let kind = kind.and_then(Value::as_str).unwrap_or_default();
        if !is_good(kind) {
            values.insert(kind.to_owned());
        }
        !is_good(kind)
    };
    let of_pod = pod_context(pod, &PROFILE);
    let by_pod = is_bad(of_pod, pod_context(pod, &TYPE));
    let names = containers_where(pod, |it| is_bad(context(it, &PROFILE), context(it, &TYPE)));
    let unset = if of_pod.is_some() && !by_pod {
        Vec::new()
    } else {
        containers_where(pod, |container| context(container, &PROFILE).is_none())
    };
    let bad = setters(by_pod, &names).map(|subject| {
        let detail =
            format!("{subject} must not set securityContext.seccompProfile.type to {}", quote(values));
        violation("seccompProfile", detail)
    });
    (bad, unset)
}

fn seccomp_baseline(pod: &PodView<'_>) -> Option<Violation> {
    seccomp(pod).0
}

fn seccomp_restricted(pod: &PodView<'_>) -> Option<Violation> {
    let (bad, unset) = seccomp(pod);
    if bad.is_some() || unset.is_empty() {
        return bad;
    }
    let detail = format!(
        r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
        quote_containers(&unset)
    );
    Some(violation("seccompProfile", detail))
}

/// Checks sysctls. Allows the first `count` entries of `SAFE`; later policy versions allow more entries.
fn sysctls(pod: &PodView<'_>, count: usize) -> Option<Violation> {
    const SAFE: [&str; 12] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    ];
    let safe = SAFE.get(..count).unwrap_or(&SAFE);
    let set = list(pod_context(pod, &["sysctls"])).iter().map(|sysctl| text(sysctl, "name"));
    let forbidden: Vec<_> = set.filter(|name| !safe.contains(name)).collect();
    if forbidden.is_empty() { None } else { Some(violation("forbidden sysctls", forbidden.join(", "))) }
}

fn windows_host_process(pod: &PodView<'_>) -> Option<Violation> {
    const FIELD: [&str; 2] = ["windowsOptions", "hostProcess"];
    let is_set = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
    let names = containers_where(pod, |container| is_set(context(container, &FIELD)));
    let subject = setters(is_set(pod_context(pod, &FIELD)), &names)?;
    let detail = format!("{subject} must not set securityContext.windowsOptions.hostProcess=true");
    Some(violation("hostProcess", detail))
}

fn allow_privilege_escalation(pod: &PodView<'_>) -> Option<Violation> {
    let names = containers_where(pod, |container| {
        context(container, &["allowPrivilegeEscalation"]).and_then(Value::as_bool) != Some(false)
    });
    let subject = setters(false, &names)?;
    let detail = format!("{subject} must set securityContext.allowPrivilegeEscalation=false");
    Some(violation("allowPrivilegeEscalation != false", detail))
}

fn restricted_volumes(pod: &PodView<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    const RESTRICTED: [&str; 21] = [
        "hostPath",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
        "photonPersistentDisk",
    ];
    let has = |volume: &Value, kinds: &[&'static str]| -> Option<&'static str> {
        kinds.iter().copied().find(|kind| value_at(volume, &[kind]).is_some())
    };
    let mut types = BTreeSet::new();
    let mut names = Vec::new();
    for volume in list(pod.spec.get("volumes")).iter().filter(|volume| has(volume, &ALLOWED).is_none()) {
        names.push(text(volume, "name"));
        types.insert(has(volume, &RESTRICTED).unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quote(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quote(types)
    );
    Some(violation("restricted volume types", detail))
}

fn run_as_non_root(pod: &PodView<'_>) -> Option<Violation> {
    const FIELD: [&str; 1] = ["runAsNonRoot"];
    let flag = |value: Option<&Value>| value.and_then(Value::as_bool);
    let of_pod = flag(pod_context(pod, &FIELD));
    let bad = containers_where(pod, |container| flag(context(container, &FIELD)) == Some(false));
    if let Some(subject) = setters(of_pod == Some(false), &bad) {
        let detail = format!("{subject} must not set securityContext.runAsNonRoot=false");
        return Some(violation("runAsNonRoot != true", detail));
    }
    if of_pod == Some(true) {
        return None;
    }
    let unset = containers_where(pod, |container| flag(context(container, &FIELD)).is_none());
    let subject = setters(false, &unset)?;
    let detail = format!("pod or {subject} must set securityContext.runAsNonRoot=true");
    Some(violation("runAsNonRoot != true", detail))
}

fn run_as_user(pod: &PodView<'_>) -> Option<Violation> {
    const FIELD: [&str; 1] = ["runAsUser"];
    let is_root = |value: Option<&Value>| value.and_then(Value::as_i64) == Some(0);
    let names = containers_where(pod, |container| is_root(context(container, &FIELD)));
    let subject = setters(is_root(pod_context(pod, &FIELD)), &names)?;
    Some(violation("runAsUser=0", format!("{subject} must not set runAsUser=0")))
}
