//! Model and concurrency tests of `Workqueue`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use nave_client::workqueue::{ExponentialLimiter, WorkqueueMetrics};
use nave_client::{Action, Workqueue, run_workers};
use prometheus::Registry;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    AddAfter(u8, u64),
    Get,
    Done(u8),
    Pass(u64),
    ShutDown,
}

#[derive(Default)]
struct Model {
    now: u64,
    order: Vec<u8>,
    dirty: BTreeSet<u8>,
    processing: BTreeSet<u8>,
    /// The due time and insertion number of each delayed key.
    later: BTreeMap<u8, (u64, usize)>,
    came: usize,
    is_shut_down: bool,
}

impl Model {
    fn add(&mut self, key: u8) {
        if !self.is_shut_down && self.dirty.insert(key) && !self.processing.contains(&key) {
            self.order.push(key);
        }
    }

    fn admit(&mut self) {
        while let Some((key, _)) = self.later.iter().map(|(k, at)| (*k, *at)).min_by_key(|(_, at)| *at) {
            if self.later[&key].0 > self.now {
                return;
            }
            self.later.remove(&key);
            self.add(key);
        }
    }

    #[expect(clippy::option_option, reason = "as the queue has it: not yet, never again, a key")]
    fn get(&mut self) -> Option<Option<u8>> {
        self.admit();
        if self.order.is_empty() {
            return self.is_shut_down.then_some(None);
        }
        let key = self.order.remove(0);
        self.dirty.remove(&key);
        self.processing.insert(key);
        Some(Some(key))
    }

    fn done(&mut self, key: u8) {
        if self.processing.remove(&key) && self.dirty.contains(&key) {
            self.order.push(key);
        }
    }

