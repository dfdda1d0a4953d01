//! PodSecurity enforces the security level of a namespace (upstream: `plugin/pkg/admission/security/podsecurity` and
//! `k8s.io/pod-security-admission`).
//!
//! | module | contents |
//! | --- | --- |
//! | `policy` | levels, versions, and the policy in namespace labels |
//! | `checks` | the checks of each level, by version of the policy |
//! | `config` | `PodSecurityConfiguration`: defaults and exemptions |
//! | `namespaces` | checks of namespace label changes |
//!
//! The mode `enforce` refuses pods. The modes `audit` and `warn` add audit annotations and warnings, for pods and for
//! workloads with pod templates.

mod checks;
mod config;
mod namespaces;
mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use nave_machinery::{Object, Status, Value};

use super::Parts;
use super::pods::{ContainerKind, containers, list, text};
use crate::config::{ConfigError, PluginConfig};
use crate::metrics::{Evaluation, Metrics};
use crate::{Attributes, Lister, Plugin, Validate};
use checks::{PodView, Violations};
use config::Exemptions;
use policy::{Labels, LevelVersion, Policy};

/// The prefix of labels and audit annotations.
const PREFIX: &str = "pod-security.kubernetes.io/";
/// Subresources of pods that do not change the pod.
const IGNORED_SUBRESOURCES: [&str; 8] =
    ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];

/// PodSecurity.
pub(super) fn plugin(parts: &Parts, config: &PluginConfig, metrics: &Metrics) -> Result<Plugin, ConfigError> {
    let (defaults, exemptions) = config::read(config)?;
    Ok(Plugin::validating(PodSecurity {
        namespaces: Arc::clone(&parts.cluster.namespaces),
        pods: Arc::clone(&parts.cluster.pods),
        defaults,
        exemptions,
        metrics: metrics.clone(),
    }))
}

struct PodSecurity {
    namespaces: Arc<dyn Lister>,
    pods: Arc<dyn Lister>,
    defaults: Policy,
    exemptions: Exemptions,
    metrics: Metrics,
}

/// The kinds of resources that the plugin checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Namespace,
    Pod,
    /// A resource with a pod template at this path.
    Workload(&'static [&'static str]),
}

impl Kind {
    fn from_attributes(attributes: &Attributes<'_>) -> Option<Self> {
        const SPEC: &[&str] = &["spec", "template"];
        let kind = match (attributes.def.group.as_str(), attributes.def.resource.as_str()) {
            ("", "namespaces") => Self::Namespace,
            ("", "pods") => Self::Pod,
            ("", "podtemplates") => Self::Workload(&["template"]),
            ("", "replicationcontrollers")
            | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
            | ("batch", "jobs") => Self::Workload(SPEC),
            ("batch", "cronjobs") => Self::Workload(&["spec", "jobTemplate", "spec", "template"]),
            _ => return None,
        };
        Some(kind)
    }

    /// The kind in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Pod => "pod",
            Self::Workload(_) => "controller",
        }
    }
}

#[async_trait]
impl Validate for PodSecurity {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.is_write()
            && match Kind::from_attributes(attributes) {
                Some(Kind::Pod) => !IGNORED_SUBRESOURCES.contains(&attributes.subresource),
                Some(_) => attributes.is_object(),
                None => false,
            }
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let (Some(object), Some(kind)) = (object, Kind::from_attributes(attributes)) else { return Ok(()) };
        if kind == Kind::Namespace {
            return self.validate_namespace(attributes, object);
        }
        if let Some(reason) = self.exemptions.of_request(attributes) {
            self.note_exemption(attributes, kind, reason);
            return Ok(());
        }
        let (policy, wrong) = self.policy_of(attributes.namespace).await?;
        if wrong.is_empty() && policy.is_privileged(kind == Kind::Pod) {
            if kind == Kind::Pod {
                note(attributes, "enforce-policy", &policy.enforce.to_string());
                self.count(attributes, kind, Evaluation::ALLOWED, policy.enforce);
            }
            return Ok(());
        }
        let template = match kind {
            Kind::Workload(path) => object.value_at(path),
            _ => Some(object.as_value()),
        };
        let Some(template) = template.filter(|template| !template.is_null()) else { return Ok(()) };
        if kind == Kind::Pod
            && let Some(old) = attributes.old.filter(|_| attributes.is_update())
            && !is_significant(object, old)
        {
            return Ok(());
        }
        let pod = PodView::new(template);
        if self.exemptions.has_runtime_class(pod.spec) {
            self.note_exemption(attributes, kind, "runtimeClass");
            return Ok(());
        }
        if !wrong.is_empty() {
            note(attributes, "error", &format!("Failed to parse policy: {}", policy::join(&wrong)));
        }
        self.evaluate(attributes, object, kind, &policy, &pod)
    }
}

