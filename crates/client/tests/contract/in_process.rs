//! Informers straight on a watch cache, made by a factory.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use nave_cacher::{Attributes, Cacher, CacherConfig, DecodeError, Decoded, Decoder};
use nave_client::{
    Backoff, CacherListerWatcher, FactoryConfig, InProcess, InformerConfig, Scope, SharedInformer,
    SharedInformerFactory, resource_of,
};
use nave_machinery::GroupVersionResource;
use nave_store::embedded::{Embedded, Options};
use nave_store::{KeyValue, Store, Txn, TxnOutcome};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::recorder::{Recorder, check_history};

const PREFIX: &str = "/registry/configmaps/";

/// Of objects that are stored as their label; the rest is in the key.
struct Labels;

impl Decoder for Labels {
    fn decode(&self, kv: &KeyValue) -> Result<Decoded, DecodeError> {
        let label = std::str::from_utf8(&kv.value).map_err(|error| DecodeError(error.to_string()))?;
        let (namespace, name) = kv.key.strip_prefix(PREFIX).and_then(|key| key.split_once('/')).unwrap();
        let head = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":""#;
        let rest = format!(
            r#"","namespace":"{namespace}","name":"{name}","uid":"{}","labels":{{"colour":"{label}"}}}}}}"#,
            kv.key
        );
        let json = format!("{head}{}{rest}", kv.mod_revision);
        let attributes = Attributes::new([], [("colour", label)]);
        Ok(Decoded { json: json.into(), version_at: head.len(), attributes })
    }
}

struct Fixture {
    store: Arc<Embedded>,
    cacher: Arc<Cacher>,
    _folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path(), &Options::default()).unwrap());
        let config = CacherConfig::new("configmaps", PREFIX, true);
        let cacher = Cacher::start(config, store.clone(), Arc::new(Labels));
        Self { store, cacher, _folder: folder }
    }

    /// Writes an object; the watch cache has it when this returns, so that an informer that begins then does too.
    async fn set(&self, key: &str, label: &str) -> u64 {
        let txn = Txn::put(format!("{PREFIX}{key}").as_str(), label.to_owned());
        let TxnOutcome::Committed { revision, .. } = self.store.txn(txn).await.unwrap() else {
            panic!("a put that asks for nothing is not refused");
        };
        self.cacher.wait_ready().await;
        self.cacher.wait_until(revision, Duration::from_mins(2)).await.unwrap();
        revision
    }

    async fn delete(&self, key: &str) {
        self.store.txn(Txn::delete(format!("{PREFIX}{key}").as_str())).await.unwrap();
    }

    fn source(&self) -> InProcess<impl Fn(&GroupVersionResource) -> Option<Arc<Cacher>> + Clone + use<>> {
        let cacher = Arc::clone(&self.cacher);
        InProcess(move |resource: &GroupVersionResource| {
            (resource.resource == "configmaps").then(|| cacher.clone())
        })
    }
}

#[tokio::test]
async fn objects_share_the_watch_caches_bytes() {
    let it = Fixture::new();
    it.set("ns/a", "red").await;
    let factory = SharedInformerFactory::new(it.source());
    let maps = factory.informer::<ConfigMap>();
    let recorder = Recorder::new();
    maps.cast().add_event_handler(recorder.clone());
    factory.start();
    factory.wait_for_cache_sync().await;
    let changed = it.set("ns/a", "blue").await;
    it.set("ns/b", "red").await;
    it.delete("ns/a").await;
    // The cache may be ahead of what the handler was told.
    while !matches!(&check_history(&recorder.all())[..], [only] if only.contains(" ns/b@")) {
        tokio::task::yield_now().await;
    }
    let b = maps.lister().get("ns", "b").unwrap();
    let snapshot = it.cacher.snapshot();
    let cached = snapshot.get(&format!("{PREFIX}ns/b")).unwrap();
    assert_eq!(b.json().as_ptr(), cached.json().as_ptr());
    assert_eq!(b.decode().unwrap().metadata.labels.unwrap()["colour"], "red");
    let told = recorder.next(1).await;
    assert!(told.last().is_some_and(|last| last.starts_with("delete ns/a@")), "{told:?}");
    assert!(!told.contains(&format!("delete ns/a@{changed}")), "a deletion has a version of its own");
    factory.shutdown().await;
    it.set("ns/c", "red").await;
    assert_eq!(recorder.len(), 0);
}

