//! The policy with its backends.

use std::io;
use std::sync::Arc;

use nave_webhook::FileError;
use prometheus::Registry;

use crate::deliveries::{Deliveries, Outcome};
use crate::event::{Event, Stage};
use crate::log::{self, LogOptions};
use crate::metrics::Metrics;
use crate::policy::{Policy, Recording, Request};
use crate::queue::Queue;
use crate::recent::{Recent, RecentEvent};
use crate::webhook::{Sender, WebhookOptions};

/// The relation of a backend to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A request never waits. Events that do not fit into the buffer are lost.
    Batch,
    /// A request waits until its event is recorded, and continues if that fails.
    Blocking,
    /// As `Blocking`, but a request whose reception cannot be recorded is rejected.
    BlockingStrict,
}

/// The options of audit.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy.
    pub policy: Policy,
    /// The log backend, if it is used.
    pub log: Option<LogOptions>,
    /// The webhook backend, if it is used.
    pub webhook: Option<WebhookOptions>,
}

/// The reasons why audit cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log file cannot be opened.
    #[error("audit log: {0}")]
    Log(#[from] io::Error),
    /// The webhook's kubeconfig file cannot be used.
    #[error("audit webhook: {0}")]
    Webhook(#[from] FileError),
    /// A metric cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Decides what to record, and records it.
pub struct Auditor {
    policy: Policy,
    backends: Vec<(Mode, Backend)>,
    deliveries: Deliveries,
    metrics: Metrics,
    recent: Recent,
}

enum Backend {
    /// A backend with a queue: the log in all modes, the webhook in batch mode.
    Queue(Queue),
    /// A webhook that is called during requests.
    Webhook(Sender),
}

impl Auditor {
    /// Starts the backends. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: Options, registry: &Registry) -> Result<Self, StartError> {
        let metrics = Metrics::new(registry)?;
        let mut backends = Vec::new();
        if let Some(log) = options.log {
            let capacity = if log.mode == Mode::Batch { log.batch.buffer_size } else { WAITING };
            let (mode, (queue, receiver)) = (log.mode, Queue::new(capacity, &metrics));
            log::start(log, receiver, &metrics)?;
            backends.push((mode, Backend::Queue(queue)));
        }
        if let Some(webhook) = options.webhook {
            let sender = Sender::new(&webhook, &metrics)?;
            let backend = if webhook.mode == Mode::Batch {
                let (queue, receiver) = Queue::new(webhook.batch.buffer_size, &metrics);
                tokio::spawn(sender.run(receiver, webhook.batch));
                Backend::Queue(queue)
            } else {
                Backend::Webhook(sender)
            };
            backends.push((webhook.mode, backend));
        }
        let deliveries = Deliveries::new(&metrics);
        Ok(Self { policy: options.policy, backends, deliveries, metrics, recent: Recent::default() })
    }

    /// Returns what to record about a request. Counts the request.
    pub fn evaluate(&self, request: &Request<'_>) -> Recording {
        let recording = self.policy.evaluate(request);
        self.metrics.level(recording.level);
        recording
    }

    /// Records an event. Returns false if the request has to be rejected. The event is recorded or counted as lost, even
    /// if the future is dropped while it waits.
    pub async fn record(&self, event: Event) -> bool {
        let is_first = event.stage == Stage::RequestReceived;
        // Every backend has the event before the first wait, because the request can end during each.
        let mut accepted = true;
        for (mode, outcome) in self.hand_over(event) {
            let recorded = outcome.recorded().await;
            accepted &= recorded || mode != Mode::BlockingStrict || !is_first;
        }
        if !accepted {
            self.metrics.rejected.inc();
        }
        accepted
    }

    /// Records an event without waiting, after its request has ended.
    pub fn record_detached(&self, event: Event) {
        drop(self.hand_over(event));
    }

    /// Hands an event to all backends. Returns the outcomes that a request may wait for.
    fn hand_over(&self, event: Event) -> Vec<(Mode, Outcome<'_>)> {
        self.metrics.events.inc();
        self.recent.add(&event);
        let event = Arc::new(event);
        let mut outcomes = Vec::new();
        for (mode, backend) in &self.backends {
            let outcome = match backend {
                Backend::Queue(queue) if *mode == Mode::Batch => {
                    queue.offer(&event);
                    continue;
                }
                Backend::Queue(queue) => queue.submit(&event, &self.deliveries),
                Backend::Webhook(sender) => {
                    let (sender, events) = (sender.clone(), vec![Arc::clone(&event)]);
                    let delivery = Box::pin(async move { sender.send(events).await });
                    self.deliveries.start(event.size(), delivery)
                }
            };
            outcomes.push((*mode, outcome));
        }
        outcomes
    }

    /// Returns the latest events without their bodies, newest first. Events are kept while this is called every few
    /// seconds.
    pub fn recent(&self) -> Vec<RecentEvent> {
        self.recent.read()
    }

    /// Returns the number of events that are not recorded yet.
    pub fn pending(&self) -> usize {
        let queued = |(_, backend): &(Mode, Backend)| match backend {
            Backend::Queue(queue) => queue.len(),
            Backend::Webhook(_) => 0,
        };
        self.deliveries.len() + self.backends.iter().map(queued).sum::<usize>()
    }

    /// Waits until all events are recorded.
    pub async fn flush(&self) {
        self.deliveries.flush().await;
        for (_, backend) in &self.backends {
            if let Backend::Queue(queue) = backend {
                queue.flush().await;
            }
        }
    }
}

/// Maximum number of events in the queue of a blocking log. Further requests wait for a place.
const WAITING: usize = 1024;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use nave_webhook::testing::HttpsServer;

    use super::*;
    use crate::event::tests::event;
    use crate::log::{FileOptions, Format, Output};
    use crate::queue::BatchOptions;

    fn auditor(path: &Path, mode: Mode) -> Auditor {
        let policy = b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
        let path = path.to_owned();
        let file = FileOptions { path, max_size: 0, max_age_days: 0, max_backups: 0, compress: false };
        let batch = BatchOptions { buffer_size: 10, max_size: 1, max_wait: Duration::ZERO, throttle: None };
        let log =
            LogOptions { output: Output::File(file), format: Format::Json, mode, batch, truncation: None };
        let options = Options { policy: Policy::parse(policy).unwrap(), log: Some(log), webhook: None };
        Auditor::start(options, &Registry::new()).unwrap()
    }

    #[tokio::test]
    async fn only_strict_mode_rejects_requests_whose_reception_cannot_be_recorded() {
        for (mode, stage, accepted) in [
            (Mode::Batch, Stage::RequestReceived, true),
            (Mode::Blocking, Stage::RequestReceived, true),
            (Mode::BlockingStrict, Stage::RequestReceived, false),
            (Mode::BlockingStrict, Stage::ResponseComplete, true),
        ] {
            let auditor = auditor(Path::new("/dev/full"), mode);
            let event = Event { stage, ..event("a") };
            assert_eq!(auditor.record(event).await, accepted, "{mode:?} {stage:?}");
            assert_eq!(auditor.metrics.rejected.get(), u64::from(!accepted));
        }
    }

    #[tokio::test]
    async fn blocking_mode_records_before_the_request_continues() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let auditor = Arc::new(auditor(&path, Mode::Blocking));
        assert!(auditor.record(event("a")).await);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        auditor.record_detached(event("b"));
        auditor.flush().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[tokio::test]
    async fn a_webhook_gets_the_events_of_requests_that_end_during_the_call() {
        for mode in [Mode::Blocking, Mode::BlockingStrict] {
            let (seen, mut calls) = tokio::sync::mpsc::unbounded_channel();
            let (release, released) = tokio::sync::watch::channel(false);
            let server = HttpsServer::start_async(move |request| {
                let (seen, mut released) = (seen.clone(), released.clone());
                async move {
                    seen.send(request).ok()?;
                    released.wait_for(|released| *released).await.ok()?;
                    Some(http::Response::new(bytes::Bytes::new()))
                }
            })
            .await;
            let folder = tempfile::tempdir().unwrap();
            let batch =
                BatchOptions { buffer_size: 1, max_size: 1, max_wait: Duration::ZERO, throttle: None };
            let webhook = WebhookOptions {
                config_file: server.write_kubeconfig(folder.path(), "certificate-authority: ca.crt", ""),
                initial_backoff: Duration::from_millis(1),
                mode,
                batch,
                truncation: None,
                egress: nave_webhook::Egress::Direct,
            };
            let policy = b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
            let policy = Policy::parse(policy).unwrap();
            let options = Options { policy, log: None, webhook: Some(webhook) };
            let auditor = Auditor::start(options, &Registry::new()).unwrap();
            tokio::select! {
                _ = auditor.record(event("left")) => panic!("the webhook has not answered"),
                call = calls.recv() => assert!(call.is_some()),
            }
            // The request has ended during the call. Its delivery has not.
            assert_eq!(auditor.deliveries.len(), 1);
            release.send(true).unwrap();
            auditor.flush().await;
            assert_eq!(auditor.deliveries.len(), 0);
            assert!(auditor.record(event("stayed")).await);
            assert!(calls.recv().await.is_some());
            assert!(calls.try_recv().is_err(), "no call was repeated");
        }
    }
}
