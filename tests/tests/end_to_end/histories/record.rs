//! The record of a history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nave_tests::linearizability::{Answer, Operation, Request};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Number of keys of a history.
const KEYS: u64 = 4;
/// Number of requests that are answered before the clients end.
pub(super) const LENGTH: u64 = 300;

/// The state that the clients of a history share.
pub(super) struct Record {
    number: usize,
    clock: AtomicU64,
    values: AtomicU64,
    operations: Mutex<Vec<Operation>>,
    /// The number of answered requests of each server.
    answered: watch::Sender<Vec<u64>>,
}

impl Record {
    pub(super) fn new(number: usize) -> Arc<Self> {
        Arc::new(Self {
            number,
            clock: AtomicU64::new(1),
            values: AtomicU64::new(1),
            operations: Mutex::default(),
            answered: watch::Sender::new(Vec::new()),
        })
    }

    /// Returns the names of the objects of this history.
    pub(super) fn keys(&self) -> Vec<String> {
        (0..KEYS).map(|key| format!("h{}-{key}", self.number)).collect()
    }

    /// Returns the value of the label `history` of the objects.
    pub(super) fn label(&self) -> String {
        format!("h{}", self.number)
    }

    /// Returns the next logical time.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns a value that no other write has.
    pub(super) fn new_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn add(&self, operation: Operation) {
        self.operations.lock().push(operation);
    }

    /// Adds the answer of one client's request to a key.
    pub(super) fn add_answer(
        &self,
        client: usize,
        key: &str,
        start: u64,
        request: Request,
        answer: (u64, Answer),
    ) {
        self.add(Operation { client, key: key.to_owned(), start, request, answer: Some(answer) });
    }

    /// Counts an answered request.
    pub(super) fn count(&self, server: usize) {
        self.answered.send_modify(|answered| {
            answered.resize(answered.len().max(server + 1), 0);
            answered[server] += 1;
        });
    }

    /// Returns the number of answered requests.
    pub(super) fn answered(&self) -> u64 {
        self.answered.borrow().iter().sum()
    }

    /// Waits until a condition on the numbers of answered requests of the servers holds.
    pub(super) async fn wait_for(&self, condition: impl Fn(&[u64]) -> bool) {
        // Fails only if the sender is dropped.
        let _ = self.answered.subscribe().wait_for(|answered| condition(answered)).await;
    }

    /// Returns the operations. All clients must have ended.
    pub(super) fn into_operations(self: Arc<Self>) -> Vec<Operation> {
        std::mem::take(&mut *self.operations.lock())
    }
}
