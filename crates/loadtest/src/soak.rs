//! Steady load over a long time, to detect slow memory growth, watches that end without a reason, and lost events.
//!
//! | client | activity until the end |
//! | --- | --- |
//! | writers | create pods at full speed; each deletes the pod it created some hundreds of creates earlier |
//! | watchers | one in twenty watches all pods, the others one node each; all read as fast as they can |
//! | list clients | list in one of five ways in turn, then pause for a second |
//! | slow readers | watch all pods and read a chunk from time to time |
//!
//! After the first minute, memory may grow by at most a tenth. At the end, each watcher of all pods must have received
//! one event per write, and so must the watchers of nodes in total.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::LoadError;
use crate::http::{Call, Connection, JSON, PROTOBUF, Pool, StreamingResponse, Target, scan_field};
use crate::objects::{PodShape, default_service_account, namespace, node_name};
use crate::process::Processes;
use crate::report;

/// Configuration of the load.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// Duration.
    pub time: Duration,
    /// Number of writers at full speed.
    pub writers: usize,
    /// Number of watchers that keep up.
    pub watchers: usize,
    /// Number of clients that list.
    pub list_clients: usize,
    /// Number of watchers that do not keep up.
    pub slow_readers: usize,
}

/// Counters.
#[derive(Default)]
struct Tally {
    writes: AtomicU64,
    lists: AtomicU64,
    /// Events delivered to the watchers of nodes in total.
    node_events: AtomicU64,
    /// Events delivered to each watcher of all pods.
    all_events: Vec<AtomicU64>,
    /// Watches that ended although their client was reading.
    ends: AtomicUsize,
    /// Watches of slow readers that ended.
    slow_ends: AtomicUsize,
    /// Lists whose continue token expired.
    expired: AtomicUsize,
}

/// The state of a client.
#[derive(Clone)]
struct Client {
    target: Target,
    tally: Arc<Tally>,
    nodes: u64,
    writing: watch::Receiver<bool>,
    running: watch::Receiver<bool>,
}

/// Resident memory at a time after the start.
struct Reading {
    at: Duration,
    bytes: u64,
}

/// Runs the load, prints its progress, and returns the problems found.
pub async fn run(target: &Target, processes: &Processes, soak: Soak) -> Result<Vec<String>, LoadError> {
    let pool = target.pool(1).await?;
    make_namespace(&pool).await?;
    let (write, writing) = watch::channel(true);
    let (run, running) = watch::channel(true);
    let of_all = soak.watchers.div_ceil(WATCHERS_PER_WIDE_ONE);
    let tally = Tally { all_events: (0..of_all).map(|_| AtomicU64::new(0)).collect(), ..Tally::default() };
    let nodes = (soak.watchers - of_all).max(1) as u64;
    let client = Client { target: target.clone(), tally: Arc::new(tally), nodes, writing, running };
    let mut tasks = client.start(&soak).await?;
    let readings = tokio::select! {
        readings = report(&client.tally, processes, soak.time) => readings?,
        failed = first_failure(&mut tasks) => return Err(failed),
    };
    // Fails if all clients have ended; a client that ended by itself has reported its error.
    let _ = write.send(false);
    let mut problems = client.missing(soak.watchers - of_all).await;
    let _ = run.send(false);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| LoadError::Unexpected(error.to_string()))??;
    }
    let ends = client.tally.ends.load(Ordering::Relaxed);
    if ends > 0 {
        problems.push(format!("{ends} watches ended although they were read"));
    }
    problems.extend(memory_growth(&readings));
    Ok(problems)
}

impl Client {
    /// Starts all clients. The watchers start first, all from one revision.
    async fn start(&self, soak: &Soak) -> Result<JoinSet<Result<(), LoadError>>, LoadError> {
        let mut tasks = JoinSet::new();
        let watchers = self.target.pool(soak.watchers.div_ceil(STREAMS)).await?;
        let from = revision(&mut watchers.lane(0)).await?;
        for number in 0..soak.watchers {
            let (mut connection, call) = (watchers.lane(number), self.watch(number, &from));
            let stream = connection.send(&call).await?.success().await?;
            tasks.spawn(self.clone().count_events(connection, stream, number));
        }
        for _ in 0..soak.slow_readers {
            tasks.spawn(self.clone().read_slowly());
        }
        let readers = self.target.pool(soak.list_clients.div_ceil(STREAMS)).await?;
        for number in 0..soak.list_clients {
            tasks.spawn(self.clone().list(readers.lane(number), number));
        }
        for number in 0..soak.writers {
            tasks.spawn(self.clone().write(self.target.connect_http2().await?, number));
        }
        Ok(tasks)
    }

    /// Returns the watch of a watcher: all pods for the first watchers, one node for each of the others.
    fn watch(&self, number: usize, from: &str) -> Call {
        let wide = self.tally.all_events.len();
        let selector = match number.checked_sub(wide) {
            None => String::new(),
            Some(node) => format!("&fieldSelector=spec.nodeName%3D{}", node_name(node as u64)),
        };
        Call::get(format!("{PODS}?watch=true&timeoutSeconds=86400&resourceVersion={from}{selector}"))
    }

