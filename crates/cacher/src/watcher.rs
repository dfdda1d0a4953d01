//! A watch: a position in the log, and a filter.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::buckets::{BucketCursor, Route};
use crate::cacher::Shared;
use crate::event::{Delivery, Event};
use crate::filter::Filter;
use crate::log::Log;
use crate::state::Snapshot;

/// Parameters of a watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// The start of the watch.
    pub start: WatchStart,
    /// The objects to watch.
    pub filter: Filter,
    /// True to send bookmarks: every minute, and two seconds before the deadline.
    pub bookmarks: bool,
    /// The time at which the watch ends.
    pub deadline: Option<Instant>,
}

/// Start of a watch.
#[derive(Clone, Debug)]
pub enum WatchStart {
    /// After this revision, which may be in the future.
    After(u64),
    /// With the objects of this snapshot as `ADDED`, then [`WatchItem::InitialEventsEnd`], then the events after the
    /// snapshot.
    State(Snapshot),
}

/// The error of a watch that cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The history does not reach back to the revision.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// The requested revision.
        requested: u64,
        /// The oldest revision at which a watch can start.
        oldest: u64,
    },
}

/// The next item of a watch.
#[derive(Debug)]
pub enum WatchItem {
    /// One or more events, in order.
    Events(Vec<Delivery>),
    /// All initial objects have been sent; the state at this revision is complete.
    InitialEventsEnd(u64),
    /// All matching events up to this revision have been sent.
    Bookmark(u64),
    /// The watch has ended.
    End(End),
}

/// The reason why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The position left the window, or history was lost. The client must list again (410 `Expired`).
    Expired,
    /// The deadline has passed.
    TimedOut,
    /// The cache was dropped.
    Closed,
}

/// A running watch. It has no queue: a client that does not read costs only its position.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    filter: Filter,
    initial: Option<Initial>,
    position: Position,
    wake: Arc<Notify>,
    bookmarks: bool,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    ended: Option<End>,
}

/// The part of the initial state that has not been sent. The log keeps the state itself as long as it keeps the history
/// after the state.
#[derive(Debug)]
struct Initial {
    revision: u64,
    last: Option<Arc<str>>,
}

/// The position of a watcher.
#[derive(Debug)]
struct Position {
    epoch: u64,
    /// Events up to and including this revision are skipped.
    after: u64,
    /// Sequence numbers of events older than the watcher. The watcher reads them from the window.
    past: std::ops::Range<u64>,
    /// Cursor in the bucket, for newer events.
    cursor: BucketCursor,
    /// All matching events up to this revision have been taken.
    reached: u64,
}

impl Watcher {
    pub(crate) fn start(shared: Arc<Shared>, request: WatchRequest) -> Result<Self, WatchError> {
        let WatchRequest { start, filter, bookmarks, deadline } = request;
        let (after, state) = match start {
            WatchStart::After(revision) => (revision, None),
            WatchStart::State(snapshot) => (snapshot.revision(), Some(snapshot)),
        };
        let initial = state.as_ref().map(|_| Initial { revision: after, last: None });
        let route = Route::for_filter(&filter, &shared.layout);
        let (position, wake) = Position::enter(&mut shared.log.write(), after, route, state)?;
        let timer = next_timer(bookmarks, deadline).map(|at| Box::pin(sleep_until(at)));
        Ok(Self { shared, filter, initial, position, wake, bookmarks, deadline, timer, ended: None })
    }

