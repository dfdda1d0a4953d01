//! `coordination.k8s.io`: leases.

use nave_machinery::Value;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::strategy::Strategy;
use crate::table::{age, field, name};
use crate::validate::{At, Errors, not_negative, required_text};

pub(crate) fn group() -> GroupBuilder {
    let leases = resource("Lease", "leases").create_on_update().conditional_update().columns(vec![
        name(),
        field("Holder", "spec.holderIdentity", "").of("coordination.v1.LeaseSpec", "holderIdentity"),
        age(),
    ]);
    let leases = leases.strategy(LeaseStrategy);
    declare("coordination.k8s.io", "io.k8s.api.coordination", vec![leases])
}

/// What is particular to leases (upstream: `pkg/apis/coordination/validation`).
struct LeaseStrategy;

impl Strategy for LeaseStrategy {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_lease_lasts() {
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
}
