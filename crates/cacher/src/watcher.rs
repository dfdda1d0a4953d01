//! A watch: a position in the log, and a filter.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::buckets::{Place, Route};
use crate::cacher::Shared;
use crate::event::{Delivery, Event};
use crate::filter::Filter;
use crate::log::Log;
use crate::state::Snapshot;

/// Where a watch starts, what it sees and when it is told that it is alive.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Where it starts.
    pub start: WatchStart,
    /// What it sees.
    pub filter: Filter,
    /// Whether to send bookmarks: every minute and two seconds before the deadline.
    pub bookmarks: bool,
    /// When it ends.
    pub deadline: Option<Instant>,
}

/// Where a watch starts.
#[derive(Clone, Debug)]
pub enum WatchStart {
    /// With the first event after this revision, which may lie in the future.
    After(u64),
    /// With the objects of this snapshot as `ADDED`, then [`Step::InitialEventsEnd`], then the events after it.
    State(Snapshot),
}

/// Why a watch cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History does not reach back that far.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired {
        /// The revision asked for.
        requested: u64,
        /// The oldest one possible.
        oldest: u64,
    },
}

/// What comes next in a watch.
#[derive(Debug)]
pub enum Step {
    /// Events, in order, at least one.
    Events(Vec<Delivery>),
    /// The objects there were at the start have all been sent: the state at this revision is complete.
    InitialEventsEnd(u64),
    /// Everything of interest up to this revision has been sent.
    Bookmark(u64),
    /// There will be nothing more.
    End(End),
}

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It fell out of the window, or history was lost: the client must list anew (410 `Expired`).
    Expired,
    /// Its deadline has come.
    TimedOut,
    /// The cache is gone.
    Closed,
}

/// A running watch. It has no queue: a client that does not read costs its position.
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

/// The part of the initial state that is yet to be sent. The log keeps the state itself, for as long as it keeps the
/// history since then.
#[derive(Debug)]
struct Initial {
    revision: u64,
    last: Option<Arc<str>>,
}

/// How far a watcher has come.
#[derive(Debug)]
struct Position {
    epoch: u64,
    /// Events up to this revision are not wanted.
    after: u64,
    /// Sequence numbers of events from before the watcher came, which it takes from the window.
    past: std::ops::Range<u64>,
    /// Its place among the events since.
    place: Place,
    /// Everything of interest up to this revision has been taken.
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
        let route = Route::of(&filter, &shared.layout);
        let (position, wake) = Position::enter(&mut shared.log.write(), after, route, state)?;
        let timer = next_timer(bookmarks, deadline).map(|at| Box::pin(sleep_until(at)));
        Ok(Self { shared, filter, initial, position, wake, bookmarks, deadline, timer, ended: None })
    }

    /// Waits for what comes next. After [`Step::End`] it is that again. Nothing is lost if the future is
    /// dropped before it is ready.
    pub async fn next(&mut self) -> Step {
        if let Some(end) = self.ended.or_else(|| self.overdue()) {
            return self.end(end);
        }
        if let Some(step) = self.next_initial() {
            return step;
        }
        loop {
            let wake = Arc::clone(&self.wake);
            // From here on a wake-up is not missed.
            let woken = wake.notified();
            match self.take() {
                Err(end) => return self.end(end),
                Ok(Taken { deliveries, .. }) if !deliveries.is_empty() => return Step::Events(deliveries),
                // Others' events: go on, after giving way.
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

    /// What has been promised by what was taken so far: everything of interest up to this revision.
    pub fn reached(&self) -> u64 {
        self.position.reached
    }

    fn next_initial(&mut self) -> Option<Step> {
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
            return Some(Step::InitialEventsEnd(revision));
        };
        *last = Some(Arc::clone(latest.key()));
        self.shared.stats.initial_events.add(objects.len());
        Some(Step::Events(objects.into_iter().map(Delivery::initial).collect()))
    }

    /// Takes the next events there are. The lock is held to copy pointers; filters run after.
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

    /// The timer has fired: time for a bookmark, or the end.
    fn tick(&mut self) -> Option<Step> {
        if let Some(end) = self.overdue() {
            return Some(self.end(end));
        }
        self.timer = next_timer(self.bookmarks, self.deadline).map(|at| Box::pin(sleep_until(at)));
        let reached = self.position.reached;
        let due = self.bookmarks && reached >= self.position.after;
        due.then_some(Step::Bookmark(reached))
    }

    fn end(&mut self, end: End) -> Step {
        if end == End::Expired && self.ended.is_none() {
            self.shared.stats.terminated_watchers.add(1);
        }
        self.ended = Some(end);
        Step::End(end)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end_sending();
        self.shared.log.write().buckets.leave(self.position.place);
    }
}

/// What a watcher found.
struct Taken {
    deliveries: Vec<Delivery>,
    /// Whether there were events that it did not look at yet.
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
        let (place, wake) = log.buckets.join(route);
        if let Some(state) = state {
            log.begin_sending(state);
        }
        Ok((Self { epoch: log.epoch, after, past, place, reached: after.min(log.revision) }, wake))
    }

    /// Moves over the next events, at most a batch. True where there are more.
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
        if !log.buckets.read(&mut self.place, &log.window, BATCH - events.len(), events) {
            return Err(End::Expired);
        }
        let next = Some(self.past.start).filter(|_| !self.past.is_empty());
        let next = next.or_else(|| log.buckets.peek(self.place));
        // What is next may share its revision with what was taken.
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

/// When to look up next: for the next bookmark, the one before the deadline, or the deadline.
fn next_timer(bookmarks: bool, deadline: Option<Instant>) -> Option<Instant> {
    let now = Instant::now();
    let regular = bookmarks.then(|| now + BOOKMARK_INTERVAL);
    let last = deadline.and_then(|at| at.checked_sub(BOOKMARK_LEAD)).filter(|at| bookmarks && *at > now);
    [regular, last, deadline].into_iter().flatten().min()
}

/// Events handed over at once.
const BATCH: usize = 128;

/// Time between bookmarks, as upstream's.
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);

/// So long before the deadline the last bookmark is sent, as upstream's.
const BOOKMARK_LEAD: Duration = Duration::from_secs(2);
