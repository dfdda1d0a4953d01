//! The call of one webhook.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nave_machinery::Status;
use nave_webhook::{CallLimits, ClientManager, HookError};

use super::answer::{Answer, BadAnswer, denial};
use super::hook::{Hook, SideEffects};
use super::metrics::{Outcome, WebhookMetrics};
use super::review;
use crate::attributes::Attributes;
use crate::expressions::{VersionedRequest, process};

/// The maximum size of an answer, in bytes. It has room for a patch that replaces an object of maximum size.
const MAX_ANSWER_BYTES: usize = 8 << 20;
const UNAVAILABLE: u16 = 503;

/// Calls webhooks.
pub(super) struct Caller {
    clients: Arc<ClientManager>,
    metrics: WebhookMetrics,
    phase: &'static str,
}

/// The reasons why a webhook does not admit a request.
#[derive(Clone, Debug)]
pub(super) enum CallError {
    /// The webhook could not be called, or its answer is unusable. The failure policy applies.
    Calling {
        /// The cause.
        why: String,
        /// The status of the response, or the status that describes the cause, for metrics.
        code: u16,
    },
    /// The webhook refuses the request.
    Denied(Status),
    /// The server refuses the request, whatever the failure policy.
    Refused(Status),
}

impl CallError {
    pub(super) fn calling(why: String) -> Self {
        Self::Calling { why, code: UNAVAILABLE }
    }

    /// Returns the error for the client.
    pub(super) fn into_status(self, hook: &Hook) -> Status {
        match self {
            Self::Calling { why, .. } => {
                Status::internal(format!("failed calling webhook {:?}: {why}", hook.name))
            }
            Self::Denied(status) | Self::Refused(status) => status,
        }
    }
}

impl Caller {
    pub(super) fn new(clients: Arc<ClientManager>, metrics: WebhookMetrics, phase: &'static str) -> Self {
        Self { clients, metrics, phase }
    }

    /// Returns the result of a call for the request: `None` if the failure policy ignores its failure. Records the call,
    /// which took the time since `started`.
    ///
    /// # Errors
    /// The error for the client.
    pub(super) fn conclude<T>(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        started: Instant,
        outcome: Result<T, CallError>,
    ) -> Result<Option<T>, Status> {
        let is_ignored = hook.ignores_failures && matches!(outcome, Err(CallError::Calling { .. }));
        let result = match &outcome {
            Ok(_) => Outcome::Allowed,
            Err(CallError::Calling { code, .. }) if is_ignored => Outcome::Ignored(*code),
            Err(CallError::Calling { code, .. }) => Outcome::Failed(*code),
            Err(CallError::Denied(status)) => Outcome::Denied(status.code),
            Err(CallError::Refused(_)) => Outcome::Refused,
        };
        self.metrics.called(&hook.name, self.phase, attributes.operation, result, started.elapsed());
        match outcome {
            Ok(accepted) => Ok(Some(accepted)),
            Err(CallError::Calling { why, .. }) if is_ignored => {
                tracing::warn!(webhook = hook.name, why, "webhook call failed, failing open");
                Ok(None)
            }
            Err(error) => {
                if let CallError::Calling { why, .. } = &error {
                    tracing::warn!(webhook = hook.name, why, "webhook call failed, failing closed");
                }
                Err(error.into_status(hook))
            }
        }
    }

    /// Sends the review of a request; returns the answer of a webhook that allows it.
    ///
    /// # Errors
    /// The call fails, or the webhook refuses the request.
    pub(super) async fn ask(&self, hook: &Hook, request: &VersionedRequest<'_>) -> Result<Answer, CallError> {
        let attributes = request.attributes;
        check_dry_run(hook, attributes)?;
        let failed = |why: String, code| CallError::Calling { why, code };
        let Some(version) = hook.version else {
            let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(failed(format!("could not create admission objects: {why}"), 400));
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let body = review::encode(version, &uid, request);
        let client = match &hook.client {
            Ok(config) => self.clients.client(config).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        let client = client.map_err(|why| failed(format!("could not get REST client: {why}"), 500))?;
        let left = attributes.deadline.saturating_duration_since(Instant::now());
        let timeout = hook.timeout.map_or(left, |timeout| timeout.min(left)).max(Duration::from_millis(1));
        let limits = CallLimits { timeout, response_bytes: MAX_ANSWER_BYTES };
        let is_last = hook.timeout.is_none_or(|timeout| left <= timeout);
        let started = Instant::now();
        let called = client.post(body, limits, attributes.notes.trace_parent().as_deref()).await;
        attributes.notes.add_webhook_time(started.elapsed());
        let mut response = called.map_err(|error| {
            // The time for the request is over, not only the time for the webhook.
            if is_last && error.is_timeout() {
                let why = "request did not complete within the allotted timeout";
                return CallError::Refused(Status::timeout(why, 0));
            }
            let code =
                if let HookError::Status { status, .. } = &error { status.as_u16() } else { UNAVAILABLE };
            failed(format!("failed to call webhook: {error}"), code)
        })?;
        let is_mutating = self.phase == "admit";
        let body = &response.body;
        let answer = process(body.len(), || Answer::parse(body, version, &uid, is_mutating));
        let mut answer = answer.map_err(|error| match error {
            BadAnswer::Undecodable(why) => CallError::calling(format!("failed to call webhook: {why}")),
            BadAnswer::Invalid(why) => {
                CallError::calling(format!("received invalid webhook response: {why}"))
            }
        })?;
        response.body = Bytes::new();
        answer.response = Some(response);
        add_notes(hook, attributes, &answer);
        if answer.allowed { Ok(answer) } else { Err(CallError::Denied(denial(&hook.name, answer.status))) }
    }
}

/// Checks that a webhook can be called for a dry run.
fn check_dry_run(hook: &Hook, attributes: &Attributes<'_>) -> Result<(), CallError> {
    match hook.side_effects {
        _ if !attributes.dry_run() => Ok(()),
        SideEffects::NoneOnDryRun => Ok(()),
        SideEffects::Unset => {
            Err(CallError::Calling { why: "Webhook SideEffects is nil".to_owned(), code: 400 })
        }
        SideEffects::Some => {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            Err(CallError::Refused(Status::bad_request(why)))
        }
    }
}

fn add_notes(hook: &Hook, attributes: &Attributes<'_>, answer: &Answer) {
    let add = |(key, value): (&String, &String)| {
        attributes.notes.annotate(&format!("{}/{key}", hook.name), value.as_str()).err()
    };
    // One line for all, because the webhook chooses how many there are.
    let mut refusals = answer.audit_annotations.iter().filter_map(add);
    if let Some(error) = refusals.next() {
        let dropped = 1 + refusals.count();
        tracing::warn!(webhook = hook.name, dropped, %error, "audit annotations of webhook dropped");
    }
    for warning in &answer.warnings {
        attributes.notes.warn(warning.as_str());
    }
}

/// Adds an audit annotation, if it is valid.
pub(super) fn annotate(attributes: &Attributes<'_>, key: &str, value: impl Into<String>) {
    if let Err(error) = attributes.notes.annotate(key, value) {
        tracing::warn!(key, %error, "audit annotation of webhook dropped");
    }
}
