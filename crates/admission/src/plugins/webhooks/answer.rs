//! The answer of a webhook (upstream: `webhook/request`, `webhook/errors`).

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use nave_codec::json;
use nave_machinery::status::StatusDetails;
use nave_machinery::{GroupVersion, Reason, Status, Value};
use serde::{Deserialize, Deserializer};

use super::hook::ReviewVersion;

/// The checked answer of a webhook.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// The reason of a refusal.
    pub(super) status: Option<Refusal>,
    /// The patch; empty if there is none.
    pub(super) patch: Vec<u8>,
    pub(super) patch_type: String,
    pub(super) audit_annotations: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
    /// Kept until the patch is applied, because few large responses may be processed at a time.
    pub(super) response: Option<nave_webhook::Answer>,
}

/// The reasons why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadAnswer {
    /// The body is not an `AdmissionReview`.
    Undecodable(String),
    /// The review is invalid.
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default, deserialize_with = "nullable")]
    uid: String,
    #[serde(default, deserialize_with = "nullable")]
    allowed: bool,
    #[serde(default)]
    status: Option<Refusal>,
    #[serde(default)]
    patch: Option<String>,
    #[serde(default)]
    patch_type: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    audit_annotations: BTreeMap<String, Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    warnings: Vec<Option<String>>,
}

/// Reads null as the default, as Go does.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Answer {
    /// Decodes and checks the body of a response to the review with this uid.
    pub(super) fn parse(
        body: &[u8],
        version: ReviewVersion,
        uid: &str,
        is_mutating: bool,
    ) -> Result<Self, BadAnswer> {
        let undecodable = |why: String| BadAnswer::Undecodable(why);
        let value = json::decode(body)
            .map_err(|error| undecodable(format!("couldn't get version/kind; json parse error: {error}")))?
            .value;
        let Some(fields) = value.as_object() else {
            return Err(undecodable("couldn't get version/kind; json parse error: not an object".to_owned()));
        };
        let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        check_kind(&api_version, &kind, version)?;
        let review = Review::deserialize(value).map_err(|error| undecodable(error.to_string()))?;
        let patch =
            review.response.as_ref().and_then(|response| response.patch.as_deref()).unwrap_or_default();
        let patch = BASE64_STANDARD.decode(patch).map_err(|error| undecodable(error.to_string()))?;
        let invalid = |why: &str| BadAnswer::Invalid(why.to_owned());
        let response = review.response.ok_or_else(|| invalid("webhook response was absent"))?;
        if version == ReviewVersion::V1 {
            if response.uid != uid {
                return Err(BadAnswer::Invalid(format!(
                    "expected response.uid={uid:?}, got {:?}",
                    response.uid
                )));
            }
            if api_version.is_empty() || kind.is_empty() {
                let GroupVersion { group, version } = GroupVersion::parse(&api_version).unwrap_or_default();
                return Err(BadAnswer::Invalid(format!(
                    "expected webhook response of {}, Kind=AdmissionReview, got {group}/{version}, Kind={kind}",
                    ReviewVersion::V1.api_version(),
                )));
            }
            response.check_patch(&patch, is_mutating).map_err(BadAnswer::Invalid)?;
        }
        let patch_type = match version {
            ReviewVersion::V1 => response.patch_type.unwrap_or_default(),
            ReviewVersion::V1Beta1 => "JSONPatch".to_owned(),
        };
        let annotations = response.audit_annotations.into_iter();
        Ok(Self {
            allowed: response.allowed,
            status: response.status,
            patch,
            patch_type,
            audit_annotations: annotations.map(|(key, value)| (key, value.unwrap_or_default())).collect(),
            warnings: response.warnings.into_iter().flatten().collect(),
            response: None,
        })
    }
}

impl Response {
    fn check_patch(&self, patch: &[u8], is_mutating: bool) -> Result<(), String> {
        let why = match (is_mutating, patch.is_empty(), self.patch_type.as_deref()) {
            (true, false, None) => "webhook returned response.patch but not response.patchType",
            (true, true, Some(_)) => "webhook returned response.patchType but not response.patch",
            (true, false, Some("")) => "webhook returned invalid response.patchType of \"\"",
            (false, false, _) => "validating webhook may not return response.patch",
            (false, true, Some(_)) => "validating webhook may not return response.patchType",
            _ => return Ok(()),
        };
        Err(why.to_owned())
    }
}

/// The status of an answer that does not allow the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    #[serde(deserialize_with = "nullable")]
    code: i32,
    #[serde(deserialize_with = "nullable")]
    reason: String,
    #[serde(deserialize_with = "nullable")]
    message: String,
    details: Option<StatusDetails>,
}

/// Checks the kind of an answer; a missing one is reported later.
fn check_kind(api_version: &str, kind: &str, expected: ReviewVersion) -> Result<(), BadAnswer> {
    const SCHEME: &str = "pkg/runtime/scheme.go:111";
    let is_wanted = |given: &str, wanted: &str| given.is_empty() || given == wanted;
    if is_wanted(kind, "AdmissionReview") && is_wanted(api_version, expected.api_version()) {
        return Ok(());
    }
    let is_known = match kind {
        "AdmissionReview" => matches!(api_version, "admission.k8s.io/v1" | "admission.k8s.io/v1beta1"),
        "Status" => api_version == "v1",
        _ => false,
    };
    Err(BadAnswer::Undecodable(if is_known {
        let [from, to] = [api_version, expected.api_version()].map(|it| it.rsplit('/').next().unwrap_or(it));
        format!("converting ({from}.{kind}) to ({to}.AdmissionReview): unknown conversion")
    } else {
        format!("no kind {kind:?} is registered for version {api_version:?} in scheme \"{SCHEME}\"")
    }))
}

/// Returns the error for the client of a webhook that refuses the request.
pub(super) fn denial(webhook: &str, refusal: Option<Refusal>) -> Status {
    let refusal = refusal.unwrap_or_default();
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (refusal.message.as_str(), refusal.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = u16::try_from(refusal.code.max(400)).unwrap_or(u16::MAX);
    let mut status = Status::failure(code, Reason::Unknown, message).with_reason(&refusal.reason);
    status.details = refusal.details.map(Box::new);
    status
}
