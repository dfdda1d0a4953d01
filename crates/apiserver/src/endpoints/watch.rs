//! watch: a cursor in the watch cache's history, as a stream of frames.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use nave_cacher::{End, Step, WatchError, WatchRequest, WatchStart, Watcher};
use nave_machinery::options::ListOptions;
use nave_machinery::{Reason, Status};
use rand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Negotiation};
use super::frames::Frames;
use super::{Endpoint, selection};
use crate::request_info::ResourceRequest;
use crate::storage::ResourceStorage;

/// What all watches of a server have in common.
#[derive(Clone)]
pub struct Watches {
    /// Ends all of them.
    pub closing: CancellationToken,
    /// How long a watch lives that names no time: at least this, at most twice this (`--min-request-timeout`).
    pub min_time: Duration,
}

/// Starts a watch.
///
/// What is wrong with its revision is told in the stream, as upstream does it: an `ERROR` event with 410 for one that
/// history does not reach back to, with 504 for one that does not come.
///
/// # Errors
/// 400 and 422 for what cannot be asked, 429 where there is no state yet.
pub async fn watch(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
    negotiation: &Negotiation,
    watches: &Watches,
) -> Result<Answer, Status> {
    let frames = Frames::new(endpoint.clone(), negotiation)?;
    let storage = endpoint.storage()?;
    let filter = selection::filter(&endpoint.def, request, options)?;
    let asked = options.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let time = asked.unwrap_or_else(|| watches.min_time.mul_f64(1.0 + rand::rng().random::<f64>()));
    let (started, bookmarks) = (Instant::now(), options.allow_watch_bookmarks);
    let deadline = started.checked_add(time);
    storage.wait_until(0).await?;
    let start = start(storage, options).await;
    let watcher = start.and_then(|start| {
        let request = WatchRequest { start, filter, bookmarks, deadline };
        storage.cacher().watch(request).map_err(|WatchError::Expired { requested, oldest }| {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        })
    });
    let content_type = frames.content_type();
    let watcher = match watcher {
        Ok(watcher) => watcher,
        Err(status) => {
            let error = frames.error(&status);
            return Ok(Answer::stream(content_type, stream::once(async { error })));
        }
    };
    let marks_end = bookmarks && options.send_initial_events == Some(true);
    let watching = Watching { watcher, frames, marks_end, closing: watches.closing.clone(), ended: false };
    let chunks = stream::unfold(watching, |mut watching| async {
        let chunk = watching.next_chunk().await?;
        Some((chunk, watching))
    });
    Ok(Answer::stream(content_type, chunks))
}

/// Where a watch starts (upstream: `Cacher.Watch`).
///
/// | `sendInitialEvents` | no revision | `0` | a revision |
/// | --- | --- | --- | --- |
/// | not given | the latest state | any state | after the revision |
/// | true | the latest state | any state | a state not older |
/// | false | after the latest | after any | after the revision |
///
/// # Errors
/// The store's; 504 where a state does not come in time.
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
    frames: Frames,
    marks_end: bool,
    closing: CancellationToken,
    ended: bool,
}

impl Watching {
    /// The next bytes of the watch; `None` at its end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        while !self.ended {
            let step = tokio::select! {
                biased;
                step = self.watcher.next() => step,
                () = self.closing.cancelled() => return None,
            };
            let frame = match step {
                Step::Events(deliveries) => self.frames.events(&deliveries),
                Step::InitialEventsEnd(revision) if self.marks_end => self.frames.bookmark(revision, true),
                Step::InitialEventsEnd(_) => continue,
                Step::Bookmark(revision) => self.frames.bookmark(revision, false),
                Step::End(End::Expired) => Err(Status::failure(
                    410,
                    Reason::Expired,
                    "the watch fell behind the history that is kept",
                )),
                Step::End(End::TimedOut | End::Closed) => return None,
            };
            match frame {
                Ok(frame) => return Some(frame),
                Err(status) => {
                    self.ended = true;
                    return Some(self.frames.error(&status));
                }
            }
        }
        None
    }
}
