//! Requests that are about to write. A commit of the embedded engine waits for them for a moment, because one commit of
//! many writes costs a fraction of many commits.
//!
//! A request counts from its arrival until it sends its transaction, or ends without one. It counts before its task
//! runs, so a server with more requests than cores knows what is to come. It is not authenticated then: commits must bound
//! what requests that never write can cost.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

tokio::task_local! {
    /// The request of the current task, until it sends its transaction.
    static REQUEST: Cell<Option<Request>>;
}

/// The number of requests that are about to write. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PendingWrites(Arc<AtomicUsize>);

/// One counted request.
struct Request(PendingWrites);

impl PendingWrites {
    /// Counts a request from now until its task calls [`PendingWrites::sent`], ends or is dropped.
    pub fn count_in<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.fetch_add(1, Ordering::Relaxed);
        REQUEST.scope(Cell::new(Some(Request(self.clone()))), work)
    }

    /// Stops counting the request of the current task, because its transaction is sent now. Does nothing in other tasks.
    pub fn sent() {
        let _ = REQUEST.try_with(Cell::take);
    }

    /// Returns the number of requests that are about to write.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn requests_count_from_arrival_until_they_send() {
        let writes = PendingWrites::default();
        let (sends, refused) = (writes.count_in(async { PendingWrites::sent() }), writes.count_in(async {}));
        assert_eq!(writes.count(), 2, "counted before they run");
        sends.await;
        assert_eq!(writes.count(), 1);
        refused.await;
        assert_eq!(writes.count(), 0);
        drop(writes.count_in(pending::<()>()));
        assert_eq!(writes.count(), 0, "a client that leaves");
        let seen = writes.count_in(async {
            PendingWrites::sent();
            PendingWrites::sent();
            writes.count()
        });
        assert_eq!(seen.await, 0);
        PendingWrites::sent();
        assert_eq!(writes.count(), 0, "outside of a request");
    }
}
