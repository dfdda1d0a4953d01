//! `nave-client`'s informers and leader election against the server: after kills, restarts, lost connections, and gaps
//! that exceed the history. Handlers must receive the events that client-go guarantees.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nave_client::leader_election::{LeaderElectionConfig, LeaderElector};
use nave_client::{
    Backoff, Deleted, EventHandler, HttpListerWatcher, InformerConfig, Object, Scope, SharedInformer,
    resource_of,
};
use nave_loadtest::http::{Call, Pool};
use nave_loadtest::load::{Limits, closed_loop};
use nave_loadtest::process::Processes;
use nave_tests::{Proxy, Server, eventually};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The history is bounded, so this many changes always exceed it.
const ROUNDS: usize = 40;
const CHANGES: u64 = 5_000;

/// The recorded calls of a handler, one per line.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    lines: Vec<String>,
    /// The value of each object, according to the handler's calls.
    known: BTreeMap<String, String>,
}

impl Recorder {
    fn note(&self, line: String, name: &str, before: Option<&String>, after: Option<String>) {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match after {
            Some(after) => record.known.insert(name.to_owned(), after),
            None => record.known.remove(name),
        };
        let line =
            if known.as_ref() == before { line } else { format!("{line}, though {known:?} was calls") };
        record.lines.push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// Returns the calls since the last call of `next`, sorted. Waits until `count` calls are recorded.
    async fn next(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} events"), async || self.lines().len() >= count).await;
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = std::mem::take(&mut record.lines);
        lines.sort();
        lines
    }
}

fn value(map: &Object<ConfigMap>) -> Option<String> {
    map.decode().unwrap().data?.remove("value")
}

impl EventHandler<ConfigMap> for Recorder {
    fn on_add(&self, map: &Object<ConfigMap>, is_in_initial_list: bool) {
        let what = if is_in_initial_list { "initial" } else { "add" };
        self.note(format!("{what} {}", map.name()), map.name(), None, value(map));
    }

    fn on_update(&self, old: &Object<ConfigMap>, new: &Object<ConfigMap>) {
        let what = if old.uid() == new.uid() { "update" } else { "replace" };
        self.note(format!("{what} {}", new.name()), new.name(), value(old).as_ref(), value(new));
    }

    fn on_delete(&self, deleted: &Deleted<ConfigMap>) {
        let map = deleted.object();
        let what = if deleted.is_final_state_known() { "delete" } else { "vanish" };
        let last = value(map);
        self.note(
            format!("{what} {} {}", map.name(), last.clone().unwrap()),
            map.name(),
            last.as_ref(),
            None,
        );
    }
}

/// A server, an informer of some config maps behind a proxy, and a direct client.
struct Fixture {
    server: Server,
    proxy: Proxy,
    informer: SharedInformer<ConfigMap>,
    recorder: Recorder,
    _stop: tokio_util::sync::DropGuard,
}

impl Fixture {
    async fn start() -> Self {
        let server = Server::start().await;
        let proxy = Proxy::to(&server).await;
        let client = client_of(&server, Some(&proxy)).await;
        let scope = Scope { namespace: "default".into(), labels: "watched=yes".into(), ..Scope::default() };
        let source = HttpListerWatcher::new(client, &resource_of::<ConfigMap>(), &scope);
        let patient = Duration::from_millis(100);
        let backoff = Backoff { initial: Duration::from_millis(5), max: patient, ..Backoff::REFLECTOR };
        let config = InformerConfig { backoff, ..InformerConfig::new("configmaps") };
        let informer = SharedInformer::<ConfigMap>::new(Arc::new(source), config);
        let recorder = Recorder::default();
        informer.add_event_handler(recorder.clone());
        let stop = CancellationToken::new();
        let (running, token) = (informer.clone(), stop.clone());
        tokio::spawn(async move { running.run(token).await });
        informer.wait_for_sync().await;
        Self { server, proxy, informer, recorder, _stop: stop.drop_guard() }
    }

    async fn maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(client_of(&self.server, None).await)
    }

    async fn create(&self, name: &str) {
        let map = json!({"metadata": {"name": name, "labels": {"watched": "yes"}}, "data": {"value": "1"}});
        let map = serde_json::from_value(map).unwrap();
        self.maps().await.create(&PostParams::default(), &map).await.unwrap();
    }

    async fn update(&self, name: &str, value: &str) {
        let patch = Patch::Merge(json!({"data": {"value": value}}));
        self.maps().await.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.maps().await.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Changes other objects until a watch from `version` gets 410.
    async fn outlive(&self, version: &str) {
        let pool = self.server.target().pool(2).await.unwrap();
        for round in 0..ROUNDS {
            churn(&pool, round).await;
            let watch = Call::get(format!("{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1"));
            let mut answer = pool.lane(1).send(&watch).await.unwrap();
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = answer.next_chunk().await {
                text.extend_from_slice(&chunk);
            }
            if String::from_utf8_lossy(&text).contains(r#""code":410"#) {
                return;
            }
        }
        panic!("a watch from {version} is still possible");
    }
}

async fn client_of(server: &Server, proxy: Option<&Proxy>) -> kube::Client {
    let mut file = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    if let Some(proxy) = proxy {
        for cluster in file.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("https://{}", proxy.address()));
        }
    }
    let _ = server.client().await;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Creates and deletes unwatched config maps.
