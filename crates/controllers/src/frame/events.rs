use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whether an event tells of something usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It does.
    Normal,
    /// Somebody should have a look.
    Warning,
}

/// Writes events in the name of one component. It never blocks: events are written in their order by a task, and those
/// that come while too many wait are dropped. Clones write through the same task.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    object: ObjectReference,
    kind: EventKind,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// So many events wait at most.
const WAITING: usize = 1000;
/// So many events are remembered, to count repetitions.
const REMEMBERED: usize = 1024;
/// A longer message is cut.
const MESSAGE_MAX: usize = 1024;

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

impl Recorder {
    /// Starts to write events of `component` until `stop` is cancelled.
    pub(super) fn start(
        component: &'static str,
        client: kube::Client,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        let writer = Writer { component, client, known: HashMap::new() };
        tasks.spawn(async move {
            stop.run_until_cancelled(writer.run(waiting)).await;
        });
        Self { queue }
    }

    /// Records that something happened to an object.
    pub fn record(&self, object: &ObjectReference, kind: EventKind, reason: &'static str, message: &str) {
        let message = message.chars().take(MESSAGE_MAX).collect();
        let event = Recorded { object: object.clone(), kind, reason, message, at: Timestamp::now() };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }
}

struct Writer {
    component: &'static str,
    client: kube::Client,
    /// What was written before: its name, and how often it happened.
    known: HashMap<Repeated, (String, i32)>,
}

/// What makes an event the repetition of another.
#[derive(PartialEq, Eq, Hash)]
struct Repeated {
    uid: String,
    reason: &'static str,
    message: String,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Recorded>) {
        while let Some(event) = waiting.recv().await {
            if let Err(error) = self.write(event).await {
                // Events are a courtesy: nothing depends on them.
                tracing::debug!(component = self.component, %error, "an event was not written");
            }
        }
    }

    async fn write(&mut self, event: Recorded) -> Result<(), kube::Error> {
        let namespace = event.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let repeated = Repeated {
            uid: event.object.uid.clone().unwrap_or_default(),
            reason: event.reason,
            message: event.message.clone(),
        };
        if let Some((name, count)) = self.known.get_mut(&repeated) {
            *count += 1;
            let patch = json!({"count": count, "lastTimestamp": Time(event.at)});
            match events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                // It is gone after its time: it is told of anew.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => return other.map(drop),
            }
        }
        let new = self.first(event, &namespace);
        let name = new.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &new).await?;
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(repeated, (name, 1));
        Ok(())
    }

    fn first(&self, event: Recorded, namespace: &str) -> Event {
        let name = event.object.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                // As client-go names them: unique enough among the events of one object.
                name: Some(format!("{name}.{:x}", event.at.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: event.object,
            reason: Some(event.reason.to_owned()),
            message: Some(event.message),
            type_: Some(match event.kind {
                EventKind::Normal => "Normal".to_owned(),
                EventKind::Warning => "Warning".to_owned(),
            }),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            first_timestamp: Some(Time(event.at)),
            last_timestamp: Some(Time(event.at)),
            count: Some(1),
            ..Event::default()
        }
    }
}
