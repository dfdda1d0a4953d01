//! Tests the events that an informer sends to handlers under many kinds of failures.

use std::sync::Arc;
use std::time::Duration;

use nave_client::{
    Backoff, InformerConfig, ListWatchError, NAMESPACE_INDEX, Registration, SharedInformer, filtered, on_each,
};
use nave_supervisor::Supervisor;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::fake_server::FakeServer;
use crate::recorder::{Recorder, check_history};

/// An informer with one handler, and its server. Dropping the fixture stops the informer.
struct Fixture {
    server: FakeServer,
    informer: SharedInformer,
    recorder: Recorder,
    registration: Registration,
    stop: CancellationToken,
}

impl Fixture {
    /// Creates an informer that is not running.
    fn new(server: &FakeServer) -> Self {
        Self::supervised(server, Supervisor::new())
    }

    fn supervised(server: &FakeServer, supervisor: Supervisor) -> Self {
        let backoff = Backoff { jitter: 0.0, ..Backoff::REFLECTOR };
        let config = InformerConfig { backoff, supervisor, ..InformerConfig::new("things") };
        let informer = SharedInformer::new(Arc::new(server.clone()), config);
        let recorder = Recorder::new();
        let registration = informer.add_event_handler(recorder.clone());
        Self { server: server.clone(), informer, recorder, registration, stop: CancellationToken::new() }
    }

    fn start(&self) {
        let (informer, stop) = (self.informer.clone(), self.stop.clone());
        tokio::spawn(async move { informer.run(stop).await });
    }

    /// Creates a running, synced informer that has delivered these objects.
    async fn with(server: FakeServer, keys: &[&str]) -> Self {
        for key in keys {
            server.set(key, "red");
        }
        let fixture = Self::new(&server);
        fixture.start();
        fixture.informer.wait_for_sync().await;
        fixture.recorder.next(keys.len()).await;
        server.requests();
        fixture
    }

