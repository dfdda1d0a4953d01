//! Watches: events from the watch cache, sent as a stream of frames in a chunked response or in WebSocket messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::ready;
use futures_util::stream::{self, Stream, StreamExt};
use http::Response;
use nave_cacher::{Delivery, End, Histogram, WatchError, WatchItem, WatchRequest, WatchStart, Watcher};
use nave_codec::negotiate::Format;
use nave_flowcontrol::Seat;
use nave_machinery::options::ListOptions;
use nave_machinery::{Reason, Status};
use rand::Rng;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::Endpoint;
use super::frames::{self, Frames};
use super::selection::Selection;
use super::served_selector::ServedSelector;
use crate::body::{Pieces, ResponseBody};
use crate::draining::Closing;
use crate::negotiation::Negotiation;
use crate::raw_response;
use crate::request_info::ResourceRequest;
use crate::storage::ResourceStorage;

/// The settings that all watches of a server share.
#[derive(Clone)]
pub struct Watches {
    /// The end of all watches at shutdown.
    pub closing: Closing,
    /// Minimum duration of a watch without a timeout (`--min-request-timeout`). The duration is random, up to twice the
    /// minimum.
    pub min_time: Duration,
}

/// Statistics of the watches of a resource in one version.
#[derive(Debug)]
pub struct WatchStats {
    /// Sizes of events, in bytes.
    pub event_sizes: Histogram,
    /// Duration of the initial state of streaming lists, by scope.
    lists: [Histogram; 3],
}

impl WatchStats {
    /// Returns the duration of the initial state of streaming lists, in seconds, by scope.
    pub fn lists(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        SCOPES.into_iter().zip(&self.lists)
    }
}

impl Default for WatchStats {
    fn default() -> Self {
        let lists = SCOPES.map(|_| Histogram::new(&LIST_TIMES));
        Self { event_sizes: Histogram::new(&EVENT_SIZES), lists }
    }
}

/// A streaming list whose initial events have not all been sent yet; its duration is recorded when they have been sent.
struct StreamingList {
    started: Instant,
    scope: usize,
}

impl StreamingList {
    fn new(request: &ResourceRequest, started: Instant) -> Self {
        let scope = match (request.name.is_empty(), request.namespace.is_empty()) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
        Self { started, scope }
    }

    fn completed(self, stats: &WatchStats) {
        if let Some(times) = stats.lists.get(self.scope) {
            times.observe_time(self.started.elapsed());
        }
    }
}

/// The scopes of watches.
const SCOPES: [&str; 3] = ["cluster", "namespace", "resource"];

/// The buckets of upstream's `apiserver_watch_events_sizes`, in bytes.
const EVENT_SIZES: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0];

/// The buckets of upstream's `apiserver_watch_list_duration_seconds`.
const LIST_TIMES: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// A watch that has been started.
pub struct Watch {
    content_type: &'static str,
    format: Format,
    /// The watch, or the frame of the error that ends it.
    started: Result<Box<Watching>, Bytes>,
}

impl Watch {
    /// Returns the watch as a chunked response.
    pub fn into_response(self) -> Response<ResponseBody> {
        raw_response::stream(self.content_type, self.into_chunks())
    }

    /// Returns the watch as messages, one per event (upstream: `WatchServer.HandleWS`).
    pub fn into_messages(self) -> impl Stream<Item = Vec<Message>> + Send {
        let format = self.format;
        self.into_chunks()
            .map(move |chunk| chunk.into_iter().map(|frame| message(format, frame)).collect::<Vec<_>>())
    }

    fn into_chunks(self) -> impl Stream<Item = Pieces> + Send {
        match self.started {
            Err(error) => stream::once(ready(Pieces::from(error))).left_stream(),
            Ok(watching) => stream::unfold(watching, |mut watching| async {
                let chunk = watching.next_chunk().await?;
                Some((chunk, watching))
            })
            .right_stream(),
        }
    }
}

/// Returns the message of an event's frame: a text message for JSON, a binary message for protobuf. Messages have their
/// own length, so the length prefix is omitted.
fn message(format: Format, mut frame: Bytes) -> Message {
    if format == Format::Protobuf {
        frame.advance(frames::LENGTH_PREFIX.min(frame.len()));
        return Message::Binary(frame);
    }
    Utf8Bytes::try_from(frame.clone()).map_or(Message::Binary(frame), Message::Text)
}

/// Starts a watch. Holds the seats of its initialization until the initial events have been taken.
///
/// Errors of the requested revision are sent in the stream as an `ERROR` event, as upstream: 410 if it is older than
/// the history, 504 if it is not reached in time.
///
/// # Errors
/// 400 or 422 for invalid options, 429 if the cache is not initialized yet.
pub async fn watch(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
    negotiation: &Negotiation,
    watches: &Watches,
    initialization: Option<Seat>,
) -> Result<Watch, Status> {
    let frames = Frames::new(endpoint.clone(), negotiation)?;
    let storage = endpoint.storage()?;
    let Selection { cached: filter, served } = Selection::new(endpoint, request, options)?;
    let requested = options.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let time = requested.unwrap_or_else(|| watches.min_time.mul_f64(1.0 + rand::rng().random::<f64>()));
    let (started, bookmarks) = (Instant::now(), options.allow_watch_bookmarks);
    let deadline = started.checked_add(time);
    storage.wait_until(0).await?;
    let start = start(storage, options).await;
    let initialization = initialization.filter(|_| matches!(start, Ok(WatchStart::State(_))));
    let watcher = start.and_then(|start| {
        let request = WatchRequest { start, filter, bookmarks, deadline };
        storage.cacher().watch(request).map_err(|WatchError::Expired { requested, oldest }| {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        })
    });
    let (content_type, format) = (frames.content_type(), frames.format());
    let streams = bookmarks && options.send_initial_events == Some(true);
    let started = match watcher {
        Err(status) => Err(frames.error(&status)),
        Ok(watcher) => Ok(Box::new(Watching {
            watcher,
            endpoint: endpoint.clone(),
            served,
            frames,
            taken: Vec::new().into_iter(),
            failed: None,
            stats: Arc::clone(&endpoint.watched),
            list: streams.then(|| StreamingList::new(request, started)),
            initialization,
            closing: watches.closing.clone(),
            closing_share: rand::rng().random(),
            ended: false,
        })),
    };
    Ok(Watch { content_type, format, started })
}

