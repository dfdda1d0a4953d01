//! The queue of the writer's commands.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{Op, StoreError, Txn, TxnOutcome};

use super::transaction::Program;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A command to the writer.
pub(super) enum Command {
    Txn { txn: Txn, reply: Reply<TxnOutcome> },
    Run(Box<dyn Program>),
    Grant { id: i64, ttl: Duration, reply: Reply<bool> },
    Revoke { id: i64, reply: Reply<()> },
    Compact { revision: u64, reply: Reply<()> },
}

/// The sending end of the command queue.
pub(super) struct WriterHandle {
    commands: Mutex<Option<Sender<Queued>>>,
    free: Arc<Semaphore>,
}

/// A command with its permit, released when the writer takes the command.
pub(super) struct Queued {
    pub(super) command: Command,
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Rejects keys and values over the limits, before they are queued.
pub(super) fn check_size(txn: &Txn) -> Result<(), StoreError> {
    let value = if let Op::Put { value, .. } = &txn.op { value.len() } else { 0 };
    for (what, size, limit) in [("key", txn.key.len(), MAX_KEY), ("value", value, MAX_VALUE)] {
        if size > limit {
            return Err(StoreError::TooLarge { what, size, limit });
        }
    }
    Ok(())
}

impl WriterHandle {
    pub(super) fn new() -> (Self, Receiver<Queued>) {
        let (sender, receiver) = channel();
        let free = Arc::new(Semaphore::new(QUEUE));
        (Self { commands: Mutex::new(Some(sender)), free }, receiver)
    }

    /// Queues a command and waits for its reply.
    pub(super) async fn submit<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let queued = Queued { command: command(reply), _permit: permit };
        let sent = self.commands.lock().as_ref().is_some_and(|commands| commands.send(queued).is_ok());
        if !sent {
            return Err(StoreError::Closed);
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Rejects further commands. The writer exits after it has processed the queued commands.
    pub(super) fn close(&self) {
        self.free.close();
        *self.commands.lock() = None;
    }
}

/// Maximum number of queued transactions; further callers wait for a place in the queue.
const QUEUE: usize = 1024;
/// Limits on one transaction, in bytes.
const MAX_KEY: usize = 4096;
const MAX_VALUE: usize = 3 << 20;
