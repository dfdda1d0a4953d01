//! Transactions that hold a reservation: they run in a task of their own, which ends only once the outcome is known.

use std::sync::Arc;
use std::time::Duration;

use nave_machinery::Value;
use nave_store::{Expect, Store, StoreError, Txn, TxnOutcome};
use tokio::sync::oneshot;

use super::ObjectCodec;

/// Something outside of the object that a write needs, such as an address. Dropping it frees what it holds.
pub trait Reservation: Send {
    /// Ends the reservation: as of `revision` this is what is stored, or nothing is.
    fn settle(self: Box<Self>, revision: u64, stored: Option<&Value>);
}

/// The longest pause between two questions to a store that does not answer.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The first such pause.
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// A revision that no object has, in the range of etcd's signed numbers.
const NO_REVISION: u64 = i64::MAX as u64;

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
        if let Ok(TxnOutcome::Committed { revision, .. }) = &outcome {
            reservation.settle(*revision, object.as_ref());
            // The caller may be gone.
            let _ = reply.send(outcome);
        } else if is_unknown {
            let _ = reply.send(outcome);
            settle_when_known(&*store, &codec, key, reservation).await;
        } else {
            drop(reservation);
            let _ = reply.send(outcome);
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
    let mut pause = MIN_PAUSE;
    loop {
        // Writes nothing, and comes after every transaction that was sent before.
        let fence = Txn::delete(Arc::clone(&key)).expecting(Expect::Revision(NO_REVISION));
        match store.txn(fence).await {
            Ok(TxnOutcome::Failed { current: None, revision } | TxnOutcome::Committed { revision, .. }) => {
                return reservation.settle(revision, None);
            }
            Ok(TxnOutcome::Failed { current: Some(kv), .. }) => match codec.decode(&kv) {
                Ok(object) => return reservation.settle(kv.mod_revision, Some(&object)),
                Err(error) => {
                    tracing::error!(key = &*key, %error, "stored object cannot be decoded");
                    return;
                }
            },
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(key = &*key, %error, "outcome of a write is unknown");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}
