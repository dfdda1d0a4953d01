//! Approves requests for kubelet client certificates if the requester is authorized.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PostParams};
use nave_client::{Action, Lister, ObjectName};
use serde_json::json;

use super::request::{CertificateRequest, KUBELET_CLIENT};
use super::{certificate, has_condition};
use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};

pub(crate) const CSR_APPROVING: Descriptor = Descriptor {
    name: "certificatesigningrequest-approving-controller",
    alias: "csrapproving",
    service_account: "certificate-controller",
    on_by_default: true,
    workers: Workers::fixed(5),
    start,
};

struct Controller {
    client: kube::Client,
    requests: Lister<CertificateSigningRequest>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (builder, requests) = context.controller_for::<CertificateSigningRequest>("csrapproving");
    builder.run(Controller { client: context.client.clone(), requests: requests.lister() })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.requests.get_by_key(&key) else { return Ok(Action::Done) };
        let request = cached.decode()?;
        let approval_rules = approval_rules(&request);
        for (subresource, message) in &approval_rules {
            if self.may_create(&request, subresource).await? {
                return self.approve(request, message).await.map(|()| Action::Done);
            }
        }
        if approval_rules.is_empty() {
            return Ok(Action::Done);
        }
        // The permission may be granted later, so the sync is retried with backoff.
        Err(SyncError::Invalid(format!(
            "the requester of {} may not have its certificate approved",
            key.name()
        )))
    }
}

/// The subresources that authorize an approval, with its message. Permission to create any of them is sufficient.
fn approval_rules(request: &CertificateSigningRequest) -> Vec<(&'static str, &'static str)> {
    let decided = has_condition(request, "Approved") || has_condition(request, "Denied");
    if decided || certificate(request).is_some() || request.spec.signer_name != KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(requested) = CertificateRequest::read(&request.spec.request.0) else { return Vec::new() };
    if requested.check(KUBELET_CLIENT, request.spec.usages.as_deref().unwrap_or_default()).is_err() {
        return Vec::new();
    }
    let of_its_own = request.spec.username.as_ref() == Some(&requested.common_name);
    let own = of_its_own.then_some((
        "selfnodeclient",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    ));
    let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
    own.into_iter().chain([any]).collect()
}

impl Controller {
    async fn may_create(
        &self,
        request: &CertificateSigningRequest,
        subresource: &str,
    ) -> Result<bool, SyncError> {
        let spec = &request.spec;
        let review = serde_json::from_value(json!({"metadata": {}, "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {"group": "certificates.k8s.io", "version": "*", "verb": "create",
                "resource": "certificatesigningrequests", "subresource": subresource}}}))?;
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, mut request: CertificateSigningRequest, message: &str) -> Result<(), SyncError> {
        let name = request.metadata.name.clone().unwrap_or_default();
        let now = Time(Timestamp::now());
        let condition = CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        };
        request.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        ignore_not_found(requests.replace_subresource("approval", &name, &parameters, &request).await)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixtures::request;
    use super::*;

    #[test]
    fn ignores_decided_requests_and_other_signers() {
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let cases = [
            (json!({"signerName": KUBELET_CLIENT}), approved),
            (json!({"signerName": KUBELET_CLIENT}), json!({"certificate": "YQ=="})),
            (json!({"signerName": "kubernetes.io/kubelet-serving"}), json!({})),
            (json!({"signerName": KUBELET_CLIENT, "request": "bm90IFBFTQ=="}), json!({})),
        ];
        for (spec, status) in cases {
            assert!(approval_rules(&request(&spec, &status)).is_empty(), "{spec} {status}");
        }
    }
}
