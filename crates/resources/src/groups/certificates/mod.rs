//! `certificates.k8s.io`: certificate signing requests.

mod strategy;

use nave_machinery::Value;
use nave_machinery::time;
use serde_json::json;

use crate::builder::{GroupBuilder, group as declare, resource};
use crate::def::{NameRule, Verb};
use crate::read;
use crate::table::{Column, age, field, name, text};

pub(crate) fn group() -> GroupBuilder {
    let requests = resource("CertificateSigningRequest", "certificatesigningrequests")
        .cluster()
        .short(&["csr"])
        .named(NameRule::PathSegment)
        .status()
        .restricted_update("approval", Verb::VIEW)
        .field("spec.signerName")
        .columns(columns())
        .strategy(strategy::RequestStrategy);
    declare("certificates.k8s.io", "io.k8s.api.certificates", vec![requests])
}

fn columns() -> Vec<Column> {
    let spec = "certificates.v1.CertificateSigningRequestSpec";
    let duration = Column::new("RequestedDuration", |request, _| {
        match read::value_at(request, "spec.expirationSeconds").and_then(Value::as_i64) {
            Some(seconds) => json!(time::human_duration(seconds)),
            None => json!("<none>"),
        }
    });
    vec![
        name(),
        age(),
        field("SignerName", "spec.signerName", "<none>").described_by(spec, "signerName"),
        field("Requestor", "spec.username", "").described_by(spec, "request"),
        duration.described_by(spec, "expirationSeconds"),
        text("Condition", state)
            .described_by("certificates.v1.CertificateSigningRequestStatus", "conditions"),
    ]
}

fn state(request: &Value) -> String {
    let is = |kind| read::condition(request, kind).is_some();
    let decision = match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    };
    let failed = if is("Failed") { ",Failed" } else { "" };
    let issued = if read::text(request, "status.certificate").is_empty() { "" } else { ",Issued" };
    format!("{decision}{failed}{issued}")
}
