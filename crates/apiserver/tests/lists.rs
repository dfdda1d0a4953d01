//! Lists with all options on the embedded engine, compared with a history of states.
//!
//! A schedule consists of random writes, compactions and restarts of the watch caches, after which older states must be
//! read from the store. Each response must contain exactly the state at its revision, and the options must allow that
//! revision. The pages of a list must cover the whole list.
//!
//! A failing schedule is shrunk and printed with its seed. `PROPTEST_RNG_SEED=… cargo nextest run -p nave-apiserver
//! --test lists` runs it again. `PROPTEST_CASES` sets the number of schedules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may fail the test")]

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt;
use nave_apiserver::endpoints::{Endpoint, read};
use nave_apiserver::negotiation::Negotiation;
use nave_apiserver::request_info::ResourceRequest;
use nave_apiserver::steps::Steps;
use nave_apiserver::storage::{Storages, Update, WatchCacheSizes};
use nave_machinery::options::ListOptions;
use nave_machinery::{GroupVersionResource, Status, Value};
use nave_resources::Registry;
use nave_store::{Embedded, Store, embedded};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

#[derive(Clone, Debug)]
enum Op {
    Put { key: u8, label: u8, node: u8 },
    Delete { key: u8 },
    Compact { back: u8 },
    Reopen,
    List(ListRequest),
    NextPage { list: u8 },
}

