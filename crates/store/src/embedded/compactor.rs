//! The choice of the history that is compacted in the background.

use std::time::{Duration, Instant};

use super::History;

/// Decides what to compact in the background: revisions older than one interval and revisions beyond the maximum
/// number.
pub(super) struct Compactor {
    history: History,
    due: Instant,
    /// The revision at the start of the interval. It is compacted at the end of the interval.
    mark: u64,
    /// The revision up to which history is old enough to be compacted.
    aged: u64,
}

/// Maximum number of revisions that one step compacts. Readers wait during a step.
const COMPACT_REVISIONS: u64 = 4096;

impl Compactor {
    /// Starts the first interval at a revision.
    pub(super) fn new(history: History, now: Instant, revision: u64) -> Self {
        Self { history, due: now + history.time, mark: revision, aged: 0 }
    }

    /// Returns the time until the interval ends.
    pub(super) fn idle_time(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Returns the revision to compact to, if compaction is due.
    pub(super) fn next_target(&mut self, now: Instant, revision: u64, compacted: u64) -> Option<u64> {
        if self.due <= now {
            self.due = now + self.history.time;
            self.aged = std::mem::replace(&mut self.mark, revision);
        }
        // Applies the limit on the number of revisions in whole steps, to save commits.
        let beyond = revision.saturating_sub(self.history.revisions);
        let beyond = if beyond >= compacted + COMPACT_REVISIONS { beyond } else { 0 };
        let upto = self.aged.max(beyond).min(compacted + COMPACT_REVISIONS);
        (upto > compacted).then_some(upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_by_age_and_by_number() {
        let (time, start) = (Duration::from_mins(5), Instant::now());
        let history = History { time, revisions: 10_000 };
        let mut compactor = Compactor::new(history, start, 5);
        assert_eq!(compactor.next_target(start, 10_000, 0), None);
        assert_eq!(compactor.next_target(start, 14_000, 0), None, "less than a whole step");
        assert_eq!(compactor.next_target(start, 20_000, 0), Some(4096));
        assert_eq!(compactor.next_target(start, 20_000, 4096), Some(8192));
        assert_eq!(compactor.next_target(start, 20_000, 8192), None);
        assert_eq!(compactor.next_target(start + time, 20_000, 8192), None, "the first interval began at 5");
        assert_eq!(compactor.next_target(start + 2 * time, 20_000, 8192), Some(12_288));
        assert_eq!(compactor.next_target(start + 2 * time, 20_000, 16_384), Some(20_000));
        assert_eq!(compactor.next_target(start + 2 * time, 20_000, 20_000), None);
    }
}
