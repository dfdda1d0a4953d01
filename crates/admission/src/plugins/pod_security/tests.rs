use serde_json::json;

use super::policy::{Level, Version};
use super::*;
use crate::testing::{Memory, Request, outcome, registry};

fn evaluate(level: Level, version: Version, pod: &Value) -> String {
    checks::evaluate(LevelVersion { level, version }, &PodView::new(pod)).detail()
}

/// A pod that satisfies every level.
fn safe() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "app", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}})
}

/// A safe pod with changes merged into its spec, its first container or its annotations.
fn with(spec: Value, container: Value, annotations: Value) -> Value {
    let mut pod = safe();
    merge(&mut pod["spec"], &spec);
    merge(&mut pod["spec"]["containers"][0], &container);
    pod["metadata"]["annotations"] = annotations;
    pod
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => more.clone_into(into),
    }
}

fn context(value: Value) -> Value {
    json!({"securityContext": value})
}

#[test]
fn levels_match_upstream() {
    let none = || json!({});
    let latest = Version::Latest;
    let v = Version::Minor;
    let cases = [
        // The pod, the policy version, and the violations of baseline and of restricted.
        (with(none(), none(), none()), latest, "", ""),
        (
            with(json!({"hostNetwork": true, "hostIPC": true}), none(), none()),
            latest,
            "host namespaces (hostNetwork=true, hostIPC=true)",
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            with(none(), context(json!({"privileged": true})), none()),
            latest,
            r#"privileged (container "app" must not set securityContext.privileged=true)"#,
            r#"privileged (container "app" must not set securityContext.privileged=true)"#,
        ),
        (
            with(none(), context(json!({"capabilities": {"add": ["NET_RAW", "CHOWN"]}})), none()),
            latest,
            r#"non-default capabilities (container "app" must not include "NET_RAW" in securityContext.capabilities.add)"#,
            r#"unrestricted capabilities (container "app" must not include "CHOWN", "NET_RAW" in securityContext.capabilities.add)"#,
        ),
        (
            with(
                none(),
                context(json!({"capabilities": {"drop": null, "add": ["NET_BIND_SERVICE"]}})),
                none(),
            ),
            latest,
            "",
            r#"unrestricted capabilities (container "app" must set securityContext.capabilities.drop=["ALL"])"#,
        ),
        (with(none(), context(json!({"capabilities": {"drop": null}})), none()), v(21), "", ""),
        (
            with(
                json!({"os": {"name": "windows"}}),
                context(json!({"capabilities": {"drop": null}})),
                none(),
            ),
            latest,
            "",
            "",
        ),
        (
            with(
                json!({"os": {"name": "windows"}}),
                context(json!({"capabilities": {"drop": null}})),
                none(),
            ),
            v(24),
            "",
            r#"unrestricted capabilities (container "app" must set securityContext.capabilities.drop=["ALL"])"#,
        ),
        (
            with(
                json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "emptyDir": {}}]}),
                none(),
                none(),
            ),
            latest,
            r#"hostPath volumes (volume "a")"#,
            r#"restricted volume types (volume "a" uses restricted volume type "hostPath")"#,
        ),
        (
            with(
                json!({"volumes": [{"name": "a", "nfs": {}}, {"name": "b", "rbd": {}}, {"name": "c", "image": {}}]}),
                none(),
                none(),
            ),
            v(1),
            "",
            r#"restricted volume types (volumes "a", "b" use restricted volume types "nfs", "rbd")"#,
        ),
        (
            with(json!({"volumes": [{"name": "a", "photonPersistentDisk": {}}]}), none(), none()),
            v(1),
            "",
            r#"restricted volume types (volume "a" uses restricted volume type "photonPersistentDisk")"#,
        ),
        (
            with(none(), json!({"ports": [{"hostPort": 80}, {"hostPort": 0}, {"hostPort": 8080}]}), none()),
            latest,
            r#"hostPort (container "app" uses hostPorts 80, 8080)"#,
            r#"hostPort (container "app" uses hostPorts 80, 8080)"#,
        ),
        (
            with(
                none(),
                json!({"livenessProbe": {"httpGet": {"host": "a"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "b"}}}}),
                none(),
            ),
            latest,
            r#"probe or lifecycle host (container "app" uses probe or lifecycle hosts "a", "b")"#,
            r#"probe or lifecycle host (container "app" uses probe or lifecycle hosts "a", "b")"#,
        ),
        (with(none(), json!({"livenessProbe": {"httpGet": {"host": "a"}}}), none()), v(33), "", ""),
        (
            with(none(), context(json!({"procMount": "Unmasked"})), none()),
            latest,
            r#"procMount (container "app" must not set securityContext.procMount to "Unmasked")"#,
            r#"procMount (container "app" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            with(json!({"hostUsers": false}), context(json!({"procMount": "Unmasked"})), none()),
            latest,
            "",
            r#"procMount (container "app" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            with(json!({"hostUsers": false}), context(json!({"procMount": "Unmasked"})), none()),
            v(34),
            r#"procMount (container "app" must not set securityContext.procMount to "Unmasked")"#,
            r#"procMount (container "app" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            with(
                context(json!({"seLinuxOptions": {"type": "x", "user": "u"}})),
                context(json!({"seLinuxOptions": {"role": "r"}})),
                none(),
            ),
            latest,
            r#"seLinuxOptions (pod and container "app" set forbidden securityContext.seLinuxOptions: type "x"; user may not be set; role may not be set)"#,
            r#"seLinuxOptions (pod and container "app" set forbidden securityContext.seLinuxOptions: type "x"; user may not be set; role may not be set)"#,
        ),
        (
            with(context(json!({"seLinuxOptions": {"type": "container_engine_t"}})), none(), none()),
            v(31),
            "",
            "",
        ),
        (
            with(context(json!({"seLinuxOptions": {"type": "container_engine_t"}})), none(), none()),
            v(30),
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "container_engine_t")"#,
            r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "container_engine_t")"#,
        ),
        (
            with(none(), context(json!({"seccompProfile": {"type": "Unconfined"}})), none()),
            latest,
            r#"seccompProfile (container "app" must not set securityContext.seccompProfile.type to "Unconfined")"#,
            r#"seccompProfile (container "app" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            with(context(json!({"seccompProfile": null})), none(), none()),
            latest,
            "",
            r#"seccompProfile (pod or container "app" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
        (
            with(
                context(json!({"seccompProfile": null})),
                none(),
                json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}),
            ),
            v(18),
            r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
            r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
        ),
        (
            with(
                context(
                    json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.x"}, {"name": "kernel.shm_rmid_forced"}]}),
                ),
                none(),
                none(),
            ),
            latest,
            "forbidden sysctls (kernel.x)",
            "forbidden sysctls (kernel.x)",
        ),
        (
            with(context(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}]})), none(), none()),
            v(31),
            "forbidden sysctls (net.ipv4.tcp_rmem)",
            "forbidden sysctls (net.ipv4.tcp_rmem)",
        ),
        (
            with(context(json!({"windowsOptions": {"hostProcess": true}})), none(), none()),
            latest,
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            with(context(json!({"appArmorProfile": {"type": "Unconfined"}})), none(), none()),
            v(0),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            with(
                none(),
                none(),
                json!({"container.apparmor.security.beta.kubernetes.io/app": "localhost/x"}),
            ),
            latest,
            "",
            "",
        ),
        (
            with(none(), context(json!({"allowPrivilegeEscalation": null})), none()),
            latest,
            "",
            r#"allowPrivilegeEscalation != false (container "app" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
        (with(none(), context(json!({"allowPrivilegeEscalation": true})), none()), v(7), "", ""),
        (
            with(context(json!({"runAsNonRoot": null})), none(), none()),
            latest,
            "",
            r#"runAsNonRoot != true (pod or container "app" must set securityContext.runAsNonRoot=true)"#,
        ),
        (
            with(none(), context(json!({"runAsNonRoot": false})), none()),
            latest,
            "",
            r#"runAsNonRoot != true (container "app" must not set securityContext.runAsNonRoot=false)"#,
        ),
        (
            with(
                json!({"hostUsers": false}),
                context(json!({"runAsNonRoot": false, "runAsUser": 0})),
                none(),
            ),
            latest,
            "",
            "",
        ),
        (
            with(none(), context(json!({"runAsUser": 0})), none()),
            latest,
            "",
            r#"runAsUser=0 (container "app" must not set runAsUser=0)"#,
        ),
        (with(none(), context(json!({"runAsUser": 0})), none()), v(22), "", ""),
    ];
    for (pod, version, baseline, restricted) in cases {
        assert_eq!(evaluate(Level::Privileged, version, &pod), "");
        assert_eq!(evaluate(Level::Baseline, version, &pod), baseline, "baseline {version} {pod}");
        assert_eq!(evaluate(Level::Restricted, version, &pod), restricted, "restricted {version} {pod}");
    }
}

