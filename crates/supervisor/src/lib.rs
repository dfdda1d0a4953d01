//! Supervision of long-running tasks: reflectors, watch cache followers, maintenance.
//!
//! Without supervision, a task that panics ends silently and leaves its state stale. A [`Supervisor`] restarts the task
//! after an increasing pause, counts the restarts and logs them. It knows nothing about the state of the task: a task
//! must be able to start from any state that a panic leaves (a reflector, for example, lists again).

mod metrics;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nave_machinery::backoff::Backoff;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

pub use metrics::RestartMetrics;

/// Restarts tasks that panic. Clones share their counters.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    restarts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Supervisor {
    /// Returns a supervisor without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task to completion and restarts it each time it panics.
    ///
    /// `task` is the kind of task and labels the metric. `subject` is the object of the task (a resource, a
    /// controller), for logs. The panic message is not logged here, because it may contain data of an object: the panic
    /// hook of the process handles it.
    pub async fn supervise<F, R>(&self, task: &'static str, subject: &str, mut run: F) -> R::Output
    where
        F: FnMut() -> R,
        R: Future,
    {
        self.restarts.lock().entry(task).or_default();
        let mut pauses = RESTART.pauses();
        loop {
            let started = Instant::now();
            if let Ok(output) = AssertUnwindSafe(async { run().await }).catch_unwind().await {
                return output;
            }
            if started.elapsed() >= STABLE {
                pauses.reset();
            }
            let pause = pauses.next_pause();
            *self.restarts.lock().entry(task).or_default() += 1;
            tracing::error!(task, subject, ?pause, "task panicked, restarting");
            sleep(pause).await;
        }
    }

    /// Returns the number of restarts for each kind of task.
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        self.restarts.lock().iter().map(|(task, count)| (*task, *count)).collect()
    }
}

/// The pause before a restart.
const RESTART: Backoff =
    Backoff { jitter: 0.0, ..Backoff::doubling(Duration::from_millis(100), Duration::from_secs(30)) };

/// After a run of this length, the pause is reset to its minimum.
const STABLE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn restarts_and_counts_a_panicking_task() {
        let supervisor = Supervisor::new();
        let runs = AtomicU32::new(0);
        let task = || async {
            tokio::task::yield_now().await;
            match runs.fetch_add(1, Ordering::Relaxed) {
                run @ 0..3 => panic!("run {run}"),
                run => run,
            }
        };
        assert_eq!(supervisor.supervise("a", "it", task).await, 3);
        assert_eq!(supervisor.clone().supervise("b", "it", async || 7).await, 7);
        assert_eq!(supervisor.restarts(), [("a", 3), ("b", 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_a_task_whose_start_panics() {
        let supervisor = Supervisor::new();
        let mut first = true;
        let task = || {
            assert!(!std::mem::take(&mut first), "the first start");
            std::future::ready(())
        };
        supervisor.supervise("a", "it", task).await;
        assert_eq!(supervisor.restarts(), [("a", 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_limit_and_reset_after_a_stable_run() {
        let supervisor = Supervisor::new();
        let starts = Mutex::new(Vec::new());
        let task = || async {
            starts.lock().push(Instant::now());
            let run = starts.lock().len();
            if run == 12 {
                sleep(STABLE).await;
            }
            assert!(run > 13, "run {run}");
        };
        supervisor.supervise("a", "it", task).await;
        let starts = starts.into_inner();
        let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (shortest, longest) = (RESTART.initial, RESTART.max);
        assert_eq!(pauses[..2], [shortest, shortest * 2]);
        assert_eq!((pauses[9], pauses[10]), (longest, longest));
        assert_eq!((pauses[11], pauses[12]), (STABLE + shortest, shortest * 2));
    }
}
