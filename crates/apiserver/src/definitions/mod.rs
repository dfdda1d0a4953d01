//! The controller of custom resource definitions (upstream: the controllers of `apiextensions-apiserver`). Accepts
//! their names, serves the established ones, and deletes the objects of deleted ones.
//!
//! | file | contents |
//! | --- | --- |
//! | `mod` | the task that watches the definitions |
//! | `state` | their accepted names and served resources |
//! | `api_services` | the APIServices of their groups |
//! | `cleanup` | the deletion of the objects of a definition that is being deleted |
//!
//! Invariants: only this task replaces the catalog. A resource is in the catalog before its definition has the
//! condition `Established`, and creates are rejected before its objects are deleted. The task can restart from any
//! state.

mod api_services;
mod cleanup;
mod state;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use nave_admission::Chain;
use nave_cacher::{Filter, Snapshot, WatchItem, WatchRequest, WatchStart};
use nave_machinery::packed::Packed;
use nave_machinery::{GroupVersionResource, Status, Value, meta, time};
use nave_resources::ResourceDef;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::state::{Plan, State};
use crate::catalog::Catalogs;
use crate::conversion::Converters;
use crate::endpoints::Endpoint;
use crate::internal::InternalWriter;
use crate::metrics::Metrics;
use crate::storage::ResourceStorage;

/// Pause before a failed write is retried.
const RETRY: Duration = Duration::from_secs(1);

/// Number of concurrent writes, which share commits of the store.
const CONCURRENT_WRITES: usize = 32;

/// The controller of the definitions of one server.
pub struct Definitions {
    catalogs: Catalogs,
    endpoint: Endpoint,
    storage: Arc<ResourceStorage>,
    admission: Arc<Chain>,
    metrics: Arc<Metrics>,
    converters: Converters,
    state: Mutex<State>,
}

impl Definitions {
    /// Creates the controller; `None` if `catalogs` does not serve definitions.
    pub fn new(
        catalogs: Catalogs,
        admission: Arc<Chain>,
        converters: Converters,
        metrics: Arc<Metrics>,
    ) -> Option<Arc<Self>> {
        let resource = GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let endpoint = catalogs.load().endpoint(&resource)?.clone();
        let storage = endpoint.storage.clone()?;
        let state = Mutex::default();
        Some(Arc::new(Self { catalogs, endpoint, storage, admission, metrics, converters, state }))
    }

    /// Serves all custom resources that are defined at start.
    pub async fn load(&self) {
        self.storage.cacher().wait_ready().await;
        self.sync(names(&self.storage.cacher().snapshot())).await;
    }

    /// Watches the definitions. Never returns.
    pub async fn run(self: Arc<Self>) -> Infallible {
        let cacher = self.storage.cacher();
        let mut cleanups = Cleanups::default();
        loop {
            cacher.wait_ready().await;
            let snapshot = cacher.snapshot();
            let start = WatchStart::After(snapshot.revision());
            let request = WatchRequest { start, filter: Filter::all(), bookmarks: false, deadline: None };
            let Ok(mut watcher) = cacher.watch(request) else { continue };
            // Include definitions deleted since the last watch, so that they are no longer served.
            let mut pending = names(&snapshot);
            pending.extend(self.state.lock().await.names());
            let mut due = Some(Instant::now());
            loop {
                tokio::select! {
                    step = watcher.next() => match step {
                        WatchItem::Events(events) => {
                            pending.extend(events.iter().map(|event| event.object().name().to_owned()));
                        }
                        WatchItem::InitialEventsEnd(_) | WatchItem::Bookmark(_) => continue,
                        WatchItem::End(_) => break,
                    },
                    () = wait_until(due) => {}
                    Some(_) = cleanups.tasks.join_next(), if !cleanups.tasks.is_empty() => continue,
                }
                let Outcome { failed, deleting } = self.sync(std::mem::take(&mut pending)).await;
                for name in deleting {
                    cleanups.start(Arc::clone(&self), name);
                }
                due = (!failed.is_empty()).then(|| Instant::now() + RETRY);
                pending = failed;
            }
        }
    }

    /// Updates the catalog, and the status of the named definitions.
    async fn sync(&self, mut names: BTreeSet<String>) -> Outcome {
        let mut outcome = Outcome::default();
        while !names.is_empty() {
            names = self.sync_some(names, &mut outcome).await;
        }
        outcome
    }

