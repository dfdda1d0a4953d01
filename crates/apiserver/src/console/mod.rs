//! The console: a read-only page at `/console/` that shows the server at work.
//!
//! ```text
//! browser ─→ /console/, /console/NAME   static files, public    files
//!         ├→ /console/stream            one snapshot a second   sampler ─→ latest ─→ viewers
//!         └→ /console/audit             the latest audit events, which the auditor keeps
//! ```
//!
//! | file | responsibility |
//! | --- | --- |
//! | `files.rs` | the files of the page, with their security headers |
//! | `activity.rs` | requests by verb and by user, counted only while somebody looks |
//! | `families.rs` | values of metrics and their increase |
//! | `snapshot.rs` | the types that the page gets |
//! | `span.rs` | two samples and the rates between them |
//! | `optional.rs` | the parts that a server may lack |
//! | `sampler.rs` | builds a snapshot from the metrics, the caches and the store |
//!
//! A browser cannot send a bearer token when it opens a page. So the files need no credentials: they are constant and
//! contain no data. All data comes from `/console/stream`, which is authenticated and authorized as every request (the
//! verb `get` of the non-resource URL `/console/stream`). The page sends the token that its user has typed, or the
//! browser sends a client certificate. A stream ends after [`STREAM_TIME`], so that rights are checked again.
//!
//! Nothing is sampled while nobody looks. One sampler serves all viewers. A viewer that reads slowly misses snapshots,
//! and none is queued for it.

mod activity;
mod families;
mod files;
mod optional;
mod sampler;
mod snapshot;
mod span;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Response, header};
use nave_audit::{Auditor, RecentEvent};
use nave_flowcontrol::Controller;
use nave_machinery::Status;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use self::activity::Activity;
use self::files::PublicFiles;
use self::sampler::Sampler;
use crate::body::ResponseBody;
use crate::catalog::Catalogs;
use crate::draining::Closing;
use crate::metrics::Metrics;
use crate::raw_response;
use crate::request_info::RequestInfo;

/// Time between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of streams, and of those of one user. Further ones get 429.
const MAX_VIEWERS: usize = 32;
const MAX_VIEWERS_OF_USER: usize = 4;
/// Maximum duration of a stream.
const STREAM_TIME: Duration = Duration::from_mins(5);

/// The page and its stream of snapshots.
pub(crate) struct Console {
    files: PublicFiles,
    /// Counts requests while somebody looks.
    pub(crate) activity: Activity,
    viewers: Viewers,
    /// The latest event of the stream; `None` while nobody looks.
    latest: watch::Sender<Option<Bytes>>,
    /// Wakes the sampler for the first viewer.
    opened: Notify,
    /// Cancelled when the server shuts down.
    closing: Closing,
    /// Keeps the latest audit events; `None` if the server does not audit.
    auditor: Option<Arc<Auditor>>,
}

/// The latest audit events; `None` if the server does not audit.
#[derive(Serialize)]
struct AuditEvents {
    events: Option<Vec<RecentEvent>>,
}

impl Console {
    pub(crate) fn new(closing: Closing, auditor: Option<Arc<Auditor>>) -> Self {
        Self {
            files: PublicFiles::default(),
            activity: Activity::default(),
            viewers: Viewers::default(),
            latest: watch::Sender::new(None),
            opened: Notify::new(),
            closing,
            auditor,
        }
    }

    /// Returns the static file that a request asks for; `None` for all other requests.
    pub(crate) fn public_file(
        &self,
        info: &RequestInfo,
        headers: &HeaderMap,
    ) -> Option<Response<ResponseBody>> {
        self.files.answer(info, headers)
    }

    /// Opens a stream of snapshots, as Server-Sent Events.
    ///
    /// # Errors
    /// 429 if too many streams are open.
    pub(crate) fn stream(&self, user: &str) -> Result<Response<ResponseBody>, Status> {
        let place = self.viewers.enter(user).ok_or_else(|| {
            Status::too_many_requests("too many viewers of the console, please try again later", 10)
        })?;
        let mut latest = self.latest.subscribe();
        latest.mark_changed();
        self.opened.notify_one();
        let events = stream::unfold((latest, place), async |(mut latest, place)| {
            loop {
                latest.changed().await.ok()?;
                let event = latest.borrow_and_update().clone();
                if let Some(event) = event {
                    return Some((event, (latest, place)));
                }
            }
        });
        let closing = self.closing.clone();
        let end = Box::pin(async move {
            // Either outcome ends the stream.
            let _ = tokio::time::timeout(STREAM_TIME, closing.ended(0.0)).await;
        });
        let mut response = raw_response::stream("text/event-stream", events.take_until(end));
        raw_response::set_header(&mut response, header::CACHE_CONTROL, "no-store");
        raw_response::set_header(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        Ok(response)
    }

    /// Returns the latest audit events, for `/console/audit`: a path of its own, because a user may see the state of the
    /// server and not the requests of others.
    pub(crate) fn audit(&self) -> Response<ResponseBody> {
        let events = self.auditor.as_ref().map(|auditor| auditor.recent());
        let mut response = raw_response::json(&AuditEvents { events });
        raw_response::set_header(&mut response, header::CACHE_CONTROL, "no-store");
        raw_response::set_header(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    }

    /// Publishes a snapshot every second while somebody looks. Never returns.
    pub(crate) async fn run(
        &self,
        metrics: &Arc<Metrics>,
        catalogs: &Catalogs,
        controller: Option<&Controller>,
    ) -> Infallible {
        loop {
            if self.latest.receiver_count() == 0 {
                self.opened.notified().await;
            }
            self.activity.start();
            let mut sampler = Sampler::default();
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.latest.receiver_count() > 0 {
                ticks.tick().await;
                let snapshot = sampler.sample(metrics, catalogs, controller, self.activity.take()).await;
                self.latest.send_replace(Some(snapshot.event()));
            }
            self.activity.stop();
            self.latest.send_replace(None);
        }
    }

    /// Returns the number of open streams.
    #[cfg(test)]
    fn viewers(&self) -> usize {
        self.viewers.0.lock().values().sum()
    }
}

/// The numbers of open streams by user.
#[derive(Clone, Default)]
struct Viewers(Arc<Mutex<HashMap<String, usize>>>);

impl Viewers {
    /// Takes a place for a stream of a user; `None` if there is none.
    fn enter(&self, user: &str) -> Option<Place> {
        let mut open = self.0.lock();
        if open.values().sum::<usize>() >= MAX_VIEWERS
            || open.get(user).is_some_and(|own| *own >= MAX_VIEWERS_OF_USER)
        {
            return None;
        }
        *open.entry(user.to_owned()).or_default() += 1;
        Some(Place { viewers: self.clone(), user: user.to_owned() })
    }
}

/// The place of a stream, given back on drop.
struct Place {
    viewers: Viewers,
    user: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.viewers.0.lock();
        if let Some(own) = open.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests;
