//! Contract tests for store engines. `nave_store::contract_tests!(factory)` in a file under `tests/` generates a
//! `#[tokio::test]` for each.
//!
//! Each test gets its own store. Tests assume no absolute revision, because the store may already have a history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test suite")]

mod etcd_process;
mod history;
mod model;
mod random;
mod time;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;

use crate::{Event, EventKind, KeyValue, Store, StoreError, Txn, TxnOutcome, WatchBatch, WatchStream};

pub use etcd_process::{EtcdProcess, installed_etcd};
pub use history::{
    compacted_watch_fails, compaction_hides_old_states, future_revisions_fail, old_revisions_stay_readable,
    progress_is_reported_on_request, quiet_watch_survives_compaction, slow_watch_misses_nothing,
    watch_delivers_only_its_prefix, watch_starts_at_the_requested_revision,
    watch_waits_for_a_future_revision,
};
pub use model::agrees_with_the_model;
pub use random::{Random, seed};
pub use time::{
    later_put_replaces_ttl, restart_loses_nothing, ttl_ends_in_a_delete_event, ttl_survives_a_restart,
};
pub use writes::{
    absent_key_deletes_nothing, compares_mod_revision, creates_only_absent_keys, empty_store_answers,
    ranges_page_in_byte_order, revision_is_the_latest, revisions_grow_by_one,
};

/// Timeout of every wait in the suite.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that can be stopped and restarted with its data.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Opens the store. The suite drops the previously opened one first.
    async fn open(&self) -> Arc<dyn Store>;
}

/// Generates a `#[tokio::test]` for each contract test. `$factory` is an expression that creates a
/// [`Fixture`](crate::contract::Fixture) without data.
#[macro_export]
macro_rules! contract_tests {
    ($factory:expr) => {
        $crate::contract_tests!(@each $factory;
            empty_store_answers creates_only_absent_keys compares_mod_revision revision_is_the_latest absent_key_deletes_nothing
            revisions_grow_by_one ranges_page_in_byte_order
            old_revisions_stay_readable future_revisions_fail compaction_hides_old_states
            watch_starts_at_the_requested_revision watch_delivers_only_its_prefix watch_waits_for_a_future_revision
            compacted_watch_fails quiet_watch_survives_compaction slow_watch_misses_nothing progress_is_reported_on_request
            ttl_ends_in_a_delete_event later_put_replaces_ttl ttl_survives_a_restart restart_loses_nothing
            agrees_with_the_model
        );
    };
    (@each $factory:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $factory;
                $crate::contract::$name(&fixture).await;
            }
        )*
    };
}

/// Commits a transaction and returns its revision.
async fn commit(store: &dyn Store, txn: Txn) -> u64 {
    match store.txn(txn).await.unwrap() {
        TxnOutcome::Committed { revision } => revision,
        failed @ TxnOutcome::Failed { .. } => panic!("not committed: {failed:?}"),
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    commit(store, Txn::put(key, value.as_bytes().to_vec())).await
}

/// Returns the next batch of a watch; panics if the watch has ended.
async fn next(watch: &mut WatchStream) -> Result<WatchBatch, StoreError> {
    let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch delivers in time");
    item.expect("the watch has not ended")
}

/// Returns the next `count` events of a watch.
async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        let batch = next(watch).await.unwrap();
        if let Some(last) = batch.events.last() {
            assert!(last.kv.mod_revision <= batch.revision, "progress covers the batch");
        }
        events.extend(batch.events);
    }
    assert_eq!(events.len(), count, "no more events than expected: {events:?}");
    events
}

fn kv(key: &str, value: &str, mod_revision: u64) -> KeyValue {
    KeyValue { key: key.into(), value: value.as_bytes().to_vec().into(), mod_revision }
}

fn keys(items: &[KeyValue]) -> Vec<&str> {
    items.iter().map(|item| &*item.key).collect()
}

fn put_event(kv: KeyValue) -> Event {
    Event { kind: EventKind::Put, kv }
}

fn delete_event(key: &str, revision: u64) -> Event {
    Event { kind: EventKind::Delete, kv: kv(key, "", revision) }
}
