//! The record of one request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use nave_audit::{Auditor, Body, Event, Level, ObjectReference, Origin, Recording, ResponseStatus, Stage};
use nave_codec::negotiate::{ContentType, Format, PatchType};
use nave_machinery::user::UserInfo;
use nave_machinery::{Reason, Status, Value, meta};
use parking_lot::Mutex;

use crate::endpoints::write::Payload;

/// The state of the events of a request. Emits the last event when it is dropped before the request was answered.
pub(crate) struct Record {
    auditor: Arc<Auditor>,
    recording: Recording,
    origin: Arc<Origin>,
    phase: Phase,
    state: Mutex<State>,
}

/// The events that are still to be emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The events of a short request.
    Short,
    /// The events of a long-running request, which include the start of its response.
    Long,
    /// The event of a request that was rejected before its user was known.
    Rejected,
    /// None.
    Done,
}

/// The parts of events that other stages contribute.
#[derive(Default)]
struct State {
    object: Option<ObjectReference>,
    impersonated: Option<Arc<UserInfo>>,
    impersonation_constraint: &'static str,
    response: Option<ResponseStatus>,
    request_object: Option<Body>,
    response_object: Option<Body>,
}

impl Record {
    pub(super) fn new(
        auditor: Arc<Auditor>,
        recording: Recording,
        origin: Origin,
        object: Option<ObjectReference>,
        is_long_running: bool,
    ) -> Self {
        let phase = if is_long_running { Phase::Long } else { Phase::Short };
        let state = Mutex::new(State { object, ..State::default() });
        Self { auditor, recording, origin: Arc::new(origin), phase, state }
    }

    /// Marks the request as rejected before its user was known.
    pub(super) fn rejected(mut self) -> Self {
        self.phase = Phase::Rejected;
        self
    }

    /// Records the user that the request acts as, and the verb that allowed a constrained impersonation.
    pub(crate) fn impersonated(&self, user: Arc<UserInfo>, constraint: &'static str) {
        let state = &mut *self.state.lock();
        (state.impersonated, state.impersonation_constraint) = (Some(user), constraint);
    }

    /// Records the object in the request, decoded and defaulted. Completes the reference with its metadata.
    pub(crate) fn request_object(&self, object: &Value) {
        let state = &mut *self.state.lock();
        let reference = state.object.get_or_insert_default();
        let version = meta::resource_version(object);
        for (part, value) in [
            (&mut reference.namespace, meta::namespace(object)),
            (&mut reference.name, meta::name(object)),
            (&mut reference.uid, meta::uid(object)),
            (&mut reference.resource_version, version),
        ] {
            if part.is_empty() {
                value.clone_into(part);
            }
        }
        if self.recording.level >= Level::Request && state.request_object.is_none() {
            state.request_object = Some(self.encoded(object));
        }
    }

    /// Records the options in the body of a deletion.
    pub(crate) fn request_options(&self, options: &Value) {
        if self.recording.level >= Level::Request {
            self.state.lock().request_object = Some(Body::encoded(options));
        }
    }

    /// Records the patch in the request.
    pub(crate) fn patch(&self, payload: &Payload) {
        if self.recording.level < Level::Request {
            return;
        }
        let is_apply = payload.content_type == Some(ContentType::Patch(PatchType::Apply));
        let format = if is_apply { Format::Yaml } else { Format::Json };
        let bytes = payload.bytes.clone();
        let body = Body::Document { bytes, format, omit_managed_fields: false };
        self.state.lock().request_object = Some(body);
    }

    /// Returns whether the response's object is recorded.
    pub(crate) fn has_response_object(&self) -> bool {
        self.recording.level >= Level::RequestResponse
    }

    /// Records the response's object, as JSON.
    pub(crate) fn response_object(&self, json: bytes::Bytes) {
        let body = Body::sent(json, self.recording.omit_managed_fields);
        self.state.lock().response_object = Some(body);
    }

    /// Records a `Status` in the response.
    pub(crate) fn response_status(&self, status: &Value) {
        self.state.lock().response = Some(ResponseStatus { code: 0, status: status.clone() });
    }

