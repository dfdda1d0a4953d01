//! Tasks that run for as long as the process does: reflectors, followers of watch caches, upkeep.
//!
//! A task that panics would otherwise be gone, and what it keeps up to date would be frozen without a trace. A
//! [`Supervisor`] runs a task again, after a pause that grows, counts the restarts and logs them. It knows nothing of
//! the task's state: a task must be able to begin again from whatever state a panic left (a reflector lists again).

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

/// Restarts tasks that panic. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    restarts: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task to its end; each time that it panics, starts it again.
    ///
    /// `task` says what kind of task it is, and labels the metric; `subject` is what it works on (a resource, a
    /// controller), for logs. The panic's message is left to the process's panic hook: it may quote an object.
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
            tracing::error!(task, subject, ?pause, "task panicked; restarting it");
            sleep(pause).await;
        }
    }

    /// How often tasks of each kind were restarted.
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        self.restarts.lock().iter().map(|(task, count)| (*task, *count)).collect()
    }
}

/// The pauses before restarts.
const RESTART: Backoff =
    Backoff { jitter: 0.0, ..Backoff::doubling(Duration::from_millis(100), Duration::from_secs(30)) };

/// A task that ran for this long starts with the shortest pause again.
const STABLE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_runs_again_and_is_counted() {
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
    async fn a_task_whose_start_panics_is_restarted_too() {
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
    async fn pauses_grow_to_a_bound_and_shrink_after_a_stable_run() {
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
