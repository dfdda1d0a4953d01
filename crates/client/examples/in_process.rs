//! Measures an in-process informer: memory per object beyond the watch cache, and time to sync.
//!
//! `cargo run --release -p nave-client --example in_process`

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use nave_cacher::{Cacher, CacherConfig, DecodeError, DecodedObject, Decoder, SelectableAttributes};
use nave_client::{InProcess, SharedInformerFactory, on_each};
use nave_store::embedded::{Embedded, Options};
use nave_store::{KeyValue, Store, Txn};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PODS: usize = 20_000;
const PREFIX: &str = "/registry/pods/";
const HANDLERS: usize = 8;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(Embedded::open(folder.path(), &Options::default())?);
    let puts = |chunk: usize| {
        (0..500).map(move |n| format!("{PREFIX}ns-{}/web-5d4f8c7b9-{:05}", n % 10, chunk * 500 + n))
    };
    for chunk in 0..PODS / 500 {
        let done = join_all(puts(chunk).map(|key| store.txn(Txn::put(key, "")))).await;
        done.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    let cacher = Cacher::start(CacherConfig::new("pods", PREFIX, true), store, Arc::new(Pods));
    cacher.wait_ready().await;
    let before = resident()?;
    let factory = SharedInformerFactory::new(InProcess(move |_: &_| Some(Arc::clone(&cacher))));
    let pods = factory.informer::<Pod>();
    let registrations: Vec<_> = (0..HANDLERS).map(|_| pods.add_event_handler(on_each(|_| ()))).collect();
    let start = Instant::now();
    factory.start();
    factory.wait_for_cache_sync().await;
    let synced = start.elapsed();
    join_all(registrations.iter().map(nave_client::Registration::wait_for_sync)).await;
    let delivered = start.elapsed();
    // Waits for the allocator to return the temporary memory of the list. It may never return all of it.
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    println!("{PODS} pods, {HANDLERS} handlers: synced in {synced:?}, all delivered in {delivered:?}");
    println!("memory per object beyond the watch cache: {} B", resident()?.saturating_sub(before) / PODS);
    factory.shutdown().await;
    Ok(())
}

/// Decodes to pods of a typical size; the store only has their keys.
struct Pods;

impl Decoder for Pods {
    fn decode(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        let mut names = kv.key.rsplit('/');
        let (name, namespace) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        let head = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":""#;
        let json = format!(
            r#"{head}{version}","name":"{name}","namespace":"{namespace}","uid":"5d2a1c1e-0000-4000-8000-{uid:012}",
            "labels":{{"app":"web-frontend","pod-template-hash":"5d4f8c7b9","tier":"frontend"}},
            "ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-5d4f8c7b9","controller":true,
            "uid":"5d2a1c1e-0000-4000-8000-000000000001"}}]}},"spec":{{"note":"{padding:3200}"}}}}"#,
            version = kv.mod_revision,
            uid = kv.mod_revision,
            padding = "",
        );
        let labels = [("app", "web-frontend"), ("pod-template-hash", "5d4f8c7b9"), ("tier", "frontend")];
        Ok(DecodedObject {
            json: json.into(),
            version_at: head.len(),
            attributes: SelectableAttributes::new([], labels),
        })
    }
}

fn resident() -> Result<usize, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(resident.and_then(|text| text.split_whitespace().next()).unwrap_or("0").parse::<usize>()? * 1024)
}
