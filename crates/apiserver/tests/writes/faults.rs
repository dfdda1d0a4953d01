//! A store that fails, loses responses, and delays watch events on demand.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use nave_store::{
    Defragmentation, Expect, KeyValue, Op, Range, RangeResult, Store, StoreError, StoreStatus, Txn,
    TxnOutcome, WatchStream,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A fault in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The transaction is refused because the disk is full.
    Refused,
    /// The transaction is not committed, but the caller cannot tell.
    Lost,
    /// The transaction is committed, but the caller cannot tell.
    AnswerLost,
}

/// A store that injects faults.
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    /// The number of transactions before the next fault, and the fault.
    next: Mutex<Option<(u8, Fault)>>,
    /// The number of creates to answer as if their keys existed.
    collisions: Mutex<u32>,
    held_back: watch::Sender<bool>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            next: Mutex::default(),
            collisions: Mutex::default(),
            held_back: watch::Sender::new(false),
        }
    }

    /// Makes a transaction fail after a number of others.
    pub(crate) fn fail_after(&self, others: u8, fault: Fault) {
        *self.next.lock() = Some((others, fault));
    }

    /// Removes the pending fault, if any.
    pub(crate) fn heal(&self) {
        *self.next.lock() = None;
    }

    /// Answers the next creates as if their keys existed.
    pub(crate) fn collide(&self, times: u32) {
        *self.collisions.lock() = times;
    }

    fn take_fault(&self) -> Option<Fault> {
        let mut next = self.next.lock();
        match &mut *next {
            Some((others, _)) if *others > 0 => {
                *others -= 1;
                None
            }
            _ => next.take().map(|(_, fault)| fault),
        }
    }

    fn takes_collision(&self, txn: &Txn) -> bool {
        let mut collisions = self.collisions.lock();
        let collides = txn.expect == Expect::Absent && *collisions > 0;
        *collisions -= u32::from(collides);
        collides
    }

    /// Returns whether watches are delayed.
    pub(crate) fn is_held_back(&self) -> bool {
        *self.held_back.borrow()
    }

    /// Starts or stops delaying watch events.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.held_back.send_replace(held_back);
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let lost = || StoreError::Io(Arc::new(std::io::Error::other("lost")));
        if self.takes_collision(&txn) {
            let Op::Put { value, .. } = txn.op else { panic!("a create puts") };
            let current = Some(KeyValue { key: txn.key, value, mod_revision: 1 });
            return Ok(TxnOutcome::Failed { current, revision: self.inner.current_revision().await? });
        }
        let fault = self.take_fault();
        match fault {
            Some(Fault::Refused) => return Err(StoreError::NoSpace(Arc::new(std::io::Error::other("full")))),
            Some(Fault::Lost) => return Err(lost()),
            Some(Fault::AnswerLost) | None => {}
        }
        // As in the engine, a transaction completes even if its caller is dropped, so it runs in a separate task.
        let inner = Arc::clone(&self.inner);
        let outcome = tokio::spawn(async move { inner.txn(txn).await }).await.unwrap();
        if fault.is_some() { Err(lost()) } else { outcome }
    }

    async fn get(&self, key: &str, revision: Option<u64>) -> Result<Option<KeyValue>, StoreError> {
        self.inner.get(key, revision).await
    }

    async fn revision(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.inner.revision(key).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.inner.range(range).await
    }

    async fn count(&self, prefix: &str) -> Result<u64, StoreError> {
        self.inner.count(prefix).await
    }

    async fn current_revision(&self) -> Result<u64, StoreError> {
        self.inner.current_revision().await
    }

    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn compacted_revision(&self) -> Result<u64, StoreError> {
        self.inner.compacted_revision().await
    }

    async fn watch(&self, prefix: &str, from_revision: u64) -> Result<WatchStream, StoreError> {
        let held_back = self.held_back.subscribe();
        let stream = self.inner.watch(prefix, from_revision).await?;
        Ok(Box::pin(stream.then(move |batch| {
            let mut held_back = held_back.clone();
            async move {
                // An error cannot occur: the sender lives as long as the store.
                let _ = held_back.wait_for(|held_back| !held_back).await;
                batch
            }
        })))
    }

    async fn request_progress(&self, prefix: &str) -> Result<(), StoreError> {
        self.inner.request_progress(prefix).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }

    async fn defragment(&self) -> Result<Defragmentation, StoreError> {
        self.inner.defragment().await
    }

    async fn snapshot(&self, to: &Path) -> Result<(), StoreError> {
        self.inner.snapshot(to).await
    }
}