#[test]
fn checks_all_kinds_of_containers() {
    let mut pod = safe();
    for kind in ["initContainers", "ephemeralContainers"] {
        pod["spec"][kind] = json!([{"name": kind, "securityContext": {"privileged": true}}]);
    }
    let expected = r#"privileged (containers "initContainers", "ephemeralContainers" must not set securityContext.privileged=true)"#;
    assert_eq!(evaluate(Level::Baseline, Version::Latest, &pod), expected);
}

struct Setup {
    namespaces: Arc<Memory>,
    pods: Arc<Memory>,
    plugin: PodSecurity,
}

fn setup(config: Option<Value>, labels: &[(&str, &str)]) -> Setup {
    let config = config.map_or_else(PluginConfig::default, |mut content| {
        content["apiVersion"] = json!("pod-security.admission.config.k8s.io/v1");
        content["kind"] = json!("PodSecurityConfiguration");
        PluginConfig::default().with_plugin("PodSecurity", content)
    });
    let (defaults, exemptions) = config::read(&config).unwrap();
    let (namespaces, pods) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
    namespaces.put(namespace(labels));
    let plugin = PodSecurity {
        namespaces: Arc::clone(&namespaces) as _,
        pods: Arc::clone(&pods) as _,
        defaults,
        exemptions,
        metrics: Metrics::default(),
    };
    Setup { namespaces, pods, plugin }
}

