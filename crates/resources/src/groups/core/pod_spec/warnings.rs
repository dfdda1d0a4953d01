//! Warnings to clients about pods and pod templates (upstream: `pkg/api/pod`, `pkg/api/node`).

use std::collections::BTreeSet;

use nave_machinery::quantity::Quantity;
use nave_machinery::{Value, meta, names};

use super::CONTAINERS;
use super::annotations::{APP_ARMOR_PREFIX, Profiles, SECCOMP_POD, SECCOMP_PREFIX, differs};
use crate::groups::core::claim_spec_warnings;
use crate::ip::ip_warning;
use crate::validate::At;

/// The maximum number of warnings per object.
const MAX_WARNINGS: usize = 64;

/// Deprecated labels of nodes.
const DEPRECATED_NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// Annotations that have no effect.
const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

/// Deprecated volume types, with the field name to use in warnings.
const DEPRECATED_VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const USE_SECCOMP_FIELD: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Returns the warnings about a new pod.
pub(crate) fn pod(pod: &Value) -> Vec<String> {
    let mut found = Warnings::default();
    let root = At::root(pod);
    found.name(&root, "this is used in the Pod's hostname");
    found.pod(root);
    found.0
}

/// Returns the warnings about a workload with the pod template at `spec.<template>`. An update has warnings only if
/// it changes the spec.
pub(crate) fn workload(workload: &Value, old: Option<&Value>, template: &'static str) -> Vec<String> {
    let mut found = Warnings::default();
    if old.is_none_or(|old| meta::field(old, "generation") != meta::field(workload, "generation")) {
        found.template(&At::root(workload), template);
    }
    found.0
}

/// Returns the warnings of [`workload`], for workloads whose name is part of their pods' names.
pub(crate) fn named_workload(object: &Value, old: Option<&Value>, template: &'static str) -> Vec<String> {
    let mut found = Warnings::default();
    if old.is_none() {
        found.name(&At::root(object), "this is used in Pod names and hostnames");
    }
    found.extend(workload(object, old, template));
    found.0
}

/// Returns the warnings about a selector of node labels.
pub(crate) fn of_label_selector(selector: At) -> Vec<String> {
    let mut found = Warnings::default();
    found.node_term(&selector);
    for (key, _) in selector.field("matchLabels").entries() {
        if let Some(message) = deprecated_label(key) {
            let path = selector.path().child("matchLabels").child(key);
            found.add(|| format!("{path}: {message}"));
        }
    }
    found.0
}

/// Returns the warnings about a node selector, such as the selector of a persistent volume.
pub(crate) fn of_node_selector(selector: At) -> Vec<String> {
    let mut found = Warnings::default();
    selector.field("nodeSelectorTerms").items().for_each(|term| found.node_term(&term));
    found.0
}

/// The warnings collected so far.
#[derive(Default)]
pub(super) struct Warnings(Vec<String>);

impl Warnings {
    pub(super) fn add(&mut self, warning: impl FnOnce() -> String) {
        if self.0.len() < MAX_WARNINGS {
            self.0.push(warning());
        }
    }

