//! Checks of changes of a namespace's labels.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nave_machinery::{Object, Status, Value};

use super::PodSecurity;
use super::checks::{self, PodView};
use super::policy::{Labels, Level, LevelVersion, Policy};
use crate::Attributes;

/// The maximum number of pods that are checked against a new level.
const MAX_PODS: usize = 3000;
/// The time limit of this check.
const MAX_TIME: Duration = Duration::from_secs(1);

impl PodSecurity {
    /// Refuses invalid labels, and warns of existing pods that violate a new level.
    pub(super) fn validate_namespace(
        &self,
        attributes: &Attributes<'_>,
        namespace: &Object,
    ) -> Result<(), Status> {
        let (policy, errors) = Policy::from_labels(Labels(namespace.labels()), &self.defaults);
        let invalid = || Status::invalid(&attributes.def.group_kind(), namespace.name(), &errors);
        let Some(old) = attributes.old.filter(|_| attributes.is_update()) else {
            if !errors.is_empty() {
                return Err(invalid());
            }
            self.warn_of_exemption(attributes, namespace, &policy);
            return Ok(());
        };
        let (old_policy, old_errors) = Policy::from_labels(Labels(old.labels()), &self.defaults);
        if !errors.is_empty() && errors != old_errors {
            return Err(invalid());
        }
        let (new, old) = (policy.enforce, old_policy.enforce);
        let relaxed = new.version == old.version && new.level <= old.level;
        if new == old || new.level == Level::Privileged || relaxed {
            return Ok(());
        }
        if self.exemptions.has_namespace(namespace.name()) {
            self.warn_of_exemption(attributes, namespace, &policy);
            return Ok(());
        }
        let remaining = attributes.deadline.saturating_duration_since(Instant::now()) / 2;
        let deadline = Instant::now() + MAX_TIME.min(remaining);
        for warning in self.check_pods(namespace.name(), new, deadline)? {
            attributes.notes.warn(warning);
        }
        Ok(())
    }

    fn warn_of_exemption(&self, attributes: &Attributes<'_>, namespace: &Object, policy: &Policy) {
        let name = namespace.name();
        let ineffective = policy.is_privileged(true) || *policy == self.defaults;
        if ineffective || !self.exemptions.has_namespace(name) {
            return;
        }
        let labels = Labels(namespace.labels());
        let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)]
            .into_iter()
            .filter(|(mode, level)| level.level != Level::Privileged && labels.get(mode).is_some())
            .map(|(mode, level)| format!("{mode}={level}"));
        let modes = modes.collect::<Vec<_>>().join(", ");
        attributes.notes.warn(format!(
            "namespace {name:?} is exempt from Pod Security, and the policy ({modes}) will be ignored"
        ));
    }

    /// Warnings about existing pods that violate a new level.
    fn check_pods(
        &self,
        namespace: &str,
        level: LevelVersion,
        deadline: Instant,
    ) -> Result<Vec<String>, Status> {
        let pods = one_of_each_controller_first(self.pods.list(Some(namespace))?);
        let mut checked = 0;
        // For each violation, the first pod by name and the number of pods.
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.iter().take(MAX_PODS) {
            checked += 1;
            let view = PodView::new(pod.as_value());
            if !self.exemptions.has_runtime_class(view.spec) {
                let violations = checks::evaluate(level, &view);
                if !violations.is_empty() {
                    let (name, count) =
                        found.entry(violations.reasons()).or_insert_with(|| (pod.name().to_owned(), 0));
                    *count += 1;
                    if pod.name() < name.as_str() {
                        pod.name().clone_into(name);
                    }
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let mut warnings = Vec::new();
        if checked < pods.len() {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
                pods.len()
            ));
        }
        if !found.is_empty() {
            warnings.push(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{level}\""
            ));
        }
        let mut of_pods: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, count))| match count {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                more => format!("{name} (and {} other pods): {reasons}", more - 1),
            })
            .collect();
        of_pods.sort();
        warnings.extend(of_pods);
        Ok(warnings)
    }
}

/// Moves pods whose controller already occurred to the end, because the pods of a controller are alike.
fn one_of_each_controller_first(pods: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
    let mut controllers = HashSet::new();
    let (mut first, mut replicas) = (Vec::with_capacity(pods.len()), Vec::new());
    for pod in pods {
        let mut owners = pod.owner_references().iter();
        let controller = owners.find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
        let uid = controller.and_then(|owner| Some(owner.get("uid")?.as_str()?.to_owned()));
        match uid {
            Some(uid) if !controllers.insert(uid.clone()) => replicas.push(pod),
            _ => first.push(pod),
        }
    }
    first.extend(replicas);
    first
}