fn namespace(labels: &[(&str, &str)]) -> Value {
    let labels: nave_machinery::Map =
        labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), json!(value))).collect();
    json!({"metadata": {"name": "ns", "labels": labels}})
}

fn privileged_pod() -> Value {
    with(json!({}), context(json!({"privileged": true})), json!(null))
}

const VIOLATION: &str = r#"privileged (container "app" must not set securityContext.privileged=true)"#;

#[tokio::test]
async fn modes_enforce_audit_and_warn() {
    let setup = setup(
        None,
        &[
            ("enforce", "baseline"),
            ("audit", "restricted"),
            ("warn", "restricted"),
            ("warn-version", "v1.20"),
        ],
    );
    let request = Request::new(registry(), "", "pods", privileged_pod(), Value::Null);
    let refused = format!(r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": {VIOLATION}"#);
    assert_eq!(outcome(request.validate(&setup.plugin).await), Err((403, refused)));
    assert!(request.notes.take_warnings().is_empty());
    let annotations = request.notes.take_annotations();
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let audited = format!(r#"would violate PodSecurity "restricted:latest": {VIOLATION}"#);
    assert_eq!(annotations["pod-security.kubernetes.io/audit-violations"], audited);
    // Workloads are not refused.
    for (group, resource, path) in [
        ("apps", "deployments", &["spec", "template"][..]),
        ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
        ("", "podtemplates", &["template"]),
        ("", "replicationcontrollers", &["spec", "template"]),
    ] {
        let object = path.iter().rev().fold(privileged_pod(), |inner, name| json!({*name: inner}));
        let request = Request::new(registry(), group, resource, object, Value::Null);
        assert_eq!(outcome(request.validate(&setup.plugin).await), Ok(()));
        let warned = format!(r#"would violate PodSecurity "restricted:v1.20": {VIOLATION}"#);
        assert_eq!(request.notes.take_warnings(), [warned]);
        let annotations = request.notes.take_annotations();
        assert!(annotations.contains_key("pod-security.kubernetes.io/audit-violations"));
        assert!(!annotations.contains_key("pod-security.kubernetes.io/enforce-policy"));
    }
    let controller = json!({"metadata": {"name": "r"}, "spec": {}});
    let request = Request::new(registry(), "", "replicationcontrollers", controller, Value::Null);
    assert_eq!(outcome(request.validate(&setup.plugin).await), Ok(()), "without a template");
}

#[tokio::test]
async fn enforced_level_also_warns() {
    let setup = setup(None, &[("enforce", "baseline"), ("enforce-version", "v1.30")]);
    let object = json!({"spec": {"template": privileged_pod()}});
    let request = Request::new(registry(), "apps", "deployments", object, Value::Null);
    assert_eq!(outcome(request.validate(&setup.plugin).await), Ok(()));
    assert_eq!(
        request.notes.take_warnings(),
        [format!(r#"would violate PodSecurity "baseline:v1.30": {VIOLATION}"#)]
    );
}

#[tokio::test]
async fn checks_only_significant_updates() {
    let setup = setup(None, &[("enforce", "restricted")]);
    let old = privileged_pod();
    let changed = |path: &[&str], value: Value| {
        let mut pod = old.clone();
        *path.iter().fold(&mut pod, |place, name| &mut place[*name]) = value;
        pod
    };
    let mut image = old.clone();
    image["spec"]["containers"][0]["image"] = json!("new");
    let ephemeral = changed(&["spec", "ephemeralContainers"], json!([{"name": "e", "image": "i"}]));
    for (subresource, new, is_refused) in [
        ("", changed(&["metadata", "labels"], json!({"a": "b"})), false),
        (
            "",
            changed(
                &["metadata", "annotations"],
                json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}),
            ),
            false,
        ),
        ("", changed(&["spec", "tolerations"], json!([{"key": "a"}])), false),
        ("", image.clone(), true),
        ("status", image, false),
        ("ephemeralcontainers", ephemeral.clone(), true),
        ("resize", changed(&["spec", "containers"], old["spec"]["containers"].clone()), false),
    ] {
        let request = Request::new(registry(), "", "pods", new, old.clone()).with_subresource(subresource);
        assert_eq!(
            request.validate(&setup.plugin).await.is_err(),
            is_refused,
            "{subresource} {}",
            request.object
        );
    }
    let request = Request::new(registry(), "", "pods", ephemeral.clone(), ephemeral);
    assert!(request.validate(&setup.plugin).await.is_ok());
}

#[tokio::test]
async fn applies_configured_defaults_and_exemptions() {
    let config = json!({"defaults": {"enforce": "baseline", "enforce-version": "latest"},
        "exemptions": {"usernames": ["jane"], "namespaces": ["other"], "runtimeClasses": ["vm"]}});
    let setup = setup(Some(config), &[]);
    let mut vm = privileged_pod();
    vm["spec"]["runtimeClassName"] = json!("vm");
    for (pod, user, namespace, exempt) in [
        (privileged_pod(), "joe", "ns", None),
        (privileged_pod(), "jane", "ns", Some("user")),
        (privileged_pod(), "joe", "other", Some("namespace")),
        (vm, "joe", "ns", Some("runtimeClass")),
    ] {
        let mut request = Request::new(registry(), "", "pods", pod, Value::Null).by(user, &[]);
        request.namespace = namespace;
        assert_eq!(request.validate(&setup.plugin).await.is_ok(), exempt.is_some());
        let annotation = request.notes.take_annotations().remove("pod-security.kubernetes.io/exempt");
        assert_eq!(annotation.as_deref(), exempt);
    }
    for wrong in [
        json!({"defaults": {"enforce": "none"}}),
        json!({"defaults": {"warn-version": "v2.0"}}),
        json!({"defaults": {"unknown": "x"}}),
        json!({"exemptions": {"namespaces": ["A"]}}),
        json!({"exemptions": {"usernames": ["a", "a"]}}),
    ] {
        let mut content = wrong.clone();
        content["apiVersion"] = json!("pod-security.admission.config.k8s.io/v1");
        content["kind"] = json!("PodSecurityConfiguration");
        assert!(
            config::read(&PluginConfig::default().with_plugin("PodSecurity", content)).is_err(),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn validates_namespace_labels() {
    let setup = setup(None, &[]);
    let good = namespace(&[("enforce", "baseline"), ("warn-version", "v1.20")]);
    let bad = namespace(&[("enforce", "none"), ("audit-version", "1.20")]);
    let message = r#"Namespace "ns" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "none": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: "1.20": must be "latest" or "v1.x"]"#;
    for (new, old, expected) in [
        (good.clone(), Value::Null, Ok(())),
        (bad.clone(), Value::Null, Err((422, message.to_owned()))),
        (bad.clone(), good, Err((422, message.to_owned()))),
        (bad.clone(), bad, Ok(())),
    ] {
        let request = Request::new(registry(), "", "namespaces", new, old);
        assert_eq!(outcome(request.validate(&setup.plugin).await), expected);
    }
    // Invalid labels enforce the strictest level.
    setup.namespaces.put(namespace(&[("enforce", "none")]));
    let request = Request::new(registry(), "", "pods", privileged_pod(), Value::Null);
    let (_, message) = outcome(request.validate(&setup.plugin).await).unwrap_err();
    assert!(message.contains(r#"violates PodSecurity "restricted:latest""#), "{message}");
    assert!(request.notes.take_annotations().contains_key("pod-security.kubernetes.io/error"));
}

#[tokio::test]
async fn stricter_level_warns_of_existing_pods() {
    let setup = setup(None, &[]);
    let pod = |name: &str, owner: Option<&str>, pod: Value| {
        let mut pod = pod;
        pod["metadata"] = json!({"name": name, "namespace": "ns"});
        if let Some(uid) = owner {
            pod["metadata"]["ownerReferences"] = json!([{"uid": uid, "controller": true}]);
        }
        pod
    };
    setup.pods.put(pod("c", Some("1"), privileged_pod()));
    setup.pods.put(pod("b", Some("1"), privileged_pod()));
    setup.pods.put(pod("a", None, with(json!({"hostPID": true}), json!({}), json!(null))));
    setup.pods.put(pod("z", None, safe()));
    let update = async |new: &[(&str, &str)], old: &[(&str, &str)]| {
        let request = Request::new(registry(), "", "namespaces", namespace(new), namespace(old));
        request.validate(&setup.plugin).await.unwrap();
        request.notes.take_warnings()
    };
    let expected = [
        r#"existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest""#,
        "a: host namespaces",
        "b (and 1 other pod): privileged",
    ];
    assert_eq!(update(&[("enforce", "baseline")], &[]).await, expected);
    let none: [&str; 0] = [];
    assert_eq!(update(&[("enforce", "baseline")], &[("enforce", "restricted")]).await, none);
    assert_eq!(update(&[("enforce", "privileged")], &[("enforce", "restricted")]).await, none);
    assert_eq!(update(&[("warn", "restricted")], &[]).await, none);
}