    async fn count_events(
        mut self,
        mut connection: Connection,
        mut stream: StreamingResponse,
        number: usize,
    ) -> Result<(), LoadError> {
        loop {
            let chunk = tokio::select! {
                chunk = stream.next_chunk() => chunk?,
                _ = self.running.changed() => return Ok(()),
            };
            let Some(chunk) = chunk else {
                self.tally.ends.fetch_add(1, Ordering::Relaxed);
                let from = revision(&mut connection).await?;
                stream = connection.send(&self.watch(number, &from)).await?.success().await?;
                continue;
            };
            let events = memchr::memchr_iter(b'\n', &chunk).count() as u64;
            let counter = self.tally.all_events.get(number).unwrap_or(&self.tally.node_events);
            counter.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Uses HTTP/1.1, so that unread data fills only the socket buffer.
    async fn read_slowly(mut self) -> Result<(), LoadError> {
        while *self.running.borrow() {
            let mut connection = self.target.connect_slow_reader().await?;
            let from = revision(&mut connection).await?;
            let mut stream = connection.send(&self.watch(0, &from)).await?.success().await?;
            while stream.next_chunk().await?.is_some() {
                tokio::select! {
                    () = tokio::time::sleep(SLOW) => {}
                    _ = self.running.changed() => return Ok(()),
                }
            }
            self.tally.slow_ends.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn list(mut self, mut connection: Connection, number: usize) -> Result<(), LoadError> {
        let pages = format!("{PODS}?limit=100");
        let by_node = format!("{PODS}?fieldSelector=spec.nodeName%3D{}", node_name(number as u64));
        let (path, accept) = match number % 5 {
            0 => (pages, JSON),
            1 => (by_node, JSON),
            2 => (format!("{PODS}?resourceVersion=0"), JSON),
            3 => (PODS.to_owned(), PROTOBUF),
            _ => (format!("{PODS}?labelSelector=app%3Dnone"), JSON),
        };
        while *self.running.borrow() {
            self.list_once(&mut connection, &path, accept).await?;
            tokio::select! {
                () = tokio::time::sleep(LIST_PAUSE) => {}
                _ = self.running.changed() => {}
            }
        }
        Ok(())
    }

    /// Makes one list, including all its pages.
    async fn list_once(
        &self,
        connection: &mut Connection,
        path: &str,
        accept: &'static str,
    ) -> Result<(), LoadError> {
        let mut page = path.to_owned();
        loop {
            let stream = connection.send(&Call::get(&page).accept(accept)).await?.success().await;
            let stream = match stream {
                Err(LoadError::Refused { status: 410, .. }) => {
                    self.tally.expired.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                stream => stream?,
            };
            let (_, head) = stream.drain().await?;
            self.tally.lists.fetch_add(1, Ordering::Relaxed);
            match scan_field(&head, "continue").filter(|token| !token.is_empty()) {
                Some(token) => page = format!("{path}&continue={token}"),
                None => return Ok(()),
            }
        }
    }

    async fn write(self, mut connection: Connection, number: usize) -> Result<(), LoadError> {
        let shape = PodShape { nodes: self.nodes, padding: 0 };
        for count in 0_u64.. {
            if !*self.writing.borrow() {
                break;
            }
            let pod = shape.pod(&format!("pod-{number}-{count}"), count);
            connection.send(&Call::post(PODS, pod)).await?.success().await?.drain().await?;
            self.tally.writes.fetch_add(1, Ordering::Relaxed);
            let Some(old) = count.checked_sub(PODS_PER_WRITER) else { continue };
            let call = Call::delete(format!("{PODS}/pod-{number}-{old}?gracePeriodSeconds=0"));
            connection.send(&call).await?.success().await?.drain().await?;
            self.tally.writes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until every event has arrived. Returns a problem for each watcher with missing events.
    async fn missing(&self, of_nodes: usize) -> Vec<String> {
        let started = Instant::now();
        loop {
            let missing = self.missing_now(of_nodes);
            if missing.is_empty() || started.elapsed() > ARRIVAL {
                return missing;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn missing_now(&self, of_nodes: usize) -> Vec<String> {
        let writes = self.tally.writes.load(Ordering::Relaxed);
        let mut counts = Vec::new();
        if of_nodes > 0 {
            counts.push(("watchers of nodes together".to_owned(), &self.tally.node_events));
        }
        let all = self.tally.all_events.iter().enumerate();
        counts.extend(all.map(|(number, count)| (format!("watcher {number} of all pods"), count)));
        let wrong = counts.into_iter().map(|(who, count)| (who, count.load(Ordering::Relaxed)));
        let wrong = wrong.filter(|(_, count)| *count != writes);
        wrong.map(|(who, count)| format!("{who}: {count} events of {writes} writes")).collect()
    }
}

/// Prints a line periodically until the end.
async fn report(tally: &Tally, processes: &Processes, time: Duration) -> Result<Vec<Reading>, LoadError> {
    println!(
        "{:>6} {:>9} {:>9} {:>9} {:>11} {:>6} {:>10} {:>8}",
        "time", "memory", "writes/s", "lists/s", "delivered/s", "ended", "slow ended", "expired"
    );
    let (started, mut readings) = (Instant::now(), Vec::new());
    let mut before = [0; 3];
    let mut last = Duration::ZERO;
    while started.elapsed() < time {
        tokio::time::sleep(INTERVAL.min(time.saturating_sub(started.elapsed()))).await;
        let at = started.elapsed();
        let bytes = processes.rss()?.unwrap_or_default();
        let now = tally.totals();
        let [writes, lists, delivered] =
            [0, 1, 2].map(|n| (now[n] - before[n]) as f64 / at.saturating_sub(last).as_secs_f64().max(1e-9));
        println!(
            "{:>5}s {:>9} {writes:>9.0} {lists:>9.0} {delivered:>11.0} {:>6} {:>10} {:>8}",
            at.as_secs(),
            report::megabytes(bytes),
            tally.ends.load(Ordering::Relaxed),
            tally.slow_ends.load(Ordering::Relaxed),
            tally.expired.load(Ordering::Relaxed),
        );
        (before, last) = (now, at);
        readings.push(Reading { at, bytes });
    }
    Ok(readings)
}

impl Tally {
    /// Returns the numbers of writes, lists and deliveries.
    fn totals(&self) -> [u64; 3] {
        let all: u64 = self.all_events.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let nodes = self.node_events.load(Ordering::Relaxed);
        [self.writes.load(Ordering::Relaxed), self.lists.load(Ordering::Relaxed), nodes + all]
    }
}

/// Returns a problem if memory kept growing after the first minute.
fn memory_growth(readings: &[Reading]) -> Option<String> {
    let peak = |of: &mut dyn Iterator<Item = &Reading>| of.map(|reading| reading.bytes).max();
    let first = peak(&mut readings.iter().filter(|reading| reading.at <= SETTLING))?;
    let later = peak(&mut readings.iter().filter(|reading| reading.at > SETTLING))?;
    (later > first + first / TOLERANCE)
        .then(|| format!("memory grew from {} to {}", report::megabytes(first), report::megabytes(later)))
}

/// Returns the error of the first client that fails. Ignores clients that end normally.
async fn first_failure(tasks: &mut JoinSet<Result<(), LoadError>>) -> LoadError {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(error) => return LoadError::Unexpected(error.to_string()),
        }
    }
    std::future::pending().await
}

async fn make_namespace(pool: &Pool) -> Result<(), LoadError> {
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    for call in [
        Call::post("/api/v1/namespaces", namespace(NAMESPACE)),
        Call::post(account, default_service_account()),
    ] {
        match pool.call(&call).await {
            Ok(_) | Err(LoadError::Refused { status: 409, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the current revision.
async fn revision(connection: &mut Connection) -> Result<String, LoadError> {
    let call = Call::get(format!("{PODS}?limit=1"));
    let list = connection.send(&call).await?.success().await?.read_all().await?;
    let found = scan_field(&list, "resourceVersion").map(str::to_owned);
    found.ok_or_else(|| LoadError::Unexpected("a list without a resourceVersion".into()))
}

const NAMESPACE: &str = "soak";
const PODS: &str = "/api/v1/namespaces/soak/pods";
/// One in this many watchers watches all pods.
const WATCHERS_PER_WIDE_ONE: usize = 20;
/// Number of pods that each writer leaves behind.
const PODS_PER_WRITER: u64 = 500;
/// Maximum number of streams per connection. kube-apiserver's limit is 100.
const STREAMS: usize = 90;
/// Pause of a slow reader between chunks.
const SLOW: Duration = Duration::from_secs(1);
const LIST_PAUSE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(15);
/// Time during which memory may grow, plus a second for the last reading.
const SETTLING: Duration = Duration::from_secs(61);
/// After this time, the peak may exceed the earlier peak by one part in this number, because allocators and page caches
/// vary.
const TOLERANCE: u64 = 10;
/// Maximum time for the last events to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(megabytes: [u64; 4]) -> Vec<Reading> {
        let at = [30, 60, 120, 150].map(Duration::from_secs);
        at.into_iter().zip(megabytes).map(|(at, mb)| Reading { at, bytes: mb * 1_000_000 }).collect()
    }

    #[test]
    fn reports_memory_growth_after_the_first_minute() {
        assert_eq!(memory_growth(&readings([50, 100, 109, 95])), None);
        assert_eq!(
            memory_growth(&readings([50, 100, 100, 111])),
            Some("memory grew from 100.0 MB to 111.0 MB".into())
        );
        assert_eq!(memory_growth(&[]), None);
    }
}
