//! Charges the quotas of a namespace, with one worker per namespace.

use std::collections::HashMap;
use std::sync::Arc;

use nave_machinery::Status;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::charge::Charge;
use super::check::{Checked, check};
use super::quotas::{Quota, Quotas};
use crate::Attributes;

/// The maximum number of attempts to write a batch if other writers cause conflicts.
const MAX_ATTEMPTS: usize = 16;
/// The maximum number of waiting charges per namespace; further charges are refused.
const MAX_WAITING: usize = 10_000;

/// The workers of all namespaces with pending charges. Charges that arrive while a batch is written form the next
/// batch.
#[derive(Clone)]
pub(super) struct Workers {
    quotas: Arc<Quotas>,
    /// The waiting charges by namespace. A namespace has an entry while its worker runs.
    waiting: Arc<Mutex<HashMap<String, Vec<Waiting>>>>,
}

struct Waiting {
    charge: Charge,
    answer: oneshot::Sender<Result<(), Status>>,
}

impl Workers {
    pub(super) fn new(quotas: Arc<Quotas>) -> Self {
        Self { quotas, waiting: Arc::default() }
    }

    pub(super) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Charges the quotas of the request's namespace.
    ///
    /// # Errors
    /// The refusal of a quota, or the store fails.
    pub(super) async fn charge(&self, attributes: &Attributes<'_>, charge: Charge) -> Result<(), Status> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(attributes.namespace, Waiting { charge, answer })?;
        let deadline = tokio::time::Instant::from_std(attributes.deadline);
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Status::internal("resource quota evaluation timed out")),
        }
    }

    fn enqueue(&self, namespace: &str, waiting: Waiting) -> Result<(), Status> {
        let mut all = self.waiting.lock();
        if let Some(queue) = all.get_mut(namespace) {
            if queue.len() >= MAX_WAITING {
                return Err(Status::too_many_requests(
                    "too many requests wait for the quotas of the namespace",
                    1,
                ));
            }
            queue.push(waiting);
            return Ok(());
        }
        all.insert(namespace.to_owned(), vec![waiting]);
        let (workers, namespace) = (self.clone(), namespace.to_owned());
        // A separate task, because other requests depend on the batch even if this request is cancelled.
        tokio::spawn(async move { workers.run(&namespace).await });
        Ok(())
    }

    async fn run(&self, namespace: &str) {
        while let Some(batch) = self.next_batch(namespace) {
            self.process(namespace, batch).await;
        }
    }

    /// Takes the waiting charges; `None` if no charges wait, which ends the worker.
    fn next_batch(&self, namespace: &str) -> Option<Vec<Waiting>> {
        let mut all = self.waiting.lock();
        let batch = all.get_mut(namespace).map(std::mem::take).unwrap_or_default();
        if batch.is_empty() {
            all.remove(namespace);
            return None;
        }
        Some(batch)
    }

    async fn process(&self, namespace: &str, mut batch: Vec<Waiting>) {
        // Cancelled requests are not charged.
        batch.retain(|waiting| !waiting.answer.is_closed());
        let mut quotas = self.quotas.of_namespace(namespace).await;
        for _ in 0..MAX_ATTEMPTS {
            let state = match quotas {
                Ok(state) => state,
                Err(status) => return refuse(batch, &status),
            };
            let (admitted, changed) = decide(batch, &state);
            let failed = match self.write(namespace, &changed).await {
                Ok(failed) => failed,
                Err(status) => return refuse(admitted, &status),
            };
            if failed.is_empty() {
                for waiting in admitted {
                    // Sending fails if the request was cancelled.
                    let _ = waiting.answer.send(Ok(()));
                }
                return;
            }
            // Retries only the quotas with a conflict: the others already include the charges of the batch.
            quotas = self.quotas.live_in_namespace(namespace).await;
            if let Ok(quotas) = &mut quotas {
                quotas.retain(|quota| failed.iter().any(|name| name == quota.name()));
            }
            batch = admitted;
            for waiting in &mut batch {
                waiting.charge.limited_names.clear();
                waiting.charge.limited_scopes.clear();
            }
        }
        refuse(batch, &Status::internal("the quotas of the namespace were changed again and again"));
    }

    /// Writes quotas; returns the names of those with a conflict.
    async fn write(&self, namespace: &str, changed: &[(Quota, Quota)]) -> Result<Vec<String>, Status> {
        let mut failed = Vec::new();
        for (before, after) in changed {
            match self.quotas.write(namespace, before, &after.used).await {
                Ok(()) => {}
                Err(status) if status.code == 409 => failed.push(before.name().to_owned()),
                // A deleted quota limits nothing.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok(failed)
    }
}

/// Checks the charges of a batch in order. Answers the charges that are refused or need no write; returns the others,
/// and the quotas to write, each before and after the change.
fn decide(batch: Vec<Waiting>, state: &[Quota]) -> (Vec<Waiting>, Vec<(Quota, Quota)>) {
    let mut quotas = state.to_vec();
    let mut changed = vec![false; quotas.len()];
    let mut admitted = Vec::new();
    for waiting in batch {
        let outcome = match check(&quotas, &waiting.charge) {
            Ok(Checked::Charged(_)) if waiting.charge.dry_run => Ok(()),
            Ok(Checked::Charged(charged)) => {
                for (at, used) in charged {
                    quotas[at].used = used;
                    changed[at] = true;
                }
                admitted.push(waiting);
                continue;
            }
            Ok(Checked::Free) => Ok(()),
            Ok(Checked::Exceeded(status)) | Err(status) => Err(status),
        };
        // Sending fails if the request was cancelled.
        let _ = waiting.answer.send(outcome);
    }
    let after = quotas.into_iter().zip(changed).zip(state);
    let changed = after.filter_map(|((after, changed), before)| changed.then(|| (before.clone(), after)));
    (admitted, changed.collect())
}

fn refuse(batch: Vec<Waiting>, status: &Status) {
    for waiting in batch {
        // Sending fails if the request was cancelled.
        let _ = waiting.answer.send(Err(status.clone()));
    }
}
