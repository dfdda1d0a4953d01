//! `Status`, the document every error (and some successes) of the API is told with
//! (`meta/v1` and upstream's `apimachinery/pkg/api/errors`).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{self, MAX_MESSAGE_BYTES};
use crate::{FieldError, GroupKind, GroupResource};

/// How many errors of validation a `Status` names, in its message and as causes. An object can have one for each of
/// its values.
pub const MAX_CAUSES: usize = 100;

/// The reason of a failure, for machines.
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
    /// The reason is known only by its HTTP code.
    #[serde(rename = "")]
    Unknown,
}

/// One cause of a failure, usually one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// Machine-readable reason, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong, for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The field at fault, as a path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a `Status` is about.
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
    /// The single causes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds after which a retry makes sense; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// The outcome of a request that does not answer with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The reason; `None` for a success.
    pub reason: Option<Reason>,
    /// What happened, for a person.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<StatusDetails>>,
    /// The token with which an expired list goes on in the latest state; empty for none.
    pub continue_token: String,
}

impl Status {
    /// A failure with a code, a reason and a message, which is cut at [`MAX_MESSAGE_BYTES`].
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: Some(reason),
            message: limits::clip(message.into(), MAX_MESSAGE_BYTES),
            details: None,
            continue_token: String::new(),
        }
    }

    /// A success that says no more than that.
    pub fn success(code: u16) -> Self {
        Self { reason: None, ..Self::failure(code, Reason::Unknown, "") }
    }

    /// The success that deleting an object answers with.
    pub fn deleted(resource: &GroupResource, name: &str, uid: &str) -> Self {
        let details = StatusDetails { uid: uid.to_owned(), ..about(resource, name) };
        Self::success(200).with_details(details)
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{resource} {name:?} not found")).on(resource, name)
    }

    /// 404: there is nothing at this path.
    pub fn no_such_path() -> Self {
        Self::failure(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, Reason::AlreadyExists, format!("{resource} {name:?} already exists"))
            .on(resource, name)
    }

    /// 409: the object is not in the state the request supposes.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::failure(409, Reason::Conflict, message).on(resource, name)
    }

    /// 422: validation found these errors, of which the first [`MAX_CAUSES`] are named.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &[FieldError]) -> Self {
        let mut seen = HashSet::new();
        let mut messages: Vec<String> = Vec::new();
        for error in errors.iter().take(MAX_CAUSES) {
            let text = error.to_string();
            if seen.insert(text.clone()) {
                messages.push(text);
            }
        }
        if let Some(more) = errors.len().checked_sub(MAX_CAUSES).filter(|more| *more > 0) {
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

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 401: no known credential came with the request.
    pub fn unauthorized() -> Self {
        Self::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403: the object may not be touched this way.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() { resource.to_string() } else { format!("{resource} {name:?}") };
        Self::failure(403, Reason::Forbidden, format!("{subject} is forbidden: {why}")).on(resource, name)
    }

    /// 405: the resource does not have this verb.
    pub fn method_not_allowed(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::failure(405, Reason::MethodNotAllowed, message).on(resource, "")
    }

    /// 405: the path does not have this method.
    pub fn method_not_allowed_here() -> Self {
        Self::failure(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )
        .with_details(StatusDetails::default())
    }

    /// 406: none of the accepted encodings can be served.
    pub fn not_acceptable(served: &[&str]) -> Self {
        let list = served.join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// 409, about an object named by its kind, as preconditions of a deletion are told.
    pub fn conflict_of_kind(kind: &GroupKind, name: &str, why: &str) -> Self {
        Self::conflict(&GroupResource::new(&kind.group, &kind.kind), name, why)
    }

    /// 410: the revision asked for has been compacted, or the window has moved on.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 413: the body is larger than the limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// 415: the body's encoding is not one of those served.
    pub fn unsupported_media_type(served: &[&str]) -> Self {
        let list = served.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 429: try again after some seconds.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
        Self::failure(429, Reason::TooManyRequests, message).with_details(details)
    }

    /// 500: the server's own fault.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let text = message.to_string();
        let cause = StatusCause { message: text.clone(), ..StatusCause::default() };
        let details = StatusDetails { causes: vec![cause], ..StatusDetails::default() };
        Self::failure(500, Reason::InternalError, format!("Internal error occurred: {text}"))
            .with_details(details)
    }

    /// 501: the server knows what is asked but cannot do it. The API has no reason for it.
    pub fn not_implemented(what: impl std::fmt::Display) -> Self {
        Self::failure(501, Reason::Unknown, format!("{what} is not served by this version of nave"))
    }

    /// 503: not now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    /// 504: the server could not finish in time.
    pub fn timeout(why: impl std::fmt::Display, retry_after_seconds: u32) -> Self {
        let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
        Self::failure(504, Reason::Timeout, format!("Timeout: {why}")).with_details(details)
    }

    /// The same status about an object of a resource.
    pub fn on(mut self, resource: &GroupResource, name: &str) -> Self {
        let kept = self.details.take().map(|details| *details).unwrap_or_default();
        let StatusDetails { causes, retry_after_seconds, .. } = kept;
        self.details = Some(Box::new(StatusDetails { causes, retry_after_seconds, ..about(resource, name) }));
        self
    }

    /// The same status with one more cause.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause =
            StatusCause { reason: reason.to_owned(), message: message.to_owned(), field: field.to_owned() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The same status with details.
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// Whether this is a success.
    pub fn is_success(&self) -> bool {
        self.reason.is_none()
    }

    /// The document, as it goes over the wire.
    pub fn to_value(&self) -> Value {
        let wire = Wire {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata { token: &self.continue_token },
            status: if self.is_success() { "Success" } else { "Failure" },
            message: &self.message,
            reason: self.reason.filter(|reason| *reason != Reason::Unknown),
            details: self.details.as_deref(),
            // A deletion's success goes without its code, which is the response's; other successes name it.
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
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a StatusDetails>,
    #[serde(skip_serializing_if = "is_zero")]
    code: u16,
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
    fn an_invalid_object_names_each_field_at_fault() {
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
    fn however_many_errors_there_are_the_answer_is_small() {
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
            assert!(size < 1 << 20, "{size}");
        }
    }

    #[test]
    fn a_deletion_tells_what_was_deleted() {
        let status = Status::deleted(&GroupResource::new("", "pods"), "p", "u");
        assert_eq!(
            status.to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                   "details": {"name": "p", "kind": "pods", "uid": "u"}})
        );
    }
}
