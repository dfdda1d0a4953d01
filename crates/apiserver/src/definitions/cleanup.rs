//! Deletes the objects of definitions that are being deleted (upstream: `pkg/controller/finalizer`).

use std::time::Duration;

use nave_cacher::{End, EventType, Filter, WatchItem, WatchRequest, WatchStart};
use nave_machinery::options::{DeleteOptions, UpdateOptions};
use nave_machinery::{Status, Value, meta, time};
use nave_resources::custom::{CLEANUP_FINALIZER, names};
use serde_json::json;

use super::Definitions;
use crate::endpoints::view::View;
use crate::internal::InternalWriter;
use crate::lifecycle::{self, Deletion};
use crate::storage::{ResourceStorage, Update};

/// How long to wait for objects with finalizers before the condition `Terminating` reports them, as upstream.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The content of the condition `Terminating`.
struct Verdict {
    is_terminating: bool,
    reason: &'static str,
    message: String,
}

impl Definitions {
    /// Deletes all objects of a definition, waits until they no longer exist, and removes the definition's finalizer.
    pub(super) async fn clean_up(&self, name: &str) {
        while self.awaits_cleanup(name) {
            let storage = self.state.lock().await.storage(name);
            let verdict = match storage {
                None => Verdict {
                    is_terminating: false,
                    reason: "NeverEstablished",
                    message: "resource was never established".to_owned(),
                },
                Some(storage) => delete_objects(&storage).await,
            };
            let is_done = !verdict.is_terminating;
            let outcome = self.conclude(name, &verdict).await;
            match outcome {
                Ok(()) if is_done => return,
                Err(status) if status.code == 404 => return,
                Ok(()) => {}
                Err(status) => {
                    tracing::warn!(definition = name, error = status.message, "deletion is delayed");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn awaits_cleanup(&self, name: &str) -> bool {
        let found = self.storage.find("", name);
        let parsed = found.and_then(|cached| self.storage.codec().parse_cached(&cached).ok());
        parsed.is_some_and(|definition| {
            meta::deletion_timestamp(&definition).is_some()
                && meta::finalizers(&definition).contains(&CLEANUP_FINALIZER)
        })
    }

    /// Writes the condition `Terminating`, and removes the finalizer if the deletion is complete.
    async fn conclude(&self, name: &str, verdict: &Verdict) -> Result<(), Status> {
        let now = time::now().rfc3339();
        let change = |stored: &nave_machinery::Object| {
            let mut definition = stored.as_value().clone();
            let Verdict { is_terminating, reason, message } = verdict;
            names::set(&mut definition, "Terminating", *is_terminating, reason, message, &now);
            if !is_terminating {
                let kept = meta::finalizers(&definition).into_iter().filter(|it| *it != CLEANUP_FINALIZER);
                let kept: Vec<Value> = kept.map(|finalizer| json!(finalizer)).collect();
                meta::set(&mut definition, "finalizers", Value::Array(kept));
            }
            Ok(definition)
        };
        let writer = InternalWriter::new(&self.endpoint, &self.admission);
        writer.update(View::Status, ("", name), &UpdateOptions::default(), &change).await.map(drop)
    }
}

/// Deletes all objects and waits until they no longer exist. As upstream, admission is not called: only finalizers can
/// delay the deletion. Objects of requests that started before the definition refused them are deleted too.
async fn delete_objects(storage: &ResourceStorage) -> Verdict {
    let still = |reason, message| Verdict { is_terminating: true, reason, message };
    let deletion = async {
        loop {
            let revision = delete_each(storage).await?;
            match progress(storage, revision).await {
                Progress::Created => {}
                Progress::Gone => return Ok(true),
                Progress::Closed => return Ok(false),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, deletion).await {
        Ok(Err::<bool, Status>(status)) => {
            let message = format!("could not issue all deletes: {}", status.message);
            still("InstanceDeletionFailed", message)
        }
        Ok(Ok(true)) => Verdict {
            is_terminating: false,
            reason: "InstanceDeletionCompleted",
            message: "removed all instances".to_owned(),
        },
        Ok(Ok(false)) | Err(_) => still(
            "InstanceDeletionCheck",
            "could not confirm zero CustomResources remaining: timed out waiting for the condition"
                .to_owned(),
        ),
    }
}

/// Deletes the objects that exist, and returns the revision of this state.
async fn delete_each(storage: &ResourceStorage) -> Result<u64, Status> {
    storage.wait_until(storage.current_revision().await?).await?;
    let (def, options) = (storage.def(), DeleteOptions::default());
    let snapshot = storage.cacher().snapshot();
    for object in snapshot.range("", None) {
        let name = object.name();
        let deleted = storage.guaranteed_update(object.key(), name, |stored| {
            let mut object = stored.object.as_value().clone();
            Ok(match lifecycle::before_delete(def, &mut object, &options, name, time::now())? {
                Deletion::Pending => Update::NoWrite(object),
                Deletion::Marked => Update::Put(object),
                Deletion::Now => Update::Delete(object),
            })
        });
        ignore_absent(deleted.await.map(drop))?;
    }
    for key in storage.cacher().undecodable(&format!("{}/", storage.prefix())) {
        let name = key.rsplit('/').next().unwrap_or_default();
        ignore_absent(storage.delete_undecodable(&key, name, |_, _| Ok(true)).await)?;
    }
    Ok(snapshot.revision())
}

/// The state of a deletion.
enum Progress {
    /// No object exists.
    Gone,
    /// An object was created after the deletes were issued.
    Created,
    /// The storage is closed.
    Closed,
}

/// Waits until no object exists, or until one is created after `revision`.
async fn progress(storage: &ResourceStorage, revision: u64) -> Progress {
    let cacher = storage.cacher();
    let start = WatchStart::After(revision);
    let request = WatchRequest { start, filter: Filter::all(), bookmarks: false, deadline: None };
    // Fails if the history no longer reaches back, so an object may have been created.
    let Ok(mut watcher) = cacher.watch(request) else { return Progress::Created };
    loop {
        // Wait until the watch cache has the latest deletions.
        let Ok(revision) = storage.current_revision().await else { return Progress::Closed };
        if storage.wait_until(revision).await.is_err() {
            return Progress::Closed;
        }
        if cacher.snapshot().count(None) == 0 {
            return Progress::Gone;
        }
        match watcher.next().await {
            WatchItem::Events(events) if events.iter().any(|event| event.kind == EventType::Added) => {
                return Progress::Created;
            }
            WatchItem::End(End::Expired) => return Progress::Created,
            WatchItem::End(_) => return Progress::Closed,
            _ => {}
        }
    }
}

fn ignore_absent(outcome: Result<(), Status>) -> Result<(), Status> {
    outcome.or_else(|status| if status.code == 404 { Ok(()) } else { Err(status) })
}
