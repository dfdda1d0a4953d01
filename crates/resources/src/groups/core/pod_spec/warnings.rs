//! Warnings to clients about pods and pod templates (upstream: `pkg/api/pod`, `pkg/api/node`).

use std::collections::{BTreeMap, BTreeSet};

use nave_machinery::quantity::Quantity;
use nave_machinery::{Value, names};

use super::CONTAINERS;
use crate::validate::At;

/// The most warnings about one object.
const MAX_WARNINGS: usize = 64;
/// The most definitions of one port that a further one is compared with.
const MAX_SAME_PORTS: usize = 16;

/// Labels of nodes that selectors should not use any more.
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

/// Annotations that have no effect any more.
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

/// Volumes that are deprecated, with the field as warnings name it.
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

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
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

/// Returns the warnings about a new workload, whose field `template` of the spec is its pods' template.
pub(crate) fn workload(workload: &Value, template: &'static str) -> Vec<String> {
    let mut found = Warnings::default();
    found.template(&At::root(workload), template);
    found.0
}

/// The same for a workload whose name is a part of its pods' names.
pub(crate) fn named_workload(workload: &Value, template: &'static str) -> Vec<String> {
    let mut found = Warnings::default();
    let root = At::root(workload);
    found.name(&root, "this is used in Pod names and hostnames");
    found.template(&root, template);
    found.0
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, warning: impl FnOnce() -> String) {
        if self.0.len() < MAX_WARNINGS {
            self.0.push(warning());
        }
    }

    /// A warning about a field.
    fn at(&mut self, at: &At, what: &str) {
        self.add(|| format!("{}: {what}", at.path()));
    }

    /// A name that is no label cannot be a hostname as it is.
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

    /// A cron job's template is that of a job.
    fn template(&mut self, root: &At, field: &'static str) {
        let spec = root.field("spec");
        let template = spec.field(field);
        if field == "jobTemplate" {
            self.template(&template, "template");
        } else {
            self.pod(template);
        }
    }

    /// `owner` has the metadata and the spec of a pod.
    fn pod(&mut self, owner: At) {
        let (metadata, spec) = (owner.field("metadata"), owner.field("spec"));
        let annotations = metadata.field("annotations");
        self.node_labels(&spec);
        for (key, message) in DEPRECATED_ANNOTATIONS {
            let annotation = annotations.key(key);
            if annotation.is_set() {
                self.at(&annotation, message);
            }
        }
        for volume in spec.field("volumes").items() {
            for (field, shown, message) in DEPRECATED_VOLUMES {
                if volume.field(field).is_set() {
                    self.at(&volume.field(shown), message);
                }
            }
        }
        self.duplicates(&spec, "hostAliases", "ip");
        self.duplicates(&spec, "imagePullSecrets", "name");
        for secret in
            spec.field("imagePullSecrets").items().filter(|secret| secret.field("name").text().is_empty())
        {
            self.at(&secret.field("name"), "invalid empty name \"\"");
        }
        self.fractions(&spec.field("overhead"));
        let seccomp = |at: &At| at.field("securityContext").field("seccompProfile").is_set();
        if annotations.key(SECCOMP_POD).is_set() && !seccomp(&spec) {
            self.at(&annotations.key(SECCOMP_POD), USE_SECCOMP_FIELD);
        }
        for kind in CONTAINERS {
            for container in spec.field(kind).items() {
                let key = format!("{SECCOMP_CONTAINER}{}", container.field("name").text());
                if annotations.map().is_some_and(|map| map.contains_key(&key)) && !seccomp(&container) {
                    let path = annotations.path().key(&key);
                    self.add(|| format!("{path}: {USE_SECCOMP_FIELD}"));
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
            self.at(&grace, "must be >= 0; negative values are invalid and will be treated as 1");
        }
        self.affinity_terms(&spec);
    }

    fn node_labels(&mut self, spec: &At) {
        for (key, at) in spec.field("nodeSelector").entries() {
            if let Some(message) = deprecated_label(key) {
                self.at(&at, message);
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
                        self.at(&value, &format!("{} is invalid, {why}", value.text()));
                    }
                }
            }
        }
        for constraint in spec.field("topologySpreadConstraints").items() {
            let key = constraint.field("topologyKey");
            if let Some(message) = deprecated_label(key.text()) {
                self.at(&key, &format!("{} is {message}", key.text()));
            }
            if !constraint.field("labelSelector").is_set() {
                self.at(&constraint.field("labelSelector"), NULL_SELECTOR);
            }
        }
    }

    fn node_term(&mut self, term: &At) {
        for expression in term.field("matchExpressions").items() {
            let key = expression.field("key");
            if let Some(message) = deprecated_label(key.text()) {
                self.at(&key, &format!("{} is {message}", key.text()));
            }
        }
    }

    fn affinity_terms(&mut self, spec: &At) {
        let affinity = spec.field("affinity");
        for kind in ["podAffinity", "podAntiAffinity"] {
            let affinity = affinity.field(kind);
            for term in affinity.field("requiredDuringSchedulingIgnoredDuringExecution").items() {
                if !term.field("labelSelector").is_set() {
                    self.at(&term.field("labelSelector"), NULL_SELECTOR);
                }
            }
            for weighted in affinity.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
                let term = weighted.field("podAffinityTerm");
                if !term.field("labelSelector").is_set() {
                    self.at(&term.field("labelSelector"), NULL_SELECTOR);
                }
            }
        }
    }

    /// Items of a list that have the same value in a field.
    fn duplicates(&mut self, spec: &At, list: &'static str, field: &'static str) {
        let mut seen = BTreeSet::new();
        for item in spec.field(list).items() {
            let value = item.field(field);
            if !seen.insert(value.text()) {
                self.at(&value, &format!("duplicate {field} {:?}", value.text()));
            }
        }
    }

    /// Amounts of bytes are whole numbers.
    fn fractions(&mut self, amounts: &At) {
        for resource in ["memory", "ephemeral-storage"] {
            let amount = amounts.key(resource);
            if let Ok(quantity) = Quantity::parse(amount.text())
                && quantity.milli_value() % 1000 != 0
            {
                let text =
                    format!("fractional byte value {:?} is invalid, must be an integer", amount.text());
                self.at(&amount, &text);
            }
        }
    }

    /// A variable may be defined again by what it was before; otherwise the first definition is lost.
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
                self.at(&variable, &text);
            }
        }
    }

    fn ports(&mut self, spec: &At) {
        let mut same_number: BTreeMap<(i64, &str), Vec<HostPort>> = BTreeMap::new();
        for kind in CONTAINERS {
            for container in spec.field(kind).items() {
                for port in container.field("ports").items() {
                    let here = HostPort::of(&port);
                    let number = port.field("containerPort").int().unwrap_or_default();
                    let protocol = port.field("protocol").text();
                    if !here.ip.is_empty() && here.port == 0 {
                        let (name, ip) = (port.field("name").text(), here.ip);
                        let text = format!(
                            "hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"
                        );
                        self.at(&port, &text);
                    }
                    let others = same_number.entry((number, protocol)).or_default();
                    for other in others.iter() {
                        if let Some(overlap) = here.overlap(other) {
                            self.at(&port, &format!("{overlap} port definition with {}", other.path));
                        }
                    }
                    if others.len() < MAX_SAME_PORTS {
                        others.push(here);
                    }
                }
            }
        }
        self.port_names(spec);
    }

    fn port_names(&mut self, spec: &At) {
        let mut first_of_name: BTreeMap<&str, String> = BTreeMap::new();
        for kind in CONTAINERS {
            for container in spec.field(kind).items() {
                for port in container.field("ports").items() {
                    let name = port.field("name").text();
                    if name.is_empty() {
                        continue;
                    }
                    let Some(first) = first_of_name.get(name) else {
                        first_of_name.insert(name, port.path().to_string());
                        continue;
                    };
                    let text = format!(
                        "duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                    );
                    self.at(&port, &text);
                }
            }
        }
    }
}

