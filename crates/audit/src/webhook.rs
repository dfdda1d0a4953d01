//! The webhook backend: sends batches of events as `EventList` (upstream: `plugin/pkg/audit/webhook` and `buffered`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nave_machinery::backoff::Backoff;
use nave_webhook::{Egress, FileError, Webhook};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::event::Event;
use crate::metrics::{Losses, Metrics};
use crate::policy::API_VERSION;
use crate::queue::{BatchOptions, Entry, Throttle};
use crate::truncate::{self, Truncation};

/// The options of the backend.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// The kubeconfig file with the address and the credentials.
    pub config_file: PathBuf,
    /// The first pause before a call is repeated.
    pub initial_backoff: Duration,
    /// The mode.
    pub mode: crate::Mode,
    /// The batches.
    pub batch: BatchOptions,
    /// Limits on the size of events and batches; `None` for no limits.
    pub truncation: Option<Truncation>,
    /// The way to the webhook.
    pub egress: Egress,
}

/// Sends events to the webhook.
#[derive(Clone)]
pub(crate) struct Sender(Arc<Inner>);

struct Inner {
    webhook: Webhook,
    truncation: Option<Truncation>,
    failed: Losses,
    too_large: Losses,
}

impl Sender {
    pub(crate) fn new(options: &WebhookOptions, metrics: &Metrics) -> Result<Self, FileError> {
        let backoff = Backoff { initial: options.initial_backoff, ..Backoff::WEBHOOK };
        let webhook = Webhook::with_egress(&options.config_file, CALL_TIMEOUT, options.egress.clone())?;
        let webhook = webhook.with_backoff(backoff);
        let (failed, too_large) = (metrics.losses("webhook"), metrics.losses("truncate"));
        Ok(Self(Arc::new(Inner { webhook, truncation: options.truncation, failed, too_large })))
    }

    /// Sends events; returns whether all were accepted.
    pub(crate) async fn send(&self, events: Vec<Arc<Event>>) -> bool {
        let inner = Arc::clone(&self.0);
        // A batch can contain megabytes.
        let lists = tokio::task::spawn_blocking(move || inner.encode(&events)).await.unwrap_or_default();
        let mut accepted = true;
        for (list, count) in lists {
            if let Err(error) = self.0.webhook.send(list).await {
                self.0.failed.add(count, &error);
                accepted = false;
            }
        }
        accepted
    }

    /// Sends the events of a queue in batches until the queue is closed.
    pub(crate) async fn run(self, mut receiver: mpsc::Receiver<Entry>, options: BatchOptions) {
        let mut throttle = options.throttle.map(Bucket::new);
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        let mut running = JoinSet::new();
        while let Some((batch, flush)) = collect(&mut receiver, &options).await {
            if let Some(bucket) = throttle.as_mut().filter(|_| !batch.is_empty()) {
                bucket.take().await;
            }
            // While all calls are slow, events stay in the queue and are lost when it is full.
            let permit = Arc::clone(&calls).acquire_owned().await;
            let sender = self.clone();
            running.spawn(async move {
                let _permit = permit;
                let events = batch.iter().filter_map(|entry| entry.event.clone()).collect();
                let accepted = sender.send(events).await;
                for entry in batch {
                    entry.finish(accepted);
                }
            });
            while running.try_join_next().is_some() {}
            if let Some(flush) = flush {
                while running.join_next().await.is_some() {}
                flush.finish(true);
            }
        }
        while running.join_next().await.is_some() {}
    }
}

impl Inner {
    /// Encodes lists of events within the limit on batches; returns them with their numbers of events.
    fn encode(&self, events: &[Arc<Event>]) -> Vec<(Bytes, usize)> {
        let max = self.truncation.map_or(usize::MAX, |limits| limits.max_batch_size);
        let (mut lists, mut items, mut count) = (Vec::new(), Vec::new(), 0);
        for event in events {
            let mut item = Vec::new();
            if !truncate::encode(event, self.truncation, |event, out| event.encode(true, out), &mut item) {
                self.too_large.add(1, &"event is too large even after truncating");
                continue;
            }
            if count > 0 && items.len() + item.len() > max {
                lists.push((list(&items), count));
                items.clear();
                count = 0;
            }
            if count > 0 {
                items.push(b',');
            }
            items.append(&mut item);
            count += 1;
        }
        if count > 0 {
            lists.push((list(&items), count));
        }
        lists
    }
}

fn list(items: &[u8]) -> Bytes {
    let mut list =
        format!("{{\"kind\":\"EventList\",\"apiVersion\":\"{API_VERSION}\",\"metadata\":{{}},\"items\":[")
            .into_bytes();
    list.extend_from_slice(items);
    list.extend_from_slice(b"]}");
    list.into()
}

