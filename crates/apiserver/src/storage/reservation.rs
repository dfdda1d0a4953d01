//! Transactions that hold a reservation: they run in a task of their own, which ends only once the outcome is known.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nave_machinery::Value;
use nave_machinery::backoff::Backoff;
use nave_store::{Expect, Store, StoreError, Txn, TxnOutcome};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ObjectCodec;

/// Something outside of the object that a write needs, such as an address. Dropping it frees what it holds.
#[async_trait]
pub trait Reservation: Send {
    /// Ends the reservation. The answer of the write waits for this, but not for long.
    async fn settle(self: Box<Self>, settlement: Settlement<'_>);
}

/// How a write with a reservation ended, with the object that is then stored, if any.
#[derive(Clone, Copy, Debug)]
pub enum Settlement<'a> {
    /// The write was committed.
    Committed(Option<&'a Value>),
    /// The outcome of the write was unknown; this was found later, and may be the work of others.
    Found(Option<&'a Value>),
}

impl<'a> Settlement<'a> {
    /// The object that is stored.
    pub fn stored(self) -> Option<&'a Value> {
        match self {
            Self::Committed(stored) | Self::Found(stored) => stored,
        }
    }
}

/// A revision that no object has, in the range of etcd's signed numbers.
pub const NO_REVISION: u64 = i64::MAX as u64;

/// Pauses between two questions to a store that does not answer.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(20), Duration::from_secs(5));

/// A write that is committed is answered after this at the latest, though its reservation has not ended yet.
const MAX_ANSWER_DELAY: Duration = Duration::from_secs(1);

/// A transaction with its reservation.
pub(super) struct ReservedTxn {
    pub(super) store: Arc<dyn Store>,
    pub(super) codec: Arc<ObjectCodec>,
    pub(super) txn: Txn,
    /// The object that the transaction puts; `None` for a deletion.
    pub(super) object: Option<Value>,
    pub(super) reservation: Box<dyn Reservation>,
}

impl ReservedTxn {
    /// Sends the transaction. If the caller goes away, the transaction and its reservation still end in order.
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
            let mut settled = reservation.settle(Settlement::Committed(object.as_ref()));
            let is_settled = timeout(MAX_ANSWER_DELAY, &mut settled).await.is_ok();
            // The caller may be gone.
            let _ = reply.send(outcome);
            if !is_settled {
                settled.await;
            }
        } else if is_unknown {
            let _ = reply.send(outcome);
            settle_when_known(&*store, &codec, key, reservation).await;
        } else {
            drop(reservation);
            let _ = reply.send(outcome);
        }
    }
}

/// Sends a transaction again until the store says how it ended. It must be one that does the same if it is sent twice.
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

/// Holds the reservation until the store says what is stored.
async fn settle_when_known(
    store: &dyn Store,
    codec: &ObjectCodec,
    key: Arc<str>,
    reservation: Box<dyn Reservation>,
) {
    // Writes nothing, and comes after every transaction that was sent before.
    let fence = Txn::delete(Arc::clone(&key)).expecting(Expect::Revision(NO_REVISION));
    match send_until_known(store, fence).await {
        Ok(TxnOutcome::Failed { current: None, .. } | TxnOutcome::Committed { .. }) => {
            reservation.settle(Settlement::Found(None)).await;
        }
        Ok(TxnOutcome::Failed { current: Some(kv), .. }) => match codec.decode(&kv) {
            Ok(object) => reservation.settle(Settlement::Found(Some(&object))).await,
            Err(error) => tracing::error!(key = &*key, %error, "stored object cannot be decoded"),
        },
        Err(error) => tracing::warn!(key = &*key, %error, "outcome of a write is unknown"),
    }
}