impl PodSecurity {
    fn evaluate(
        &self,
        attributes: &Attributes<'_>,
        object: &Object,
        kind: Kind,
        policy: &Policy,
        pod: &PodView<'_>,
    ) -> Result<(), Status> {
        // Caches results, as modes often have the same level and version.
        let mut known: Vec<(LevelVersion, Violations)> = Vec::with_capacity(3);
        let mut evaluate = |level: LevelVersion| -> Violations {
            if let Some((_, violations)) = known.iter().find(|(other, _)| *other == level) {
                return violations.clone();
            }
            let violations = checks::evaluate(level, pod);
            known.push((level, violations.clone()));
            violations
        };
        let mut outcome = Ok(());
        if kind == Kind::Pod {
            note(attributes, "enforce-policy", &policy.enforce.to_string());
            let violations = evaluate(policy.enforce);
            if violations.is_empty() {
                self.count(attributes, kind, Evaluation::ALLOWED, policy.enforce);
            } else {
                self.count(attributes, kind, Evaluation::DENIED, policy.enforce);
                let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, violations.detail());
                outcome = Err(attributes.forbidden(object, why));
            }
        }
        let violations = evaluate(policy.audit);
        if !violations.is_empty() {
            let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, violations.detail());
            note(attributes, "audit-violations", &text);
            self.count(attributes, kind, Evaluation::AUDITED, policy.audit);
        }
        // A refusal already lists the violations, so a warning is added only if the request is admitted.
        if outcome.is_ok() {
            let violations = evaluate(policy.warn);
            if !violations.is_empty() {
                let detail = violations.detail();
                attributes.notes.warn(format!("would violate PodSecurity \"{}\": {detail}", policy.warn));
                self.count(attributes, kind, Evaluation::WARNED, policy.warn);
            }
        }
        outcome
    }

    /// The policy of a namespace, and the errors in its labels.
    async fn policy_of(&self, name: &str) -> Result<(Policy, Vec<nave_machinery::FieldError>), Status> {
        let mut namespace = self.namespaces.get("", name)?;
        if namespace.is_none() {
            namespace = self.namespaces.get_live("", name).await?;
        }
        let missing = || Status::internal(format_args!("failed to lookup namespace {name:?}"));
        Ok(Policy::from_labels(Labels(namespace.ok_or_else(missing)?.labels()), &self.defaults))
    }

    fn note_exemption(&self, attributes: &Attributes<'_>, kind: Kind, reason: &str) {
        note(attributes, "exempt", reason);
        self.metrics.pod_security_exempted(attributes.operation, kind.as_str(), attributes.subresource);
    }

    fn count(&self, attributes: &Attributes<'_>, kind: Kind, evaluation: Evaluation, level: LevelVersion) {
        self.metrics.pod_security_evaluated(
            attributes.operation,
            kind.as_str(),
            attributes.subresource,
            evaluation,
            (level.level.as_str(), &level.version.to_string()),
        );
    }
}

/// Adds an audit annotation. A rejected annotation does not affect the decision.
fn note(attributes: &Attributes<'_>, key: &str, value: &str) {
    if let Err(error) = attributes.notes.annotate(&format!("{PREFIX}{key}"), value) {
        tracing::debug!(%error, "audit annotation dropped");
    }
}

/// Returns whether an update of a pod changes its images or the number of containers.
fn is_significant(pod: &Object, old: &Object) -> bool {
    let null = Value::Null;
    let (spec, old) = (pod.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let images = |spec: &Value, field: &str| -> Vec<String> {
        list(spec.get(field)).iter().map(|container| text(container, "image").to_owned()).collect()
    };
    if ["containers", "initContainers"].iter().any(|field| images(spec, field) != images(old, field)) {
        return true;
    }
    containers(spec).filter(|container| container.kind == ContainerKind::Ephemeral).any(|container| {
        let known =
            list(old.get("ephemeralContainers")).iter().find(|known| text(known, "name") == container.name());
        known.is_none_or(|known| text(known, "image") != text(container.value, "image"))
    })
}
