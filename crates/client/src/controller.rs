//! [`run_workers`]: the loop that every controller has.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::Workqueue;
use crate::workqueue::Key;

/// What is to happen with a key that was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something happens to it.
    Done,
    /// It is to be looked at again after this, whatever happens.
    RequeueAfter(Duration),
}

/// Works on a queue's keys until `stop` is cancelled: at most `workers` at once, each key by one at a time. On a success
/// the key's failures are forgotten; on an error, or a panic, it is tried again, later each time. When stopped, work under way is
/// brought to its end, and nothing new is begun.
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
            if let Ok(outcome) = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await {
                settle(queue, &key, outcome);
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

fn settle<T: Key + Display, E: Display>(queue: &Workqueue<T>, key: &T, outcome: Result<Action, E>) {
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
