//! Keeps expensive evaluations and large answers off the executor's threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

/// Duration above which the next evaluations of a policy leave the executor's threads. A budget allows seconds, in which
/// health checks and watches of the same thread would wait.
const EXPENSIVE: Duration = Duration::from_millis(2);

/// Number of evaluations of a policy that leave the executor's threads after an expensive one, so that requests cannot
/// alternate between cheap and expensive evaluations.
const REMEMBERED: u32 = 1000;

/// Length in bytes from which the answer of a webhook is processed off the executor's threads.
const LARGE: usize = 32 * 1024;

/// The evaluations of one policy, which remember whether a recent one was expensive. The first ones count as expensive.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The number of next evaluations that leave the executor's threads.
    expensive: AtomicU32,
}

impl Default for Workload {
    fn default() -> Self {
        Self { expensive: AtomicU32::new(REMEMBERED) }
    }
}

impl Workload {
    /// Runs an evaluation. If a recent one was expensive, another thread runs the other tasks of this thread meanwhile.
    pub(crate) fn run<T>(&self, evaluate: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let left = self.expensive.load(Ordering::Relaxed);
        let result = hand_over_if(left > 0, evaluate);
        let is_expensive = started.elapsed() > EXPENSIVE;
        // A lost update changes the number by a few evaluations.
        let left = if is_expensive { REMEMBERED } else { left.saturating_sub(1) };
        self.expensive.store(left, Ordering::Relaxed);
        result
    }
}

/// Processes an answer of this length. If it is large, another thread runs the other tasks of this thread meanwhile.
pub(crate) fn process<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    hand_over_if(bytes >= LARGE, work)
}

fn hand_over_if<T>(is_expensive: bool, work: impl FnOnce() -> T) -> T {
    if is_expensive && can_hand_over() { tokio::task::block_in_place(work) } else { work() }
}

/// Returns whether another thread can run the other tasks of this thread; false on a single-threaded runtime.
fn can_hand_over() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_run_during_an_expensive_evaluation() {
        let workload = Workload { expensive: AtomicU32::new(1) };
        let (sent, received) = std::sync::mpsc::channel();
        let evaluation = tokio::spawn(async move {
            tokio::spawn(async move { sent.send(()) });
            // The only thread of the executor waits for another task.
            workload.run(|| received.recv()).unwrap();
        });
        evaluation.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_run_while_a_large_answer_is_processed() {
        let (sent, received) = std::sync::mpsc::channel();
        let processing = tokio::spawn(async move {
            tokio::spawn(async move { sent.send(()) });
            process(LARGE, || received.recv()).unwrap();
        });
        processing.await.unwrap();
    }

    #[test]
    fn evaluations_run_without_an_executor() {
        assert_eq!(Workload::default().run(|| 7), 7);
    }

    #[test]
    fn remembers_an_expensive_evaluation_during_cheap_ones() {
        let workload = Workload { expensive: AtomicU32::new(0) };
        workload.run(|| std::thread::sleep(2 * EXPENSIVE));
        for _ in 0..REMEMBERED / 2 {
            workload.run(|| ());
            assert!(workload.expensive.load(Ordering::Relaxed) > 0);
        }
    }
}
