//! Active readers: watches and paged lists. Each step is compared with the oracle.

use std::sync::Arc;

use futures_util::FutureExt;
use nave_cacher::{Cacher, Delivery, End, EventType, WatchItem, Watcher};
use tokio::time::Instant;

use crate::WINDOW;
use crate::oracle::{ExpectedEvent, Model, Oracle};
use crate::selection::Selection;

/// A watch and the events it has delivered.
pub(crate) struct Watch {
    pub(crate) watcher: Watcher,
    pub(crate) selection: Selection,
    /// The revision after which the watch starts.
    pub(crate) after: u64,
    /// Initial objects that have not been delivered.
    pub(crate) initial: Vec<Model>,
    pub(crate) bookmarks: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) delivered: Vec<ExpectedEvent>,
    pub(crate) ended: bool,
    /// Number of lists that the cache had made when the watch started.
    pub(crate) lists: u64,
}

impl Watch {
    /// Takes at most `steps` steps.
    pub(crate) fn poll(&mut self, oracle: &Oracle<'_>, steps: usize, lists: u64) {
        for _ in 0..steps {
            // A watcher that skips events that do not match yields occasionally.
            let ready = (0..50).find_map(|_| self.watcher.next().now_or_never());
            match ready {
                None => return,
                Some(WatchItem::Events(deliveries)) => {
                    for delivery in &deliveries {
                        self.check(delivery, oracle);
                    }
                }
                Some(WatchItem::InitialEventsEnd(revision)) => {
                    assert_eq!((revision, self.initial.len()), (self.after, 0));
                }
                Some(WatchItem::Bookmark(revision)) => {
                    assert!(self.bookmarks && revision >= self.after);
                    self.check_complete(oracle, revision);
                }
                Some(WatchItem::End(end)) => return self.check_end(end, oracle, lists),
            }
            self.check_complete(oracle, self.watcher.reached());
        }
    }

    fn check(&mut self, delivery: &Delivery, oracle: &Oracle<'_>) {
        assert!(!self.ended, "no event after the end");
        let object = delivery.object();
        let frame = format!(
            "{{\"type\":\"{}\",\"object\":{}}}\n",
            delivery.kind.as_str(),
            std::str::from_utf8(&object.json()).unwrap()
        );
        assert_eq!(delivery.json_frame(), frame.as_bytes());
        let object = Model::from_object(&object);
        if !self.initial.is_empty() {
            assert_eq!((delivery.kind, object), (EventType::Added, self.initial.remove(0)));
            return;
        }
        let expected = oracle.events_after(self.after, &self.selection);
        let delivered = (delivery.kind, object);
        assert_eq!(Some(&delivered), expected.get(self.delivered.len()));
        self.delivered.push(delivered);
    }

    /// Checks that all events up to `revision` have been delivered.
    fn check_complete(&self, oracle: &Oracle<'_>, revision: u64) {
        let expected = oracle.events_after(self.after, &self.selection);
        let due = expected.iter().filter(|(_, model)| model.revision <= revision).count();
        assert!(self.delivered.len() >= due || !self.initial.is_empty(), "{revision} reported too early");
    }

    /// Checks that the watch ended for a valid reason: the deadline, lost history, or more events than the window
    /// holds.
    fn check_end(&mut self, end: End, oracle: &Oracle<'_>, lists: u64) {
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let behind = oracle.events_after(self.watcher.reached(), &Selection::default()).len();
        let reason = match end {
            End::TimedOut => late,
            End::Expired => lists > self.lists || behind > WINDOW.min,
            End::Closed => false,
        };
        assert!(self.ended || reason, "{end:?}, {behind} events behind");
        self.ended = true;
    }
}

/// A paged list. All pages have one revision.
pub(crate) struct Pager {
    selection: Selection,
    limit: usize,
    revision: u64,
    last: Option<Arc<str>>,
    listed: Vec<Model>,
}

impl Pager {
    /// Reads the first page of the current state.
    pub(crate) fn start(cacher: &Cacher, oracle: &Oracle<'_>, selection: Selection, limit: usize) -> Self {
        let revision = cacher.snapshot().revision();
        let mut pager = Self { selection, limit, revision, last: None, listed: Vec::new() };
        let snapshot = cacher.snapshot();
        pager.read(&snapshot, oracle);
        cacher.keep(&snapshot);
        pager
    }

    /// Reads the next page. Returns false after the last page or if the state is no longer in memory.
    pub(crate) fn next(&mut self, cacher: &Cacher, oracle: &Oracle<'_>) -> bool {
        let oldest = cacher.introspect().window.oldest;
        let Some(snapshot) = cacher.snapshot_at(self.revision) else {
            assert!(self.revision < oldest, "{} lies in the window from {oldest} on", self.revision);
            return false;
        };
        assert_eq!(snapshot.revision(), self.revision);
        self.read(&snapshot, oracle)
    }

    fn read(&mut self, snapshot: &nave_cacher::Snapshot, oracle: &Oracle<'_>) -> bool {
        let filter = self.selection.filter();
        let mut selected = snapshot.select(&filter, self.last.as_deref());
        let page: Vec<_> =
            selected.by_ref().take(self.limit).map(|object| Model::from_object(object)).collect();
        assert!(selected.examined() >= page.len());
        let expected = oracle.selected_at(self.revision, &self.selection);
        let rest = &expected[self.listed.len()..];
        assert_eq!(page, rest[..rest.len().min(self.limit)]);
        self.last = page.last().map(|last| Arc::clone(&last.key)).or(self.last.take());
        self.listed.extend(page);
        self.listed.len() < expected.len()
    }
}
