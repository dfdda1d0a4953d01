//! How long a failed pod of a node stays before it is replaced, so that a pod that always fails is not created without
//! end.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nave_machinery::backoff::Backoff;
use parking_lot::Mutex;

const PAUSES: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_mins(15), factor: 2.0, jitter: 0.0 };
/// A node on which nothing failed for so long begins again with the first pause.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(30);

/// Pauses by set, generation and node.
#[derive(Debug, Default)]
pub(super) struct FailedPods {
    pauses: Mutex<Pauses>,
}

#[derive(Debug, Default)]
struct Pauses {
    by_key: HashMap<String, Pause>,
    cleaned: Option<Timestamp>,
}

#[derive(Debug)]
struct Pause {
    failures: u32,
    since: Timestamp,
}

impl FailedPods {
    /// How long a failed pod stays, if it does.
    pub(super) fn pause(&self, key: &str, now: Timestamp) -> Option<Duration> {
        let pauses = self.pauses.lock();
        let pause = pauses.by_key.get(key)?;
        let passed = Duration::try_from(pause.since.duration_until(now)).unwrap_or_default();
        PAUSES.after(pause.failures).checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// Notes that a failed pod is deleted: the next one that fails stays twice as long.
    pub(super) fn failed(&self, key: String, now: Timestamp) {
        let mut pauses = self.pauses.lock();
        // Once a minute at most, for it goes through all.
        if pauses.cleaned.is_none_or(|at| at.duration_until(now) > SignedDuration::from_mins(1)) {
            pauses.by_key.retain(|_, pause| pause.since.duration_until(now) <= FORGOTTEN);
            pauses.cleaned = Some(now);
        }
        let last = pauses.by_key.get(&key).filter(|pause| pause.since.duration_until(now) <= FORGOTTEN);
        let failures = last.map_or(0, |pause| pause.failures).saturating_add(1);
        pauses.by_key.insert(key, Pause { failures, since: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::now;

    #[test]
    fn pauses_double_until_nothing_fails_for_long() {
        let (failed, mut at) = (FailedPods::default(), now());
        assert_eq!(failed.pause("n", at), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            failed.failed("n".to_owned(), at);
            assert_eq!(failed.pause("n", at), Some(Duration::from_secs(seconds)));
            assert_eq!(failed.pause("other", at), None);
            at += SignedDuration::from_secs(i64::try_from(seconds).unwrap());
            assert_eq!(failed.pause("n", at), None);
        }
        at += FORGOTTEN * 2;
        failed.failed("n".to_owned(), at);
        assert_eq!(failed.pause("n", at), Some(PAUSES.initial));
        at += FORGOTTEN * 2;
        failed.failed("m".to_owned(), at);
        assert_eq!(failed.pauses.lock().by_key.len(), 1, "what is forgotten takes no memory");
    }
}