/// The port that a container port takes on the host.
struct HostPort<'v> {
    /// The port's definition.
    path: String,
    port: i64,
    ip: &'v str,
}

impl<'v> HostPort<'v> {
    fn of(port: &At<'_, 'v>) -> Self {
        Self {
            path: port.path().to_string(),
            port: port.field("hostPort").int().unwrap_or_default(),
            ip: port.field("hostIP").text(),
        }
    }

    /// How it collides with another definition of the same container port.
    fn overlap(&self, other: &Self) -> Option<&'static str> {
        if (self.port, self.ip) == (other.port, other.ip) {
            Some("duplicate")
        } else if self.port == 0 || other.port == 0 {
            Some("overlapping")
        } else if self.port == other.port && self.ip.is_empty() != other.ip.is_empty() {
            Some("dangerously ambiguous")
        } else {
            None
        }
    }
}

fn deprecated_label(key: &str) -> Option<&'static str> {
    DEPRECATED_NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: &Value) -> Vec<String> {
        pod(&json!({"metadata": {"name": "p"}, "spec": spec}))
    }

    #[test]
    fn deprecated_fields_are_named() {
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
            assert_eq!(of(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn a_name_with_dots_is_no_hostname() {
        let named = |name: &str| json!({"metadata": {"name": name}, "spec": {"template": {"spec": {}}}});
        assert!(
            pod(&named("a.b"))[0].starts_with("metadata.name: this is used in the Pod's hostname, which")
        );
        let named_warnings = named_workload(&named("a.b"), "template");
        assert!(named_warnings[0].contains("a DNS label is recommended: ["));
        assert_eq!(workload(&named("a.b"), "template"), [] as [&str; 0]);
    }

    #[test]
    fn templates_are_looked_into() {
        let template = json!({"metadata": {}, "spec": {"terminationGracePeriodSeconds": -1}});
        let job = json!({"metadata": {"name": "a"}, "spec": {"template": template}});
        let cron_job =
            json!({"metadata": {"name": "a"}, "spec": {"jobTemplate": {"spec": {"template": template}}}});
        assert!(
            workload(&job, "template")[0].starts_with("spec.template.spec.terminationGracePeriodSeconds: ")
        );
        let found = named_workload(&cron_job, "jobTemplate");
        assert!(found[0].starts_with("spec.jobTemplate.spec.template.spec.terminationGracePeriodSeconds: "));
    }

    #[test]
    fn warnings_are_bounded() {
        let ports: Vec<_> = (0..10_000).map(|_| json!({"name": "a", "containerPort": 80})).collect();
        let names: Vec<_> = (0..10_000).map(|_| json!({"name": "a"})).collect();
        let spec =
            json!({"imagePullSecrets": names, "containers": [{"name": "c", "ports": ports, "env": names}]});
        assert_eq!(of(&spec).len(), MAX_WARNINGS);
    }
}