    async fn next(&self, count: usize) -> Vec<String> {
        self.recorder.next(count).await
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn delivers_initial_list_and_then_changes() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    server.set("ns/b", "red");
    let fixture = Fixture::new(&server);
    assert!(!fixture.informer.has_synced() && !fixture.registration.has_synced());
    fixture.start();
    fixture.registration.wait_for_sync().await;
    assert!(fixture.informer.has_synced());
    assert_eq!(fixture.next(2).await, ["initial ns/a@1", "initial ns/b@2"]);
    assert_eq!(server.requests(), ["stream \"\"", "list \"0\" 500 \"\"", "watch \"2\""]);

    server.set("ns/c", "red");
    server.set("ns/a", "blue");
    server.delete("ns/b");
    assert_eq!(fixture.next(3).await, ["add ns/c@3", "update ns/a@1 ns/a@4", "delete ns/b@5"]);
    let lister = fixture.informer.lister();
    assert_eq!((lister.len(), lister.get("ns", "a").unwrap().label("colour")), (2, Some("blue")));
    assert_eq!(lister.by_index(NAMESPACE_INDEX, "ns").unwrap().len(), 2);
    assert_eq!(fixture.informer.last_sync_resource_version(), "5");
}

#[tokio::test(start_paused = true)]
async fn relists_after_a_panic_and_loses_nothing() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    let supervisor = Supervisor::new();
    let fixture = Fixture::supervised(&server, supervisor.clone());
    let panics = Arc::new(Mutex::new(0));
    let left = Arc::clone(&panics);
    fixture.informer.set_transform(move |object| {
        let mut left = left.lock();
        if let Some(fewer) = u32::checked_sub(*left, 1) {
            *left = fewer;
            std::panic::panic_any("a test's panic");
        }
        object
    });
    fixture.start();
    assert_eq!(fixture.next(1).await, ["initial ns/a@1"]);
    *panics.lock() = 1;
    server.set("ns/b", "red");
    server.delete("ns/a");
    assert_eq!(sorted(fixture.next(2).await), ["add ns/b@2", "vanish ns/a@1"]);
    *panics.lock() = 2;
    server.set("ns/b", "blue");
    assert_eq!(fixture.next(1).await, ["update ns/b@2 ns/b@4"]);
    let restarts = supervisor.restarts().into_iter().find(|(task, _)| *task == "informer");
    assert_eq!(restarts, Some(("informer", 3)));
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn syncs_an_empty_resource() {
    let fixture = Fixture::new(&FakeServer::new());
    fixture.start();
    fixture.registration.wait_for_sync().await;
    assert_eq!(fixture.recorder.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn streamed_list_continues_as_watch() {
    let server = FakeServer::streaming();
    server.set("ns/a", "red");
    let fixture = Fixture::new(&server);
    fixture.start();
    assert_eq!(fixture.next(1).await, ["initial ns/a@1"]);
    server.set("ns/b", "red");
    assert_eq!(fixture.next(1).await, ["add ns/b@2"]);
    assert_eq!(server.requests(), ["stream \"\""]);
    server.compact();
    server.end_watches(false);
    server.set("ns/a", "blue");
    server.delete("ns/b");
    server.compact();
    assert_eq!(fixture.next(2).await, ["update ns/a@1 ns/a@3", "vanish ns/b@2"]);
    assert!(server.requests().contains(&"stream \"2\"".to_owned()));
    // Simulates a server that is replaced by an older one.
    server.stop_streaming_lists();
    server.compact();
    server.fail_watches();
    server.set("ns/c", "red");
    assert_eq!(fixture.next(1).await, ["add ns/c@6"]);
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.starts_with("list ")), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn resumes_an_ended_watch_and_loses_nothing() {
    for in_peace in [true, false] {
        let fixture = Fixture::with(FakeServer::new(), &["ns/a", "ns/b"]).await;
        fixture.server.set("ns/a", "blue");
        fixture.next(1).await;
        fixture.server.end_watches(in_peace);
        fixture.server.delete("ns/b");
        fixture.server.set("ns/b", "green");
        assert_eq!(fixture.next(2).await, ["delete ns/b@4", "add ns/b@5"]);
        let requests = fixture.server.requests();
        assert!(requests.iter().all(|request| request.starts_with("watch ")), "{requests:?}");
        assert!(requests.contains(&"watch \"3\"".to_owned()), "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn resumes_a_watch_from_a_bookmark() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    (0..40).for_each(|_| fixture.server.bookmark());
    while fixture.informer.last_sync_resource_version() != "41" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Drops the history before the bookmark.
    fixture.server.compact();
    fixture.server.end_watches(true);
    fixture.server.set("ns/b", "red");
    assert_eq!(fixture.next(1).await, ["add ns/b@42"]);
    assert_eq!(fixture.server.requests(), ["watch \"41\""]);
}

#[tokio::test(start_paused = true)]
async fn delivers_difference_after_a_gap() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a", "ns/b", "ns/c", "ns/d"]).await;
    fixture.server.cut_off(true);
    fixture.server.set("ns/a", "blue");
    fixture.server.set("ns/b", "blue");
    fixture.server.delete("ns/b");
    fixture.server.delete("ns/c");
    fixture.server.set("ns/c", "green");
    fixture.server.set("ns/e", "red");
    fixture.server.compact();
    fixture.server.cut_off(false);
    let mut calls = fixture.next(4).await;
    calls.sort();
    // b was changed and deleted without events, c was recreated, and d is unchanged.
    assert_eq!(calls, ["add ns/e@10", "replace ns/c@3 ns/c@9", "update ns/a@1 ns/a@5", "vanish ns/b@2"]);
    let requests = fixture.server.requests();
    assert!(
        requests.contains(&"list \"4\" 0 \"\"".to_owned()),
        "at least the last version seen: {requests:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lists_after_410_on_a_watch() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    fixture.server.fail_watches();
    fixture.server.set("ns/b", "red");
    assert_eq!(fixture.next(1).await, ["add ns/b@3"]);
    assert!(fixture.server.requests()[0].starts_with("list "));
}

#[tokio::test(start_paused = true)]
async fn lists_without_a_version_after_the_server_rejects_it() {
    for error in [
        ListWatchError::Expired("the version is too old".into()),
        ListWatchError::TooLargeResourceVersion("the server was restored from a backup".into()),
    ] {
        let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
        fixture.server.fail_lists([error]);
        fixture.server.fail_watches();
        fixture.server.set("ns/b", "red");
        assert_eq!(fixture.next(1).await, ["add ns/b@3"]);
        let lists: Vec<_> =
            fixture.server.requests().into_iter().filter(|line| line.starts_with("list")).collect();
        assert_eq!(lists, ["list \"1\" 0 \"\"", "list \"\" 500 \"\""]);
    }
}

#[tokio::test(start_paused = true)]
async fn watch_error_decides_between_resuming_and_listing() {
    let status = |code: u16| ListWatchError::Status { code, reason: String::new(), message: String::new() };
    for (error, is_listed) in [
        (ListWatchError::TooManyRequests { message: String::new(), retry_after: None }, false),
        (status(503), false),
        (status(403), true),
        (ListWatchError::Invalid("resourceVersion".into()), true),
        (ListWatchError::TooLargeResourceVersion("the server was restored from a backup".into()), true),
    ] {
        let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
        let message = error.to_string();
        fixture.server.fail_watch(error);
        fixture.server.end_watches(true);
        fixture.server.set("ns/b", "red");
        assert_eq!(fixture.next(1).await, ["add ns/b@2"], "{message}");
        let requests = fixture.server.requests();
        assert_eq!(
            requests.iter().any(|line| line.starts_with("list")),
            is_listed,
            "{message}: {requests:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn lists_without_pages_after_an_expired_page() {
    let server = FakeServer::new();
    (0..1_200).for_each(|n| server.set(&format!("ns/{n}"), "red"));
    let fixture = Fixture::new(&server);
    fixture.start();
    fixture.registration.wait_for_sync().await;
    assert_eq!(fixture.informer.lister().len(), 1_200);
    let lists: Vec<_> = server.requests().into_iter().filter(|line| line.starts_with("list")).collect();
    assert_eq!(lists, ["list \"0\" 500 \"\"", "list \"\" 500 \"500\"", "list \"\" 500 \"1000\""]);

    let fixture = Fixture::new(&server);
    server.expire_after_pages(2);
    fixture.start();
    fixture.registration.wait_for_sync().await;
    assert_eq!((fixture.informer.lister().len(), fixture.recorder.len()), (1_200, 1_200));
    assert!(server.requests().contains(&"list \"0\" 0 \"\"".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn reports_failures_and_backs_off() {
    let fixture = Fixture::new(&FakeServer::new());
    fixture.server.set("ns/a", "red");
    fixture.server.cut_off(true);
    let (failures, start) = (Arc::new(Mutex::new(Vec::new())), tokio::time::Instant::now());
    let noted = Arc::clone(&failures);
    fixture.informer.set_watch_error_handler(Arc::new(move |error: &ListWatchError| {
        noted.lock().push((start.elapsed().as_millis(), error.to_string()));
    }));
    fixture.start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    fixture.server.cut_off(false);
    assert_eq!(fixture.next(1).await, ["initial ns/a@1"]);
    let times: Vec<_> = failures.lock().iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 800, 2_400, 5_600, 12_000]);
    assert_eq!(failures.lock()[0].1, "connection: cut off");
}

#[tokio::test(start_paused = true)]
async fn honours_retry_after() {
    let fixture = Fixture::new(&FakeServer::new());
    let retry_after = Some(Duration::from_secs(20));
    fixture.server.fail_lists([ListWatchError::TooManyRequests { message: "busy".into(), retry_after }]);
    let start = tokio::time::Instant::now();
    fixture.start();
    fixture.informer.wait_for_sync().await;
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn late_handler_gets_all_and_removed_handler_nothing() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a", "ns/b"]).await;
    let late = Recorder::new();
    let registration = fixture.informer.add_event_handler(late.clone());
    registration.wait_for_sync().await;
    let mut calls = late.next(2).await;
    calls.sort();
    assert_eq!(calls, ["initial ns/a@1", "initial ns/b@2"]);
    fixture.server.set("ns/c", "red");
    assert_eq!(late.next(1).await, ["add ns/c@3"]);
    assert_eq!(fixture.next(1).await, ["add ns/c@3"]);
    registration.remove();
    fixture.server.set("ns/d", "red");
    assert_eq!(fixture.next(1).await, ["add ns/d@4"]);
    assert_eq!(late.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn resyncs_each_handler_at_its_own_interval() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    let fixture = Fixture::new(&server);
    let (often, seldom) = (Recorder::new(), Recorder::new());
    fixture.informer.add_event_handler_with_resync(often.clone(), Some(Duration::from_secs(10)));
    fixture.informer.add_event_handler_with_resync(seldom.clone(), Some(Duration::from_secs(30)));
    fixture.start();
    tokio::time::sleep(Duration::from_secs(65)).await;
    let resync = "update ns/a@1 ns/a@1";
    assert_eq!(often.next(7).await, ["initial ns/a@1", resync, resync, resync, resync, resync, resync]);
    assert_eq!(seldom.next(3).await, ["initial ns/a@1", resync, resync]);
    assert_eq!(fixture.next(1).await, ["initial ns/a@1"]);
}

#[tokio::test(start_paused = true)]
async fn caches_transformed_objects() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    let fixture = Fixture::new(&server);
    fixture.informer.set_transform(|object| {
        let mut value = object.decode().unwrap();
        value["metadata"]["labels"] = serde_json::json!({"kept": "yes"});
        nave_client::Object::from_value(&value).unwrap()
    });
    fixture.start();
    fixture.next(1).await;
    server.set("ns/b", "red");
    assert_eq!(fixture.next(1).await, ["add ns/b@2"]);
    let lister = fixture.informer.lister();
    let labels: Vec<_> = lister.list().iter().map(|object| object.labels().count()).collect();
    assert_eq!(labels, [1, 1]);
    assert_eq!(lister.get("ns", "b").unwrap().label("kept"), Some("yes"));
}

#[tokio::test(start_paused = true)]
async fn panicking_handler_loses_one_event() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let registration = fixture.informer.add_event_handler(on_each(move |object| {
        assert!(object.name() != "bad", "a test's panic");
        noted.lock().push(object.name().to_owned());
    }));
    registration.wait_for_sync().await;
    fixture.server.set("ns/bad", "red");
    fixture.server.set("ns/good", "red");
    fixture.next(2).await;
    while seen.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*seen.lock(), ["a", "good"]);
}

#[tokio::test(start_paused = true)]
async fn filter_turns_updates_into_adds_and_deletions() {
    let fixture = Fixture::with(FakeServer::new(), &[]).await;
    let red = Recorder::new();
    fixture.informer.add_event_handler(filtered(|object| object.label("colour") == Some("red"), red.clone()));
    for label in ["red", "red", "blue", "blue", "red"] {
        fixture.server.set("ns/a", label);
        fixture.next(1).await;
    }
    fixture.server.delete("ns/a");
    let expected = ["add ns/a@1", "update ns/a@1 ns/a@2", "delete ns/a@2", "add ns/a@5", "delete ns/a@6"];
    assert_eq!(red.next(5).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn stuck_handler_blocks_nobody_and_catches_up() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (slow, held) = (Recorder::new(), Mutex::new(Some(held)));
    let record = slow.clone();
    fixture.informer.add_event_handler(filtered(
        move |_| {
            // Blocks the first call until the test releases it.
            held.lock().take().is_none_or(|held| held.recv().is_ok())
        },
        record,
    ));
    for round in 0..500 {
        fixture.server.set("ns/a", &round.to_string());
        fixture.server.set(&format!("ns/{round}"), "red");
        if round % 2 == 0 {
            fixture.server.delete(&format!("ns/{round}"));
        }
    }
    let mut calls = Vec::new();
    while calls.last().is_none_or(|last| last != &format!("add ns/499@{}", fixture.server.revision())) {
        calls.extend(fixture.next(1).await);
    }
    assert_eq!(slow.len(), 0);
    release.send(()).unwrap();
    while check_history(&slow.all()) != fixture.server.objects() {
        tokio::task::yield_now().await;
    }
    let all = slow.all();
    assert!(all.len() < 1_000, "updates of one object are merged: {}", all.len());
}

#[tokio::test(start_paused = true)]
async fn second_run_returns_immediately() {
    let fixture = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    let ended = tokio::spawn({
        let (informer, stop) = (fixture.informer.clone(), fixture.stop.clone());
        async move { informer.run(stop).await }
    });
    ended.await.unwrap();
    fixture.server.set("ns/b", "red");
    assert_eq!(fixture.next(1).await, ["add ns/b@2"], "the first run continues");
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8),
    Delete(u8),
    Bookmark,
    End(bool),
    CutOff,
    Compact,
    FailWatches,
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4_u8).prop_map(Step::Set),
        5 => (0..4_u8).prop_map(Step::Delete),
        1 => Just(Step::Bookmark),
        2 => any::<bool>().prop_map(Step::End),
        1 => Just(Step::CutOff),
        2 => Just(Step::Compact),
        1 => Just(Step::FailWatches),
        5 => (0..3_000_u16).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..60)
}

async fn follow(streaming: bool, steps: Vec<Step>) {
    let server = if streaming { FakeServer::streaming() } else { FakeServer::new() };
    let fixture = Fixture::new(&server);
    fixture.start();
    let mut cut_off = false;
    for step in steps {
        match step {
            Step::Set(key) => server.set(&format!("ns/{key}"), "red"),
            Step::Delete(key) => server.delete(&format!("ns/{key}")),
            Step::Bookmark => server.bookmark(),
            Step::End(in_peace) => server.end_watches(in_peace),
            Step::CutOff => {
                cut_off = !cut_off;
                server.cut_off(cut_off);
            }
            Step::Compact => server.compact(),
            Step::FailWatches => server.fail_watches(),
            Step::Pass(time) => tokio::time::sleep(Duration::from_millis(time.into())).await,
        }
    }
    server.cut_off(false);
    server.set("ns/last", "red");
    let settled = async {
        while check_history(&fixture.recorder.all()) != server.objects() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_hours(1), settled).await;
    assert!(settled.is_ok(), "{:?} is not {:?}", fixture.recorder.all(), server.objects());
    let mut cached: Vec<_> = fixture.informer.lister().list();
    cached.sort_by_key(nave_client::Object::key);
    let cached: Vec<_> = cached.iter().map(|object| format!("{} {object:?}", object.uid())).collect();
    assert_eq!(cached, server.objects());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn handlers_get_a_consistent_history_after_any_steps(
        streaming: bool,
        steps in steps(),
    ) {
        crate::with_paused_time(follow(streaming, steps));
    }
}
