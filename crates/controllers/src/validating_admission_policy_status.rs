//! Status of validating admission policies: notes that a policy was seen (upstream: `validatingadmissionpolicystatus`).
//! The types of its expressions are not checked, so `status.typeChecking` stays empty.

use futures_util::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::{Api, Patch, PatchParams};
use nave_client::{Action, Lister, ObjectName};
use serde_json::json;

use crate::api::gone_is_fine;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

/// The controller.
pub(crate) const VALIDATING_ADMISSION_POLICY_STATUS: Descriptor = Descriptor {
    name: "validatingadmissionpolicy-status-controller",
    alias: "validatingadmissionpolicy-status-controller",
    service_account: "validatingadmissionpolicy-status-controller",
    on_by_default: true,
    workers: Workers::by_flag("concurrent-validating-admission-policy-status-syncs", 5),
    start,
};

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let mut builder = context.controller("validatingadmissionpolicy-status");
    let policies = builder.informer::<ValidatingAdmissionPolicy>();
    builder.work_on(&policies);
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
        let Some(generation) = unseen(&policy) else { return Ok(Action::Done) };
        let patch = Patch::Merge(json!({"status": {"observedGeneration": generation}}));
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        gone_is_fine(policies.patch_status(key.name(), &PatchParams::default(), &patch).await)?;
        Ok(Action::Done)
    }
}

/// The generation of a policy, if the status is of an older one.
fn unseen(policy: &ValidatingAdmissionPolicy) -> Option<i64> {
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    policy.metadata.generation.filter(|generation| *generation > observed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_is_noted_once() {
        let unseen = |generation: i64, observed: serde_json::Value| {
            let policy = json!({"metadata": {"generation": generation}, "status": observed});
            unseen(&serde_json::from_value(policy).unwrap())
        };
        assert_eq!(unseen(1, json!({})), Some(1));
        assert_eq!(unseen(2, json!({"observedGeneration": 1})), Some(2));
        assert_eq!(unseen(2, json!({"observedGeneration": 2})), None);
    }
}
