//! Tests informers of a factory that reads a watch cache in the same process.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use nave_cacher::{Cacher, CacherConfig, DecodeError, DecodedObject, Decoder, SelectableAttributes};
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

/// Decodes objects whose stored value is a label. The key contains the other fields.
struct Labels;

impl Decoder for Labels {
    fn decode(&self, kv: &KeyValue) -> Result<DecodedObject, DecodeError> {
        let label = std::str::from_utf8(&kv.value).map_err(|error| DecodeError(error.to_string()))?;
        let (namespace, name) = kv.key.strip_prefix(PREFIX).and_then(|key| key.split_once('/')).unwrap();
        let head = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":""#;
        let rest = format!(
            r#"","namespace":"{namespace}","name":"{name}","uid":"{}","labels":{{"colour":"{label}"}}}}}}"#,
            kv.key
        );
        let json = format!("{head}{}{rest}", kv.mod_revision);
        let attributes = SelectableAttributes::new([], [("colour", label)]);
        Ok(DecodedObject { json: json.into(), version_at: head.len(), attributes })
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

    /// Writes an object and waits until the watch cache has it. Informers that start later then also have it.
    async fn set(&self, key: &str, label: &str) -> u64 {
        let txn = Txn::put(format!("{PREFIX}{key}").as_str(), label.to_owned());
        let TxnOutcome::Committed { revision, .. } = self.store.txn(txn).await.unwrap() else {
            panic!("an unconditional put cannot fail");
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
async fn objects_share_bytes_with_the_watch_cache() {
    let fixture = Fixture::new();
    fixture.set("ns/a", "red").await;
    let factory = SharedInformerFactory::new(fixture.source());
    let maps = factory.informer::<ConfigMap>();
    let recorder = Recorder::new();
    maps.cast().add_event_handler(recorder.clone());
    factory.start();
    factory.wait_for_cache_sync().await;
    let changed = fixture.set("ns/a", "blue").await;
    fixture.set("ns/b", "red").await;
    fixture.delete("ns/a").await;
    // The cache may be ahead of the handler.
    while !matches!(&check_history(&recorder.all())[..], [only] if only.contains(" ns/b@")) {
        tokio::task::yield_now().await;
    }
    let b = maps.lister().get("ns", "b").unwrap();
    let snapshot = fixture.cacher.snapshot();
    let cached = snapshot.get(&format!("{PREFIX}ns/b")).unwrap();
    assert_eq!(b.json().as_ptr(), cached.json().as_ptr());
    assert_eq!(b.decode().unwrap().metadata.labels.unwrap()["colour"], "red");
    let calls = recorder.next(1).await;
    assert!(calls.last().is_some_and(|last| last.starts_with("delete ns/a@")), "{calls:?}");
    assert!(!calls.contains(&format!("delete ns/a@{changed}")), "a deletion has its own version");
    factory.shutdown().await;
    fixture.set("ns/c", "red").await;
    assert_eq!(recorder.len(), 0);
}

#[tokio::test]
async fn sees_only_objects_in_scope() {
    let fixture = Fixture::new();
    for (key, label) in [("ns/a", "red"), ("ns/b", "blue"), ("other/c", "red")] {
        fixture.set(key, label).await;
    }
    for (scope, expected) in [
        (Scope { namespace: "ns".into(), ..Scope::default() }, vec!["ns/a", "ns/b"]),
        (Scope { labels: "colour=red".into(), ..Scope::default() }, vec!["ns/a", "other/c"]),
        (Scope { fields: "metadata.name!=a".into(), ..Scope::default() }, vec!["ns/b", "other/c"]),
    ] {
        let cacher = Arc::clone(&fixture.cacher);
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
async fn resource_may_appear_later_and_unsupported_selectors_fail() {
    let fixture = Fixture::new();
    fixture.set("ns/a", "red").await;
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
    *slot.lock() = Some(Arc::clone(&fixture.cacher));
    widgets.wait_for_sync().await;
    assert_eq!(widgets.lister().len(), 1);
    factory.shutdown().await;

    let scope = Scope { fields: "spec.nodeName=a".into(), ..Scope::default() };
    let cacher = Arc::clone(&fixture.cacher);
    let source = CacherListerWatcher::finding(move || Some(Arc::clone(&cacher)), &scope);
    let error =
        nave_client::ListerWatcher::list(&source, &nave_client::ListOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("spec.nodeName"), "{error}");
}

#[tokio::test]
async fn all_users_of_a_type_share_an_informer() {
    let fixture = Fixture::new();
    let factory = SharedInformerFactory::new(fixture.source());
    let (one, two) = (factory.informer::<ConfigMap>(), factory.for_resource(&resource_of::<ConfigMap>()));
    let metadata = factory.metadata_for_resource(&resource_of::<ConfigMap>());
    assert!(Arc::ptr_eq(one.lister().indexer(), two.lister().indexer()));
    assert!(
        Arc::ptr_eq(one.lister().indexer(), metadata.lister().indexer()),
        "the informer of whole objects has the metadata"
    );
    factory.start();
    factory.start();
    factory.wait_for_cache_sync().await;
    let watches = || fixture.cacher.introspect().watchers.iter().map(|(_, count)| count).sum::<usize>();
    while watches() == 0 {
        // Lets the watch start, which happens after the list.
        tokio::task::yield_now().await;
    }
    assert_eq!(watches(), 1, "one watch");
    // Without an informer of whole objects, the factory watches metadata only.
    factory.metadata_for_resource(&resource_of::<Pod>());
    assert_eq!(factory.resources().len(), 2);
    factory.stop_informer(&resource_of::<ConfigMap>());
    while fixture.cacher.introspect().watchers.iter().any(|(_, count)| *count > 0) {
        tokio::task::yield_now().await;
    }
    factory.shutdown().await;
}
