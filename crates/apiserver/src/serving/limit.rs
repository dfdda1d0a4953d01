//! The time within which an answer has to be taken.
//!
//! Whose client does not read is not asked for more of its body, so a body cannot end itself. The task that serves it
//! can be ended: on HTTP/2 each stream has its own, on HTTP/1.1 the connection serves one answer at a time. These tasks
//! run in [`limited`]. The HTTP library has no place in which a response can tell its task the deadline, so [`end_by`]
//! sets it for the task that runs. An answer that is not taken by then is dropped with the task: the client sees its
//! stream reset, or the connection closed.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// Until when the answer that the task makes or sends has to be taken.
    static END: Cell<Option<Instant>>;
}

/// A limit on the task's answer, for as long as this lives: it belongs to the answer's body.
#[must_use]
pub(super) struct EndBy(());

/// Limits the answer that this task makes.
pub(super) fn end_by(end: Instant) -> EndBy {
    set(Some(end));
    EndBy(())
}

impl Drop for EndBy {
    fn drop(&mut self) {
        set(None);
    }
}

/// Outside of a connection's tasks there is nothing to set.
fn set(end: Option<Instant>) {
    let _ = END.try_with(|it| it.set(end));
}

/// Runs the work to its end, or until an answer it makes is not taken in time.
pub(super) async fn limited<F: Future>(work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut end = None;
    let mut sleep: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        let (polled, set) = END.sync_scope(Cell::new(end), || (work.as_mut().poll(cx), END.get().get()));
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        if set != end {
            end = set;
            sleep = end.map(|end| Box::pin(sleep_until(end)));
        }
        match &mut sleep {
            Some(sleep) => sleep.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Runs the streams of HTTP/2 connections as tasks, each within its limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(async move {
            if limited(stream).await.is_none() {
                tracing::debug!("a stream was reset: its client did not take the answer in time");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn answer(limit: Option<Duration>, takes: Duration) {
        let _limit = limit.map(|limit| end_by(Instant::now() + limit));
        tokio::time::sleep(takes).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_has_its_own_limit() {
        let started = Instant::now();
        let answers = async {
            answer(Some(2 * SECOND), SECOND).await;
            answer(None, 10 * SECOND).await;
            answer(Some(2 * SECOND), SECOND).await;
            answer(Some(2 * SECOND), 3 * SECOND).await;
        };
        assert_eq!(limited(answers).await, None);
        assert_eq!(started.elapsed(), 14 * SECOND);
        assert_eq!(limited(answer(Some(2 * SECOND), SECOND)).await, Some(()));
    }
}
