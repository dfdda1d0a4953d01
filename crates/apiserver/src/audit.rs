//! The audit stage: decides what to record about a request, and records an event for each of its stages (upstream:
//! `endpoints/filters/audit.go`).
//!
//! Other stages add to the events through the [`RequestContext`]: annotations as [`Notes`](nave_admission::Notes), objects
//! and results through the [`Record`].

mod attributes;
mod record;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Uri};
use nave_admission::Recorded;
use nave_audit::{Auditor, Level, Stage};
use nave_machinery::Status;

pub(crate) use self::attributes::audit_id;
pub(crate) use self::record::Record;
use crate::authorization::RequestAttributes;
use crate::context::RequestContext;

/// Records the events of requests; `None` without a policy.
#[derive(Clone, Default)]
pub(crate) struct Audit(pub(crate) Option<Arc<Auditor>>);

impl Audit {
    /// Starts the record of a request, and records that it was received. A request that was rejected before has no user
    /// and gets one event, with its response.
    ///
    /// # Errors
    /// 500 if the event cannot be recorded, in strict mode.
    pub(crate) async fn run(
        &self,
        context: &mut RequestContext,
        uri: &Uri,
        headers: &HeaderMap,
        is_authenticated: bool,
    ) -> Result<(), Status> {
        let Some(auditor) = &self.0 else {
            context.notes.set_recorded(Recorded::Nothing);
            return Ok(());
        };
        // Boxed, because few servers audit.
        Box::pin(start(auditor, context, uri, headers, is_authenticated)).await
    }
}

/// Evaluates the policy and starts the record of a request.
async fn start(
    auditor: &Arc<Auditor>,
    context: &mut RequestContext,
    uri: &Uri,
    headers: &HeaderMap,
    is_authenticated: bool,
) -> Result<(), Status> {
    let attributes = RequestAttributes::new(&context.info);
    let (request, verb) = (attributes.of_user(context.user()), attributes.verb());
    let recording = auditor.evaluate(&attributes::for_policy(&request));
    context.notes.set_recorded(match recording.level {
        Level::None => Recorded::Nothing,
        Level::Metadata => Recorded::Metadata,
        Level::Request | Level::RequestResponse => Recorded::Objects,
    });
    if recording.level == Level::None {
        return Ok(());
    }
    let origin = attributes::origin(context, uri, headers, recording.level, verb);
    let object = attributes::object(&request);
    let record = Record::new(Arc::clone(auditor), recording, origin, object, context.info.is_long_running());
    let record = if is_authenticated { record } else { record.rejected() };
    // Belongs to the context before the wait, so that a client that goes away during it leaves the last event.
    let record = context.audit.insert(Box::new(record));
    let accepted = record.emit(Stage::RequestReceived, || context.notes.annotations()).await;
    if !accepted {
        context.audit = None;
        return Err(Status::internal("failed to store audit event"));
    }
    Ok(())
}

/// The header with the id of a request, in requests and responses.
pub(crate) const AUDIT_ID: &str = "audit-id";

/// Adds the id to the headers of a response, unless another server has set it.
pub(crate) fn add_id(headers: &mut HeaderMap, id: &HeaderValue) {
    if !headers.contains_key(AUDIT_ID) {
        headers.insert(AUDIT_ID, id.clone());
    }
}

#[cfg(test)]
mod tests;