/// Determines where a watch starts (upstream: `Cacher.Watch`).
///
/// | `sendInitialEvents` | no revision | `0` | a revision |
/// | --- | --- | --- | --- |
/// | absent | the latest state | any state | after the revision |
/// | true | the latest state | any state | a state not older than the revision |
/// | false | after the latest state | after any state | after the revision |
///
/// # Errors
/// The error of the store, or 504 if a state is not reached in time.
async fn start(storage: &ResourceStorage, options: &ListOptions) -> Result<WatchStart, Status> {
    let cacher = storage.cacher();
    let revision = match options.resource_version {
        None => storage.current_revision().await?,
        Some(revision) => revision,
    };
    let initial = options.send_initial_events.unwrap_or(options.resource_version.unwrap_or(0) == 0);
    if initial {
        storage.wait_until(revision).await?;
        return Ok(WatchStart::State(cacher.snapshot()));
    }
    Ok(WatchStart::After(if revision == 0 { cacher.revision() } else { revision }))
}

struct Watching {
    watcher: Watcher,
    endpoint: Endpoint,
    /// The requirements that the watch cache does not decide.
    served: ServedSelector,
    frames: Frames,
    /// Events taken from the cache that have not been sent yet.
    taken: std::vec::IntoIter<Delivery>,
    /// The error that follows the taken events.
    failed: Option<Status>,
    stats: Arc<WatchStats>,
    /// The streaming list, until its initial events are complete.
    list: Option<StreamingList>,
    /// The seats, until the initial events have been taken.
    initialization: Option<Seat>,
    closing: Closing,
    /// The moment of the end within the grace period of a shutdown, from 0 to 1.
    closing_share: f64,
    ended: bool,
}

impl Watching {
    /// Returns the next bytes of the watch; `None` at its end.
    async fn next_chunk(&mut self) -> Option<Pieces> {
        while !self.ended {
            if let Some(frames) = self.next_frames().await {
                return Some(self.or_error(frames));
            }
            if let Some(status) = self.failed.take() {
                return Some(self.or_error(Err(status)));
            }
            let step = tokio::select! {
                biased;
                step = self.watcher.next() => step,
                () = self.closing.ended(self.closing_share) => return None,
            };
            let frame = match step {
                WatchItem::Events(deliveries) => {
                    self.take(deliveries).await;
                    continue;
                }
                WatchItem::InitialEventsEnd(revision) => {
                    self.initialization = None;
                    let Some(list) = self.list.take() else { continue };
                    list.completed(&self.stats);
                    self.frames.bookmark(revision, true).map(Pieces::from)
                }
                WatchItem::Bookmark(revision) => self.frames.bookmark(revision, false).map(Pieces::from),
                WatchItem::End(End::Expired) => Err(Status::failure(
                    410,
                    Reason::Expired,
                    "the watch fell behind the history that is kept",
                )),
                WatchItem::End(End::TimedOut | End::Closed) => return None,
            };
            return Some(self.or_error(frame));
        }
        None
    }

    /// Takes the events that the watch selects. Ends the watch instead when the server ends all watches.
    async fn take(&mut self, deliveries: Vec<Delivery>) {
        if self.served.is_empty() {
            self.taken = deliveries.into_iter();
            return;
        }
        tokio::select! {
            biased;
            () = self.closing.ended(self.closing_share) => self.ended = true,
            (taken, failed) = self.served.narrow(&self.endpoint, &deliveries) => {
                self.taken = taken.into_iter();
                self.failed = failed;
            }
        }
    }

    /// Returns the frames of the next taken events; `None` if all have been sent, or when the server ends all watches.
    async fn next_frames(&mut self) -> Option<Result<Pieces, Status>> {
        if self.taken.as_slice().is_empty() {
            return None;
        }
        if !self.frames.need_webhook() {
            return Some(self.frames.events(&mut self.taken));
        }
        tokio::select! {
            biased;
            () = self.closing.ended(self.closing_share) => {
                self.ended = true;
                None
            }
            frames = self.frames.converted_events(&mut self.taken) => Some(frames),
        }
    }

    fn or_error(&mut self, frames: Result<Pieces, Status>) -> Pieces {
        frames.unwrap_or_else(|status| {
            self.ended = true;
            self.frames.error(&status).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_event_without_a_length_prefix() {
        let json = message(Format::Json, Bytes::from_static(b"{\"type\":\"ADDED\"}\n"));
        assert_eq!(json, Message::Text("{\"type\":\"ADDED\"}\n".into()));
        let protobuf = message(Format::Protobuf, Bytes::from_static(b"\0\0\0\x03abc"));
        assert_eq!(protobuf, Message::Binary(Bytes::from_static(b"abc")));
    }
}
