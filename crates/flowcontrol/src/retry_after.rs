//! The `Retry-After` of rejected requests, which grows while a level rejects many (upstream:
//! `flowcontrol/dropped_requests_tracker.go`).

use std::collections::VecDeque;

/// Maximum of `Retry-After`, in seconds.
const MAX: u64 = 32;

/// The rejected requests of the last seconds.
#[derive(Debug)]
pub(crate) struct RetryAfter {
    /// Counts by second, without the current one.
    history: VecDeque<(u64, u64)>,
    current: (u64, u64),
    seconds: u64,
    raised: Option<u64>,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self { history: VecDeque::new(), current: (0, 0), seconds: 1, raised: None }
    }
}

impl RetryAfter {
    /// Records a rejection in a second of any clock that does not go back. Returns the seconds after which to retry.
    pub(crate) fn rejected(&mut self, now: u64) -> u64 {
        if now == self.current.0 {
            self.current.1 += 1;
            return self.seconds;
        }
        self.history.push_back(self.current);
        self.current = (now, 1);
        let kept = (2 * self.seconds).min(MAX);
        while self.history.front().is_some_and(|(second, _)| now.saturating_sub(*second) > kept) {
            self.history.pop_front();
        }
        self.adapt(now);
        self.seconds
    }

    /// Doubles the time after many rejections within it, and shortens it by a second after few, as TCP does.
    fn adapt(&mut self, now: u64) {
        let recent = self.history.iter().filter(|(second, _)| now.saturating_sub(*second) <= self.seconds);
        let rejected: u64 = recent.map(|(_, count)| count).sum();
        let may_rise = self.raised.is_none_or(|raised| now.saturating_sub(raised) >= self.seconds);
        if may_rise && rejected >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(MAX);
            self.raised = Some(now);
        } else if rejected < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(tracker: &mut RetryAfter, second: u64, count: u64) -> u64 {
        (0..count).map(|_| tracker.rejected(second)).last().unwrap()
    }

    #[test]
    fn many_rejections_double_the_time_and_few_shorten_it() {
        let mut tracker = RetryAfter::default();
        assert_eq!(reject(&mut tracker, 100, 5), 1);
        assert_eq!(reject(&mut tracker, 101, 20), 2);
        // It may rise again only after two seconds.
        assert_eq!(reject(&mut tracker, 102, 20), 2);
        assert_eq!(reject(&mut tracker, 103, 20), 4);
        for second in 104..300 {
            reject(&mut tracker, second, 200);
        }
        assert_eq!(reject(&mut tracker, 300, 1), MAX);
        assert!(tracker.history.len() <= MAX as usize + 1);
        let later = (0..40).map(|step| reject(&mut tracker, 1_000 + step * 40, 1)).last();
        assert_eq!(later, Some(1));
    }
}
