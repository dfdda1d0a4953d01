//! A fake in-memory server with one resource. It breaks connections and drops its history on demand.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use nave_client::{
    ListOptions, ListWatchError, ListerWatcher, Object, Page, WatchEvent, WatchOptions, WatchStart,
    WatchStream,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::objects::labelled;

/// The server. Clones share its state.
#[derive(Clone)]
pub(crate) struct FakeServer {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    revision: u64,
    /// The changes after `compacted`.
    log: Vec<(u64, Logged)>,
    compacted: u64,
    uids: u64,
    /// Watches of connections with a lower number have ended.
    connection: u64,
    /// The revision at which each connection ended.
    ends: Vec<u64>,
    /// True if connections end normally instead of breaking.
    ends_normally: bool,
    is_cut_off: bool,
    streams_lists: bool,
    /// The errors to return from the next lists, in reverse order.
    list_errors: Vec<ListWatchError>,
    /// The errors to return from the next watches, in reverse order.
    watch_errors: Vec<ListWatchError>,
    /// The number of pages after which the continue token expires.
    pages_until_expired: Option<usize>,
    requests: Vec<String>,
}

#[derive(Clone)]
enum Logged {
    Added(Object),
    Modified(Object),
    Deleted(Object),
    Bookmark,
    Error,
}

impl FakeServer {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(()) }
    }

    pub(crate) fn streaming() -> Self {
        let server = Self::new();
        server.state.lock().streams_lists = true;
        server
    }

    /// Creates or changes an object.
    pub(crate) fn set(&self, key: &str, label: &str) {
        self.change(|state| {
            let known = state.objects.get(key).map(|object| object.uid().to_owned());
            let uid = known.clone().unwrap_or_else(|| {
                state.uids += 1;
                format!("uid-{}", state.uids)
            });
            let object = labelled(key, &uid, state.revision, label);
            state.objects.insert(key.to_owned(), object.clone());
            if known.is_some() { Logged::Modified(object) } else { Logged::Added(object) }
        });
    }

    pub(crate) fn delete(&self, key: &str) {
        if !self.state.lock().objects.contains_key(key) {
            return;
        }
        self.change(|state| {
            let last = state.objects.remove(key).unwrap();
            let label = last.label("colour").unwrap_or_default().to_owned();
            Logged::Deleted(labelled(key, last.uid(), state.revision, &label))
        });
    }

    /// Advances the revision, like a change of another resource.
    pub(crate) fn bookmark(&self) {
        self.change(|_| Logged::Bookmark);
    }

    /// Ends all running watches with 410.
    pub(crate) fn fail_watches(&self) {
        self.change(|_| Logged::Error);
    }

    /// Drops the history.
    pub(crate) fn compact(&self) {
        let mut state = self.state.lock();
        state.compacted = state.revision;
        state.log.clear();
    }

    /// Ends all connections, normally if `in_peace`, otherwise by breaking them.
    pub(crate) fn end_watches(&self, in_peace: bool) {
        let mut state = self.state.lock();
        state.connection += 1;
        let revision = state.revision;
        state.ends.push(revision);
        state.ends_normally = in_peace;
        drop(state);
        self.changed.send_replace(());
    }

    /// Breaks all connections and refuses new ones, or accepts connections again.
    pub(crate) fn cut_off(&self, is_cut_off: bool) {
        self.state.lock().is_cut_off = is_cut_off;
        if is_cut_off {
            self.end_watches(false);
        }
    }

    pub(crate) fn fail_lists(&self, errors: impl IntoIterator<Item = ListWatchError>) {
        let mut errors: Vec<_> = errors.into_iter().collect();
        errors.reverse();
        self.state.lock().list_errors = errors;
    }

    pub(crate) fn fail_watch(&self, error: ListWatchError) {
        self.state.lock().watch_errors.push(error);
    }

    pub(crate) fn expire_after_pages(&self, pages: usize) {
        self.state.lock().pages_until_expired = Some(pages);
    }

    pub(crate) fn stop_streaming_lists(&self) {
        self.state.lock().streams_lists = false;
    }

    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    /// Returns the key, UID and version of each object.
    pub(crate) fn objects(&self) -> Vec<String> {
        self.state.lock().objects.values().map(|object| format!("{} {object:?}", object.uid())).collect()
    }

    /// Returns the requests since the last call of this method.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().requests)
    }

    fn change(&self, change: impl FnOnce(&mut State) -> Logged) {
        let mut state = self.state.lock();
        state.revision += 1;
        let logged = change(&mut state);
        let revision = state.revision;
        state.log.push((revision, logged));
        drop(state);
        self.changed.send_replace(());
    }

    fn next_events(&self, connection: u64, position: &mut u64) -> Vec<Result<WatchEvent, ListWatchError>> {
        let state = self.state.lock();
        if *position < state.compacted {
            return vec![Err(ListWatchError::Expired("the watch fell behind".into()))];
        }
        let end = state.ends.get(connection as usize).copied().unwrap_or(u64::MAX);
        let new = state.log.iter().filter(|(revision, _)| *revision > *position && *revision <= end);
        let mut events: Vec<_> = new.map(|(revision, logged)| event(*revision, logged)).collect();
        *position = (*position).max(state.revision.min(end));
        if state.connection != connection && !state.ends_normally {
            events.push(Err(ListWatchError::Connection("reset".into())));
        }
        events
    }
}

