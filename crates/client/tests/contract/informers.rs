//! What an informer tells its handlers, whatever happens between it and the server.

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

/// An informer of a server, and one handler. It is stopped when this is dropped.
struct Fixture {
    server: FakeServer,
    informer: SharedInformer,
    recorder: Recorder,
    registration: Registration,
    stop: CancellationToken,
}

impl Fixture {
    /// Not running yet.
    fn of(server: &FakeServer) -> Self {
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

    /// Running and synced, with these objects there and told of.
    async fn with(server: FakeServer, keys: &[&str]) -> Self {
        for key in keys {
            server.set(key, "red");
        }
        let fixture = Self::of(&server);
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
async fn what_is_there_is_told_as_the_initial_list_and_then_what_happens() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    server.set("ns/b", "red");
    let it = Fixture::of(&server);
    assert!(!it.informer.has_synced() && !it.registration.has_synced());
    it.start();
    it.registration.wait_for_sync().await;
    assert!(it.informer.has_synced());
    assert_eq!(it.next(2).await, ["initial ns/a@1", "initial ns/b@2"]);
    assert_eq!(server.requests(), ["stream \"\"", "list \"0\" 500 \"\"", "watch \"2\""]);

    server.set("ns/c", "red");
    server.set("ns/a", "blue");
    server.delete("ns/b");
    assert_eq!(it.next(3).await, ["add ns/c@3", "update ns/a@1 ns/a@4", "delete ns/b@5"]);
    let lister = it.informer.lister();
    assert_eq!((lister.len(), lister.get("ns", "a").unwrap().label("colour")), (2, Some("blue")));
    assert_eq!(lister.by_index(NAMESPACE_INDEX, "ns").unwrap().len(), 2);
    assert_eq!(it.informer.last_sync_resource_version(), "5");
}

#[tokio::test(start_paused = true)]
async fn an_informer_that_panics_lists_again_and_loses_nothing() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    let supervisor = Supervisor::new();
    let it = Fixture::supervised(&server, supervisor.clone());
    let panics = Arc::new(Mutex::new(0));
    let left = Arc::clone(&panics);
    it.informer.set_transform(move |object| {
        let mut left = left.lock();
        if let Some(fewer) = u32::checked_sub(*left, 1) {
            *left = fewer;
            std::panic::panic_any("a test's panic");
        }
        object
    });
    it.start();
    assert_eq!(it.next(1).await, ["initial ns/a@1"]);
    *panics.lock() = 1;
    server.set("ns/b", "red");
    server.delete("ns/a");
    assert_eq!(sorted(it.next(2).await), ["add ns/b@2", "vanish ns/a@1"]);
    *panics.lock() = 2;
    server.set("ns/b", "blue");
    assert_eq!(it.next(1).await, ["update ns/b@2 ns/b@4"]);
    let restarts = supervisor.restarts().into_iter().find(|(task, _)| *task == "informer");
    assert_eq!(restarts, Some(("informer", 3)));
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn an_empty_resource_is_synced_too() {
    let it = Fixture::of(&FakeServer::new());
    it.start();
    it.registration.wait_for_sync().await;
    assert_eq!(it.recorder.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_needs_no_list_and_its_watch_goes_on() {
    let server = FakeServer::streaming();
    server.set("ns/a", "red");
    let it = Fixture::of(&server);
    it.start();
    assert_eq!(it.next(1).await, ["initial ns/a@1"]);
    server.set("ns/b", "red");
    assert_eq!(it.next(1).await, ["add ns/b@2"]);
    assert_eq!(server.requests(), ["stream \"\""]);
    server.compact();
    server.end_watches(false);
    server.set("ns/a", "blue");
    server.delete("ns/b");
    server.compact();
    assert_eq!(it.next(2).await, ["update ns/a@1 ns/a@3", "vanish ns/b@2"]);
    assert!(server.requests().contains(&"stream \"2\"".to_owned()));
    // A server that is followed by an older one.
    server.stop_streaming_lists();
    server.compact();
    server.fail_watches();
    server.set("ns/c", "red");
    assert_eq!(it.next(1).await, ["add ns/c@6"]);
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.starts_with("list ")), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_is_resumed_and_nothing_is_lost() {
    for in_peace in [true, false] {
        let it = Fixture::with(FakeServer::new(), &["ns/a", "ns/b"]).await;
        it.server.set("ns/a", "blue");
        it.next(1).await;
        it.server.end_watches(in_peace);
        it.server.delete("ns/b");
        it.server.set("ns/b", "green");
        assert_eq!(it.next(2).await, ["delete ns/b@4", "add ns/b@5"]);
        let requests = it.server.requests();
        assert!(requests.iter().all(|request| request.starts_with("watch ")), "{requests:?}");
        assert!(requests.contains(&"watch \"3\"".to_owned()), "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_resumed_from_a_bookmark() {
    let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    (0..40).for_each(|_| it.server.bookmark());
    while it.informer.last_sync_resource_version() != "41" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // All that a watch from before the bookmark would need is gone.
    it.server.compact();
    it.server.end_watches(true);
    it.server.set("ns/b", "red");
    assert_eq!(it.next(1).await, ["add ns/b@42"]);
    assert_eq!(it.server.requests(), ["watch \"41\""]);
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_the_difference_is_told_and_what_vanished_with_its_last_known_state() {
    let it = Fixture::with(FakeServer::new(), &["ns/a", "ns/b", "ns/c", "ns/d"]).await;
    it.server.cut_off(true);
    it.server.set("ns/a", "blue");
    it.server.set("ns/b", "blue");
    it.server.delete("ns/b");
    it.server.delete("ns/c");
    it.server.set("ns/c", "green");
    it.server.set("ns/e", "red");
    it.server.compact();
    it.server.cut_off(false);
    let mut told = it.next(4).await;
    told.sort();
    // b was changed before it vanished, which nobody saw; c is another one now; d is as it was.
    assert_eq!(told, ["add ns/e@10", "replace ns/c@3 ns/c@9", "update ns/a@1 ns/a@5", "vanish ns/b@2"]);
    let requests = it.server.requests();
    assert!(requests.contains(&"list \"4\" 0 \"\"".to_owned()), "not older than what was seen: {requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_told_410_is_followed_by_a_list() {
    let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    it.server.fail_watches();
    it.server.set("ns/b", "red");
    assert_eq!(it.next(1).await, ["add ns/b@3"]);
    assert!(it.server.requests()[0].starts_with("list "));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_the_server_does_not_know_is_asked_for_once() {
    for error in [
        ListWatchError::Expired("the version is too old".into()),
        ListWatchError::TooLargeResourceVersion("the server was restored from a backup".into()),
    ] {
        let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
        it.server.fail_lists([error]);
        it.server.fail_watches();
        it.server.set("ns/b", "red");
        assert_eq!(it.next(1).await, ["add ns/b@3"]);
        let lists: Vec<_> = it.server.requests().into_iter().filter(|it| it.starts_with("list")).collect();
        assert_eq!(lists, ["list \"1\" 0 \"\"", "list \"\" 500 \"\""]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_goes_on_if_that_can_help_and_else_a_list_follows() {
    let status = |code: u16| ListWatchError::Status { code, reason: String::new(), message: String::new() };
    for (error, is_listed) in [
        (ListWatchError::TooManyRequests { message: String::new(), retry_after: None }, false),
        (status(503), false),
        (status(403), true),
        (ListWatchError::Invalid("resourceVersion".into()), true),
        (ListWatchError::TooLargeResourceVersion("the server was restored from a backup".into()), true),
    ] {
        let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
        let told = error.to_string();
        it.server.fail_watch(error);
        it.server.end_watches(true);
        it.server.set("ns/b", "red");
        assert_eq!(it.next(1).await, ["add ns/b@2"], "{told}");
        let requests = it.server.requests();
        assert_eq!(requests.iter().any(|it| it.starts_with("list")), is_listed, "{told}: {requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_read_in_pages_and_at_once_if_a_page_is_gone() {
    let server = FakeServer::new();
    (0..1_200).for_each(|n| server.set(&format!("ns/{n}"), "red"));
    let it = Fixture::of(&server);
    it.start();
    it.registration.wait_for_sync().await;
    assert_eq!(it.informer.lister().len(), 1_200);
    let lists: Vec<_> = server.requests().into_iter().filter(|it| it.starts_with("list")).collect();
    assert_eq!(lists, ["list \"0\" 500 \"\"", "list \"\" 500 \"500\"", "list \"\" 500 \"1000\""]);

    let it = Fixture::of(&server);
    server.expire_after_pages(2);
    it.start();
    it.registration.wait_for_sync().await;
    assert_eq!((it.informer.lister().len(), it.recorder.len()), (1_200, 1_200));
    assert!(server.requests().contains(&"list \"0\" 0 \"\"".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_and_waited_for_longer_each_time() {
    let it = Fixture::of(&FakeServer::new());
    it.server.set("ns/a", "red");
    it.server.cut_off(true);
    let (failures, start) = (Arc::new(Mutex::new(Vec::new())), tokio::time::Instant::now());
    let noted = Arc::clone(&failures);
    it.informer.set_watch_error_handler(Arc::new(move |error: &ListWatchError| {
        noted.lock().push((start.elapsed().as_millis(), error.to_string()));
    }));
    it.start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    it.server.cut_off(false);
    assert_eq!(it.next(1).await, ["initial ns/a@1"]);
    let times: Vec<_> = failures.lock().iter().map(|(time, _)| *time).collect();
    assert_eq!(times, [0, 800, 2_400, 5_600, 12_000]);
    assert_eq!(failures.lock()[0].1, "connection: cut off");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_to_be_left_alone_is() {
    let it = Fixture::of(&FakeServer::new());
    let retry_after = Some(Duration::from_secs(20));
    it.server.fail_lists([ListWatchError::TooManyRequests { message: "busy".into(), retry_after }]);
    let start = tokio::time::Instant::now();
    it.start();
    it.informer.wait_for_sync().await;
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_comes_late_is_told_all_and_one_that_goes_nothing_more() {
    let it = Fixture::with(FakeServer::new(), &["ns/a", "ns/b"]).await;
    let late = Recorder::new();
    let registration = it.informer.add_event_handler(late.clone());
    registration.wait_for_sync().await;
    let mut told = late.next(2).await;
    told.sort();
    assert_eq!(told, ["initial ns/a@1", "initial ns/b@2"]);
    it.server.set("ns/c", "red");
    assert_eq!(late.next(1).await, ["add ns/c@3"]);
    assert_eq!(it.next(1).await, ["add ns/c@3"]);
    registration.remove();
    it.server.set("ns/d", "red");
    assert_eq!(it.next(1).await, ["add ns/d@4"]);
    assert_eq!(late.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_handler_is_told_of_all_objects_again_at_its_own_interval() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    let it = Fixture::of(&server);
    let (often, seldom) = (Recorder::new(), Recorder::new());
    it.informer.add_event_handler_with_resync(often.clone(), Some(Duration::from_secs(10)));
    it.informer.add_event_handler_with_resync(seldom.clone(), Some(Duration::from_secs(30)));
    it.start();
    tokio::time::sleep(Duration::from_secs(65)).await;
    let resync = "update ns/a@1 ns/a@1";
    assert_eq!(often.next(7).await, ["initial ns/a@1", resync, resync, resync, resync, resync, resync]);
    assert_eq!(seldom.next(3).await, ["initial ns/a@1", resync, resync]);
    assert_eq!(it.next(1).await, ["initial ns/a@1"]);
}

#[tokio::test(start_paused = true)]
async fn objects_are_kept_as_the_transform_makes_them() {
    let server = FakeServer::new();
    server.set("ns/a", "red");
    let it = Fixture::of(&server);
    it.informer.set_transform(|object| {
        let mut value = object.decode().unwrap();
        value["metadata"]["labels"] = serde_json::json!({"kept": "yes"});
        nave_client::Object::from_value(&value).unwrap()
    });
    it.start();
    it.next(1).await;
    server.set("ns/b", "red");
    assert_eq!(it.next(1).await, ["add ns/b@2"]);
    let lister = it.informer.lister();
    let labels: Vec<_> = lister.list().iter().map(|object| object.labels().count()).collect();
    assert_eq!(labels, [1, 1]);
    assert_eq!(lister.get("ns", "b").unwrap().label("kept"), Some("yes"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_loses_one_event() {
    let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let registration = it.informer.add_event_handler(on_each(move |object| {
        assert!(object.name() != "bad", "a test's panic");
        noted.lock().push(object.name().to_owned());
    }));
    registration.wait_for_sync().await;
    it.server.set("ns/bad", "red");
    it.server.set("ns/good", "red");
    it.next(2).await;
    while seen.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*seen.lock(), ["a", "good"]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_makes_adds_and_deletions_of_what_comes_into_sight_and_leaves_it() {
    let it = Fixture::with(FakeServer::new(), &[]).await;
    let red = Recorder::new();
    it.informer.add_event_handler(filtered(|object| object.label("colour") == Some("red"), red.clone()));
    for label in ["red", "red", "blue", "blue", "red"] {
        it.server.set("ns/a", label);
        it.next(1).await;
    }
    it.server.delete("ns/a");
    let expected = ["add ns/a@1", "update ns/a@1 ns/a@2", "delete ns/a@2", "add ns/a@5", "delete ns/a@6"];
    assert_eq!(red.next(5).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_is_stuck_holds_nobody_up_and_is_told_right_afterwards() {
    let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (slow, held) = (Recorder::new(), Mutex::new(Some(held)));
    let record = slow.clone();
    it.informer.add_event_handler(filtered(
        move |_| {
            // The first call waits until the test lets it go on.
            held.lock().take().is_none_or(|held| held.recv().is_ok())
        },
        record,
    ));
    for round in 0..500 {
        it.server.set("ns/a", &round.to_string());
        it.server.set(&format!("ns/{round}"), "red");
        if round % 2 == 0 {
            it.server.delete(&format!("ns/{round}"));
        }
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != &format!("add ns/499@{}", it.server.revision())) {
        told.extend(it.next(1).await);
    }
    assert_eq!(slow.len(), 0);
    release.send(()).unwrap();
    while check_history(&slow.all()) != it.server.objects() {
        tokio::task::yield_now().await;
    }
    let all = slow.all();
    assert!(all.len() < 1_000, "what happened to one object meanwhile is told at once: {}", all.len());
}

#[tokio::test(start_paused = true)]
async fn an_informer_stops_with_its_handlers_and_runs_once() {
    let it = Fixture::with(FakeServer::new(), &["ns/a"]).await;
    let ended = tokio::spawn({
        let (informer, stop) = (it.informer.clone(), it.stop.clone());
        async move { informer.run(stop).await }
    });
    ended.await.unwrap();
    it.server.set("ns/b", "red");
    assert_eq!(it.next(1).await, ["add ns/b@2"], "the first run goes on");
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
    let it = Fixture::of(&server);
    it.start();
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
        while check_history(&it.recorder.all()) != server.objects() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_hours(1), settled).await;
    assert!(settled.is_ok(), "{:?} is not {:?}", it.recorder.all(), server.objects());
    let mut cached: Vec<_> = it.informer.lister().list();
    cached.sort_by_key(nave_client::Object::key);
    let cached: Vec<_> = cached.iter().map(|object| format!("{} {object:?}", object.uid())).collect();
    assert_eq!(cached, server.objects());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_happens_handlers_are_told_a_history_that_ends_in_what_there_is(
        streaming: bool,
        steps in steps(),
    ) {
        crate::with_paused_time(follow(streaming, steps));
    }
}
