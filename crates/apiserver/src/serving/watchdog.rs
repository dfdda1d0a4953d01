//! Timeouts of a connection.
//!
//! A [`Watchdog`] counts the requests of one connection. A connection without a request in progress times out: between
//! the handshake and the head of the first request, and between the end of a request and the head of the next one. A
//! client that abandons too many requests before they are answered (rapid reset) is disconnected.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::limit::{EndBy, end_by};
use super::{Limits, Served};

/// The requests of one connection.
pub(super) struct Watchdog {
    first_request: Duration,
    idle: Duration,
    max_abandoned: u32,
    requests: Mutex<Requests>,
    /// Cancelled to cut the connection.
    close: CancellationToken,
}

#[derive(Clone, Copy)]
struct Requests {
    under_way: usize,
    /// True after the first request.
    any: bool,
    /// The time since which no request is in progress.
    idle_since: Instant,
    /// Number of requests that the client abandoned before they were answered. Each answered request subtracts one.
    abandoned: u32,
}

/// The reason to end a connection without a request in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The first request did not arrive in time.
    FirstRequest,
    /// The next request did not arrive in time.
    NextRequest,
}

/// A request in progress, until its response is sent or the client abandons it.
pub(super) struct Request {
    watchdog: Arc<Watchdog>,
    answered: bool,
}

/// A response body with its request and its transmission deadline.
pub(super) struct TrackedBody<B> {
    body: B,
    _limit: Option<EndBy>,
    _request: Request,
}

impl Watchdog {
    /// Creates the watchdog of a connection after its handshake.
    pub(super) fn new(limits: &Limits, close: CancellationToken) -> Arc<Self> {
        let requests = Requests { under_way: 0, any: false, idle_since: Instant::now(), abandoned: 0 };
        Arc::new(Self {
            first_request: limits.first_request,
            idle: limits.idle,
            max_abandoned: limits.abandoned_requests,
            requests: Mutex::new(requests),
            close,
        })
    }

    /// Counts a request as in progress.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        let mut requests = self.requests.lock();
        requests.under_way += 1;
        requests.any = true;
        Request { watchdog: Arc::clone(self), answered: false }
    }

    /// Returns whether no request is in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.lock().under_way == 0
    }

    /// Waits until the time for the next request has passed.
    pub(super) async fn overdue(&self) -> Overdue {
        loop {
            let requests = *self.requests.lock();
            let now = Instant::now();
            let end = match requests {
                Requests { under_way: 1.., .. } => now + self.idle,
                Requests { any: true, idle_since, .. } => idle_since + self.idle,
                Requests { idle_since, .. } => idle_since + self.first_request,
            };
            if end <= now {
                return if requests.any { Overdue::NextRequest } else { Overdue::FirstRequest };
            }
            // Requests may start and end in the meantime, so check the state again.
            sleep_until(end.min(now + self.idle)).await;
        }
    }
}

impl Request {
    /// Marks the request as answered and attaches it to the body of its response.
    pub(super) fn answered<B>(mut self, served: Served<B>) -> Response<TrackedBody<B>> {
        self.answered = true;
        {
            let mut requests = self.watchdog.requests.lock();
            requests.abandoned = requests.abandoned.saturating_sub(1);
        }
        let limit = served.deadline.map(|deadline| end_by(deadline.into()));
        served.response.map(|body| TrackedBody { body, _limit: limit, _request: self })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut requests = self.watchdog.requests.lock();
        requests.under_way -= 1;
        if requests.under_way == 0 {
            requests.idle_since = Instant::now();
        }
        if !self.answered {
            requests.abandoned += 1;
            if requests.abandoned > self.watchdog.max_abandoned {
                self.watchdog.close.cancel();
            }
        }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watchdog() -> Arc<Watchdog> {
        let limits = Limits {
            first_request: 2 * SECOND,
            idle: 10 * SECOND,
            abandoned_requests: 2,
            ..Limits::default()
        };
        Watchdog::new(&limits, CancellationToken::new())
    }

    fn served<B>(body: B) -> Served<B> {
        Served { response: Response::new(body), deadline: None, upgrade: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_overdue() {
        let started = Instant::now();
        assert_eq!(watchdog().overdue().await, Overdue::FirstRequest);
        assert_eq!(started.elapsed(), 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_starts_at_the_end_of_the_last_response() {
        let (started, watchdog) = (Instant::now(), watchdog());
        let mut overdue = std::pin::pin!(watchdog.overdue());
        let requests = async {
            let (first, second) = (watchdog.begin(), watchdog.begin());
            tokio::time::sleep(25 * SECOND).await;
            drop(first);
            let response = second.answered(served(http_body_util::Empty::<bytes::Bytes>::new()));
            tokio::time::sleep(SECOND).await;
            drop(response);
        };
        let ((), why) = tokio::join!(requests, overdue.as_mut());
        assert_eq!((why, started.elapsed()), (Overdue::NextRequest, 36 * SECOND));
    }

    #[tokio::test]
    async fn disconnects_a_client_that_abandons_most_of_its_requests() {
        let watchdog = watchdog();
        let answer = || watchdog.begin().answered(served(()));
        for _ in 0..10 {
            drop(watchdog.begin());
            drop(watchdog.begin());
            answer();
            answer();
        }
        assert!(!watchdog.close.is_cancelled());
        for _ in 0..3 {
            drop(watchdog.begin());
        }
        assert!(watchdog.close.cancelled().now_or_never().is_some());
    }
}
