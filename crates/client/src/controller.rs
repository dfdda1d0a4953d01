//! [`run_workers`]: the worker loop of every controller.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::Workqueue;
use crate::workqueue::Key;

/// The result of a successful reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wait for the next event.
    Done,
    /// Reconcile again after this delay, or earlier if an event arrives.
    RequeueAfter(Duration),
}

/// Processes the keys of a queue with at most `workers` workers until `stop` is cancelled. Two workers never
/// process the same key at once. A success resets the key's failures; an error or a panic retries the key with
/// growing delays. After `stop` is cancelled, running reconciliations complete and no new ones start.
pub async fn run_workers<T, E, R, F>(
    queue: &Workqueue<T>,
    workers: usize,
    stop: CancellationToken,
    reconcile: R,
) where
    T: Key + Display,
    E: Display,
    R: Fn(T) -> F,
    F: Future<Output = Result<Action, E>>,
{
    let work = async || {
        while let Some(Some(key)) = stop.run_until_cancelled(queue.get()).await {
            // An idle worker keeps no room for a reconciliation, which can take tens of kilobytes.
            let reconciled = AssertUnwindSafe(Box::pin(reconcile(key.clone()))).catch_unwind().await;
            if let Ok(outcome) = reconciled {
                finish(queue, &key, outcome);
            } else {
                tracing::error!(%key, "reconcile panicked");
                queue.add_rate_limited(key.clone());
            }
            queue.done(&key);
        }
    };
    join_all((0..workers.max(1)).map(|_| work())).await;
    queue.shut_down();
}

fn finish<T: Key + Display, E: Display>(queue: &Workqueue<T>, key: &T, outcome: Result<Action, E>) {
    match outcome {
        Ok(Action::Done) => queue.forget(key),
        Ok(Action::RequeueAfter(after)) => {
            queue.forget(key);
            queue.add_after(key.clone(), after);
        }
        Err(error) => {
            tracing::warn!(%key, %error, tries = queue.num_requeues(key), "reconcile failed");
            queue.add_rate_limited(key.clone());
        }
    }
}
