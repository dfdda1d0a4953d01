//! The policy with its backends.

use std::io;
use std::sync::Arc;

use nave_webhook::FileError;
use prometheus::Registry;

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
        Ok(Self { policy: options.policy, backends, metrics, recent: Recent::default() })
    }

    /// Returns what to record about a request. Counts the request.
    pub fn evaluate(&self, request: &Request<'_>) -> Recording {
        let recording = self.policy.evaluate(request);
        self.metrics.level(recording.level);
        recording
    }

    /// Records an event. Returns false if the request has to be rejected.
    pub async fn record(&self, event: Event) -> bool {
        self.metrics.events.inc();
        self.recent.add(&event);
        let (is_first, event) = (event.stage == Stage::RequestReceived, Arc::new(event));
        let mut accepted = true;
        for (mode, backend) in &self.backends {
            let recorded = match backend {
                Backend::Queue(queue) if *mode == Mode::Batch => {
                    queue.offer(&event);
                    true
                }
                Backend::Queue(queue) => queue.record(&event).await,
                Backend::Webhook(sender) => sender.send(vec![Arc::clone(&event)]).await,
            };
            accepted &= recorded || *mode != Mode::BlockingStrict || !is_first;
        }
        if !accepted {
            self.metrics.rejected.inc();
        }
        accepted
    }

    /// Records an event without waiting, after its request has ended.
    pub fn record_detached(self: &Arc<Self>, event: Event) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let auditor = Arc::clone(self);
            runtime.spawn(async move { auditor.record(event).await });
        }
    }

    /// Returns the latest events without their bodies, newest first. Events are kept while this is called every few
    /// seconds.
    pub fn recent(&self) -> Vec<RecentEvent> {
        self.recent.read()
    }

    /// Waits until all events are recorded.
    pub async fn flush(&self) {
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
        tokio::task::yield_now().await;
        auditor.flush().await;
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