/// The options of a list.
#[derive(Clone, Debug)]
struct ListRequest {
    version: Version,
    limit: u8,
    namespace: Option<u8>,
    label: Option<u8>,
    name: Option<u8>,
    /// A field with an index.
    node: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Latest,
    Any,
    /// The value is a number of revisions before the current one.
    NotOlderThan(u8),
    Exact(u8),
    /// Without `resourceVersionMatch`: exact if there is a limit.
    At(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let version = prop_oneof![
        3 => Just(Version::Latest),
        1 => Just(Version::Any),
        1 => (0..12_u8).prop_map(Version::NotOlderThan),
        3 => (0..12_u8).prop_map(Version::Exact),
        1 => (0..12_u8).prop_map(Version::At),
    ];
    let ask = (
        version,
        prop_oneof![1 => Just(0_u8), 2 => 1..4_u8],
        prop::option::of(0..2_u8),
        prop::option::weighted(0.3, 0..2_u8),
        prop::option::weighted(0.2, 0..4_u8),
        prop::option::weighted(0.3, 0..2_u8),
    );
    let ask = ask.prop_map(|(version, limit, namespace, label, name, node)| {
        Op::List(ListRequest { version, limit, namespace, label, name, node })
    });
    prop_oneof![
        8 => (0..8_u8, 0..2_u8, 0..2_u8).prop_map(|(key, label, node)| Op::Put { key, label, node }),
        3 => (0..8_u8).prop_map(|key| Op::Delete { key }),
        1 => (0..8_u8).prop_map(|back| Op::Compact { back }),
        1 => Just(Op::Reopen),
        6 => ask,
        6 => (0..4_u8).prop_map(|list| Op::NextPage { list }),
    ]
}

/// Namespace and name of a pod, in list order.
type Key = (String, String);

/// The revision, label and node of a pod.
type Pod = (u64, u8, u8);

type State = BTreeMap<Key, Pod>;

/// A list with more pages.
struct Pages {
    ask: ListRequest,
    revision: u64,
    token: String,
    /// The last object of the previous page.
    after: Key,
}

struct World {
    store: Arc<dyn Store>,
    storages: Storages,
    /// The state as of each revision.
    history: BTreeMap<u64, State>,
    compacted: u64,
    lists: Vec<Pages>,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(folder.path(), &embedded::Options::default()).unwrap());
        let storages = open(&store).await;
        let history = BTreeMap::from([(0, State::new())]);
        Self { store, storages, history, compacted: 0, lists: Vec::new(), _folder: folder }
    }

    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { key, label, node } => self.put(*key, *label, *node).await,
            Op::Delete { key } => self.delete(*key).await,
            Op::Compact { back } => {
                let revision = self.revision().saturating_sub((*back).into());
                if revision > self.compacted {
                    self.store.compact(revision).await.unwrap();
                    self.compacted = revision;
                }
            }
            Op::Reopen => self.storages = open(&self.store).await,
            Op::List(ask) => self.list(ask).await,
            Op::NextPage { list } => {
                if let Some(at) = usize::from(*list).checked_rem(self.lists.len()) {
                    let pages = self.lists.swap_remove(at);
                    self.next_page(pages).await;
                }
            }
        }
    }

    async fn put(&mut self, key: u8, label: u8, node: u8) {
        let key = key_of(key);
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": key.0, "name": key.1, "labels": {"l": label.to_string()}},
            "spec": {"containers": null, "nodeName": format!("node{node}")},
            "status": {},
        });
        let storage = self.storages.get(&pods()).unwrap();
        let path = path_of(&key);
        let revision = if self.latest().contains_key(&key) {
            let put = storage.guaranteed_update(&path, &key.1, |_| Ok(Update::Put(object.clone())));
            put.await.unwrap().stored.revision
        } else {
            storage.create(&path, &key.1, &mut object).await.unwrap()
        };
        let mut state = self.latest().clone();
        // An unchanged object is not written again.
        if state.get(&key).is_none_or(|(written, ..)| *written != revision) {
            state.insert(key, (revision, label, node));
            self.history.insert(revision, state);
        }
    }

    async fn delete(&mut self, key: u8) {
        let key = key_of(key);
        if !self.latest().contains_key(&key) {
            return;
        }
        let storage = self.storages.get(&pods()).unwrap();
        let remove =
            |stored: &nave_apiserver::storage::Stored| Ok(Update::Delete(stored.object.as_value().clone()));
        let revision =
            storage.guaranteed_update(&path_of(&key), &key.1, remove).await.unwrap().stored.revision;
        let mut state = self.latest().clone();
        state.remove(&key);
        self.history.insert(revision, state);
    }

    async fn list(&mut self, ask: &ListRequest) {
        let latest = self.revision();
        let back = |back: u8| latest.saturating_sub(back.into()).max(1);
        let (version, matching) = match ask.version {
            Version::Latest => (String::new(), ""),
            Version::Any => ("0".to_owned(), ""),
            Version::NotOlderThan(n) => (back(n).to_string(), "NotOlderThan"),
            Version::Exact(n) => (back(n).to_string(), "Exact"),
            Version::At(n) => (back(n).to_string(), ""),
        };
        let query = [("resourceVersion", version.as_str()), ("resourceVersionMatch", matching)];
        let exact = match ask.version {
            Version::Exact(n) => Some(back(n)),
            Version::At(n) if ask.limit > 0 => Some(back(n)),
            _ => None,
        };
        match self.read(ask, &query).await {
            Err(status) => {
                assert_eq!((status.code, status.continue_token.as_str()), (410, ""), "{status}");
                assert!(exact.is_some_and(|revision| revision < self.compacted), "{status}");
            }
            Ok(list) => {
                let revision = revision_of(&list);
                match (ask.version, exact) {
                    (_, Some(exact)) => assert_eq!(revision, exact),
                    (Version::Latest, _) => assert_eq!(revision, latest),
                    (Version::NotOlderThan(n) | Version::At(n), _) => assert!(revision >= back(n)),
                    _ => assert!(revision <= latest),
                }
                let whole = ask.version == Version::Any;
                self.check_page(ask, &list, None, if whole { 0 } else { ask.limit });
            }
        }
    }

    async fn next_page(&mut self, pages: Pages) {
        let Pages { ask, revision, token, after } = pages;
        match self.read(&ask, &[("continue", token.as_str())]).await {
            Ok(list) => {
                assert_eq!(revision_of(&list), revision);
                self.check_page(&ask, &list, Some(&after), ask.limit);
            }
            Err(status) => {
                assert_eq!(status.code, 410, "{status}");
                assert!(revision < self.compacted, "{revision} is not compacted");
                // The token in the error continues in the latest state.
                let list = self.read(&ask, &[("continue", status.continue_token.as_str())]).await.unwrap();
                assert_eq!(revision_of(&list), self.revision());
                self.check_page(&ask, &list, Some(&after), ask.limit);
            }
        }
    }

    /// Compares a page with the state at its revision.
    fn check_page(&mut self, ask: &ListRequest, list: &Value, after: Option<&Key>, limit: u8) {
        let revision = revision_of(list);
        let (_, state) = self.history.range(..=revision).next_back().unwrap();
        let selected = state.iter().filter(|(key, (_, label, node))| {
            after.is_none_or(|after| *key > after)
                && ask.namespace.is_none_or(|namespace| key.0 == format!("ns{namespace}"))
                && ask.name.is_none_or(|name| key.1 == format!("pod{name}"))
                && ask.label.is_none_or(|wanted| *label == wanted)
                && ask.node.is_none_or(|wanted| *node == wanted)
        });
        let rest: Vec<(Key, Pod)> = selected.map(|(key, pod)| (key.clone(), *pod)).collect();
        let count = if limit == 0 { rest.len() } else { rest.len().min(limit.into()) };
        assert_eq!(items(list), rest[..count], "{ask:?} at {revision}");
        let token = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        assert_eq!(token.is_empty(), count == rest.len(), "{ask:?} at {revision}");
        if let Some(remaining) = list["metadata"]["remainingItemCount"].as_u64() {
            assert_eq!(remaining, (rest.len() - count) as u64);
            assert!(ask.label.is_none() && ask.name.is_none() && ask.node.is_none());
        }
        if let Some((last, ..)) = rest[..count].last().filter(|_| !token.is_empty()) {
            self.lists.push(Pages { ask: ask.clone(), revision, token, after: last.clone() });
        }
    }

    async fn read(&self, ask: &ListRequest, version: &[(&str, &str)]) -> Result<Value, Status> {
        let mut query: Vec<(String, String)> = version
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        query.push(("limit".to_owned(), ask.limit.to_string()));
        query.extend(ask.label.map(|label| ("labelSelector".to_owned(), format!("l={label}"))));
        let name = ask.name.map(|name| format!("metadata.name=pod{name}"));
        let node = ask.node.map(|node| format!("spec.nodeName=node{node}"));
        let fields: Vec<String> = name.into_iter().chain(node).collect();
        query.push(("fieldSelector".to_owned(), fields.join(",")));
        let namespace = ask.namespace.map(|namespace| format!("ns{namespace}")).unwrap_or_default();
        let request = ResourceRequest { gvr: pods(), namespace, ..ResourceRequest::default() };
        let def = Arc::clone(self.storages.registry().lookup(&pods()).unwrap());
        let storage = self.storages.get(&pods()).cloned();
        let endpoint = Endpoint { def, version: 0, storage, watched: Arc::default(), allocator: None };
        let steps = Steps::new(Instant::now());
        let answer = read::list(&endpoint, &request, &ListOptions::parse(&query)?, &steps).await?;
        let response = answer.encode(&Negotiation::default())?;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok(serde_json::from_slice(&body).unwrap())
    }

    fn latest(&self) -> &State {
        self.history.values().next_back().unwrap()
    }

    /// Returns the store's revision, which only this test changes.
    fn revision(&self) -> u64 {
        (*self.history.keys().next_back().unwrap()).max(1)
    }
}

