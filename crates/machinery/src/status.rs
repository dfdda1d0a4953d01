//! `Status`, the document of every API error and of some successes (upstream: `meta/v1` and
//! `apimachinery/pkg/api/errors`).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{self, MAX_MESSAGE_BYTES};
use crate::{FieldError, FieldErrors, GroupKind, GroupResource};

/// Maximum number of validation errors in the message and causes of a `Status`. An object can have an error for every
/// value.
pub const MAX_CAUSES: usize = 100;

/// The machine-readable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    #[serde(rename = "StorageReadError")]
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    /// No reason beyond the HTTP code.
    #[serde(rename = "")]
    Unknown,
}

/// A cause of a failure, usually a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// Machine-readable reason, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// The subject of a `Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The object's API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The kind, or for most errors the resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds after which to retry; 0 if not applicable.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// The result of a request that does not return an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The reason; `None` for a success.
    pub reason: Option<Reason>,
    /// The message.
    pub message: String,
    /// The subject.
    pub details: Option<Box<StatusDetails>>,
    /// The token to continue an expired list at the latest state; may be empty.
    pub continue_token: String,
    /// A reason that is not a [`Reason`], from a webhook.
    pub other_reason: Option<Box<str>>,
}

impl Status {
    /// Returns a failure. The message is cut at [`MAX_MESSAGE_BYTES`].
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: Some(reason),
            message: limits::clip(message.into(), MAX_MESSAGE_BYTES),
            details: None,
            continue_token: String::new(),
            other_reason: None,
        }
    }

    /// Returns a success without details.
    pub fn success(code: u16) -> Self {
        Self { reason: None, ..Self::failure(code, Reason::Unknown, "") }
    }

    /// Returns the success of a deletion.
    pub fn deleted(resource: &GroupResource, name: &str, uid: &str) -> Self {
        let details = StatusDetails { uid: uid.to_owned(), ..about(resource, name) };
        Self::success(200).with_details(details)
    }

    /// Returns 404: the object does not exist.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{resource} {name:?} not found"))
            .with_object(resource, name)
    }

    /// Returns 404: the path does not exist.
    pub fn no_such_path() -> Self {
        Self::failure(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// Returns 409: the name is already in use.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, Reason::AlreadyExists, format!("{resource} {name:?} already exists"))
            .with_object(resource, name)
    }

    /// Returns 409: the object is not in the state that the request assumes.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::failure(409, Reason::Conflict, message).with_object(resource, name)
    }

    /// Returns 422 with the first [`MAX_CAUSES`] validation errors.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_in_many_ways(kind, name, errors, 0)
    }

    /// Returns 422 with the first [`MAX_CAUSES`] validation errors and the number of the others.
    pub fn invalid_object(kind: &GroupKind, name: &str, errors: &FieldErrors) -> Self {
        Self::invalid_in_many_ways(kind, name, errors, errors.omitted())
    }

    fn invalid_in_many_ways(kind: &GroupKind, name: &str, errors: &[FieldError], omitted: usize) -> Self {
        let mut seen = HashSet::new();
        let mut messages: Vec<String> = Vec::new();
        for error in errors.iter().take(MAX_CAUSES) {
            let text = error.to_string();
            if seen.insert(text.clone()) {
                messages.push(text);
            }
        }
        let more = errors.len().saturating_sub(MAX_CAUSES) + omitted;
        if more > 0 {
            messages.push(format!("and {more} more errors"));
        }
        let text = match messages.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes = errors
            .iter()
            .take(MAX_CAUSES)
            .map(|error| StatusCause {
                reason: error.kind.reason().to_owned(),
                message: error.body(),
                field: error.field.to_string(),
            })
            .collect();
        let details = StatusDetails {
            name: name.to_owned(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes,
            ..StatusDetails::default()
        };
        Self::failure(422, Reason::Invalid, format!("{kind} {name:?} is invalid: {text}"))
            .with_details(details)
    }

    /// Returns 400: the request is malformed.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// Returns 401: the request has no valid credentials.
    pub fn unauthorized() -> Self {
        Self::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// Returns 403: the operation on the object is not allowed.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() { resource.to_string() } else { format!("{resource} {name:?}") };
        Self::failure(403, Reason::Forbidden, format!("{subject} is forbidden: {why}"))
            .with_object(resource, name)
    }

    /// Returns 405: the resource does not support the verb.
    pub fn method_not_allowed(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::failure(405, Reason::MethodNotAllowed, message).with_object(resource, "")
    }

    /// Returns 405: the path does not support the method.
    pub fn method_not_allowed_here() -> Self {
        Self::failure(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with_details(StatusDetails::default())
    }

    /// Returns 406: the server does not serve any accepted media type.
    pub fn not_acceptable(served: &[&str]) -> Self {
        let list = served.join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// Returns 409 for an object named by its kind, as for preconditions of a deletion.
    pub fn conflict_of_kind(kind: &GroupKind, name: &str, why: &str) -> Self {
        Self::conflict(&GroupResource::new(&kind.group, &kind.kind), name, why)
    }

    /// Returns 410: the requested revision is compacted or has left the window.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// Returns 413: the body exceeds the limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// Returns 415: the media type of the body is not supported.
    pub fn unsupported_media_type(served: &[&str]) -> Self {
        let list = served.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// Returns 415: the media type of the body is not a patch type of any resource.
    pub fn unsupported_patch_type() -> Self {
        Self::failure(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type")
            .with_details(StatusDetails::default())
    }

    /// Returns 429: retry after the given number of seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
        Self::failure(429, Reason::TooManyRequests, message).with_details(details)
    }

    /// Returns 500: an internal error.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        let cause = StatusCause { message: text.clone(), ..StatusCause::default() };
        let details = StatusDetails { causes: vec![cause], ..StatusDetails::default() };
        Self::failure(500, Reason::InternalError, format!("Internal error occurred: {text}"))
            .with_details(details)
    }

    /// Returns 501: the operation is not implemented. The API defines no reason for this code.
    pub fn not_implemented(what: impl std::fmt::Display) -> Self {
        Self::failure(501, Reason::Unknown, format!("{what} is not served by this version of nave"))
    }

    /// Returns 503: temporarily unavailable.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    /// Returns 504: the server could not finish in time.
    pub fn timeout(why: impl std::fmt::Display, retry_after_seconds: u32) -> Self {
        let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
        Self::failure(504, Reason::Timeout, format!("Timeout: {why}")).with_details(details)
    }

    /// Sets the subject to an object of a resource.
    pub fn with_object(mut self, resource: &GroupResource, name: &str) -> Self {
        let kept = self.details.take().map(|details| *details).unwrap_or_default();
        let StatusDetails { causes, retry_after_seconds, .. } = kept;
        self.details = Some(Box::new(StatusDetails { causes, retry_after_seconds, ..about(resource, name) }));
        self
    }

    /// Adds a cause.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause =
            StatusCause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// Sets the reason, which may be any text; an empty text is no reason.
    pub fn with_reason(mut self, text: &str) -> Self {
        let known = serde_json::from_value(Value::String(text.to_owned())).ok();
        self.other_reason = known.is_none().then(|| text.into());
        self.reason = Some(known.unwrap_or(Reason::Unknown));
        self
    }

    /// Sets the details.
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Returns whether this is a success.
    pub fn is_success(&self) -> bool {
        self.reason.is_none()
    }

    /// Returns the document in its wire form.
    pub fn to_value(&self) -> Value {
        let wire = Wire {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata { token: &self.continue_token },
            status: if self.is_success() { "Success" } else { "Failure" },
            message: &self.message,
            reason: match &self.other_reason {
                Some(other) => Some(WireReason::Other(other)),
                None => self.reason.filter(|reason| *reason != Reason::Unknown).map(WireReason::Known),
            },
            details: self.details.as_deref(),
            // The body of a successful deletion has no code, unlike that of other successes.
            code: if self.is_success() && self.code == 200 { 0 } else { self.code },
        };
        serde_json::to_value(wire).unwrap_or(Value::Null)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<WireReason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a StatusDetails>,
    #[serde(skip_serializing_if = "is_zero")]
    code: u16,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WireReason<'a> {
    Known(Reason),
    Other(&'a str),
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    token: &'a str,
}

fn about(resource: &GroupResource, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: resource.group.clone(),
        kind: resource.resource.clone(),
        ..StatusDetails::default()
    }
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::FieldPath;

    #[test]
    fn invalid_lists_each_field() {
        let kind = GroupKind { group: "apps".into(), kind: "Deployment".into() };
        let at = FieldPath::new("spec").child("replicas");
        let status = Status::invalid(
            &kind,
            "d",
            &[FieldError::invalid(&at, -1, "must be greater than or equal to 0")],
        );
        assert_eq!(
            status.to_value(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
                "message": "Deployment.apps \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "details": {"name": "d", "group": "apps", "kind": "Deployment", "causes": [{
                    "reason": "FieldValueInvalid", "field": "spec.replicas",
                    "message": "Invalid value: -1: must be greater than or equal to 0"}]},
            })
        );
    }

    #[test]
    fn limits_the_size_of_the_status() {
        let kind = GroupKind { group: String::new(), kind: "Pod".into() };
        let long = "x".repeat(100_000);
        let at = FieldPath::new("spec").key(&long);
        let same = vec![FieldError::required(&at, ""); 500];
        let status = Status::invalid(&kind, "p", &same);
        assert!(status.message.ends_with("and 400 more errors]"), "{}", status.message);
        let many: Vec<FieldError> =
            (0..50_000).map(|index| FieldError::invalid(&at.index(index), index, "no")).collect();
        let values = vec![FieldError::invalid(&at, long.as_str(), long.as_str()); 200];
        let deep = (0..10_000).fold(FieldPath::new("a"), |path, _| path.child("abc"));
        let deep = vec![FieldError::duplicate(&deep, long.as_str()); 200];
        for errors in [same, many, values, deep] {
            let status = Status::invalid(&kind, &long, &errors);
            assert_eq!(status.details.as_ref().map(|details| details.causes.len()), Some(MAX_CAUSES));
            let size = status.to_value().to_string().len();
            assert!(size < 5 << 18, "{size}");
        }
    }

    #[test]
    fn deleted_has_the_details_of_the_object() {
        let status = Status::deleted(&GroupResource::new("", "pods"), "p", "u");
        assert_eq!(
            status.to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                   "details": {"name": "p", "kind": "pods", "uid": "u"}})
        );
    }
}