    /// Updates the catalog, and the status of some of the named definitions, and returns the others.
    async fn sync_some(&self, names: BTreeSet<String>, outcome: &mut Outcome) -> BTreeSet<String> {
        let mut state = self.state.lock().await;
        let catalog = self.catalogs.load();
        let now = time::now().rfc3339();
        let find = |name: &str| {
            let cached = self.storage.find("", name)?;
            let definition = self.storage.codec().parse_cached(&cached).ok()?;
            let text = cached.packed_json().cloned();
            Some((definition, text.unwrap_or_else(|| Arc::new(Packed::new(&cached.json())))))
        };
        let open =
            |def: Arc<ResourceDef>| catalog.storages().open_one(&def, self.converters.for_resource(&def));
        let is_reserved = |prefix: &str| catalog.registry().is_reserved_prefix(prefix);
        let Plan { groups, opened, closed, writes, deleting, left } =
            state.plan(names, &now, find, is_reserved, open);
        join_all(opened.iter().map(|storage| storage.cacher().wait_ready())).await;
        if !groups.is_empty() {
            let mut next = None;
            for group in &groups {
                let last = next.as_ref().unwrap_or(&*catalog);
                next = Some(last.with_custom(group, &state.served(group)));
            }
            if let Some(next) = next {
                self.catalogs.store(next);
            }
        }
        if !closed.is_empty() {
            let catalog = self.catalogs.load();
            self.metrics
                .retain_resources(|group, version, resource| catalog.serves(group, version, resource));
        }
        // End the watches of removed resources, so that clients start new watches.
        for storage in closed {
            storage.cacher().stop();
        }
        let writes: Vec<BoxFuture<'_, _>> =
            writes.into_iter().map(|definition| self.write_status(definition).boxed()).collect();
        let mut written = stream::iter(writes).buffer_unordered(CONCURRENT_WRITES);
        while let Some((name, written)) = written.next().await {
            if let Err(status) = written
                // After a conflict or deletion, the event of the other write triggers the next sync.
                && !matches!(status.code, 404 | 409)
            {
                tracing::error!(definition = name, error = status.message, "the status cannot be written");
                outcome.failed.insert(name);
            }
        }
        let syncs: Vec<BoxFuture<'_, _>> =
            groups.iter().map(|group| self.sync_api_services(group).boxed()).collect();
        let mut synced = stream::iter(syncs).buffer_unordered(CONCURRENT_WRITES);
        while let Some(synced) = synced.next().await {
            if let Err(status) = synced {
                tracing::error!(error = status.message, "the APIServices of a group cannot be written");
            }
        }
        outcome.deleting.extend(deleting);
        left
    }

    /// Writes a status, and waits until it is in the watch cache. Returns the definition's name and the outcome.
    async fn write_status(&self, definition: Value) -> (String, Result<(), Status>) {
        let name = meta::name(&definition).to_owned();
        let write = async {
            let writer = InternalWriter::new(&self.endpoint, &self.admission);
            // The tree is dropped before the wait.
            let revision = {
                let stored = writer.replace_status(definition).await?;
                meta::resource_version(&stored).parse().unwrap_or(0)
            };
            self.storage.wait_until(revision).await
        };
        (name, write.await)
    }
}

/// The work that remains after a sync.
#[derive(Default)]
struct Outcome {
    /// The definitions whose status could not be written.
    failed: BTreeSet<String>,
    /// The definitions whose objects must be deleted now.
    deleting: Vec<String>,
}

/// The running deletions of objects, one per definition.
#[derive(Default)]
struct Cleanups {
    tasks: JoinSet<()>,
    running: Arc<parking_lot::Mutex<BTreeSet<String>>>,
}

impl Cleanups {
    fn start(&mut self, definitions: Arc<Definitions>, name: String) {
        if !self.running.lock().insert(name.clone()) {
            return;
        }
        let done = Done { running: Arc::clone(&self.running), name };
        self.tasks.spawn(async move {
            definitions.clean_up(&done.name).await;
            drop(done);
        });
    }
}

/// Removes the name of a cleanup when its task ends or panics.
struct Done {
    running: Arc<parking_lot::Mutex<BTreeSet<String>>>,
    name: String,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.running.lock().remove(&self.name);
    }
}

fn names(snapshot: &Snapshot) -> BTreeSet<String> {
    snapshot.range("", None).map(|object| object.name().to_owned()).collect()
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