    /// Waits for the next item. After [`WatchItem::End`], each call returns the same item again. Cancel safe: no item
    /// is lost if the future is dropped.
    pub async fn next(&mut self) -> WatchItem {
        if let Some(end) = self.ended.or_else(|| self.overdue()) {
            return self.end(end);
        }
        if let Some(step) = self.next_initial() {
            return step;
        }
        loop {
            let wake = Arc::clone(&self.wake);
            // Created before reading, so that no wake is lost.
            let woken = wake.notified();
            match self.take() {
                Err(end) => return self.end(end),
                Ok(Taken { deliveries, .. }) if !deliveries.is_empty() => {
                    return WatchItem::Events(deliveries);
                }
                // No event has matched yet. Continues after yielding.
                Ok(Taken { more: true, .. }) => tokio::task::yield_now().await,
                Ok(_) => {
                    tokio::select! {
                        () = woken => {}
                        () = elapsed(&mut self.timer) => {
                            if let Some(step) = self.tick() {
                                return step;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Returns the revision up to which all matching events have been taken.
    pub fn reached(&self) -> u64 {
        self.position.reached
    }

    fn next_initial(&mut self) -> Option<WatchItem> {
        let Initial { revision, last } = self.initial.as_mut()?;
        let state = {
            let log = self.shared.log.read();
            if log.closed {
                drop(log);
                return Some(self.end(End::Closed));
            }
            log.sent(*revision).filter(|_| log.epoch == self.position.epoch)
        };
        let Some(snapshot) = state else { return Some(self.end(End::Expired)) };
        let objects: Vec<_> = snapshot.select(&self.filter, last.as_deref()).take(BATCH).cloned().collect();
        let Some(latest) = objects.last() else {
            let revision = snapshot.revision();
            self.end_sending();
            return Some(WatchItem::InitialEventsEnd(revision));
        };
        *last = Some(Arc::clone(latest.key()));
        self.shared.stats.initial_events.add(objects.len());
        Some(WatchItem::Events(objects.into_iter().map(Delivery::initial).collect()))
    }

    /// Takes the next events. The lock is held only to copy pointers; filters run afterwards.
    fn take(&mut self) -> Result<Taken, End> {
        let mut events = Vec::new();
        let more = self.position.advance(&self.shared.log.read(), &mut events)?;
        let after = self.position.after;
        let deliver = |event: Arc<Event>| {
            let kind = event.type_for(&self.filter).filter(|_| event.revision() > after)?;
            Some(Delivery::event(kind, event))
        };
        let deliveries: Vec<_> = events.into_iter().filter_map(deliver).collect();
        Ok(Taken { deliveries, more })
    }

    fn end_sending(&mut self) {
        let Some(Initial { revision, .. }) = self.initial.take() else { return };
        let mut log = self.shared.log.write();
        let state = if log.epoch == self.position.epoch { log.end_sending(revision) } else { None };
        drop(log);
        drop(state);
    }

    fn overdue(&self) -> Option<End> {
        self.deadline.filter(|deadline| *deadline <= Instant::now()).map(|_| End::TimedOut)
    }

    /// Handles the timer: returns a bookmark or the end of the watch.
    fn tick(&mut self) -> Option<WatchItem> {
        if let Some(end) = self.overdue() {
            return Some(self.end(end));
        }
        self.timer = next_timer(self.bookmarks, self.deadline).map(|at| Box::pin(sleep_until(at)));
        let reached = self.position.reached;
        let due = self.bookmarks && reached >= self.position.after;
        due.then_some(WatchItem::Bookmark(reached))
    }

    fn end(&mut self, end: End) -> WatchItem {
        if end == End::Expired && self.ended.is_none() {
            self.shared.stats.terminated_watchers.add(1);
        }
        self.ended = Some(end);
        WatchItem::End(end)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end_sending();
        self.shared.log.write().buckets.leave(self.position.cursor);
    }
}

/// Events taken from the log.
struct Taken {
    deliveries: Vec<Delivery>,
    /// True if further events were not examined.
    more: bool,
}

impl Position {
    fn enter(
        log: &mut Log,
        after: u64,
        route: Route,
        state: Option<Snapshot>,
    ) -> Result<(Self, Arc<Notify>), WatchError> {
        let expired = WatchError::Expired { requested: after, oldest: log.window.floor() };
        let ready = log.revision > 0;
        let first = log.window.after(after).filter(|_| ready).ok_or(expired)?;
        let past = first..log.window.next();
        let (cursor, wake) = log.buckets.join(route);
        if let Some(state) = state {
            log.begin_sending(state);
        }
        Ok((Self { epoch: log.epoch, after, past, cursor, reached: after.min(log.revision) }, wake))
    }

    /// Advances over at most one batch of events. Returns whether more events follow.
    fn advance(&mut self, log: &Log, events: &mut Vec<Arc<Event>>) -> Result<bool, End> {
        if log.closed {
            return Err(End::Closed);
        }
        if log.epoch != self.epoch {
            return Err(End::Expired);
        }
        while events.len() < BATCH && !self.past.is_empty() {
            events.push(Arc::clone(log.window.get(self.past.start).ok_or(End::Expired)?));
            self.past.start += 1;
        }
        if !log.buckets.read(&mut self.cursor, &log.window, BATCH - events.len(), events) {
            return Err(End::Expired);
        }
        let next = Some(self.past.start).filter(|_| !self.past.is_empty());
        let next = next.or_else(|| log.buckets.peek(self.cursor));
        // The next event may have the same revision as the last event taken.
        self.reached = match next {
            Some(seq) => log.window.get(seq).ok_or(End::Expired)?.revision() - 1,
            None => log.revision,
        };
        Ok(next.is_some())
    }
}

async fn elapsed(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

/// Returns the time of the next timer: the next bookmark, the bookmark before the deadline, or the deadline.
fn next_timer(bookmarks: bool, deadline: Option<Instant>) -> Option<Instant> {
    let now = Instant::now();
    let regular = bookmarks.then(|| now + BOOKMARK_INTERVAL);
    let last = deadline.and_then(|at| at.checked_sub(BOOKMARK_LEAD)).filter(|at| bookmarks && *at > now);
    [regular, last, deadline].into_iter().flatten().min()
}

/// Maximum number of events in one step.
const BATCH: usize = 128;

/// Interval of bookmarks (upstream's value).
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);

/// Time between the last bookmark and the deadline (upstream's value).
const BOOKMARK_LEAD: Duration = Duration::from_secs(2);