/// Waits for a full batch, the maximum time, or a flush; returns `None` when the queue is closed.
async fn collect(
    receiver: &mut mpsc::Receiver<Entry>,
    options: &BatchOptions,
) -> Option<(Vec<Entry>, Option<Entry>)> {
    let mut batch = Vec::new();
    let first = receiver.recv().await?;
    if first.event.is_none() {
        return Some((batch, Some(first)));
    }
    batch.push(first);
    let end = Instant::now() + options.max_wait;
    while batch.len() < options.max_size {
        match tokio::time::timeout_at(end, receiver.recv()).await {
            Ok(Some(entry)) if entry.event.is_none() => return Some((batch, Some(entry))),
            Ok(Some(entry)) => batch.push(entry),
            Ok(None) | Err(_) => break,
        }
    }
    Some((batch, None))
}

/// A token bucket.
struct Bucket {
    throttle: Throttle,
    tokens: f64,
    updated: Instant,
}

impl Bucket {
    fn new(throttle: Throttle) -> Self {
        Self { tokens: throttle.burst as f64, throttle, updated: Instant::now() }
    }

    /// Waits for a token.
    async fn take(&mut self) {
        let (qps, now) = (f64::from(self.throttle.qps), Instant::now());
        let added = now.duration_since(self.updated).as_secs_f64() * qps;
        self.tokens = (self.tokens + added).min(self.throttle.burst as f64) - 1.0;
        self.updated = now;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / qps)).await;
        }
    }
}

/// The timeout of a call, as upstream.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of calls at a time in batch mode.
const MAX_CALLS: usize = 16;

#[cfg(test)]
mod tests {
    use http::Response;
    use nave_machinery::Value;
    use nave_webhook::testing::HttpsServer;
    use parking_lot::Mutex;
    use prometheus::Registry;

    use super::*;
    use crate::Mode;
    use crate::event::tests::event;
    use crate::queue::Queue;

    const TRUST: &str = "certificate-authority: ca.crt";

    fn options(config_file: PathBuf) -> WebhookOptions {
        WebhookOptions {
            config_file,
            initial_backoff: Duration::from_millis(1),
            mode: Mode::Batch,
            batch: BatchOptions {
                buffer_size: 100,
                max_size: 4,
                max_wait: Duration::from_mins(1),
                throttle: None,
            },
            truncation: None,
            egress: Egress::Direct,
        }
    }

    fn lost(registry: &Registry, plugin: &str) -> u64 {
        let families = registry.gather();
        let metrics = families.iter().filter(|family| family.name() == "apiserver_audit_error_total");
        let of_plugin = metrics
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .find(|metric| metric.get_label()[0].value() == plugin);
        of_plugin.map_or(0, |metric| metric.get_counter().get_value() as u64)
    }

    #[tokio::test]
    async fn sends_full_batches_and_the_rest_on_flush() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let server = HttpsServer::start(move |request| {
            let list: Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&"EventList".into(), &Value::Null));
            seen.lock().push(list["items"].as_array().unwrap().len());
            Response::new(Bytes::new())
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let file = server.write_kubeconfig(folder.path(), TRUST, "");
        let options = options(file);
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let (queue, receiver) = Queue::new(100, &metrics);
        let sender = Sender::new(&options, &metrics).unwrap();
        tokio::spawn(sender.run(receiver, options.batch));
        for _ in 0..10 {
            queue.offer(&Arc::new(event("a")));
        }
        queue.flush().await;
        let mut sizes = sizes.lock().clone();
        sizes.sort_unstable();
        assert_eq!(sizes, [2, 4, 4]);
    }

    #[tokio::test]
    async fn retries_and_counts_what_is_refused() {
        let calls = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&calls);
        let server = HttpsServer::start(move |_| {
            *counted.lock() += 1;
            Response::builder().status(403).body(Bytes::new()).unwrap()
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let options = options(server.write_kubeconfig(folder.path(), TRUST, ""));
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let sender = Sender::new(&options, &metrics).unwrap();
        assert!(!sender.send(vec![Arc::new(event("a")), Arc::new(event("b"))]).await);
        assert_eq!((*calls.lock(), lost(&registry, "webhook")), (5, 2));
    }

    #[tokio::test]
    async fn lists_are_split_by_size() {
        let server = HttpsServer::start(|_| Response::new(Bytes::new())).await;
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(server.write_kubeconfig(folder.path(), TRUST, ""));
        let one = {
            let mut out = Vec::new();
            event("a").encode(true, &mut out);
            out.len()
        };
        options.truncation = Some(Truncation { max_event_size: one, max_batch_size: 2 * one + 1 });
        let registry = Registry::new();
        let sender = Sender::new(&options, &Metrics::new(&registry).unwrap()).unwrap();
        let events = ["a", "b", "c", "too long"].map(|name| Arc::new(event(name)));
        let lists = sender.0.encode(&events);
        assert_eq!(lists.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(lost(&registry, "truncate"), 1);
        for (list, count) in lists {
            let list: Value = serde_json::from_slice(&list).unwrap();
            assert_eq!(list["items"].as_array().unwrap().len(), count);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_throttled() {
        let mut bucket = Bucket::new(Throttle { qps: 10.0, burst: 3 });
        let started = Instant::now();
        for _ in 0..13 {
            bucket.take().await;
        }
        let took = started.elapsed().as_secs_f64();
        assert!((0.95..1.1).contains(&took), "{took}");
    }
}
