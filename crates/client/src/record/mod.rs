//! [`EventRecorder`]: tells in Events what happens to objects (client-go: `tools/record`).
//!
//! ```text
//! record(object, reason, message) ──► queue ──► Correlator ──► create, or patch of the count
//!   never waits                       1,000     similar as one, repeated counted, too many dropped
//! ```
//!
//! Events are a courtesy. Those that come while too many wait are dropped, and nothing depends on their being written.

mod correlator;
mod writer;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

pub use writer::EventWriter;

/// Whether an event tells of something usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It does.
    Normal,
    /// Somebody should have a look.
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events in the name of one component. Clones go through the same [`EventWriter`].
#[derive(Clone, Debug)]
pub struct EventRecorder {
    component: Arc<str>,
    queue: mpsc::Sender<Recorded>,
}

/// Something that happened, as it was recorded.
#[derive(Clone, Debug)]
struct Recorded {
    component: Arc<str>,
    object: ObjectReference,
    kind: EventKind,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// A recorder of the events of `component`, and what writes them: it is to [run](EventWriter::run) for as long as
/// events are to be written.
///
/// ```no_run
/// # async fn example(client: kube::Client, pod: k8s_openapi::api::core::v1::Pod) {
/// use nave_client::record::{self, EventKind};
///
/// let (events, writer) = record::recorder("my-controller", client);
/// tokio::spawn(writer.run(tokio_util::sync::CancellationToken::new()));
/// events.record(&record::reference_of(&pod), EventKind::Normal, "Seen", "Saw a pod");
/// # }
/// ```
pub fn recorder(component: &str, client: kube::Client) -> (EventRecorder, EventWriter) {
    let (queue, waiting) = mpsc::channel(WAITING);
    (EventRecorder { component: component.into(), queue }, EventWriter::new(client, waiting))
}

/// How an event refers to an object.
pub fn reference_of<K: kube::Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl EventRecorder {
    /// The same recorder in the name of another component.
    #[must_use]
    pub fn with_component(&self, component: &str) -> Self {
        Self { component: component.into(), queue: self.queue.clone() }
    }

    /// Records that something happened to an object. The reason is one word that programs know; the message is for
    /// people, and cut at 1,024 characters.
    pub fn record(&self, object: &ObjectReference, kind: EventKind, reason: &'static str, message: &str) {
        let message = message.chars().take(MESSAGE_MAX).collect();
        let (component, object) = (Arc::clone(&self.component), object.clone());
        let event = Recorded { component, object, kind, reason, message, at: Timestamp::now() };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }
}

/// So many events wait at most.
const WAITING: usize = 1000;
/// A longer message is cut; the API refuses it.
const MESSAGE_MAX: usize = 1024;
