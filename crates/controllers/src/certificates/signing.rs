//! Signs approved certificate signing requests of Kubernetes' own signers.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PostParams};
use nave_client::{Action, Lister, ObjectName};

use super::request::{CLIENT, CertificateRequest, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};
use super::{certificate, has_condition};
use crate::api::ignore_not_found;
use crate::frame::{CertificateSigner, Context, Descriptor, Reconciler, SyncError, Workers};

pub(crate) const CSR_SIGNING: Descriptor = Descriptor {
    name: "certificatesigningrequest-signing-controller",
    alias: "csrsigning",
    service_account: "certificate-controller",
    on_by_default: true,
    workers: Workers::fixed(5),
    start,
};

const SIGNERS: [&str; 4] = [KUBELET_SERVING, KUBELET_CLIENT, CLIENT, LEGACY];

struct Controller {
    client: kube::Client,
    requests: Lister<CertificateSigningRequest>,
    signer: Arc<dyn CertificateSigner>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    // Without a CA, the controller only waits for `stop`.
    let Some(signer) = context.signer.clone() else {
        let stop = context.stop.clone();
        return async move { stop.cancelled().await }.boxed();
    };
    let (builder, requests) = context.controller_for::<CertificateSigningRequest>("csrsigning");
    builder.run(Controller { client: context.client.clone(), requests: requests.lister(), signer })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.requests.get_by_key(&key) else { return Ok(Action::Done) };
        let mut request = cached.decode()?;
        if !is_due(&request) {
            return Ok(Action::Done);
        }
        let spec = &request.spec;
        let usages = spec.usages.as_deref().unwrap_or_default();
        let requested = CertificateRequest::read(&spec.request.0)
            .map_err(|why| SyncError::Invalid(format!("{}: {why}", key.name())))?;
        if let Err(message) = requested.check(&spec.signer_name, usages) {
            let conditions = &mut request.status.get_or_insert_default().conditions;
            conditions.get_or_insert_default().push(failed_condition(message));
        } else {
            let signed =
                self.signer.sign(&spec.signer_name, &spec.request.0, usages, spec.expiration_seconds);
            let Some(signed) = signed else { return Ok(Action::Done) };
            let signed = signed.map_err(|why| SyncError::Invalid(format!("{}: {why}", key.name())))?;
            request.status.get_or_insert_default().certificate = Some(ByteString(signed));
        }
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        ignore_not_found(requests.replace_status(key.name(), &PostParams::default(), &request).await)?;
        Ok(Action::Done)
    }
}

/// Returns whether a request is approved, names one of Kubernetes' own signers, and has no certificate yet.
fn is_due(request: &CertificateSigningRequest) -> bool {
    has_condition(request, "Approved")
        && !has_condition(request, "Denied")
        && !has_condition(request, "Failed")
        && certificate(request).is_none()
        && SIGNERS.contains(&request.spec.signer_name.as_str())
}

fn failed_condition(message: String) -> CertificateSigningRequestCondition {
    let now = Time(Timestamp::now());
    CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::request;
    use super::*;

    #[test]
    fn signs_approved_requests_without_certificate_only() {
        let due = |signer: &str, types: &[&str], certificate: Value| {
            let conditions: Vec<_> =
                types.iter().map(|type_| json!({"type": type_, "status": "True"})).collect();
            let status = json!({"conditions": conditions, "certificate": certificate});
            is_due(&request(&json!({"signerName": signer}), &status))
        };
        assert!(due(CLIENT, &["Approved"], Value::Null));
        assert!(!due(CLIENT, &[], Value::Null));
        assert!(!due(CLIENT, &["Denied"], Value::Null));
        assert!(!due(CLIENT, &["Approved", "Failed"], Value::Null));
        assert!(!due(CLIENT, &["Approved"], json!("YQ==")));
        assert!(!due("example.com/own", &["Approved"], Value::Null));
    }
}