#[tokio::test]
async fn only_what_is_in_scope_is_seen() {
    let it = Fixture::new();
    for (key, label) in [("ns/a", "red"), ("ns/b", "blue"), ("other/c", "red")] {
        it.set(key, label).await;
    }
    for (scope, expected) in [
        (Scope { namespace: "ns".into(), ..Scope::default() }, vec!["ns/a", "ns/b"]),
        (Scope { labels: "colour=red".into(), ..Scope::default() }, vec!["ns/a", "other/c"]),
        (Scope { fields: "metadata.name!=a".into(), ..Scope::default() }, vec!["ns/b", "other/c"]),
    ] {
        let cacher = Arc::clone(&it.cacher);
        let source = CacherListerWatcher::finding(move || Some(Arc::clone(&cacher)), &scope);
        let informer = SharedInformer::<ConfigMap>::new(Arc::new(source), InformerConfig::new("configmaps"));
        let (running, stop) = (informer.clone(), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move { running.run(stop).await });
        informer.wait_for_sync().await;
        let mut keys: Vec<_> = informer.lister().list().iter().map(|map| map.key().to_string()).collect();
        keys.sort();
        assert_eq!(keys, expected, "{scope:?}");
        drop(guard);
    }
}

#[tokio::test]
async fn a_resource_may_come_later_and_what_cannot_be_selected_by_is_an_error() {
    let it = Fixture::new();
    it.set("ns/a", "red").await;
    let slot: Arc<Mutex<Option<Arc<Cacher>>>> = Arc::default();
    let find = Arc::clone(&slot);
    let backoff =
        Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(5), ..Backoff::REFLECTOR };
    let config = FactoryConfig { backoff, ..FactoryConfig::default() };
    let factory = SharedInformerFactory::with_config(InProcess(move |_: &_| find.lock().clone()), config);
    let widgets = factory.for_resource(&GroupVersionResource::new("example.com", "v1", "widgets"));
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&errors);
    widgets.set_watch_error_handler(Arc::new(move |error: &_| noted.lock().push(format!("{error}"))));
    factory.start();
    while errors.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(errors.lock()[0], "404 NotFound: the server could not find the requested resource");
    *slot.lock() = Some(Arc::clone(&it.cacher));
    widgets.wait_for_sync().await;
    assert_eq!(widgets.lister().len(), 1);
    factory.shutdown().await;

    let scope = Scope { fields: "spec.nodeName=a".into(), ..Scope::default() };
    let cacher = Arc::clone(&it.cacher);
    let source = CacherListerWatcher::finding(move || Some(Arc::clone(&cacher)), &scope);
    let error =
        nave_client::ListerWatcher::list(&source, &nave_client::ListOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("spec.nodeName"), "{error}");
}

#[tokio::test]
async fn a_type_has_one_informer_whoever_asks_for_it() {
    let it = Fixture::new();
    let factory = SharedInformerFactory::new(it.source());
    let (one, two) = (factory.informer::<ConfigMap>(), factory.for_resource(&resource_of::<ConfigMap>()));
    let metadata = factory.metadata_for_resource(&resource_of::<ConfigMap>());
    assert!(Arc::ptr_eq(one.lister().indexer(), two.lister().indexer()));
    assert!(Arc::ptr_eq(one.lister().indexer(), metadata.lister().indexer()), "metadata is in the whole");
    factory.start();
    factory.start();
    factory.wait_for_cache_sync().await;
    let watches = || it.cacher.introspect().watchers.iter().map(|(_, count)| count).sum::<usize>();
    while watches() == 0 {
        // The watch begins after the list.
        tokio::task::yield_now().await;
    }
    assert_eq!(watches(), 1, "one watch");
    // What no whole informer watches is watched for its metadata alone.
    factory.metadata_for_resource(&resource_of::<Pod>());
    assert_eq!(factory.resources().len(), 2);
    factory.stop_informer(&resource_of::<ConfigMap>());
    while it.cacher.introspect().watchers.iter().any(|(_, count)| *count > 0) {
        tokio::task::yield_now().await;
    }
    factory.shutdown().await;
}
