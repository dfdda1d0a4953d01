//! Keeping up with the objects of a resource within the process: for what needs them in an arrangement of its own, and
//! no copy of them.

use std::sync::Arc;

use nave_cacher::{CachedObject, Cacher, Delivery, End, Filter, Step, WatchRequest, WatchStart};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What keeps up with the objects of a resource. Its methods are called one at a time, in order.
pub trait Follower: Send + Sync + 'static {
    /// These are all objects there are; whatever else was known of is gone.
    fn replace(&self, objects: &[Arc<CachedObject>]);

    /// These changes happened, in this order.
    fn apply(&self, changes: &[Delivery]);
}

/// A follower at work; it stops when this is dropped.
#[derive(Debug)]
pub struct Following {
    task: AbortHandle,
    synced: watch::Receiver<bool>,
}

impl Following {
    /// Starts to tell the follower what is in a watch cache. Must be called within a Tokio runtime.
    pub fn start(cacher: Arc<Cacher>, follower: Arc<dyn Follower>) -> Self {
        let (sender, synced) = watch::channel(false);
        Self { task: tokio::spawn(follow(cacher, follower, sender)).abort_handle(), synced }
    }

    /// Waits until the follower has been told of all objects there were at the start.
    pub async fn synced(&self) {
        // An error would mean that the task is gone, with the watch cache: there is nothing to wait for.
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches from the present state on; where the watch is lost it begins again with the state that is then.
async fn follow(cacher: Arc<Cacher>, follower: Arc<dyn Follower>, synced: watch::Sender<bool>) {
    loop {
        cacher.wait_ready().await;
        let snapshot = cacher.snapshot();
        let start = WatchStart::After(snapshot.revision());
        let request = WatchRequest { start, filter: Filter::all(), bookmarks: false, deadline: None };
        let Ok(mut watcher) = cacher.watch(request) else { continue };
        follower.replace(&snapshot.range("", None).cloned().collect::<Vec<_>>());
        synced.send_replace(true);
        loop {
            match watcher.next().await {
                Step::Events(events) => follower.apply(&events),
                Step::InitialEventsEnd(_) | Step::Bookmark(_) => {}
                Step::End(End::Closed) => return,
                Step::End(End::Expired | End::TimedOut) => break,
            }
        }
        tracing::info!(resource = %cacher.config().resource, "lost the history in between: reads all objects anew");
    }
}