    fn add_after(&mut self, key: u8, after: u64) {
        if after == 0 {
            return self.add(key);
        }
        let place = (self.now + after, self.came);
        self.came += 1;
        if !self.is_shut_down && self.later.get(&key).is_none_or(|known| known.0 > place.0) {
            self.later.insert(key, place);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..4_u8;
    let step = prop_oneof![
        40 => key.clone().prop_map(Step::Add),
        30 => (key.clone(), 0..50_u64).prop_map(|(key, after)| Step::AddAfter(key, after)),
        50 => Just(Step::Get),
        40 => key.prop_map(Step::Done),
        20 => (1..40_u64).prop_map(Step::Pass),
        1 => Just(Step::ShutDown),
    ];
    proptest::collection::vec(step, 0..60)
}

async fn compare(steps: Vec<Step>) {
    let (queue, mut model) = (Workqueue::<u8>::new(), Model::default());
    for step in steps {
        match step {
            Step::Add(key) => {
                model.admit();
                queue.len();
                queue.add(key);
                model.add(key);
            }
            Step::AddAfter(key, after) => {
                model.admit();
                queue.len();
                queue.add_after(key, Duration::from_millis(after));
                model.add_after(key, after);
            }
            Step::Get => assert_eq!(queue.get().now_or_never(), model.get()),
            Step::Done(key) => {
                queue.done(&key);
                model.done(key);
            }
            Step::Pass(time) => {
                tokio::time::advance(Duration::from_millis(time)).await;
                model.now += time;
            }
            Step::ShutDown => {
                model.admit();
                queue.len();
                queue.shut_down();
                (model.is_shut_down, model.later) = (true, BTreeMap::new());
            }
        }
        model.admit();
        assert_eq!(queue.len(), model.order.len());
    }
}

proptest! {
    #[test]
    fn matches_the_model(steps in steps()) {
        crate::with_paused_time(compare(steps));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_key_is_processed_concurrently_or_lost() {
    const KEYS: usize = 8;
    const ROUNDS: u32 = 2_000;
    let queue = Workqueue::<usize>::new();
    let wanted: Arc<[AtomicU32; KEYS]> = Arc::default();
    let seen: Arc<[AtomicU32; KEYS]> = Arc::default();
    let busy: Arc<[AtomicU32; KEYS]> = Arc::default();
    let stop = CancellationToken::new();
    let work = {
        let (wanted, seen, busy) = (wanted.clone(), seen.clone(), busy.clone());
        move |key: usize| {
            let (wanted, seen, busy) = (wanted.clone(), seen.clone(), busy.clone());
            async move {
                assert_eq!(busy[key].fetch_add(1, Ordering::SeqCst), 0, "two workers have {key}");
                let now = wanted[key].load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                seen[key].store(now, Ordering::SeqCst);
                busy[key].fetch_sub(1, Ordering::SeqCst);
                if now % 7 == 0 { Err("by chance") } else { Ok(Action::Done) }
            }
        }
    };
    let workers = tokio::spawn({
        let (queue, stop) = (queue.clone(), stop.clone());
        async move { run_workers(&queue, 4, stop, work).await }
    });
    let adders = (0..4).map(|_| {
        let (queue, wanted) = (queue.clone(), wanted.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS as usize {
                wanted[round % KEYS].fetch_add(1, Ordering::SeqCst);
                queue.add(round % KEYS);
                if round % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    futures_util::future::join_all(adders).await;
    // The latest request for each key is processed despite failures. The test runner's timeout detects a hang.
    let all_seen =
        || (0..KEYS).all(|key| seen[key].load(Ordering::SeqCst) == wanted[key].load(Ordering::SeqCst));
    while !all_seen() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    workers.await.unwrap();
    assert!(queue.is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_queued_and_processing_keys() {
    let queue = Workqueue::<&str>::new();
    queue.add("a");
    queue.add("b");
    queue.add_after("later", Duration::from_secs(1));
    assert_eq!(queue.get().await, Some("a"));
    let mut drain = Box::pin(queue.shut_down_with_drain());
    assert!(drain.as_mut().now_or_never().is_none());
    queue.add("c");
    assert_eq!(queue.get().await, Some("b"));
    queue.done(&"a");
    assert!(drain.as_mut().now_or_never().is_none());
    queue.done(&"b");
    drain.await;
    assert_eq!(queue.get().await, None, "nothing is taken or added later after that");
}

#[tokio::test(start_paused = true)]
async fn get_wakes_for_an_earlier_due_time() {
    let queue = Workqueue::<&str>::new();
    let started = tokio::time::Instant::now();
    queue.add_after("late", Duration::from_mins(1));
    let getter = tokio::spawn({
        let queue = queue.clone();
        async move { queue.get().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    queue.add_after("early", Duration::from_secs(2));
    assert_eq!(getter.await.unwrap(), Some("early"));
    assert_eq!(started.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn accepts_any_delay() {
    let queue = Workqueue::<u8>::default();
    for (key, wait) in
        [(0, Duration::MAX), (1, Duration::from_secs(u64::MAX / 2)), (2, Duration::from_secs(1))]
    {
        queue.add_after(key, wait);
    }
    assert_eq!(queue.get().await, Some(2));
    assert_eq!(queue.get().now_or_never(), None, "the others are not due");
}

#[tokio::test(start_paused = true)]
async fn retries_with_growing_delays_and_resets_on_success() {
    let limiter = ExponentialLimiter::new(Duration::from_secs(1), Duration::from_mins(1));
    let queue = Workqueue::<&str>::with_rate_limiter(limiter, None);
    let (tries, stop, started) = (AtomicU32::new(0), CancellationToken::new(), tokio::time::Instant::now());
    queue.add("a");
    run_workers(&queue, 2, stop.clone(), |_| {
        let tried = tries.fetch_add(1, Ordering::SeqCst);
        if tried == 3 {
            stop.cancel();
        }
        async move {
            assert_ne!(tried, 1, "a test's panic");
            if tried < 3 { Err("not yet") } else { Ok(Action::Done) }
        }
    })
    .await;
    assert_eq!((tries.into_inner(), started.elapsed().as_secs()), (4, 1 + 2 + 4));
    assert_eq!(queue.num_requeues(&"a"), 0);
}

#[tokio::test]
async fn metrics_have_client_go_names() {
    let registry = Registry::new();
    let metrics = WorkqueueMetrics::register(&registry).unwrap();
    let queue = Workqueue::<&str>::with_rate_limiter(
        ExponentialLimiter::new(Duration::from_millis(1), Duration::from_secs(1)),
        Some((&metrics, "things")),
    );
    for key in ["a", "a", "b"] {
        queue.add(key);
    }
    assert_eq!(queue.get().await, Some("a"));
    queue.add_rate_limited("c");
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let value = |name: &str| {
        let line =
            text.lines().find(|line| line.starts_with(&format!("workqueue_{name}{{name=\"things\"}}")));
        line.and_then(|line| line.split_whitespace().last()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("{name}"))
    };
    assert_eq!((value("adds_total"), value("retries_total")), (2.0, 1.0));
    assert!((1.0..=2.0).contains(&value("depth")));
    assert_eq!((value("queue_duration_seconds_count"), value("work_duration_seconds_count")), (1.0, 0.0));
    assert!(value("unfinished_work_seconds") > 0.0 && value("longest_running_processor_seconds") > 0.0);
    queue.done(&"a");
    drop(queue);
    assert!(!registry.gather().is_empty());
}
