//! Tests of individual behaviours on a store with injected faults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers may panic")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nave_cacher::{
    Cacher, CacherConfig, Encoding, EncodingBudget, End, FieldRef, Filter, TooLarge, WatchError, WatchItem,
    WatchRequest, WatchStart, Watcher, WindowBounds,
};
use support::{FakeStore, PREFIX, TextDecoder};
use tokio::time::Instant;

fn config() -> CacherConfig {
    CacherConfig { indexed_fields: vec![0], ..CacherConfig::new("pods", PREFIX, true) }
}

fn start(store: &FakeStore, config: CacherConfig) -> Arc<Cacher> {
    Cacher::start(config, Arc::new(store.clone()), Arc::new(TextDecoder))
}

async fn ready(store: &FakeStore, config: CacherConfig) -> Arc<Cacher> {
    let cacher = start(store, config);
    cacher.wait_ready().await;
    cacher
}

fn key(name: &str) -> String {
    format!("{PREFIX}default/{name}")
}

fn watch(cacher: &Cacher, start: WatchStart, filter: Filter) -> Result<Watcher, WatchError> {
    cacher.watch(WatchRequest { start, filter, bookmarks: false, deadline: None })
}

fn frames(step: WatchItem) -> Vec<String> {
    match step {
        WatchItem::Events(events) => {
            events.iter().map(|it| String::from_utf8(it.json_frame().to_vec()).unwrap()).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Releases all events to watches of the store and waits until the cache has them.
async fn sync(store: &FakeStore, cacher: &Cacher) {
    store.release();
    let revision = store.with(|inner| inner.revision());
    cacher.wait_until(revision, Duration::from_mins(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn initial_list_reads_pages_at_one_revision() {
    let store = FakeStore::default();
    for i in 0..7 {
        store.put(&key(&format!("p{i}")), "n;");
    }
    let cacher = ready(&store, CacherConfig { page_size: 3, ..config() }).await;
    assert_eq!((cacher.revision(), cacher.snapshot().len()), (8, 7));
    let pages = store.with(|inner| inner.ranges.clone());
    assert_eq!(
        pages.iter().map(|page| (page.limit, page.revision)).collect::<Vec<_>>(),
        [(3, None), (3, Some(8)), (3, Some(8))]
    );
    assert_eq!(pages[2].start_after.as_deref(), Some(&*key("p5")));
}

#[tokio::test(start_paused = true)]
async fn large_pages_are_decoded_on_a_blocking_thread() {
    let store = FakeStore::default();
    for i in 0..300 {
        store.put(&key(&format!("p{i:03}")), format!("node{};", i % 3));
    }
    let cacher = ready(&store, CacherConfig { page_size: 100, ..config() }).await;
    let snapshot = cacher.snapshot();
    assert_eq!(snapshot.len(), 300);
    assert_eq!(snapshot.by_field(0, "node1", None).unwrap().count(), 100);
    assert_eq!(snapshot.by_field(0, "node1", Some(&key("p150"))).unwrap().next().unwrap().name(), "p151");
    assert_eq!(snapshot.by_field(0, "node", None).unwrap().count(), 0);
    assert!(snapshot.by_field(1, "node1", None).is_none());
}

#[tokio::test(start_paused = true)]
async fn empty_resource_becomes_ready_and_failed_lists_are_retried() {
    let store = FakeStore::default();
    store.with(|inner| inner.failing_ranges = 5);
    let cacher = start(&store, config());
    assert!(!cacher.is_ready());
    assert!(watch(&cacher, WatchStart::After(1), Filter::all()).is_err(), "no history before the first list");
    cacher.wait_ready().await;
    assert_eq!((cacher.revision(), cacher.snapshot().is_empty()), (1, true));
    assert_eq!(store.with(|inner| inner.ranges.len()), 6);
}

/// A cache that cannot be filled gives readers no answer, so they do not wait for it.
#[tokio::test(start_paused = true)]
async fn readers_do_not_wait_while_a_value_cannot_be_decrypted() {
    let store = FakeStore::default();
    store.with(|inner| inner.undecryptable = true);
    let revision = store.put(&key("p"), "a;");
    let cacher = start(&store, config());
    let started = tokio::time::Instant::now();
    assert!(cacher.wait_until(revision, Duration::from_hours(1)).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(1), "the clock is that of the test");
    store.with(|inner| inner.undecryptable = false);
    cacher.wait_ready().await;
    assert!(cacher.wait_until(revision, Duration::from_hours(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn event_type_depends_on_old_and_new_match() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let filter = Filter::all().with_field(FieldRef::Declared(0), "a");
    let mut watcher = watch(&cacher, WatchStart::After(1), filter).unwrap();
    for value in ["b;", "a;1", "a;2", "b;", "a;3"] {
        store.put(&key("p"), value);
    }
    store.delete(&key("p"));
    sync(&store, &cacher).await;
    let frame = |kind: &str, revision: u64, text: &str| {
        format!(
            "{{\"type\":\"{kind}\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"is\":\"{text}\"}}}}\n"
        )
    };
    assert_eq!(
        frames(watcher.next().await),
        [
            frame("ADDED", 3, "a;1"),
            frame("MODIFIED", 4, "a;2"),
            frame("DELETED", 5, "a;2"),
            frame("ADDED", 6, "a;3"),
            frame("DELETED", 7, "a;3"),
        ]
    );
    assert_eq!(watcher.reached(), 7);
}

#[tokio::test(start_paused = true)]
async fn interrupted_store_watch_is_resumed() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let mut watcher = watch(&cacher, WatchStart::After(1), Filter::all()).unwrap();
    for round in 0..3 {
        store.put(&key("p"), format!("n;{round}"));
        sync(&store, &cacher).await;
        store.put(&key("q"), format!("n;{round}"));
        store.cut();
        sync(&store, &cacher).await;
        assert_eq!(frames(watcher.next().await).len(), 2);
    }
    assert_eq!((cacher.stats().store_watches.get(), cacher.stats().initializations.get()), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn lost_history_ends_watches_and_lists_are_complete() {
    let store = FakeStore::default();
    for i in 0..3 {
        store.put(&key(&format!("p{i}")), "n;");
    }
    let cacher = ready(&store, config()).await;
    let unchanged = Arc::clone(cacher.snapshot().get(&key("p1")).unwrap());
    let mut watcher = watch(&cacher, WatchStart::After(4), Filter::all()).unwrap();
    store.delete(&key("p0"));
    store.put(&key("p2"), "n;later");
    store.put(&key("p3"), "n;");
    store.with(|inner| inner.compacted = inner.revision());
    sync(&store, &cacher).await;
    let names: Vec<_> =
        cacher.snapshot().range(PREFIX, None).map(|object| object.name().to_owned()).collect();
    assert_eq!(names, ["p1", "p2", "p3"]);
    assert!(Arc::ptr_eq(&unchanged, cacher.snapshot().get(&key("p1")).unwrap()), "not decoded again");
    assert!(matches!(watcher.next().await, WatchItem::End(End::Expired)));
    assert!(matches!(watcher.next().await, WatchItem::End(End::Expired)));
    assert_eq!(cacher.stats().terminated_watchers.get(), 1);
    let expired = watch(&cacher, WatchStart::After(6), Filter::all()).unwrap_err();
    assert_eq!(expired, WatchError::Expired { requested: 6, oldest: 7 });
    assert!(watch(&cacher, WatchStart::After(7), Filter::all()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn undecodable_object_is_absent_until_it_is_repaired() {
    let store = FakeStore::default();
    store.put(&key("bad"), "!");
    store.put(&key("good"), "n;");
    let cacher = ready(&store, config()).await;
    assert_eq!(cacher.snapshot().len(), 1);
    assert_eq!(cacher.introspect().undecodable, [Arc::from(key("bad"))]);
    let mut watcher = watch(&cacher, WatchStart::After(3), Filter::all()).unwrap();
    store.put(&key("good"), "!");
    store.put(&key("bad"), "n;");
    store.delete(&key("good"));
    sync(&store, &cacher).await;
    let delivered = frames(watcher.next().await);
    assert_eq!(delivered.len(), 2, "{delivered:?}");
    assert!(
        delivered[0].starts_with(r#"{"type":"DELETED""#) && delivered[1].starts_with(r#"{"type":"ADDED""#),
        "{delivered:?}"
    );
    assert_eq!((cacher.introspect().undecodable.len(), cacher.stats().undecodable.get()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn panic_in_the_decoder_affects_only_its_object() {
    let store = FakeStore::default();
    store.put(&key("bad"), "?");
    for i in 0..100 {
        store.put(&key(&format!("p{i:03}")), "n;");
    }
    let cacher = ready(&store, config()).await;
    assert_eq!(cacher.introspect().undecodable, [Arc::from(key("bad"))]);
    store.put(&key("worse"), "?");
    store.put(&key("good"), "n;");
    sync(&store, &cacher).await;
    assert!(cacher.snapshot().get(&key("good")).is_some());
    assert_eq!((cacher.introspect().objects, cacher.introspect().undecodable.len()), (101, 2));
    assert_eq!(cacher.config().supervisor.restarts(), [("watch cache", 0)]);
}

#[tokio::test(start_paused = true)]
async fn panicked_task_lists_again() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let mut watcher = watch(&cacher, WatchStart::After(cacher.revision()), Filter::all()).unwrap();
    for panics in 1..=3 {
        store.with(|inner| inner.panicking_reads = 1);
        store.put(&key(&format!("p{panics}")), "n;");
        sync(&store, &cacher).await;
        assert_eq!(cacher.introspect().objects, panics);
        assert_eq!(cacher.config().supervisor.restarts(), [("watch cache", panics as u64)]);
    }
    assert!(matches!(watcher.next().await, WatchItem::End(End::Expired)), "missed events are unknown");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_revision_requests_progress_and_times_out() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    for _ in 0..5 {
        store.put("/registry/nodes/n", "");
    }
    store.release();
    let begin = Instant::now();
    let waits = (2..=6).map(|revision| cacher.wait_until(revision, Duration::from_secs(3)));
    assert!(futures_util::future::join_all(waits).await.iter().all(Result::is_ok));
    assert_eq!(begin.elapsed(), Duration::ZERO, "no reader waited for a timer");
    assert_eq!(store.with(|inner| inner.progress_requests), 1, "once for all five");
    let late = cacher.wait_until(9, Duration::from_secs(3)).await;
    assert_eq!(late, Err(TooLarge { requested: 9, current: 6 }));
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    assert_eq!(late.unwrap_err().to_string(), "Too large resource version: 9, current: 6");
    let asked = store.with(|inner| inner.progress_requests);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(store.with(|inner| inner.progress_requests) <= asked + 1, "no reader waits any more");
}

#[tokio::test(start_paused = true)]
async fn unreachable_revision_does_not_delay_other_readers() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    // One reader waits for a revision that is never reached, before and during the other waits. The others wait for
    // each existing revision, one after another.
    for unreached in [1_000, i64::MAX as u64, u64::MAX] {
        assert!(cacher.wait_until(unreached, PATIENCE).await.is_err());
        let during = async {
            let begin = Instant::now();
            for _ in 0..3 {
                let revision = store.put("/registry/nodes/n", "");
                store.release();
                cacher.wait_until(revision, PATIENCE).await.unwrap();
            }
            begin.elapsed()
        };
        let (late, waited) = tokio::join!(cacher.wait_until(unreached, PATIENCE), during);
        assert!(late.is_err());
        assert_eq!(waited, Duration::ZERO, "no reader waited for a timer, beside one for {unreached}");
    }
    let requests = store.with(|inner| inner.progress_requests);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(store.with(|inner| inner.progress_requests) <= requests + 1, "no reader waits any more");
}

#[tokio::test(start_paused = true)]
async fn initial_objects_come_in_key_order_before_the_events() {
    let store = FakeStore::default();
    for i in 0..300 {
        store.put(&key(&format!("p{i:03}")), "n;");
    }
    let cacher = ready(&store, config()).await;
    let mut watcher = watch(&cacher, WatchStart::State(cacher.snapshot()), Filter::all()).unwrap();
    store.put(&key("new"), "n;");
    sync(&store, &cacher).await;
    let mut names = Vec::new();
    let revision = loop {
        match watcher.next().await {
            WatchItem::Events(events) => {
                names.extend(events.iter().map(|event| event.object().name().to_owned()));
            }
            WatchItem::InitialEventsEnd(revision) => break revision,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((revision, names.len(), names.is_sorted()), (301, 300, true));
    assert!(frames(watcher.next().await)[0].contains(r#""ADDED""#));
}

#[tokio::test(start_paused = true)]
async fn bookmark_never_covers_undelivered_events() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let mut watcher = watch(&cacher, WatchStart::After(1), Filter::all()).unwrap();
    for i in 0..300 {
        store.put(&key("p"), format!("n;{i}"));
    }
    sync(&store, &cacher).await;
    let mut last = 1;
    while let Some(WatchItem::Events(events)) = watcher.next().now_or_never() {
        assert_eq!(events[0].object().resource_version(), last + 1);
        last = events.last().unwrap().object().resource_version();
        assert_eq!(watcher.reached(), last);
    }
    assert_eq!(last, 301);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_before_the_deadline() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let begin = Instant::now();
    let request = |bookmarks| WatchRequest {
        start: WatchStart::After(1),
        filter: Filter::all(),
        bookmarks,
        deadline: Some(begin + Duration::from_secs(90)),
    };
    let mut with = cacher.watch(request(true)).unwrap();
    for second in [60, 88] {
        assert!(matches!(with.next().await, WatchItem::Bookmark(1)));
        assert_eq!(begin.elapsed().as_secs(), second);
    }
    assert!(matches!(with.next().await, WatchItem::End(End::TimedOut)));
    assert_eq!(begin.elapsed().as_secs(), 90);
    let mut without = cacher.watch(request(false)).unwrap();
    assert!(matches!(without.next().await, WatchItem::End(End::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn watch_from_a_future_revision_is_silent_until_then() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let request =
        WatchRequest { start: WatchStart::After(3), filter: Filter::all(), bookmarks: true, deadline: None };
    let mut watcher = cacher.watch(request).unwrap();
    let minutes = Duration::from_secs(150);
    assert!(
        tokio::time::timeout(minutes, watcher.next()).await.is_err(),
        "no bookmark of an earlier revision"
    );
    for i in 0..3 {
        store.put(&key("p"), format!("n;{i}"));
    }
    sync(&store, &cacher).await;
    assert!(frames(watcher.next().await)[0].contains(r#""resourceVersion":"4""#));
}

#[tokio::test(start_paused = true)]
async fn only_concerned_watchers_are_woken() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let on = |node: &str| Filter::all().with_field(FieldRef::Declared(0), node);
    let mut concerned = watch(&cacher, WatchStart::After(1), on("a")).unwrap();
    let other = waiting(watch(&cacher, WatchStart::After(1), on("b")).unwrap());
    for round in 0..3 {
        store.put(&key("p"), format!("a;{round}"));
        store.release();
        assert_eq!(frames(concerned.next().await).len(), 1);
        assert!(!other.is_woken());
    }
    store.put(&key("p"), "b;");
    store.release();
    assert_eq!(frames(concerned.next().await).len(), 1, "the object left the filter");
    assert!(other.is_woken());
    let mut watchers = cacher.introspect().watchers;
    watchers.sort_by(|(a, _), (b, _)| a.value.cmp(&b.value));
    assert_eq!(
        watchers.iter().map(|(route, count)| (&*route.value, *count)).collect::<Vec<_>>(),
        [("a", 1), ("b", 1)]
    );
    drop((concerned, other));
    assert!(cacher.introspect().watchers.is_empty());
}

/// Returns a watcher that was polled and is pending.
fn waiting(mut watcher: Watcher) -> tokio_test::task::Spawn<impl Future<Output = WatchItem>> {
    let mut task = tokio_test::task::spawn(async move { watcher.next().await });
    assert!(task.poll().is_pending());
    task
}

#[tokio::test(start_paused = true)]
async fn slow_watchers_expire_and_idle_ones_do_not() {
    let store = FakeStore::default();
    let window = WindowBounds { min: 4, max: 8, ..WindowBounds::default() };
    let cacher = ready(&store, CacherConfig { window, ..config() }).await;
    let mut slow = watch(&cacher, WatchStart::After(1), Filter::all()).unwrap();
    let mut quiet = watch(&cacher, WatchStart::After(1), Filter::all().named("q")).unwrap();
    for i in 0..50 {
        store.put(&key("p"), format!("n;{i}"));
    }
    store.put(&key("q"), "n;");
    sync(&store, &cacher).await;
    assert!(matches!(slow.next().await, WatchItem::End(End::Expired)));
    assert_eq!(frames(quiet.next().await).len(), 1, "earlier events did not match");
    assert_eq!(cacher.introspect().window.events, 8);
}

#[tokio::test(start_paused = true)]
async fn unread_initial_state_is_not_kept_in_memory() {
    let store = FakeStore::default();
    let window = WindowBounds { min: 4, max: 4, ..WindowBounds::default() };
    for i in 0..200 {
        store.put(&key(&format!("p{i:03}")), "n;");
    }
    let cacher = ready(&store, CacherConfig { window, ..config() }).await;
    let old = Arc::downgrade(cacher.snapshot().get(&key("p199")).unwrap());
    let start = || WatchStart::State(cacher.snapshot());
    let mut slow = watch(&cacher, start(), Filter::all()).unwrap();
    let mut other = watch(&cacher, start(), Filter::all()).unwrap();
    assert!(matches!(slow.next().await, WatchItem::Events(_)));
    store.put(&key("p199"), "n;new");
    sync(&store, &cacher).await;
    assert!(old.upgrade().is_some(), "it may still be sent");
    for i in 0..8 {
        store.put(&key("p000"), format!("n;{i}"));
    }
    sync(&store, &cacher).await;
    assert!(old.upgrade().is_none());
    assert!(matches!(slow.next().await, WatchItem::End(End::Expired)));
    assert!(matches!(other.next().await, WatchItem::End(End::Expired)));
    drop((slow, other));
    let mut again = watch(&cacher, start(), Filter::all()).unwrap();
    while let WatchItem::Events(_) = again.next().await {}
    assert!(again.next().now_or_never().is_none(), "then it waits");
}

#[tokio::test(start_paused = true)]
async fn past_states_are_served_while_in_the_window() {
    let store = FakeStore::default();
    let window = WindowBounds { min: 4, max: 4, ..WindowBounds::default() };
    let cacher = ready(&store, CacherConfig { window, kept_snapshots: 2, ..config() }).await;
    let values = |revision| {
        let snapshot = cacher.snapshot_at(revision)?;
        Some(snapshot.range(PREFIX, None).map(|object| object.resource_version()).collect::<Vec<_>>())
    };
    for i in 0..3 {
        store.put(&key(&format!("p{i}")), "n;");
    }
    sync(&store, &cacher).await;
    cacher.keep(&cacher.snapshot());
    store.delete(&key("p0"));
    store.put(&key("p1"), "n;");
    sync(&store, &cacher).await;
    assert_eq!(
        [4, 3, 5, 6].map(values),
        [Some(vec![2, 3, 4]), Some(vec![2, 3]), Some(vec![3, 4]), Some(vec![6, 4])]
    );
    assert_eq!((values(7), values(1)), (None, None), "in the future, and out of the window");
    assert_eq!(cacher.introspect().kept_snapshots, [3, 5]);
    for _ in 0..8 {
        store.put(&key("p1"), "n;");
    }
    sync(&store, &cacher).await;
    assert_eq!((values(4), cacher.introspect().kept_snapshots.len()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn compacted_states_are_forgotten() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    for i in 0..4 {
        store.put(&key(&format!("p{i}")), "n;");
    }
    sync(&store, &cacher).await;
    let last = cacher.revision();
    let served = || (last - 2..=last).filter(|it| cacher.snapshot_at(*it).is_some()).collect::<Vec<_>>();
    assert_eq!(served(), [last - 2, last - 1, last]);
    cacher.forget_states_before(last - 1);
    assert_eq!(served(), [last - 1, last]);
    assert_eq!(cacher.introspect().kept_snapshots, [last - 1]);
    // The current state is also that of later revisions, which have no changes.
    cacher.forget_states_before(last + 5);
    assert_eq!(served(), [last]);
    let mut watcher = watch(&cacher, WatchStart::After(last - 2), Filter::all()).unwrap();
    assert!(matches!(watcher.next().await, WatchItem::Events(_)), "watches keep their history");
}

#[tokio::test(start_paused = true)]
async fn encodings_are_shared_and_can_be_dropped() {
    let store = FakeStore::default();
    store.put(&key("p"), "n;");
    let budget = EncodingBudget::new(1 << 20);
    let cacher = ready(&store, CacherConfig { encodings: Arc::clone(&budget), ..config() }).await;
    let snapshot = cacher.snapshot();
    let object = snapshot.get(&key("p")).unwrap();
    let first = object.encoding(Encoding(1), |object| Ok::<_, ()>(object.name().to_owned().into())).unwrap();
    let second = object.encoding(Encoding(1), |_| Err(())).unwrap();
    assert_eq!((first.as_ptr(), budget.used()), (second.as_ptr(), 1));
    cacher.drop_encodings();
    assert_eq!(budget.used(), 0);
    assert_eq!(object.encoding(Encoding(1), |_| Err(())), Err(()));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_cacher_ends_its_watchers() {
    let store = FakeStore::default();
    let cacher = ready(&store, config()).await;
    let mut watcher = watch(&cacher, WatchStart::After(1), Filter::all()).unwrap();
    let next = tokio::spawn(async move { watcher.next().await });
    tokio::task::yield_now().await;
    drop(cacher);
    assert!(matches!(next.await.unwrap(), WatchItem::End(End::Closed)));
}
