//! The deadline for the transmission of a response.
//!
//! The HTTP library does not poll a response body while the client does not read, so the body itself cannot time out.
//! Instead, the task that serves the response is ended: on HTTP/2 each stream has a task, on HTTP/1.1 the connection
//! serves one response at a time. These tasks run in [`limited`]. The library cannot pass the deadline from a response
//! to its task, so [`end_by`] sets the deadline of the current task. A response that is not sent by then is dropped
//! with the task: the client sees a reset stream or a closed connection.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// The deadline of the response that the current task produces or sends.
    static END: Cell<Option<Instant>>;
}

/// The deadline of a task's response. It applies until this guard is dropped with the response's body.
#[must_use]
pub(super) struct EndBy(());

/// Sets the deadline of the response that the current task produces.
pub(super) fn end_by(end: Instant) -> EndBy {
    set(Some(end));
    EndBy(())
}

impl Drop for EndBy {
    fn drop(&mut self) {
        set(None);
    }
}

/// Does nothing outside of a connection's tasks.
fn set(end: Option<Instant>) {
    let _ = END.try_with(|it| it.set(end));
}

/// Runs `work` to completion; returns `None` if the deadline of its response passes first.
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

/// Spawns each stream of an HTTP/2 connection as a task with its own deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(async move {
            if limited(stream).await.is_none() {
                tracing::debug!("stream reset: the client did not read the response in time");
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
    async fn each_response_has_its_own_deadline() {
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
