//! Calls that are shared by all readers that need the same result at the same time.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use nave_machinery::Status;
use parking_lot::Mutex;

/// Number of entries from which ended calls are removed on the next call.
const SWEEP: usize = 64;

/// A version of an object and the version that it is converted to: key, revision, index of the served version.
pub(crate) type ObjectKey = (Arc<str>, u64, usize);

type Call = BoxFuture<'static, Result<Bytes, Status>>;

/// The running calls. A call ends with its last reader.
#[derive(Default)]
pub(super) struct SharedCalls {
    running: Mutex<HashMap<ObjectKey, WeakShared<Call>>>,
}

impl SharedCalls {
    /// Joins the running call for `key`, or starts one.
    pub(super) async fn run(&self, key: ObjectKey, call: impl FnOnce() -> Call) -> Result<Bytes, Status> {
        let shared = self.join(&key, call);
        let outcome = shared.await;
        self.running.lock().remove(&key);
        outcome
    }

    fn join(&self, key: &ObjectKey, call: impl FnOnce() -> Call) -> Shared<Call> {
        let mut running = self.running.lock();
        if let Some(shared) = running.get(key).and_then(WeakShared::upgrade) {
            return shared;
        }
        if running.len() >= SWEEP {
            running.retain(|_, call| call.upgrade().is_some());
        }
        let shared = call().shared();
        if let Some(weak) = shared.downgrade() {
            running.insert(key.clone(), weak);
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_readers_share_a_call() {
        let (calls, made) = (SharedCalls::default(), Arc::new(AtomicUsize::new(0)));
        let key: ObjectKey = ("/a".into(), 1, 0);
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let call = || {
            let (made, gate) = (Arc::clone(&made), Arc::clone(&gate));
            async move {
                made.fetch_add(1, Ordering::SeqCst);
                gate.acquire_owned().await.unwrap().forget();
                Ok(Bytes::from_static(b"x"))
            }
            .boxed()
        };
        let readers = (0..10).map(|_| calls.run(key.clone(), call));
        // The call ends after all readers have joined it.
        let open = async { gate.add_permits(10) };
        let (outcomes, ()) = tokio::join!(futures_util::future::join_all(readers), open);
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|bytes| bytes == "x")));
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert!(calls.running.lock().is_empty());
    }

    #[tokio::test]
    async fn abandoned_calls_are_removed() {
        let calls = SharedCalls::default();
        for at in 0..2 * SWEEP as u64 {
            let reader = calls.run(("/a".into(), at, 0), || std::future::pending().boxed());
            assert!(reader.now_or_never().is_none());
        }
        assert!(calls.running.lock().len() <= SWEEP);
    }
}
