//! `coordination.k8s.io`: leases and the candidates for them.

mod candidates;

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::strategy::Strategy;
use crate::table::{age, field, name};
use crate::validate::{At, Errors, not_negative, required_text};

pub(crate) fn group() -> GroupBuilder {
    let leases = resource("Lease", "leases").create_on_update().conditional_update().columns(vec![
        name(),
        field("Holder", "spec.holderIdentity", "")
            .described_by("coordination.v1.LeaseSpec", "holderIdentity"),
        age(),
    ]);
    let leases = leases.strategy(LeaseStrategy);
    declare("coordination.k8s.io", "io.k8s.api.coordination", vec![candidates::candidates(), leases])
}

/// The strategy of leases (upstream: `pkg/apis/coordination/validation`).
struct LeaseStrategy;

/// The fields of coordinated leader election, a feature that is disabled by default. Stored values are kept.
const COORDINATED: [&str; 2] = ["strategy", "preferredHolder"];

impl Strategy for LeaseStrategy {
    fn prepare_for_create(&self, lease: &mut Value) {
        drop_fields(lease, |_| true);
    }

    fn prepare_for_update(&self, lease: &mut Value, old: &Value) {
        drop_fields(lease, |field| {
            old.get("spec").and_then(|spec| spec.get(field)).is_none_or(Value::is_null)
        });
    }

    fn validate(&self, lease: &Value) -> Errors {
        let mut errors = Errors::new();
        let root = At::root(lease);
        let spec = root.field("spec");
        let duration = spec.field("leaseDurationSeconds");
        if duration.int().is_some_and(|seconds| seconds <= 0) {
            errors.push(duration.invalid("must be greater than 0"));
        }
        not_negative(spec.field("leaseTransitions"), &mut errors);
        let (strategy, preferred) = (spec.field("strategy"), spec.field("preferredHolder"));
        if strategy.is_set() {
            required_text(strategy, &mut errors);
        } else if preferred.is_set() {
            errors.push(preferred.forbidden("may only be specified if `strategy` is defined"));
        }
        errors
    }
}

fn drop_fields(lease: &mut Value, is_dropped: impl Fn(&str) -> bool) {
    let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in COORDINATED.into_iter().filter(|field| is_dropped(field)) {
        spec.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rejects_invalid_leases() {
        let errors = LeaseStrategy.validate(&json!({"spec": {
            "leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a",
        }}));
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ]
        );
        assert!(LeaseStrategy.validate(&json!({"spec": {"leaseDurationSeconds": 15}})).is_empty());
    }

    #[test]
    fn drops_fields_of_coordinated_leader_election() {
        let given = json!({"spec": {"strategy": "s", "preferredHolder": "h", "holderIdentity": "h"}});
        let mut created = given.clone();
        LeaseStrategy.prepare_for_create(&mut created);
        assert_eq!(created, json!({"spec": {"holderIdentity": "h"}}));
        let mut updated = given.clone();
        LeaseStrategy.prepare_for_update(&mut updated, &json!({"spec": {"strategy": "old"}}));
        assert_eq!(updated, json!({"spec": {"strategy": "s", "holderIdentity": "h"}}));
    }
}