    pub(super) fn extend(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.add(|| warning);
        }
    }

    /// Adds a warning about a field.
    pub(super) fn add_at(&mut self, at: &At, what: &str) {
        self.add(|| format!("{}: {what}", at.path()));
    }

    /// Warns about a name that is not a DNS label, because host names contain it.
    fn name(&mut self, root: &At, usage: &str) {
        let metadata = root.field("metadata");
        let found = names::is_dns1123_label(metadata.field("name").text());
        if !found.is_empty() {
            let found = found.join(" ");
            self.add(|| {
                format!(
                    "metadata.name: {usage}, which can result in surprising behavior; a DNS label is recommended: [{found}]"
                )
            });
        }
    }

    /// Checks the pod template of a workload. A cron job nests it in the job template, and a pod template object has
    /// no spec.
    fn template(&mut self, root: &At, field: &'static str) {
        let of_pod_template = root.field("template");
        if field.is_empty() {
            self.pod(of_pod_template);
            return;
        }
        let spec = root.field("spec");
        let template = spec.field(field);
        if field == "jobTemplate" {
            self.template(&template, "template");
        } else {
            self.pod(template);
        }
    }

    /// Checks the pod with the metadata and spec of `owner`.
    fn pod(&mut self, owner: At) {
        let (metadata, spec) = (owner.field("metadata"), owner.field("spec").with_field_filter());
        let annotations = metadata.field("annotations");
        self.node_labels(&spec);
        for (key, message) in DEPRECATED_ANNOTATIONS {
            let annotation = annotations.key(key);
            if annotation.is_set() {
                self.add_at(&annotation, message);
            }
        }
        for volume in spec.field("volumes").items() {
            let volume = volume.with_field_filter();
            for (field, shown, message) in DEPRECATED_VOLUMES {
                if volume.field(field).is_set() {
                    self.add_at(&volume.field(shown), message);
                }
            }
            let ephemeral = volume.field("ephemeral");
            let template = ephemeral.field("volumeClaimTemplate");
            self.extend(claim_spec_warnings(template.field("spec")));
        }
        self.overlapping_paths(&spec);
        self.duplicates(&spec, "hostAliases", "ip");
        self.duplicates(&spec, "imagePullSecrets", "name");
        for secret in
            spec.field("imagePullSecrets").items().filter(|secret| secret.field("name").text().is_empty())
        {
            self.add_at(&secret.field("name"), "invalid empty name \"\"");
        }
        self.fractions(&spec.field("overhead"));
        let profiles = Profiles::from_annotations(annotations.map());
        if annotations.key(SECCOMP_POD).is_set() && !has_seccomp(&spec) {
            self.add_at(&annotations.key(SECCOMP_POD), USE_SECCOMP_FIELD);
        }
        for kind in CONTAINERS {
            for container in spec.field(kind).items().map(At::with_field_filter) {
                if profiles.seccomp {
                    self.seccomp(&annotations, &container);
                }
                if profiles.app_armor {
                    self.app_armor(&annotations, &spec, &container);
                }
                let resources = container.field("resources");
                self.fractions(&resources.field("limits"));
                self.fractions(&resources.field("requests"));
                self.environment(&container);
            }
        }
        self.ports(&spec);
        let grace = spec.field("terminationGracePeriodSeconds");
        if grace.int().is_some_and(|seconds| seconds < 0) {
            self.add_at(&grace, "must be >= 0; negative values are invalid and will be treated as 1");
        }
        self.affinity_terms(&spec);
        let config = spec.field("dnsConfig");
        self.extend(config.field("nameservers").items().filter_map(ip_warning));
        self.extend(spec.field("hostAliases").items().filter_map(|alias| ip_warning(alias.field("ip"))));
    }

    fn node_labels(&mut self, spec: &At) {
        for (key, at) in spec.field("nodeSelector").entries() {
            if let Some(message) = deprecated_label(key) {
                self.add_at(&at, message);
            }
        }
        let affinity = spec.field("affinity");
        let node = affinity.field("nodeAffinity");
        let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
        for term in required.field("nodeSelectorTerms").items() {
            self.node_term(&term);
        }
        for weighted in node.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
            let term = weighted.field("preference");
            self.node_term(&term);
            for expression in term.field("matchExpressions").items() {
                for value in expression.field("values").items() {
                    for why in names::is_valid_label_value(value.text()) {
                        self.add_at(&value, &format!("{} is invalid, {why}", value.text()));
                    }
                }
            }
        }
        for constraint in spec.field("topologySpreadConstraints").items() {
            let key = constraint.field("topologyKey");
            if let Some(message) = deprecated_label(key.text()) {
                self.add_at(&key, &format!("{} is {message}", key.text()));
            }
            if !constraint.field("labelSelector").is_set() {
                self.add_at(&constraint.field("labelSelector"), NULL_SELECTOR);
            }
        }
    }

    fn node_term(&mut self, term: &At) {
        for expression in term.field("matchExpressions").items() {
            let key = expression.field("key");
            if let Some(message) = deprecated_label(key.text()) {
                self.add_at(&key, &format!("{} is {message}", key.text()));
            }
        }
    }

    fn affinity_terms(&mut self, spec: &At) {
        let affinity = spec.field("affinity");
        for kind in ["podAffinity", "podAntiAffinity"] {
            let affinity = affinity.field(kind);
            for term in affinity.field("requiredDuringSchedulingIgnoredDuringExecution").items() {
                if !term.field("labelSelector").is_set() {
                    self.add_at(&term.field("labelSelector"), NULL_SELECTOR);
                }
            }
            for weighted in affinity.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
                let term = weighted.field("podAffinityTerm");
                if !term.field("labelSelector").is_set() {
                    self.add_at(&term.field("labelSelector"), NULL_SELECTOR);
                }
            }
        }
    }

    /// Warns about a seccomp annotation if the container lacks the corresponding field.
    fn seccomp(&mut self, annotations: &At, container: &At) {
        let key = format!("{SECCOMP_PREFIX}{}", container.field("name").text());
        if annotations.map().is_some_and(|map| map.contains_key(&key)) && !has_seccomp(container) {
            let path = annotations.path().key(&key);
            self.add(|| format!("{path}: {USE_SECCOMP_FIELD}"));
        }
    }

    /// Warns about an AppArmor annotation of a template if the corresponding field is missing.
    fn app_armor(&mut self, annotations: &At, spec: &At, container: &At) {
        let (own, of_pod) = (container.field("securityContext"), spec.field("securityContext"));
        let key = format!("{APP_ARMOR_PREFIX}{}", container.field("name").text());
        let annotation = annotations.map().and_then(|map| map.get(&key)).and_then(Value::as_str);
        let path = annotations.path();
        let is_template = path.as_str() != "metadata.annotations";
        let Some(annotation) = annotation.filter(|_| is_template && !own.field("appArmorProfile").is_set())
        else {
            return;
        };
        let profile = of_pod.field("appArmorProfile");
        let (kind, file) = (profile.field("type").text(), profile.field("localhostProfile").text());
        if !profile.is_set() || differs(annotation, kind, file).is_some() {
            let path = path.key(&key);
            self.add(|| format!("{path}: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        }
    }

    /// Warns about duplicate values of a field in a list.
    fn duplicates(&mut self, spec: &At, list: &'static str, field: &'static str) {
        let mut seen = BTreeSet::new();
        for item in spec.field(list).items() {
            let value = item.field(field);
            if !seen.insert(value.text()) {
                self.add_at(&value, &format!("duplicate {field} {:?}", value.text()));
            }
        }
    }

    /// Warns about fractional bytes.
    fn fractions(&mut self, amounts: &At) {
        for resource in ["memory", "ephemeral-storage"] {
            let amount = amounts.key(resource);
            if let Ok(quantity) = Quantity::parse(amount.text())
                && quantity.milli_value() % 1000 != 0
            {
                let text =
                    format!("fractional byte value {:?} is invalid, must be an integer", amount.text());
                self.add_at(&amount, &text);
            }
        }
    }

    /// Warns about a redefined variable, unless the new value refers to the old one.
    fn environment(&mut self, container: &At) {
        let mut seen = BTreeSet::new();
        for variable in container.field("env").items() {
            let name = variable.field("name").text();
            if seen.insert(name) {
                continue;
            }
            let (value, itself) = (variable.field("value").text(), format!("$({name})"));
            if variable.field("valueFrom").is_set() || value == itself || !value.contains(&itself) {
                let text =
                    format!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.add_at(&variable, &text);
            }
        }
    }
}

/// Returns whether a security context specifies a seccomp profile.
fn has_seccomp(at: &At) -> bool {
    at.field("securityContext").field("seccompProfile").is_set()
}

/// Returns the warning about a deprecated node label.
pub(crate) fn deprecated_label(key: &str) -> Option<&'static str> {
    DEPRECATED_NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn warnings_of(spec: &Value) -> Vec<String> {
        pod(&json!({"metadata": {"name": "p"}, "spec": spec}))
    }

    #[test]
    fn warns_about_deprecated_fields() {
        let container = |more: Value| {
            let mut container = json!({"name": "c", "image": "i"});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"containers": [container]})
        };
        let term = json!({"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "Exists"}]});
        for (spec, expected) in [
            (json!({}), &[][..]),
            (
                json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                &[
                    r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                ],
            ),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}),
                &[
                    r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead"#,
                ],
            ),
            (
                json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "gitRepo": {}}]}),
                &["spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"],
            ),
            (
                json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {"name": ""}]}),
                &[
                    r#"spec.imagePullSecrets[1].name: duplicate name "a""#,
                    r#"spec.imagePullSecrets[2].name: invalid empty name """#,
                ],
            ),
            (
                container(json!({"resources": {"limits": {"memory": "100m"}}})),
                &[
                    r#"spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#,
                ],
            ),
            (
                container(
                    json!({"env": [{"name": "A", "value": "x"}, {"name": "A", "value": "$(A)y"}, {"name": "A"}]}),
                ),
                &[
                    r#"spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#,
                ],
            ),
            (
                container(
                    json!({"ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}]}),
                ),
                &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
            ),
            (
                json!({"terminationGracePeriodSeconds": -1}),
                &[
                    "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                ],
            ),
        ] {
            assert_eq!(warnings_of(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn warns_about_name_with_dots() {
        let named = |name: &str| json!({"metadata": {"name": name}, "spec": {"template": {"spec": {}}}});
        assert!(
            pod(&named("a.b"))[0].starts_with("metadata.name: this is used in the Pod's hostname, which")
        );
        let named_warnings = named_workload(&named("a.b"), None, "template");
        assert!(named_warnings[0].contains("a DNS label is recommended: ["));
        assert_eq!(workload(&named("a.b"), None, "template"), [] as [&str; 0]);
    }

    #[test]
    fn checks_templates() {
        let template = json!({"metadata": {}, "spec": {"terminationGracePeriodSeconds": -1}});
        let job = json!({"metadata": {"name": "a"}, "spec": {"template": template}});
        let cron_job =
            json!({"metadata": {"name": "a"}, "spec": {"jobTemplate": {"spec": {"template": template}}}});
        assert!(
            workload(&job, None, "template")[0]
                .starts_with("spec.template.spec.terminationGracePeriodSeconds: ")
        );
        let found = named_workload(&cron_job, None, "jobTemplate");
        assert!(found[0].starts_with("spec.jobTemplate.spec.template.spec.terminationGracePeriodSeconds: "));
    }

    #[test]
    fn warns_about_updates_that_change_the_spec() {
        let job = |generation: i64| {
            json!({"metadata": {"name": "a.b", "generation": generation},
                "spec": {"template": {"spec": {"terminationGracePeriodSeconds": -1}}}})
        };
        assert_eq!(named_workload(&job(1), None, "template").len(), 2);
        assert_eq!(named_workload(&job(2), Some(&job(1)), "template").len(), 1);
        assert_eq!(named_workload(&job(1), Some(&job(1)), "template").len(), 0);
    }

    #[test]
    fn warns_about_annotations_without_fields() {
        let template = |profile: Value| {
            let key = format!("{APP_ARMOR_PREFIX}c");
            json!({"metadata": {"name": "t"}, "template": {"metadata": {"annotations": {key: "unconfined"}},
                "spec": {"containers": [{"name": "c"}], "securityContext": {"appArmorProfile": profile}}}})
        };
        assert_eq!(workload(&template(json!(null)), None, "").len(), 1);
        assert_eq!(workload(&template(json!({"type": "RuntimeDefault"})), None, "").len(), 1);
        assert_eq!(workload(&template(json!({"type": "Unconfined"})), None, "").len(), 0);
    }

    #[test]
    fn number_of_warnings_is_limited() {
        let ports: Vec<_> = (0..10_000).map(|_| json!({"name": "a", "containerPort": 80})).collect();
        let names: Vec<_> = (0..10_000).map(|_| json!({"name": "a"})).collect();
        let spec =
            json!({"imagePullSecrets": names, "containers": [{"name": "c", "ports": ports, "env": names}]});
        assert_eq!(warnings_of(&spec).len(), MAX_WARNINGS);
    }
}