async fn open(store: &Arc<dyn Store>) -> Storages {
    let registry = Registry::builtin(nave_schema::builtin());
    let storages = Storages::open(registry, Arc::clone(store), &WatchCacheSizes::default());
    storages.wait_ready().await;
    storages
}

fn pods() -> GroupVersionResource {
    GroupVersionResource::new("", "v1", "pods")
}

fn key_of(key: u8) -> Key {
    (format!("ns{}", key % 2), format!("pod{}", key / 2))
}

fn path_of((namespace, name): &Key) -> String {
    format!("/registry/pods/{namespace}/{name}")
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn items(list: &Value) -> Vec<(Key, Pod)> {
    let text = |item: &Value, path: &str| item.pointer(path).unwrap().as_str().unwrap().to_owned();
    let item = |item: &Value| {
        let key = (text(item, "/metadata/namespace"), text(item, "/metadata/name"));
        let node = text(item, "/spec/nodeName").trim_start_matches("node").parse().unwrap();
        (key, (revision_of(item), text(item, "/metadata/labels/l").parse().unwrap(), node))
    };
    list["items"].as_array().unwrap().iter().map(item).collect()
}

/// Returns the number of schedules and the seed. Prints the seed.
fn config() -> ProptestConfig {
    let mut config = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(60),
    };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    eprintln!("PROPTEST_RNG_SEED={seed} runs these schedules again");
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_list_shows_the_state_at_its_revision(ops in prop::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.apply(op).await;
            }
        });
    }
}
