//! When a connection has to end although its client has not closed it.
//!
//! A [`Watchdog`] counts the requests of one connection. A connection without a request under way is given a time: from
//! its handshake to the head of the first request, and from the end of a request to the head of the next. A client that
//! gives up too many requests before they are answered (rapid reset) is cut off.

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
    /// True if there was one.
    any: bool,
    /// Since when none is under way.
    idle_since: Instant,
    /// Requests that the client gave up before they were answered, less those that were answered since.
    abandoned: u32,
}

/// Why a connection without a request under way has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// No request came.
    FirstRequest,
    /// No further request came.
    NextRequest,
}

/// A request under way: it is until its response was sent or given up.
pub(super) struct Request {
    watchdog: Arc<Watchdog>,
    answered: bool,
}

/// A response's body, with the request that it answers and the limit on its time.
pub(super) struct TrackedBody<B> {
    body: B,
    _limit: Option<EndBy>,
    _request: Request,
}

impl Watchdog {
    /// A connection whose handshake has just ended.
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

    /// Counts a request.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        let mut requests = self.requests.lock();
        requests.under_way += 1;
        requests.any = true;
        Request { watchdog: Arc::clone(self), answered: false }
    }

    /// Returns whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.lock().under_way == 0
    }

    /// Waits until the time for the next request is over.
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
            // A request that begins and ends in between changes what holds.
            sleep_until(end.min(now + self.idle)).await;
        }
    }
}

impl Request {
    /// The response, with which the request ends, within its deadline.
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
    async fn a_connection_is_idle_from_the_end_of_its_last_response() {
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
    async fn a_client_that_gives_up_more_requests_than_it_lets_finish_is_cut_off() {
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
