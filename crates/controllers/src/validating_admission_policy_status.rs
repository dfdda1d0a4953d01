//! Sets `status.observedGeneration` of validating admission policies (upstream: `validatingadmissionpolicystatus`).
//! CEL expressions are not type-checked here, so `status.typeChecking` stays empty.

use futures_util::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::{Api, Patch, PatchParams};
use nave_client::{Action, Lister, ObjectName};
use serde_json::json;

use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

pub(crate) const VALIDATING_ADMISSION_POLICY_STATUS: Descriptor = Descriptor {
    name: "validatingadmissionpolicy-status-controller",
    alias: "validatingadmissionpolicy-status-controller",
    service_account: "validatingadmissionpolicy-status-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-validating-admission-policy-status-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (builder, policies) =
        context.controller_for::<ValidatingAdmissionPolicy>("validatingadmissionpolicy-status");
    builder.run(Controller { client: context.client.clone(), policies: policies.lister() })
}

struct Controller {
    client: kube::Client,
    policies: Lister<ValidatingAdmissionPolicy>,
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(policy) = self.policies.get_by_key(&key) else { return Ok(Action::Done) };
        let policy = policy.decode()?;
        let Some(generation) = unobserved_generation(&policy) else { return Ok(Action::Done) };
        let patch = Patch::Merge(json!({"status": {"observedGeneration": generation}}));
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        ignore_not_found(policies.patch_status(key.name(), &PatchParams::default(), &patch).await)?;
        Ok(Action::Done)
    }
}

/// Returns the generation of a policy if the status has an older generation.
fn unobserved_generation(policy: &ValidatingAdmissionPolicy) -> Option<i64> {
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    policy.metadata.generation.filter(|generation| *generation > observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_each_generation_once() {
        let unobserved_generation = |generation: i64, observed: serde_json::Value| {
            let policy = json!({"metadata": {"generation": generation}, "status": observed});
            unobserved_generation(&serde_json::from_value(policy).unwrap())
        };
        assert_eq!(unobserved_generation(1, json!({})), Some(1));
        assert_eq!(unobserved_generation(2, json!({"observedGeneration": 1})), Some(2));
        assert_eq!(unobserved_generation(2, json!({"observedGeneration": 2})), None);
    }
}
