//! The strategies of workloads.

use nave_machinery::{Value, meta};
use serde_json::{Map, json};

use super::{defaults, stateful_sets, status, validation};
use crate::groups::core::claim_spec_warnings;
use crate::groups::core::pod_spec::{disabled, warnings};
use crate::read;
use crate::strategy::Strategy;
use crate::validate::{At, Errors, not_negative};

/// The annotation that replaced a removed field of daemon sets.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const KEEPS_HISTORY: &str = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";

pub(super) struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    fn default(&self, deployment: &mut Value, _version: &str) {
        defaults::deployment(deployment);
    }

    fn prepare_for_create(&self, deployment: &mut Value) {
        disabled::drop_fields(deployment, None, disabled::IN_WORKLOAD);
    }

    fn prepare_for_update(&self, deployment: &mut Value, old: &Value) {
        disabled::drop_fields(deployment, Some(old), disabled::IN_WORKLOAD);
    }

    fn validate(&self, deployment: &Value) -> Errors {
        validation::deployment(deployment)
    }

    fn validate_update(&self, deployment: &Value, old: &Value) -> Errors {
        validation::updated(validation::deployment, deployment, old)
    }

    fn validate_status_update(&self, deployment: &Value, old: &Value) -> Errors {
        status::validate(deployment, old, &["updatedReplicas", "readyReplicas", "availableReplicas"])
    }

    fn warnings(&self, deployment: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::named_workload(deployment, old, "template")
    }
}

pub(super) struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    fn default(&self, replica_set: &mut Value, _version: &str) {
        defaults::replica_set(replica_set);
    }

    fn prepare_for_create(&self, replica_set: &mut Value) {
        disabled::drop_fields(replica_set, None, disabled::IN_WORKLOAD);
    }

    fn prepare_for_update(&self, replica_set: &mut Value, old: &Value) {
        disabled::drop_fields(replica_set, Some(old), disabled::IN_WORKLOAD);
    }

    fn validate(&self, replica_set: &Value) -> Errors {
        validation::replica_set(replica_set)
    }

    fn validate_update(&self, replica_set: &Value, old: &Value) -> Errors {
        validation::updated(validation::replica_set, replica_set, old)
    }

    fn validate_status_update(&self, replica_set: &Value, old: &Value) -> Errors {
        status::validate(replica_set, old, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"])
    }

    fn warnings(&self, replica_set: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::named_workload(replica_set, old, "template")
    }
}

pub(super) struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    fn default(&self, stateful_set: &mut Value, _version: &str) {
        defaults::stateful_set(stateful_set);
    }

    fn prepare_for_create(&self, stateful_set: &mut Value) {
        disabled::drop_fields(stateful_set, None, disabled::IN_WORKLOAD);
        stateful_sets::drop_disabled(stateful_set, None);
    }

    fn prepare_for_update(&self, stateful_set: &mut Value, old: &Value) {
        disabled::drop_fields(stateful_set, Some(old), disabled::IN_WORKLOAD);
        stateful_sets::drop_disabled(stateful_set, Some(old));
    }

    fn validate(&self, stateful_set: &Value) -> Errors {
        stateful_sets::create(stateful_set)
    }

    fn validate_update(&self, stateful_set: &Value, old: &Value) -> Errors {
        stateful_sets::update(stateful_set, old)
    }

    fn validate_status_update(&self, stateful_set: &Value, old: &Value) -> Errors {
        status::validate(
            stateful_set,
            old,
            &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        )
    }

    fn warnings(&self, stateful_set: &Value, old: Option<&Value>) -> Vec<String> {
        let mut found = warnings::workload(stateful_set, old, "template");
        let root = At::root(stateful_set);
        let spec = root.field("spec");
        for template in spec.field("volumeClaimTemplates").items() {
            // Upstream's path leaves the field out in creates, and spells it `Spec` in updates.
            let shown = if old.is_some() { template.field("Spec") } else { template };
            found.extend(claim_spec_warnings(shown.with(template.field("spec").value())));
        }
        if spec.field("revisionHistoryLimit").int().is_some_and(|limit| limit < 0) {
            found.push(KEEPS_HISTORY.to_owned());
        }
        found
    }
}

pub(super) struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    fn default(&self, daemon_set: &mut Value, _version: &str) {
        defaults::daemon_set(daemon_set);
        // As upstream, the annotation is a field of the internal type, and so in every object.
        set_template_generation(daemon_set, template_generation(daemon_set));
    }

    fn prepare_for_create(&self, daemon_set: &mut Value) {
        disabled::drop_fields(daemon_set, None, disabled::IN_WORKLOAD);
        let generation = template_generation(daemon_set).max(1);
        set_template_generation(daemon_set, generation);
    }

    fn prepare_for_update(&self, daemon_set: &mut Value, old: &Value) {
        disabled::drop_fields(daemon_set, Some(old), disabled::IN_WORKLOAD);
        let changed = read::value_at(daemon_set, "spec.template") != read::value_at(old, "spec.template");
        let generation = template_generation(old) + i64::from(changed);
        set_template_generation(daemon_set, generation);
    }

    fn validate(&self, daemon_set: &Value) -> Errors {
        validation::daemon_set(daemon_set)
    }

    fn validate_update(&self, daemon_set: &Value, old: &Value) -> Errors {
        validation::updated(validation::daemon_set, daemon_set, old)
    }

    fn prepare_for_status_update(&self, daemon_set: &mut Value, old: &Value) {
        set_template_generation(daemon_set, template_generation(old));
    }

    fn validate_status_update(&self, daemon_set: &Value, old: &Value) -> Errors {
        status::validate(daemon_set, old, &[])
    }

    fn warnings(&self, daemon_set: &Value, old: Option<&Value>) -> Vec<String> {
        let is_same = old.is_some_and(|old| template_generation(old) == template_generation(daemon_set));
        if is_same { Vec::new() } else { warnings::workload(daemon_set, None, "template") }
    }
}

fn template_generation(daemon_set: &Value) -> i64 {
    meta::annotation(daemon_set, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(daemon_set: &mut Value, generation: i64) {
    let Some(metadata) = meta::metadata_mut(daemon_set) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), json!(generation.to_string()));
    }
}

pub(super) struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    fn validate(&self, revision: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(revision);
        not_negative(root.field("revision"), &mut errors);
        let data = root.field("data");
        if !data.is_set() {
            errors.push(data.required("data is mandatory"));
        } else if data.map().is_none() {
            errors.push(data.required("data must be a valid JSON object"));
        }
        errors
    }

    fn validate_update(&self, revision: &Value, old: &Value) -> Errors {
        let mut errors = Errors::new();
        let (root, old) = (At::root(revision), At::root(old));
        not_negative(root.field("revision"), &mut errors);
        crate::validate::immutable(root.field("data"), old.field("data"), &mut errors);
        errors
    }
}
