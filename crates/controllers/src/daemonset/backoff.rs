//! The backoff before a failed pod is replaced, so that a pod that always fails is not recreated in a tight loop.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nave_machinery::backoff::Backoff;
use parking_lot::Mutex;

const BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_mins(15), factor: 2.0, jitter: 0.0 };
/// The backoff of a node is reset after this time without a failure.
const RESET_AFTER: SignedDuration = SignedDuration::from_mins(30);

/// Backoffs by set, generation and node.
#[derive(Debug, Default)]
pub(super) struct FailedPods {
    backoffs: Mutex<Backoffs>,
}

#[derive(Debug, Default)]
struct Backoffs {
    by_key: HashMap<String, NodeBackoff>,
    cleaned: Option<Timestamp>,
}

#[derive(Debug)]
struct NodeBackoff {
    failures: u32,
    since: Timestamp,
}

impl FailedPods {
    /// The remaining time before a failed pod may be deleted; `None` if it may be deleted now.
    pub(super) fn delay(&self, key: &str, now: Timestamp) -> Option<Duration> {
        let backoffs = self.backoffs.lock();
        let delay = backoffs.by_key.get(key)?;
        let passed = Duration::try_from(delay.since.duration_until(now)).unwrap_or_default();
        BACKOFF.after(delay.failures).checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Records the deletion of a failed pod, and doubles the backoff of the next failed pod.
    pub(super) fn record_failure(&self, key: String, now: Timestamp) {
        let mut backoffs = self.backoffs.lock();
        // Removes expired backoffs at most once a minute, because it visits all entries.
        if backoffs.cleaned.is_none_or(|at| at.duration_until(now) > SignedDuration::from_mins(1)) {
            backoffs.by_key.retain(|_, delay| delay.since.duration_until(now) <= RESET_AFTER);
            backoffs.cleaned = Some(now);
        }
        let last = backoffs.by_key.get(&key).filter(|delay| delay.since.duration_until(now) <= RESET_AFTER);
        let failures = last.map_or(0, |delay| delay.failures).saturating_add(1);
        backoffs.by_key.insert(key, NodeBackoff { failures, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::now;

    #[test]
    fn backoff_doubles_and_resets() {
        let (failed, mut at) = (FailedPods::default(), now());
        assert_eq!(failed.delay("n", at), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            failed.record_failure("n".to_owned(), at);
            assert_eq!(failed.delay("n", at), Some(Duration::from_secs(seconds)));
            assert_eq!(failed.delay("other", at), None);
            at += SignedDuration::from_secs(i64::try_from(seconds).unwrap());
            assert_eq!(failed.delay("n", at), None);
        }
        at += RESET_AFTER * 2;
        failed.record_failure("n".to_owned(), at);
        assert_eq!(failed.delay("n", at), Some(BACKOFF.initial));
        at += RESET_AFTER * 2;
        failed.record_failure("m".to_owned(), at);
        assert_eq!(failed.backoffs.lock().by_key.len(), 1, "what is forgotten takes no memory");
    }
}
