//! Type-checks validating admission policies and sets `status.typeChecking` and `status.observedGeneration` (upstream:
//! `validatingadmissionpolicystatus`).

mod schemas;

use futures_util::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::{Api, Patch, PatchParams};
use nave_cel::type_checking::{ExpressionWarning, check_policy};
use nave_client::{Action, Lister, ObjectName};
use serde_json::{Value, json};

use self::schemas::Schemas;
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
        let spec = serde_json::to_value(policy.spec.unwrap_or_default()).unwrap_or_default();
        let warnings = self.check(&spec).await?;
        let patch = Patch::Merge(status(generation, &warnings));
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        ignore_not_found(policies.patch_status(key.name(), &PatchParams::default(), &patch).await)?;
        Ok(Action::Done)
    }
}

impl Controller {
    async fn check(&self, spec: &Value) -> Result<Vec<ExpressionWarning>, SyncError> {
        let mut schemas = Schemas::new(self.client.clone());
        let kinds = schemas.matched_kinds(spec).await?;
        let params = schemas.params(spec).await?;
        // Checking long expressions against ten large schemas takes time.
        let spec = spec.clone();
        let check = move || check_policy(&spec, &kinds, params.as_ref());
        tokio::task::spawn_blocking(check).await.map_err(|error| SyncError::Invalid(error.to_string()))
    }
}

/// Returns the status of a checked policy. Replaces earlier warnings.
fn status(generation: i64, warnings: &[ExpressionWarning]) -> Value {
    let warning = |it: &ExpressionWarning| json!({"fieldRef": it.field, "warning": it.warning});
    let warnings: Option<Vec<Value>> = (!warnings.is_empty()).then(|| warnings.iter().map(warning).collect());
    let checked = json!({"expressionWarnings": warnings});
    json!({"status": {"observedGeneration": generation, "typeChecking": checked}})
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

    #[test]
    fn status_replaces_earlier_warnings() {
        let warning =
            ExpressionWarning { field: "spec.validations[0].expression".into(), warning: "w".into() };
        assert_eq!(
            status(2, &[warning])["status"]["typeChecking"],
            json!({"expressionWarnings": [{"fieldRef": "spec.validations[0].expression", "warning": "w"}]})
        );
        assert_eq!(status(3, &[])["status"]["typeChecking"], json!({"expressionWarnings": null}));
    }
}
