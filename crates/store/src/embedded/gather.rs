//! Waiting for further writes before a commit.

use std::time::{Duration, Instant};

use crate::PendingWrites;

/// Maximum time that a commit waits. About three commits, which the writes that are gathered meanwhile do not need.
const MAX_WAIT: Duration = Duration::from_millis(1);
/// Maximum time that a commit waits after several waits in vain. Requests count before they are authenticated, so anyone
/// could make every commit wait.
const MIN_WAIT: Duration = Duration::from_micros(62);
/// Time between two looks at the requests, which may end without a write.
const LOOK: Duration = Duration::from_micros(250);

/// Decides how long commits wait for requests that are about to write.
#[derive(Debug)]
pub(super) struct Gathering {
    pending: PendingWrites,
    /// The requests for which the last wait was in vain: they wait for a webhook or a slow client. Commits do not wait
    /// for as many requests again.
    stalled: usize,
    /// Maximum time that the next commit waits. Each wait in vain halves it, and a write that arrives restores it.
    patience: Duration,
}

/// The wait of one commit.
#[derive(Debug, Default)]
pub(super) struct Wait {
    started: Option<Instant>,
    gathered: bool,
}

impl Gathering {
    pub(super) fn new(pending: PendingWrites) -> Self {
        Self { pending, stalled: 0, patience: MAX_WAIT }
    }

    /// Returns the time to wait for the next write; `None` if the commit should begin.
    pub(super) fn time(&mut self, wait: &mut Wait, now: Instant) -> Option<Duration> {
        if wait.gathered {
            self.patience = MAX_WAIT;
        }
        let pending = self.pending.count();
        self.stalled = self.stalled.min(pending);
        if pending == self.stalled {
            return None;
        }
        let waited = now.saturating_duration_since(*wait.started.get_or_insert(now));
        let left = self.patience.saturating_sub(waited);
        if left.is_zero() {
            if !wait.gathered {
                self.stalled = pending;
                self.patience = (self.patience / 2).max(MIN_WAIT);
            }
            return None;
        }
        Some(left.min(LOOK))
    }
}

impl Wait {
    /// Notes that a write has arrived.
    pub(super) fn gathered(&mut self) {
        self.gathered |= self.started.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn a_commit_waits_for_pending_requests_and_not_for_stalled_ones() {
        let requests = PendingWrites::default();
        let mut gathering = Gathering::new(requests.clone());
        let now = Instant::now();
        assert_eq!(gathering.time(&mut Wait::default(), now), None, "nobody else writes");

        let first = requests.count_in(pending::<()>());
        let mut wait = Wait::default();
        assert_eq!(gathering.time(&mut wait, now), Some(LOOK));
        assert_eq!(gathering.time(&mut wait, now + LOOK * 7 / 2), Some(LOOK / 2));
        assert_eq!(gathering.time(&mut wait, now + MAX_WAIT), None);
        assert_eq!(gathering.time(&mut Wait::default(), now), None, "it is stalled");

        let second = requests.count_in(pending::<()>());
        let mut wait = Wait::default();
        assert_eq!(gathering.time(&mut wait, now), Some(LOOK), "another one");
        wait.gathered();
        assert_eq!(gathering.time(&mut wait, now + MAX_WAIT), None);
        assert_eq!(gathering.time(&mut Wait::default(), now), Some(LOOK), "the last wait was of use");

        drop((first, second));
        assert_eq!(gathering.time(&mut Wait::default(), now), None);
        let _third = requests.count_in(pending::<()>());
        assert_eq!(gathering.time(&mut Wait::default(), now), Some(LOOK), "the stalled one has ended");
    }

    #[test]
    fn requests_that_never_write_do_not_delay_every_commit() {
        let requests = PendingWrites::default();
        let mut gathering = Gathering::new(requests.clone());
        let now = Instant::now();
        // Another request arrives before each commit, and none writes.
        let mut all = Vec::new();
        let mut waited = Vec::new();
        for _ in 0..8 {
            all.push(requests.count_in(pending::<()>()));
            let (mut wait, mut at) = (Wait::default(), now);
            while let Some(time) = gathering.time(&mut wait, at) {
                at += time;
            }
            waited.push(at - now);
        }
        assert_eq!(waited[..3], [MAX_WAIT, MAX_WAIT / 2, MAX_WAIT / 4]);
        assert!(waited[5..].iter().all(|time| *time == MIN_WAIT), "{waited:?}");

        all.push(requests.count_in(pending::<()>()));
        let mut wait = Wait::default();
        assert_eq!(gathering.time(&mut wait, now), Some(MIN_WAIT));
        wait.gathered();
        assert_eq!(gathering.time(&mut wait, now + MIN_WAIT), Some(LOOK), "a write has arrived");
    }
}
