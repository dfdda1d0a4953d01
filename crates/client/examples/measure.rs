//! Compares an informer with kube-rs' reflector: time to sync, memory per object, CPU per event.
//!
//! ```text
//! cargo run --release -p nave-client --example measure
//! ```
//!
//! Creates 10,000 pods on the cluster in the current kubeconfig, which should be a test cluster. Prints one line
//! for each method of following the pods. Each method runs in a separate process to measure its memory and CPU;
//! meanwhile this process changes every pod once.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use nave_client::{EventHandler, Object, SharedInformerFactory, on_each};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PODS: usize = 10_000;
const NAMESPACE: &str = "measure";
const WAYS: [&str; 3] = ["informer", "informer, decoding every event", "kube-rs reflector"];

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let client = kube::Client::try_default().await?;
    let Some(way) = std::env::args().nth(1) else { return compare(client).await };
    // Connects before the measurement starts.
    client.apiserver_version().await?;
    let start = Measure::now()?;
    let events = Arc::new(AtomicUsize::new(0));
    let followed = follow(&way, client, Arc::clone(&events)).await?;
    let synced = Measure::now()?;
    println!("{}", synced.time.duration_since(start.time).as_millis());
    // Waits for the allocator to return the temporary memory of the list. It may never return all of it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = Measure::now()?;
    println!("{}", idle.resident.saturating_sub(start.resident) / PODS);
    println!("{}", synced.cpu_since(&start));
    println!("ready");
    let before = Measure::now()?;
    events.store(0, Ordering::Relaxed);
    while events.load(Ordering::Relaxed) < PODS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{}", Measure::now()?.cpu_since(&before));
    drop(followed);
    Ok(())
}

/// Follows all pods with the given method and counts the events. Runs while the return value is alive.
async fn follow(
    way: &str,
    client: kube::Client,
    events: Arc<AtomicUsize>,
) -> Result<Box<dyn std::any::Any>, Failure> {
    if way == WAYS[2] {
        let (store, writer) = reflector::store::<Pod>();
        let config = watcher::Config::default().streaming_lists();
        let pods = watcher(Api::<Pod>::namespaced(client, NAMESPACE), config).default_backoff();
        let stream = reflector::reflector(writer, pods).applied_objects();
        tokio::spawn(stream.for_each(move |_| {
            events.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        }));
        store.wait_until_ready().await?;
        return Ok(Box::new(store));
    }
    let factory = SharedInformerFactory::new(client);
    let pods = factory.informer::<Pod>();
    let is_decoding = way == WAYS[1];
    pods.add_event_handler(counting(events, is_decoding));
    factory.start();
    factory.wait_for_cache_sync().await;
    Ok(Box::new(factory))
}

fn counting(events: Arc<AtomicUsize>, is_decoding: bool) -> impl EventHandler<Pod> {
    on_each(move |pod: &Object<Pod>| {
        if !is_decoding || pod.decode().is_ok() {
            events.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// The resource usage of this process at one point in time.
struct Measure {
    time: Instant,
    resident: usize,
    cpu: Duration,
}

impl Measure {
    fn now() -> Result<Self, Failure> {
        let status = fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: usize =
            resident.and_then(|text| text.split_whitespace().next()).unwrap_or("0").parse()?;
        let mut cpu = Duration::ZERO;
        for thread in fs::read_dir("/proc/self/task")? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            cpu += Duration::from_nanos(text.split_whitespace().next().unwrap_or("0").parse()?);
        }
        Ok(Self { time: Instant::now(), resident: kilobytes * 1024, cpu })
    }

    /// Returns the CPU time in microseconds per pod.
    fn cpu_since(&self, earlier: &Self) -> u128 {
        self.cpu.saturating_sub(earlier.cpu).as_micros() / PODS as u128
    }
}

async fn compare(client: kube::Client) -> Result<(), Failure> {
    make_pods(&client).await?;
    println!("| | synced in | CPU per object | memory per object | CPU per event |");
    println!("| --- | --- | --- | --- | --- |");
    for (round, way) in WAYS.into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe()?).arg(way).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut said = Vec::new();
        while let Some(line) = lines.next_line().await? {
            if line == "ready" {
                change_pods(&client, round).await?;
            } else {
                said.push(line);
            }
        }
        child.wait().await?;
        let [synced, memory, list, event] = &said[..] else { return Err("the other process failed".into()) };
        println!("| {way} | {synced} ms | {list} µs | {memory} B | {event} µs |");
    }
    Ok(())
}

async fn make_pods(client: &kube::Client) -> Result<(), Failure> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    let made = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await;
    made.map(drop).or_else(unless_there)?;
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let made = stream::iter(0..PODS).map(|n| {
        let pods = pods.clone();
        async move { pods.create(&PostParams::default(), &pod(n)).await.map(drop).or_else(unless_there) }
    });
    let made: Vec<_> = made.buffer_unordered(32).collect().await;
    Ok(made.into_iter().collect::<Result<_, _>>()?)
}

fn unless_there(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 409 => Ok(()),
        error => Err(error),
    }
}

async fn change_pods(client: &kube::Client, round: usize) -> Result<(), Failure> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let changed = stream::iter(0..PODS).map(|n| {
        let pods = pods.clone();
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": format!("{round}-{n}")}}}));
        async move { pods.patch(&name(n), &PatchParams::default(), &patch).await.map(drop) }
    });
    let changed: Vec<_> = changed.buffer_unordered(32).collect().await;
    Ok(changed.into_iter().collect::<Result<_, _>>()?)
}

fn name(n: usize) -> String {
    format!("web-5d4f8c7b9-{n:05}")
}

/// Creates a pod like those of a Deployment, but without an owner, as the garbage collector would not find one.
fn pod(n: usize) -> Pod {
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example/team/{name}:1.27.3"),
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "env": (0..8).map(|n| json!({"name": format!("SETTING_{n}"), "value": "some value or other"}))
                .collect::<Vec<_>>(),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}]})
    };
    let pod = json!({
        "metadata": {"name": name(n),
            "labels": {"app": "web-frontend", "pod-template-hash": "5d4f8c7b9", "tier": "frontend"},
            "annotations": {"example.com/config-hash": "0".repeat(64)}},
        "spec": {"containers": [container("web"), container("sidecar")],
            "volumes": [{"name": "config", "configMap": {"name": "web-config"}}]},
    });
    serde_json::from_value(pod).unwrap_or_default()
}