fn event(revision: u64, logged: &Logged) -> Result<WatchEvent, ListWatchError> {
    Ok(match logged.clone() {
        Logged::Added(object) => WatchEvent::Added(object),
        Logged::Modified(object) => WatchEvent::Modified(object),
        Logged::Deleted(object) => WatchEvent::Deleted(object),
        Logged::Bookmark => {
            WatchEvent::Bookmark { resource_version: revision.to_string(), initial_events_end: false }
        }
        Logged::Error => return Err(ListWatchError::Expired("too old".into())),
    })
}

#[async_trait]
impl ListerWatcher for FakeServer {
    async fn list(&self, options: &ListOptions) -> Result<Page, ListWatchError> {
        let mut state = self.state.lock();
        let ListOptions { resource_version, limit, continue_token } = options;
        state.requests.push(format!("list {resource_version:?} {limit} {continue_token:?}"));
        if state.is_cut_off {
            return Err(ListWatchError::Connection("cut off".into()));
        }
        if let Some(error) = state.list_errors.pop() {
            return Err(error);
        }
        if let Some(pages) = state.pages_until_expired.filter(|_| *limit > 0) {
            if pages == 0 {
                return Err(ListWatchError::Expired("the continue token is too old".into()));
            }
            state.pages_until_expired = Some(pages - 1);
        }
        let start = continue_token.parse().unwrap_or(0);
        let size = if *limit == 0 { usize::MAX } else { *limit as usize };
        let items: Vec<_> = state.objects.values().skip(start).take(size).cloned().collect();
        let end = start + items.len();
        let continue_token = if end < state.objects.len() { end.to_string() } else { String::new() };
        Ok(Page { items, resource_version: state.revision.to_string(), continue_token })
    }

    async fn watch(&self, options: &WatchOptions) -> Result<WatchStream, ListWatchError> {
        let mut state = self.state.lock();
        let (position, initial) = match &options.start {
            WatchStart::After(version) => {
                state.requests.push(format!("watch {version:?}"));
                (version.parse::<u64>().unwrap(), Vec::new())
            }
            WatchStart::InitialEvents(version) => {
                state.requests.push(format!("stream {version:?}"));
                if !state.streams_lists && !state.is_cut_off {
                    return Err(ListWatchError::Invalid("sendInitialEvents is forbidden".into()));
                }
                let mut events: Vec<_> = state.objects.values().cloned().map(WatchEvent::Added).collect();
                events.push(WatchEvent::Bookmark {
                    resource_version: state.revision.to_string(),
                    initial_events_end: true,
                });
                (state.revision, events)
            }
        };
        if state.is_cut_off {
            return Err(ListWatchError::Connection("cut off".into()));
        }
        if let Some(error) = state.watch_errors.pop() {
            return Err(error);
        }
        if position < state.compacted {
            return Err(ListWatchError::Expired("too old resource version".into()));
        }
        let (server, connection, changed) = (self.clone(), state.connection, self.changed.subscribe());
        let events = stream::unfold(
            (server, changed, position),
            move |(server, mut changed, mut position)| async move {
                loop {
                    changed.borrow_and_update();
                    let events = server.next_events(connection, &mut position);
                    if !events.is_empty() {
                        return Some((events, (server, changed, position)));
                    }
                    if server.state.lock().connection != connection {
                        return None;
                    }
                    changed.changed().await.ok()?;
                }
            },
        );
        Ok(stream::iter(initial).map(Ok).chain(events.flat_map(stream::iter)).boxed())
    }
}
