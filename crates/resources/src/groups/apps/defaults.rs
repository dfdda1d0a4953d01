//! Defaults of workloads (upstream: `pkg/apis/apps/v1/defaults.go`).

use nave_machinery::{Map, Value};

use crate::defaults::{each, object, set, set_absent};
use crate::groups::core::pod_spec::defaults as pod_spec;

/// The default of `revisionHistoryLimit`.
const REVISION_HISTORY: i64 = 10;

fn spec(workload: &mut Value) -> Option<&mut Map> {
    pod_spec::template(workload);
    object(workload.as_object_mut()?, "spec")
}

/// Returns the `rollingUpdate` parameters if the strategy's type is `RollingUpdate`, the default type.
fn rolling<'a>(spec: &'a mut Map, strategy: &str) -> Option<&'a mut Map> {
    let strategy = object(spec, strategy)?;
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] != "RollingUpdate" {
        return None;
    }
    object(strategy, "rollingUpdate")
}

pub(super) fn deployment(deployment: &mut Value) {
    let Some(spec) = spec(deployment) else { return };
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", REVISION_HISTORY);
    set(spec, "progressDeadlineSeconds", 600);
    if let Some(rolling) = rolling(spec, "strategy") {
        set_absent(rolling, "maxUnavailable", "25%");
        set_absent(rolling, "maxSurge", "25%");
    }
}

pub(super) fn daemon_set(daemon_set: &mut Value) {
    let Some(spec) = spec(daemon_set) else { return };
    set(spec, "revisionHistoryLimit", REVISION_HISTORY);
    if let Some(rolling) = rolling(spec, "updateStrategy") {
        set(rolling, "maxUnavailable", 1);
        set(rolling, "maxSurge", 0);
    }
}

pub(super) fn replica_set(replica_set: &mut Value) {
    let Some(spec) = spec(replica_set) else { return };
    set(spec, "replicas", 1);
}

pub(super) fn stateful_set(stateful_set: &mut Value) {
    let Some(spec) = spec(stateful_set) else { return };
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", REVISION_HISTORY);
    set(spec, "podManagementPolicy", "OrderedReady");
    let strategy = spec.get("updateStrategy");
    let says_type = strategy.and_then(|it| it.get("type")).is_some_and(|it| it != "");
    let has_parameters = strategy.is_some_and(|it| it.get("rollingUpdate").is_some());
    // If the type is explicit and has no parameters, no defaults are set.
    if (!says_type || has_parameters)
        && let Some(rolling) = rolling(spec, "updateStrategy")
    {
        set(rolling, "partition", 0);
    }
    if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
        set(policy, "whenDeleted", "Retain");
        set(policy, "whenScaled", "Retain");
    }
    for claim in each(spec, "volumeClaimTemplates") {
        // Protobuf omits these fields and reads add them, so writes with and without them must be equal.
        claim.insert("apiVersion".to_owned(), "v1".into());
        claim.insert("kind".to_owned(), "PersistentVolumeClaim".into());
        crate::groups::core::claim_defaults(claim);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claim_templates_with_and_without_kind_are_equal() {
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let mut with_kind = claim.clone();
        with_kind["apiVersion"] = json!("v1");
        with_kind["kind"] = json!("PersistentVolumeClaim");
        let [one, other] = [claim, with_kind].map(|claim| {
            let mut set = json!({"spec": {"volumeClaimTemplates": [claim]}});
            stateful_set(&mut set);
            set
        });
        assert_eq!(one, other);
        assert_eq!(one["spec"]["volumeClaimTemplates"][0]["kind"], "PersistentVolumeClaim");
    }
}
