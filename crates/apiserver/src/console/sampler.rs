//! Builds snapshots from the metrics, the caches and the store, so that the page and `/metrics` have the same numbers.
//! Parts without metrics are absent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nave_flowcontrol::Controller;
use tokio::time::Instant;

use super::activity::{Counts, Latency, Usage};
use super::families::{Families, Totals};
use super::optional;
use super::snapshot::{Cache, Caches, Client, Requests, Server, Snapshot, Store, Verb};
use super::span::{Counted, Sample, Span, largest};
use crate::catalog::Catalogs;
use crate::introspection::FieldWatchers;
use crate::metrics::Metrics;
use crate::storage::ResourceStorage;
use crate::version::KUBERNETES_VERSION;

/// Samples over which the requests of users are counted, and those over which latencies are.
const USER_SAMPLES: usize = 60;
const LATENCY_SAMPLES: usize = 10;
/// Minimum time over which rates of rare events are averaged: webhook calls, flows.
const RARE: Duration = Duration::from_secs(5);
/// Maximum numbers of rows.
const MAX_CLIENTS: usize = 12;
const MAX_SLOW_CLIENTS: usize = 4;
const MAX_BUCKETS: usize = 3;

/// The previous samples, from which rates are computed.
#[derive(Default)]
pub(super) struct Sampler {
    /// The latest requests, newest first.
    activity: VecDeque<Counts>,
    previous: Option<Sample>,
    /// Two older samples. The first is 5 to 10 seconds old, as soon as somebody looks that long.
    older: VecDeque<Sample>,
}

impl Sampler {
    /// Reads the state of the server. `counts` are the requests since the previous call.
    pub(super) async fn sample(
        &mut self,
        metrics: &Arc<Metrics>,
        catalogs: &Catalogs,
        controller: Option<&Controller>,
        counts: Counts,
    ) -> Snapshot {
        self.activity.push_front(counts);
        self.activity.truncate(USER_SAMPLES);
        let catalog = catalogs.load();
        let status = catalog.storages().stores().main_status().await;
        // Collecting thousands of series takes some milliseconds.
        let gathered = Arc::clone(metrics);
        let gathered = tokio::task::spawn_blocking(move || gathered.gather()).await.unwrap_or_default();
        let now = Sample { at: Instant::now(), families: Arc::new(Families::new(gathered)), status };
        let span = Span { now: &now, before: self.previous.as_ref() };
        let rare = Span { now: &now, before: self.older.front().or(self.previous.as_ref()) };
        let latencies = self.latencies();
        let snapshot = Snapshot {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64),
            server: server(span),
            requests: requests(span, &latencies),
            verbs: verbs(span, &latencies),
            priority_levels: optional::priority_levels(span, rare),
            queues: controller.map(optional::queues),
            flows: optional::flows(span, rare),
            caches: caches(span, catalog.storages().all()),
            store: store(span),
            webhooks: optional::webhooks(rare),
            api_services: optional::api_services(&now.families),
            clients: self.clients(),
            audit: optional::audit(span),
        };
        self.keep(now);
        snapshot
    }

    fn keep(&mut self, now: Sample) {
        if self.older.back().is_none_or(|newest| now.at - newest.at >= RARE) {
            self.older.push_back(now.clone());
            if self.older.len() > 2 {
                self.older.pop_front();
            }
        }
        self.previous = Some(now);
    }

    /// Returns the latencies of the last seconds by verb.
    fn latencies(&self) -> HashMap<&str, Latency> {
        let mut latencies: HashMap<&str, Latency> = HashMap::new();
        for (verb, latency) in self.activity.iter().take(LATENCY_SAMPLES).flat_map(|counts| &counts.verbs) {
            latencies.entry(verb).or_default().merge(latency);
        }
        latencies
    }

    /// Returns the most expensive users of the last minute, and the slowest ones, by total duration.
    fn clients(&self) -> Vec<Client> {
        let mut users: HashMap<&str, Usage> = HashMap::new();
        for (user, usage) in self.activity.iter().flat_map(|counts| &counts.users) {
            users.entry(user).or_default().add(*usage);
        }
        let mut users: Vec<_> = users.into_iter().collect();
        users.sort_unstable_by_key(|(name, usage)| (Reverse(usage.time), *name));
        let mut rest = users.split_off(users.len().min(MAX_CLIENTS));
        rest.sort_by_key(|(_, usage)| Reverse(usage.slowest));
        rest.truncate(MAX_SLOW_CLIENTS);
        rest.sort_by_key(|(_, usage)| Reverse(usage.time));
        let client = |(user, usage): (&str, Usage)| Client {
            user: user.to_owned(),
            requests: usage.requests,
            failures: usage.failures,
            time: usage.time.as_secs_f64(),
            mean: usage.time.as_secs_f64() / usage.requests.max(1) as f64,
            slowest: usage.slowest.as_secs_f64(),
        };
        users.into_iter().chain(rest).map(client).collect()
    }
}

fn server(span: Span<'_>) -> Server {
    let (major, minor, patch) = KUBERNETES_VERSION;
    let cpu = "process_cpu_seconds_total";
    Server {
        version: env!("CARGO_PKG_VERSION"),
        kubernetes: format!("{major}.{minor}.{patch}"),
        memory_bytes: span.families().total("process_resident_memory_bytes"),
        cpu: span.families().has(cpu).then(|| span.rate(span.total(cpu).increase.value)).flatten(),
        task_restarts: span.families().total("nave_task_restarts_total").unwrap_or_default(),
    }
}

