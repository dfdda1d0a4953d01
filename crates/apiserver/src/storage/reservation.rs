//! Transactions with a reservation. They run in separate tasks, which end only once the outcome is known.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nave_machinery::Value;
use nave_machinery::backoff::Backoff;
use nave_store::{Expect, Store, StoreError, Txn, TxnOutcome};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ObjectCodec;

/// A claim that a write makes outside of its object, such as an IP address. Dropping the reservation releases the
/// claim.
#[async_trait]
pub trait Reservation: Send {
    /// Completes the reservation. The response to the write waits for this for a limited time.
    async fn complete(self: Box<Self>, outcome: ReservationOutcome<'_>);
}

/// The outcome of a write with a reservation. Contains the object that is stored afterwards, if any.
#[derive(Clone, Copy, Debug)]
pub enum ReservationOutcome<'a> {
    /// The write was committed.
    Committed(Option<&'a Value>),
    /// The outcome of the write is unknown. This object was read later and may come from another writer.
    Found(Option<&'a Value>),
}

impl<'a> ReservationOutcome<'a> {
    /// Returns the stored object.
    pub fn stored(self) -> Option<&'a Value> {
        match self {
            Self::Committed(stored) | Self::Found(stored) => stored,
        }
    }
}

/// A revision that no object has: the maximum of etcd's signed 64-bit revisions.
pub const NO_REVISION: u64 = i64::MAX as u64;

/// Pauses between retries while the store is failing.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(20), Duration::from_secs(5));

/// Maximum time that the response to a committed write waits for the reservation to complete.
const MAX_RESPONSE_DELAY: Duration = Duration::from_secs(1);

/// A transaction and its reservation.
pub(super) struct ReservedTxn {
    pub(super) store: Arc<dyn Store>,
    pub(super) codec: Arc<ObjectCodec>,
    pub(super) txn: Txn,
    /// The object to put; `None` for a deletion.
    pub(super) object: Option<Value>,
    pub(super) reservation: Box<dyn Reservation>,
}

impl ReservedTxn {
    /// Runs the transaction in a separate task, so that the reservation completes even if the caller is dropped.
    pub(super) async fn send(self) -> Result<TxnOutcome, StoreError> {
        let (reply, outcome) = oneshot::channel();
        tokio::spawn(self.run(reply));
        outcome.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn run(self, reply: oneshot::Sender<Result<TxnOutcome, StoreError>>) {
        let Self { store, codec, txn, object, reservation } = self;
        let key = Arc::clone(&txn.key);
        let outcome = store.txn(txn).await;
        let is_unknown = outcome.as_ref().is_err_and(StoreError::is_outcome_unknown);
        if let Ok(TxnOutcome::Committed { .. }) = &outcome {
            let mut completion = reservation.complete(ReservationOutcome::Committed(object.as_ref()));
            let is_complete = timeout(MAX_RESPONSE_DELAY, &mut completion).await.is_ok();
            // Fails if the caller was dropped.
            let _ = reply.send(outcome);
            if !is_complete {
                completion.await;
            }
        } else if is_unknown {
            let _ = reply.send(outcome);
            complete_when_known(&*store, &codec, key, reservation).await;
        } else {
            drop(reservation);
            let _ = reply.send(outcome);
        }
    }
}

/// Sends a transaction until its outcome is known. The transaction must be idempotent.
///
/// # Errors
/// The store is closed.
pub async fn send_until_known(store: &dyn Store, txn: Txn) -> Result<TxnOutcome, StoreError> {
    let mut pauses = BACKOFF.pauses();
    loop {
        match store.txn(txn.clone()).await {
            Ok(outcome) => return Ok(outcome),
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Err(error) => {
                tracing::warn!(key = &*txn.key, %error, "transaction failed and will be sent again");
                tokio::time::sleep(pauses.next_pause()).await;
            }
        }
    }
}

/// Keeps the reservation until the stored object is known, then completes the reservation.
async fn complete_when_known(
    store: &dyn Store,
    codec: &ObjectCodec,
    key: Arc<str>,
    reservation: Box<dyn Reservation>,
) {
    // This transaction writes nothing; it is ordered after all transactions sent before.
    let fence = Txn::delete(Arc::clone(&key)).expecting(Expect::Revision(NO_REVISION));
    match send_until_known(store, fence).await {
        Ok(TxnOutcome::Failed { current: None, .. } | TxnOutcome::Committed { .. }) => {
            reservation.complete(ReservationOutcome::Found(None)).await;
        }
        Ok(TxnOutcome::Failed { current: Some(kv), .. }) => match codec.decode(&kv) {
            Ok(object) => reservation.complete(ReservationOutcome::Found(Some(&object))).await,
            Err(error) => tracing::error!(key = &*key, %error, "stored object cannot be decoded"),
        },
        Err(error) => tracing::warn!(key = &*key, %error, "outcome of a write is unknown"),
    }
}
