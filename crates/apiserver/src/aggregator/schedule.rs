//! A schedule of names, each synced when it changes, after an interval, and again after failures.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nave_machinery::backoff::{Backoff, Pauses};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The names that are due now or later.
pub(super) struct Schedule {
    backoff: Backoff,
    entries: Mutex<HashMap<String, Entry>>,
    changed: Notify,
}

struct Entry {
    /// When to sync; `None` while a sync is running that covers all changes.
    due: Option<Instant>,
    running: bool,
    pauses: Pauses,
}

/// The next sync of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// At the next change.
    OnChange,
    /// After this time, or earlier if it changes.
    After(Duration),
    /// After the pause of a failure.
    Retry,
}

impl Schedule {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, entries: Mutex::default(), changed: Notify::new() }
    }

    /// Syncs a name as soon as possible.
    pub(super) fn enqueue(&self, name: &str) {
        let mut entries = self.entries.lock();
        let pauses = self.backoff.pauses();
        let entry = entries.entry(name.to_owned()).or_insert(Entry { due: None, running: false, pauses });
        entry.due = Some(Instant::now());
        drop(entries);
        self.changed.notify_one();
    }

    /// Syncs names that are due, at most `workers` at the same time and never the same name twice at a time. Never
    /// returns.
    pub(super) async fn run<F>(&self, workers: usize, sync: impl Fn(String) -> F) -> Infallible
    where
        F: Future<Output = Next>,
    {
        // Syncs of an earlier run, which ended with a panic, are repeated.
        for entry in self.entries.lock().values_mut().filter(|entry| entry.running) {
            (entry.running, entry.due) = (false, Some(Instant::now()));
        }
        let mut running = FuturesUnordered::new();
        loop {
            let mut wake = None;
            while running.len() < workers {
                match self.take() {
                    Ok(name) => running.push(async {
                        let next = sync(name.clone()).await;
                        (name, next)
                    }),
                    Err(next_due) => {
                        wake = next_due;
                        break;
                    }
                }
            }
            tokio::select! {
                Some((name, next)) = running.next(), if !running.is_empty() => self.finish(&name, next),
                () = self.changed.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Returns a name that is due and marks it as running; otherwise the time at which the next name is due.
    fn take(&self) -> Result<String, Option<Instant>> {
        let mut entries = self.entries.lock();
        let waiting = entries.iter_mut().filter(|(_, entry)| !entry.running);
        let earliest = waiting.filter_map(|(name, entry)| Some((entry.due?, name.clone(), entry)));
        let Some((due, name, entry)) = earliest.min_by_key(|(due, ..)| *due) else { return Err(None) };
        if due > Instant::now() {
            return Err(Some(due));
        }
        (entry.due, entry.running) = (None, true);
        Ok(name)
    }

    fn finish(&self, name: &str, next: Next) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(name) else { return };
        entry.running = false;
        let pause = match next {
            Next::OnChange if entry.due.is_none() => {
                entries.remove(name);
                return;
            }
            Next::OnChange => return,
            Next::After(pause) => {
                entry.pauses.reset();
                pause
            }
            Next::Retry => entry.pauses.next_pause(),
        };
        // A change during the sync is due already.
        entry.due.get_or_insert(Instant::now() + pause);
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const BACKOFF: Backoff =
        Backoff { jitter: 0.0, ..Backoff::doubling(Duration::from_secs(1), Duration::from_secs(4)) };

    #[tokio::test(start_paused = true)]
    async fn failures_are_retried_later_and_later() {
        let schedule = Schedule::new(BACKOFF);
        let start = Instant::now();
        let times = Mutex::new(Vec::new());
        schedule.enqueue("a");
        let run = schedule.run(2, |_| async {
            let mut times = times.lock();
            times.push(start.elapsed().as_secs());
            if times.len() == 5 { Next::After(Duration::from_secs(30)) } else { Next::Retry }
        });
        let _ = tokio::time::timeout(Duration::from_millis(41_500), run).await;
        assert_eq!(*times.lock(), [0, 1, 3, 7, 11, 41]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_a_sync_is_synced_afterwards() {
        let schedule = Arc::new(Schedule::new(BACKOFF));
        let times = Arc::new(Mutex::new(0));
        schedule.enqueue("a");
        let again = Arc::clone(&schedule);
        let run = schedule.run(2, |name| {
            let (again, times) = (Arc::clone(&again), Arc::clone(&times));
            async move {
                *times.lock() += 1;
                if *times.lock() == 1 {
                    again.enqueue(&name);
                }
                Next::OnChange
            }
        });
        let _ = tokio::time::timeout(Duration::from_mins(1), run).await;
        assert_eq!(*times.lock(), 2);
        assert!(schedule.entries.lock().is_empty());
    }
}