async fn churn(pool: &Pool, round: usize) {
    let limits = Limits { operations: CHANGES / 2, time: Duration::from_mins(1) };
    let idle = Processes::default();
    let body = move |n: u64| {
        let name = format!("churn-{round}-{n}");
        Call::post(
            MAPS,
            format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#),
        )
    };
    closed_loop(pool, &idle, 32, limits, body).await.unwrap();
    let delete = move |n: u64| Call::delete(format!("{MAPS}/churn-{round}-{n}"));
    closed_loop(pool, &idle, 32, limits, delete).await.unwrap();
}

#[tokio::test]
async fn short_outage_is_caught_up_event_by_event() {
    let fixture = Fixture::start().await;
    for name in ["a", "b", "c"] {
        fixture.create(name).await;
    }
    assert_eq!(fixture.recorder.next(3).await, ["add a", "add b", "add c"]);
    fixture.proxy.cut();
    fixture.update("a", "2").await;
    fixture.update("b", "2").await;
    fixture.delete("b").await;
    fixture.delete("c").await;
    fixture.create("c").await;
    fixture.create("d").await;
    fixture.proxy.mend();
    let calls = fixture.recorder.next(6).await;
    assert_eq!(calls, ["add c", "add d", "delete b 2", "delete c 1", "update a", "update b"]);
}

#[tokio::test]
async fn gap_beyond_history_reports_last_known_state_of_deleted() {
    let fixture = Fixture::start().await;
    for name in ["a", "b", "c", "d"] {
        fixture.create(name).await;
    }
    fixture.recorder.next(4).await;
    fixture.proxy.cut();
    fixture.update("a", "2").await;
    fixture.update("b", "2").await;
    fixture.delete("b").await;
    fixture.delete("c").await;
    fixture.create("c").await;
    fixture.create("e").await;
    fixture.outlive(&fixture.informer.last_sync_resource_version()).await;
    assert!(fixture.recorder.lines().is_empty(), "the connection is cut");
    fixture.proxy.mend();
    let calls = fixture.recorder.next(4).await;
    // b was changed to 2 before its deletion, which the informer cannot know.
    assert_eq!(calls, ["add e", "replace c", "update a", "vanish b 1"]);
    fixture.delete("d").await;
    assert_eq!(fixture.recorder.next(1).await, ["delete d 1"]);
}

#[tokio::test]
async fn informer_follows_a_restarted_server() {
    let mut fixture = Fixture::start().await;
    for name in ["a", "b"] {
        fixture.create(name).await;
    }
    fixture.recorder.next(2).await;
    for round in 2..5 {
        fixture.server.kill9();
        fixture.server.restart().await;
        fixture.proxy.turn_to(&fixture.server);
        fixture.update("a", &round.to_string()).await;
        assert_eq!(fixture.recorder.next(1).await, ["update a"]);
    }
    // Objects are deleted without a watch, before and after the server is killed.
    fixture.proxy.cut();
    fixture.delete("a").await;
    fixture.server.kill9();
    fixture.server.restart().await;
    fixture.delete("b").await;
    fixture.proxy.turn_to(&fixture.server);
    fixture.proxy.mend();
    let calls = fixture.recorder.next(2).await;
    let calls: Vec<_> = calls.iter().map(|line| line.replace("vanish", "delete")).collect();
    assert_eq!(calls, ["delete a 4", "delete b 1"]);
    assert!(fixture.informer.lister().is_empty());
    fixture.create("a").await;
    assert_eq!(fixture.recorder.next(1).await, ["add a"]);
}

#[tokio::test]
async fn second_elector_takes_over_from_a_killed_leader() {
    let server = Server::start().await;
    let client = server.client().await;
    let (lease, renew, retry) = (Duration::from_secs(3), Duration::from_secs(2), Duration::from_millis(200));
    let leading: Arc<Mutex<Vec<&str>>> = Arc::default();
    let elect = |name: &'static str| {
        let config = LeaderElectionConfig {
            lease_duration: lease,
            renew_deadline: renew,
            retry_period: retry,
            ..LeaderElectionConfig::new("kube-system", "controllers", name)
        };
        let elector = LeaderElector::new(client.clone(), config).unwrap();
        let leading = Arc::clone(&leading);
        tokio::spawn(async move {
            let lead = async |stop: CancellationToken| {
                leading.lock().unwrap().push(name);
                stop.cancelled().await;
            };
            elector.run(CancellationToken::new(), lead).await
        })
    };
    let a = elect("a");
    eventually("a leads", async || *leading.lock().unwrap() == ["a"]).await;
    let _b = elect("b");
    a.abort();
    let killed = std::time::Instant::now();
    eventually("b leads", async || *leading.lock().unwrap() == ["a", "b"]).await;
    // The last renewal was at most a retry period before the kill.
    assert!(killed.elapsed() + retry * 2 >= lease, "the lease must expire first: {:?}", killed.elapsed());
    let printed = server.kubectl(&["-n", "kube-system", "get", "lease", "controllers", "-o", "json"]).await;
    let lease: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (&lease["spec"]["holderIdentity"], &lease["spec"]["leaseTransitions"]),
        (&json!("b"), &json!(1))
    );
}
