//! [`EventRecorder`]: records Events about objects (client-go: `tools/record`).
//!
//! ```text
//! record(object, reason, message) ──► queue ──► Correlator ──► create, or patch of the count
//!   never blocks                      1,000     combines, counts and limits events
//! ```
//!
//! Recording is best effort: events are dropped when the queue is full, so programs must not depend on them.

mod correlator;
mod writer;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

pub use writer::EventWriter;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A normal event.
    Normal,
    /// A problem that needs attention.
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

/// Records the events of one component. Clones use the same [`EventWriter`].
#[derive(Clone, Debug)]
pub struct EventRecorder {
    component: Arc<str>,
    /// Boxed, because a channel reserves room for 32 messages.
    queue: mpsc::Sender<Box<Recorded>>,
}

/// A recorded event.
#[derive(Clone, Debug)]
struct Recorded {
    component: Arc<str>,
    object: ObjectReference,
    kind: EventKind,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Creates a recorder for the events of `component`, and its writer. Events are only written while the writer
/// [runs](EventWriter::run).
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
    let (queue, waiting) = mpsc::channel(QUEUE_CAPACITY);
    (EventRecorder { component: component.into(), queue }, EventWriter::new(client, waiting))
}

/// Creates a reference to an object.
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
    /// Returns a recorder for another component that uses the same writer.
    #[must_use]
    pub fn with_component(&self, component: &str) -> Self {
        Self { component: component.into(), queue: self.queue.clone() }
    }

    /// Records an event about an object. The reason is a machine-readable word. The message is human-readable and
    /// truncated to 1,024 characters.
    pub fn record(&self, object: &ObjectReference, kind: EventKind, reason: &'static str, message: &str) {
        let message = message.chars().take(MESSAGE_MAX).collect();
        let (component, object) = (Arc::clone(&self.component), object.clone());
        let event = Recorded { component, object, kind, reason, message, at: Timestamp::now() };
        if self.queue.try_send(Box::new(event)).is_err() {
            tracing::debug!(reason, "event dropped, queue full");
        }
    }
}

/// The capacity of the queue.
const QUEUE_CAPACITY: usize = 1000;
/// The maximum length of a message that the API accepts. Longer messages are truncated.
const MESSAGE_MAX: usize = 1024;
