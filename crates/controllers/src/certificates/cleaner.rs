//! Deletes old certificate signing requests: an hour after they were approved, denied or failed, a day after
//! creation without a decision or certificate, and when the issued certificate has expired.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams};
use nave_client::{Action, Lister, ObjectName};
use x509_parser::pem::parse_x509_pem;

use super::{certificate, conditions};
use crate::api::ignore_not_found;
use crate::frame::{Context, Descriptor, Reconciler, SyncError, Workers};
use crate::time_arithmetic::saturating_add;

pub(crate) const CSR_CLEANER: Descriptor = Descriptor {
    name: "certificatesigningrequest-cleaner-controller",
    alias: "csrcleaner",
    service_account: "certificate-controller",
    on_by_default: true,
    workers: Workers::fixed(1),
    start,
};

/// The time after which a decided request is deleted.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// The time after which an undecided request is deleted.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

struct Controller {
    client: kube::Client,
    requests: Lister<CertificateSigningRequest>,
}

fn start(context: &Context) -> BoxFuture<'static, ()> {
    let (builder, requests) = context.controller_for::<CertificateSigningRequest>("csrcleaner");
    builder.run(Controller { client: context.client.clone(), requests: requests.lister() })
}

impl Reconciler for Controller {
    async fn sync(&self, key: ObjectName) -> Result<Action, SyncError> {
        let Some(cached) = self.requests.get_by_key(&key) else { return Ok(Action::Done) };
        let Some(end) = deletion_time(&cached.decode()?) else { return Ok(Action::Done) };
        match Duration::try_from(Timestamp::now().duration_until(end)) {
            Ok(wait) if !wait.is_zero() => return Ok(Action::RequeueAfter(wait)),
            _ => {}
        }
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        ignore_not_found(requests.delete(key.name(), &DeleteParams::default()).await)?;
        Ok(Action::Done)
    }
}

/// The time at which a request is deleted.
fn deletion_time(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let after = |time: Option<&Time>, wait| Some(saturating_add(time?.0, wait));
    let issued = certificate(request);
    let ends = conditions(request).filter_map(|condition| {
        let wait = match (condition.type_.as_str(), issued) {
            ("Denied" | "Failed", _) | ("Approved", Some(_)) => DECIDED,
            ("Approved", None) => PENDING,
            _ => return None,
        };
        after(condition.last_update_time.as_ref(), wait)
    });
    let is_approved = conditions(request).any(|condition| condition.type_ == "Approved");
    let expired = issued.filter(|_| is_approved).and_then(certificate_expiration);
    let undecided = conditions(request).next().is_none();
    let pending = undecided.then(|| after(request.metadata.creation_timestamp.as_ref(), PENDING)).flatten();
    ends.chain(expired).chain(pending).min()
}

/// The expiration time of the first certificate in a PEM chain.
fn certificate_expiration(pem: &[u8]) -> Option<Timestamp> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::request;
    use super::*;

    #[test]
    fn deletes_requests_by_state_and_age() {
        let condition =
            |type_: &str| json!({"type": type_, "status": "True", "lastUpdateTime": "2026-01-01T12:00:00Z"});
        let cases: [(Value, Option<&str>); 6] = [
            (json!({}), Some("2026-01-02T11:00:00Z")),
            (json!({"conditions": [condition("Denied")]}), Some("2026-01-01T13:00:00Z")),
            (json!({"conditions": [condition("Failed")]}), Some("2026-01-01T13:00:00Z")),
            (json!({"conditions": [condition("Approved")]}), Some("2026-01-02T12:00:00Z")),
            (
                json!({"conditions": [condition("Approved")], "certificate": "YQ=="}),
                Some("2026-01-01T13:00:00Z"),
            ),
            (json!({"conditions": [{"type": "Other", "status": "True"}]}), None),
        ];
        for (status, expected) in cases {
            let end = deletion_time(&request(&json!({}), &status));
            assert_eq!(end, expected.map(|text| text.parse().unwrap()), "{status}");
        }
    }
}
