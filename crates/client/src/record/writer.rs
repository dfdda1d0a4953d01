use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use nave_machinery::backoff::jittered;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Recorded;
use super::correlator::{Correlated, Correlator, Written};
use crate::redacted;

/// Writes recorded events in order.
pub struct EventWriter {
    client: kube::Client,
    waiting: mpsc::Receiver<Box<Recorded>>,
    correlator: Correlator,
}

impl EventWriter {
    pub(super) fn new(client: kube::Client, waiting: mpsc::Receiver<Box<Recorded>>) -> Self {
        Self { client, waiting, correlator: Correlator::new() }
    }

    /// Writes events until `stop` is cancelled, then writes queued events for up to one more second.
    pub async fn run(mut self, stop: CancellationToken) {
        let overtime = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        let write_all = async {
            while let Some(event) = self.next(&stop).await {
                // A panic only loses this event.
                if AssertUnwindSafe(self.record(&event)).catch_unwind().await.is_err() {
                    tracing::error!(component = &*event.component, "event dropped, writing it panicked");
                }
            }
        };
        tokio::select! { () = write_all => {} () = overtime => {} }
    }

    /// Returns the next event. After `stop` is cancelled, returns the remaining queued events.
    async fn next(&mut self, stop: &CancellationToken) -> Option<Box<Recorded>> {
        tokio::select! {
            biased;
            event = self.waiting.recv() => event,
            () = stop.cancelled() => self.waiting.try_recv().ok(),
        }
    }

    async fn record(&mut self, event: &Recorded) {
        if let Some(correlated) = self.correlator.correlate(event) {
            self.write(event, correlated).await;
        }
    }

    /// Writes an event. Retries after connection failures, and drops events that the API rejects.
    async fn write(&mut self, event: &Recorded, correlated: Correlated) {
        let mut wait = jittered(BETWEEN_TRIES / 10, 9.0);
        for _ in 0..TRIES {
            match self.try_write(event, &correlated).await.map_err(redacted) {
                Ok(written) => return self.correlator.wrote(correlated.key, written),
                Err(
                    error @ (kube::Error::Api(_) | kube::Error::SerdeError(_) | kube::Error::BuildRequest(_)),
                ) => {
                    // The usual cause is a terminating namespace.
                    tracing::debug!(component = &*event.component, %error, "event refused by the API");
                    return;
                }
                Err(error) => {
                    tracing::debug!(component = &*event.component, %error, "writing an event failed");
                    tokio::time::sleep(wait).await;
                    wait = BETWEEN_TRIES;
                }
            }
        }
    }

    async fn try_write(&self, event: &Recorded, correlated: &Correlated) -> Result<Written, kube::Error> {
        let namespace = event.object.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let count = correlated.before.as_ref().map_or(0, |before| before.count).saturating_add(1);
        if let Some(before) = &correlated.before {
            let patch =
                json!({"count": count, "lastTimestamp": Time(event.at), "message": correlated.message});
            match events.patch(&before.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => return Ok(Written { name: before.name.clone(), count }),
                // The event has expired: create a new event.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let new = new_event(event, correlated, namespace, count);
        let name = new.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &new).await?;
        Ok(Written { name, count })
    }
}

fn new_event(event: &Recorded, correlated: &Correlated, namespace: &str, count: i32) -> Event {
    let object = event.object.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(name(object, event.at)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: event.object.clone(),
        reason: Some(event.reason.to_owned()),
        message: Some(correlated.message.clone()),
        type_: Some(event.kind.as_str().to_owned()),
        source: Some(EventSource { component: Some(event.component.to_string()), host: None }),
        reporting_component: Some(event.component.to_string()),
        first_timestamp: Some(Time(event.at)),
        last_timestamp: Some(Time(event.at)),
        count: Some(count),
        ..Event::default()
    }
}

/// Returns a name in client-go's format. It is unique among the events of an object.
fn name(object: &str, at: Timestamp) -> String {
    format!("{object}.{:x}", at.as_nanosecond())
}

/// The time for writing queued events after a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of tries for an event.
const TRIES: usize = 12;
/// The delay between tries. The first delay is random, so that clients do not all retry at the same time.
const BETWEEN_TRIES: Duration = Duration::from_secs(10);