    /// Records the failure of the request. As upstream, failed negotiations have a code only.
    pub(crate) fn failure(&self, status: &Status) {
        if status.reason == Some(Reason::NotAcceptable) {
            return;
        }
        let failure = ResponseStatus::failure(status);
        let state = &mut *self.state.lock();
        if self.has_response_object() {
            state.response_object = Some(Body::encoded(&failure.status));
        }
        state.response = Some(failure);
    }

    /// Emits the events of a response with this status code. For a long-running request, returns the last event, which
    /// is emitted on drop.
    pub(crate) async fn respond(
        mut self: Box<Self>,
        code: u16,
        annotations: BTreeMap<String, String>,
    ) -> Option<Completion> {
        self.state.get_mut().response.get_or_insert_with(|| ResponseStatus::code(code)).code = code;
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        match phase {
            Phase::Short => {
                self.emit(Stage::ResponseComplete, || annotations).await;
                None
            }
            Phase::Long => {
                // Exists before the wait, so that a client that goes away during it leaves the last event.
                let completion = Completion { record: self, annotations };
                let started = || completion.annotations.clone();
                completion.record.emit(Stage::ResponseStarted, started).await;
                Some(completion)
            }
            Phase::Rejected => {
                self.emit(Stage::ResponseStarted, || annotations).await;
                None
            }
            Phase::Done => None,
        }
    }

    /// Emits the event of a panic.
    pub(crate) async fn panicked(
        mut self: Box<Self>,
        status: &Status,
        annotations: BTreeMap<String, String>,
    ) {
        self.phase = Phase::Done;
        self.state.get_mut().response = Some(ResponseStatus::failure(status));
        self.emit(Stage::Panic, || annotations).await;
    }

    /// Emits the last event of a request whose client went away before the response.
    pub(crate) fn abandoned(mut self: Box<Self>, annotations: BTreeMap<String, String>) {
        if matches!(self.phase, Phase::Done | Phase::Rejected) {
            return;
        }
        self.phase = Phase::Done;
        let closed = serde_json::json!({"status": "Success", "message": "Connection closed early"});
        self.state.get_mut().response = Some(ResponseStatus { code: 200, status: closed });
        self.emit_detached(Stage::ResponseComplete, annotations);
    }

    /// Records an event, unless the policy omits its stage; returns false if the request has to be rejected.
    pub(super) async fn emit(
        &self,
        stage: Stage,
        annotations: impl FnOnce() -> BTreeMap<String, String>,
    ) -> bool {
        let is_received = stage == Stage::RequestReceived;
        if self.recording.omitted.contains(stage) || is_received && self.phase == Phase::Rejected {
            return true;
        }
        self.auditor.record(self.event(stage, annotations())).await
    }

    fn emit_detached(&self, stage: Stage, annotations: BTreeMap<String, String>) {
        if !self.recording.omitted.contains(stage) {
            self.auditor.record_detached(self.event(stage, annotations));
        }
    }

    fn event(&self, stage: Stage, annotations: BTreeMap<String, String>) -> Event {
        let state = self.state.lock();
        let time = if stage == Stage::RequestReceived { self.origin.received } else { SystemTime::now() };
        Event {
            origin: Arc::clone(&self.origin),
            stage,
            time,
            impersonated: state.impersonated.clone(),
            impersonation_constraint: state.impersonation_constraint,
            object: state.object.clone(),
            response: state.response.clone(),
            request_object: state.request_object.clone(),
            response_object: state.response_object.clone(),
            annotations,
        }
    }

    /// Encodes the object of a request. A `fieldsV1` text in it is the client's, and stays a text: its tree could take a
    /// hundred times its memory.
    fn encoded(&self, object: &Value) -> Body {
        if !self.recording.omit_managed_fields || meta::field(object, "managedFields").is_none() {
            return Body::encoded(object);
        }
        let mut object = object.clone();
        meta::remove(&mut object, "managedFields");
        Body::encoded(&object)
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("level", &self.recording.level).finish_non_exhaustive()
    }
}

/// The last event of a long-running request, which is emitted when its response ends.
pub(crate) struct Completion {
    record: Box<Record>,
    annotations: BTreeMap<String, String>,
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.record.emit_detached(Stage::ResponseComplete, std::mem::take(&mut self.annotations));
    }
}
