//! Measures the cache: memory per object, CPU per event with and without watchers, CPU per listed object.
//!
//! `cargo run --release -p nave-cacher --example cost` prints a table. CPU time is that of the whole process (from
//! /proc). The store is in memory, the decoder only copies, and no network is used.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nave_cacher::{
    Cacher, CacherConfig, DecodeError, DecodedObject, Decoder, FieldRef, Filter, SelectableAttributes,
    WatchItem, WatchRequest, WatchStart,
};
use nave_store::KeyValue;
use support::{FakeStore, PREFIX};

const OBJECTS: usize = 20_000;
const WATCHERS: usize = 1_000;
const PADDING: &str = match std::str::from_utf8(&[b'x'; 3_600]) {
    Ok(padding) => padding,
    Err(_) => "",
};

/// Decodes stored bytes that contain the node's name, a space, and padding to the usual size of a pod.
struct PodDecoder;

impl Decoder for PodDecoder {
    fn decode(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        let text = std::str::from_utf8(&kv.value).map_err(|error| DecodeError(error.to_string()))?;
        let node = text.split(' ').next().unwrap_or_default();
        let head = r#"{"metadata":{"resourceVersion":""#;
        let mut json = Vec::with_capacity(text.len() + 80);
        json.extend_from_slice(head.as_bytes());
        json.extend_from_slice(kv.mod_revision.to_string().as_bytes());
        json.extend_from_slice(br#""},"is":""#);
        json.extend_from_slice(text.as_bytes());
        json.extend_from_slice(br#""}"#);
        json.shrink_to_fit();
        let fields =
            [node, "Always", "default-scheduler", "default", "false", "Running", "10.244.17.201", ""];
        let labels = [("app", "web-frontend"), ("pod-template-hash", "5d4f8c7b9"), ("tier", "frontend")];
        Ok(DecodedObject {
            json: json.into(),
            version_at: head.len(),
            attributes: SelectableAttributes::new(fields, labels),
        })
    }
}

fn main() {
    // Two workers, because the project's figures are measured on a machine with two cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => eprintln!("no runtime: {error}"),
    }
}

async fn run() {
    idle().await;
    let store = FakeStore::default();
    for pod in 0..OBJECTS {
        store.put(&key(pod), value(pod % 100));
    }
    store.release();
    let before = resident();
    let begin = Instant::now();
    let config = CacherConfig { indexed_fields: vec![0], ..CacherConfig::new("pods", PREFIX, true) };
    let cacher = Cacher::start(config, Arc::new(store.clone()), Arc::new(PodDecoder));
    cacher.wait_ready().await;
    let snapshot = cacher.snapshot();
    let json: usize = snapshot.range(PREFIX, None).map(|object| object.json_len()).sum();
    println!("{OBJECTS} objects: ready in {:?}", begin.elapsed());
    println!(
        "memory an object: JSON {} B, counted {} B, resident {} B ({:.2} of the JSON)",
        json / OBJECTS,
        snapshot.bytes() / OBJECTS,
        (resident() - before) / OBJECTS,
        (resident() - before) as f64 / json as f64,
    );
    lists(&cacher);
    drop(snapshot);

    println!(
        "{:>9} {:>16} {:>9} {:>12} {:>14} {:>11}",
        "watchers", "kind", "batch", "µs an event", "µs a delivery", "deliveries"
    );
    let node = |node: usize| Filter::all().with_field(FieldRef::Declared(0), &format!("node-{node}"));
    for batch in [1, 16] {
        measure(&store, &cacher, "none", batch, 5_000, Vec::new()).await;
        let others = (0..WATCHERS).map(|i| node(1_000 + i)).collect();
        measure(&store, &cacher, "not matching", batch, 5_000, others).await;
        let all = (0..WATCHERS).map(|_| Filter::all()).collect();
        measure(&store, &cacher, "matching", batch, 320, all).await;
    }
}

/// Starts as many empty caches as a server has, and measures them.
async fn idle() {
    let store: Arc<dyn nave_store::Store> = Arc::new(FakeStore::default());
    let (before, begin) = (resident(), Instant::now());
    let mut cachers = Vec::new();
    for resource in 0..65 {
        let name = format!("resource-{resource}");
        let config = CacherConfig::new(&*name, format!("/registry/{name}/"), true);
        cachers.push(Cacher::start(config, Arc::clone(&store), Arc::new(PodDecoder)));
    }
    for cacher in &cachers {
        cacher.wait_ready().await;
    }
    let bytes = resident() - before;
    println!("{} empty resources: ready in {:?}, {bytes} B resident", cachers.len(), begin.elapsed());
}

fn lists(cacher: &Cacher) {
    let snapshot = cacher.snapshot();
    // Takes the best of several runs, because the machine has other load.
    let walk = |filter: Filter| {
        let once = |_| {
            let begin = Instant::now();
            let bytes: usize = snapshot.select(&filter, None).map(|object| object.json_len()).sum();
            (begin.elapsed(), bytes)
        };
        (0..9).map(once).min()
    };
    println!("walk over all: {:?}", walk(Filter::all()));
    println!("by an indexed field: {:?}", walk(Filter::all().with_field(FieldRef::Declared(0), "node-7")));
    let nothing = nave_machinery::selector::LabelSelector::parse("app=nothing").unwrap_or_default();
    println!("by a label nothing bears: {:?}", walk(Filter::all().with_labels(nothing)));
    let begin = Instant::now();
    let past = cacher.snapshot_at(cacher.revision()).map(|past| past.len());
    println!("snapshot: {:?} ({past:?} objects)", begin.elapsed());
}

/// Writes `events` events in batches of `batch` while the watchers take frames.
async fn measure(
    store: &FakeStore,
    cacher: &Arc<Cacher>,
    kind: &str,
    batch: usize,
    events: usize,
    filters: Vec<Filter>,
) {
    let taken = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    let matching = filters.first().is_some_and(Filter::is_empty);
    let expected = if matching { (filters.len() * events) as u64 } else { 0 };
    for filter in filters {
        let start = WatchStart::After(cacher.revision());
        let Ok(mut watcher) = cacher.watch(WatchRequest { start, filter, bookmarks: true, deadline: None })
        else {
            return;
        };
        let taken = Arc::clone(&taken);
        tasks.push(tokio::spawn(async move {
            while let WatchItem::Events(events) = watcher.next().await {
                let frames = events.iter().filter(|event| !event.json_frame().is_empty()).count();
                taken.fetch_add(frames as u64, Ordering::Relaxed);
            }
        }));
    }
    tokio::task::yield_now().await;
    let before = cpu();
    for first in (0..events).step_by(batch) {
        (first..first + batch).for_each(|event| {
            store.put(&key(event % OBJECTS), value(event % 100));
        });
        store.release();
        let revision = store.with(|inner| inner.revision());
        let _ = cacher.wait_until(revision, Duration::from_secs(10)).await;
    }
    while taken.load(Ordering::Relaxed) < expected {
        tokio::task::yield_now().await;
    }
    let used = cpu().saturating_sub(before).as_secs_f64() * 1e6;
    let deliveries = taken.load(Ordering::Relaxed);
    println!(
        "{:>9} {kind:>16} {batch:>9} {:>12.2} {:>14.3} {deliveries:>11}",
        tasks.len(),
        used / events as f64,
        if deliveries > 0 { used / deliveries as f64 } else { 0.0 },
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

fn key(pod: usize) -> String {
    format!("{PREFIX}namespace-{}/web-frontend-5d4f8c7b9-{pod:05}", pod % 20)
}

fn value(node: usize) -> String {
    format!("node-{node} ") + PADDING
}

/// Returns the CPU time used by all threads of this process.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let used = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// Returns the resident memory in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
