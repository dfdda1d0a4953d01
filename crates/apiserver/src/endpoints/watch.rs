//! watch: a cursor in the watch cache's history, as a stream of frames.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use nave_cacher::{End, Step, WatchError, WatchRequest, WatchStart, Watcher};
use nave_machinery::options::ListOptions;
use nave_machinery::{Reason, Status, Value};
use rand::Rng;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Negotiation};
use super::frames::Frames;
use super::{Endpoint, selection};
use crate::request_info::ResourceRequest;

/// The annotation of the bookmark after which a watch's initial state is complete.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

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
/// # Errors
/// 400 and 422 for what cannot be asked, 410 for a revision that history does not reach back to, 504 for one that
/// does not come.
pub async fn watch(
    endpoint: &Endpoint,
    request: &ResourceRequest,
    options: &ListOptions,
    negotiation: &Negotiation,
    watches: &Watches,
) -> Result<Answer, Status> {
    let frames = Frames::new(endpoint.clone(), negotiation)?;
    let storage = endpoint.storage()?;
    let cacher = storage.cacher();
    let filter = selection::filter(&endpoint.def, request, options)?;
    let initial = match (options.send_initial_events, options.resource_version) {
        // Without a revision, or with 0, a watch begins with the state.
        (Some(initial), _) => initial,
        (None, version) => version.unwrap_or(0) == 0,
    };
    let start = if initial {
        let revision = match options.resource_version {
            None => storage.current_revision().await?,
            Some(revision) => revision,
        };
        storage.wait_until(revision).await?;
        WatchStart::State(cacher.snapshot())
    } else {
        let revision = match options.resource_version {
            None | Some(0) => storage.current_revision().await?,
            Some(revision) => revision,
        };
        cacher.wait_ready().await;
        WatchStart::After(revision)
    };
    let asked = options.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let time = asked.unwrap_or_else(|| watches.min_time.mul_f64(1.0 + rand::rng().random::<f64>()));
    let deadline = Instant::now().checked_add(time);
    let bookmarks = options.allow_watch_bookmarks;
    let watcher = cacher.watch(WatchRequest { start, filter, bookmarks, deadline }).map_err(
        |WatchError::Expired { requested, oldest }| {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        },
    )?;
    let marks_end = bookmarks && options.send_initial_events == Some(true);
    let content_type = frames.content_type();
    let watching = Watching { watcher, frames, marks_end, closing: watches.closing.clone(), ended: false };
    let chunks = stream::unfold(watching, |mut watching| async {
        let chunk = watching.next_chunk().await?;
        Some((chunk, watching))
    });
    Ok(Answer::stream(content_type, chunks))
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
                Step::InitialEventsEnd(revision) if self.marks_end => {
                    let annotations = json!({INITIAL_EVENTS_END: "true"});
                    self.frames.bookmark(&bookmark(self.frames.endpoint(), revision, Some(annotations)))
                }
                Step::InitialEventsEnd(_) => continue,
                Step::Bookmark(revision) => {
                    self.frames.bookmark(&bookmark(self.frames.endpoint(), revision, None))
                }
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

/// The object of a bookmark: nothing but a kind, a revision and annotations.
fn bookmark(endpoint: &Endpoint, revision: u64, annotations: Option<Value>) -> Value {
    let gvk = endpoint.gvk();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations;
    }
    json!({"kind": gvk.kind, "apiVersion": gvk.group_version().to_string(), "metadata": metadata})
}