fn requests(span: Span<'_>, latencies: &HashMap<&str, Latency>) -> Requests {
    let all = span.total(REQUESTS);
    let by_code = span.by(REQUESTS, ["code"]);
    let rate_of = |starts: &str| {
        let codes = by_code.iter().filter(|([code], _)| code.starts_with(starts));
        span.rate(codes.map(|(_, counted)| counted.increase.value).sum())
    };
    let in_flight = span.families().by("apiserver_current_inflight_requests", ["request_kind"]);
    let of_kind = |kind: &str| in_flight.get(&[kind.to_owned()]).map_or(0.0, |totals| totals.value);
    let mut latency = Latency::default();
    for (_, other) in latencies.iter().filter(|(verb, _)| !LONG_RUNNING.contains(verb)) {
        latency.merge(other);
    }
    Requests {
        total: all.total,
        per_second: span.rate(all.increase.value),
        rejected_per_second: rate_of("429"),
        failed_per_second: rate_of("5"),
        in_flight_reads: of_kind("readOnly"),
        in_flight_writes: of_kind("mutating"),
        long_running: span.families().total("apiserver_longrunning_requests").unwrap_or_default(),
        p50: latency.quantile(0.5),
        p99: latency.quantile(0.99),
    }
}

fn verbs(span: Span<'_>, latencies: &HashMap<&str, Latency>) -> Vec<Verb> {
    let row = |([verb], counted): ([String; 1], Counted)| {
        let latency = latencies.get(verb.as_str());
        Verb {
            total: counted.total,
            per_second: span.rate(counted.increase.value),
            p50: latency.and_then(|latency| latency.quantile(0.5)),
            p99: latency.and_then(|latency| latency.quantile(0.99)),
            name: verb,
        }
    };
    largest(span.by(REQUESTS, ["verb"]).into_iter().map(row), |verb| verb.total)
}

fn caches<'a>(span: Span<'_>, storages: impl Iterator<Item = &'a Arc<ResourceStorage>>) -> Caches {
    let revision = span.now.status.as_ref().map(|status| status.revision);
    let events = span.by("apiserver_watch_cache_events_received_total", ["group", "resource"]);
    let all: Vec<_> = storages.map(|storage| cache(span, storage, revision, &events)).collect();
    Caches {
        count: all.len(),
        objects: all.iter().map(|cache| cache.objects).sum(),
        bytes: all.iter().map(|cache| cache.bytes).sum(),
        watchers: all.iter().map(|cache| cache.watchers).sum(),
        shown: largest(all.into_iter(), |cache| (cache.bytes + cache.window_bytes + cache.watchers) as f64),
    }
}

fn cache(
    span: Span<'_>,
    storage: &ResourceStorage,
    revision: Option<u64>,
    events: &BTreeMap<[String; 2], Counted>,
) -> Cache {
    let (def, now) = (storage.def(), storage.cacher().introspect());
    let buckets = FieldWatchers::largest(def, &now.watchers, MAX_BUCKETS);
    let key = [def.group.clone(), def.resource.clone()];
    Cache {
        objects: now.objects,
        bytes: now.bytes,
        window_events: now.window.events,
        window_capacity: now.window.capacity,
        window_bytes: now.window.bytes,
        watchers: now.watchers.iter().map(|(_, count)| *count).sum(),
        buckets,
        lag: revision.map(|store| store.saturating_sub(now.revision)),
        events_per_second: span.rate(events.get(&key).map_or(0.0, |it| it.increase.value)),
        group: def.group.clone(),
        resource: def.resource.clone(),
    }
}

fn store(span: Span<'_>) -> Store {
    let operations = span.by("etcd_request_duration_seconds", ["operation"]);
    let mut reads = 0.0;
    let mut writes = Totals::default();
    for ([operation], Counted { increase, .. }) in &operations {
        if matches!(operation.as_str(), "create" | "update" | "delete") {
            writes.value += increase.value;
            writes.sum += increase.sum;
        } else {
            reads += increase.value;
        }
    }
    let before = span.before.and_then(|before| before.status.as_ref()?.commits);
    let commits = span.now.status.as_ref().and_then(|status| status.commits);
    let increase = commits.zip(before).map(|(now, before)| {
        let count = now.count.saturating_sub(before.count) as f64;
        (count, now.time.saturating_sub(before.time).as_secs_f64())
    });
    let has_rates = span.before.is_some();
    Store {
        engine: span.now.status.as_ref().map(|status| status.engine.clone()),
        revision: span.now.status.as_ref().map(|status| status.revision),
        compacted: span.now.status.as_ref().map(|status| status.compacted),
        bytes: span.now.status.as_ref().map(|status| status.size_on_disk),
        bytes_in_use: span.now.status.as_ref().map(|status| status.size_in_use),
        commits: commits.map(|commits| commits.count),
        commits_per_second: increase.and_then(|(count, _)| span.rate(count)),
        commit_mean: increase.filter(|(count, _)| *count > 0.0).map(|(count, time)| time / count),
        writes_per_second: span.rate(writes.value),
        write_mean: writes.mean().filter(|_| has_rates),
        reads_per_second: span.rate(reads),
        errors: span.families().total("etcd_request_errors_total").unwrap_or_default(),
    }
}

const REQUESTS: &str = "apiserver_request_total";
/// Verbs of requests that last as long as the client wants.
const LONG_RUNNING: [&str; 2] = ["WATCH", "CONNECT"];
