//! Requests by verb and by user. Nothing is counted, and a request costs one load of a flag, while nobody looks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Maximum number of users that are counted separately in one interval. Further ones are counted together.
const MAX_USERS: usize = 256;
/// Maximum number of verbs.
const MAX_VERBS: usize = 16;
/// Maximum length of a user's name, in bytes. Longer names are cut.
const MAX_NAME: usize = 128;
/// The name of the users beyond [`MAX_USERS`].
const OTHERS: &str = "(others)";
/// The name of requests that failed before authentication.
const UNKNOWN: &str = "(not authenticated)";

/// Counts completed requests while it is started.
#[derive(Default)]
pub(crate) struct Activity {
    started: AtomicBool,
    current: Mutex<Counts>,
}

/// The requests of an interval.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) verbs: HashMap<String, Latency>,
    pub(super) users: HashMap<String, Usage>,
}

/// The requests of one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) requests: u64,
    /// Requests with a status of 400 or more.
    pub(super) failures: u64,
    /// Total duration.
    pub(super) time: Duration,
    /// The longest duration.
    pub(super) slowest: Duration,
}

/// A histogram of durations in microseconds, with four buckets per power of two: a quantile is off by an eighth at
/// most.
#[derive(Clone, Debug)]
pub(super) struct Latency([u32; BUCKETS]);

/// The last bucket starts at 235 seconds.
const BUCKETS: usize = 108;

impl Activity {
    /// Counts a completed request.
    pub(crate) fn completed(&self, verb: &str, user: &str, code: u16, took: Duration) {
        if self.started.load(Ordering::Relaxed) {
            self.current.lock().add(verb, user, code, took);
        }
    }

    pub(super) fn start(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.started.store(false, Ordering::Relaxed);
        drop(self.take());
    }

    /// Returns and resets what was counted since the last call.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut self.current.lock())
    }
}

impl Counts {
    fn add(&mut self, verb: &str, user: &str, code: u16, took: Duration) {
        if let Some(latency) = entry(&mut self.verbs, verb, MAX_VERBS) {
            latency.add(took);
        }
        let user = if user.is_empty() { UNKNOWN } else { prefix(user, MAX_NAME) };
        let one = Usage { requests: 1, failures: u64::from(code >= 400), time: took, slowest: took };
        match entry(&mut self.users, user, MAX_USERS) {
            Some(usage) => usage.add(one),
            None => self.users.entry(OTHERS.to_owned()).or_default().add(one),
        }
    }
}

impl Usage {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.time += other.time;
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Latency {
    fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.0.get_mut(bucket(micros)) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }

    /// Returns the duration, in seconds, that this part of the requests did not exceed; `None` without requests.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let total: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let rank = ((total as f64 * part).ceil() as u64).max(1);
        let mut below = 0;
        let at = self.0.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        Some((lower_bound(at) + lower_bound(at + 1)) as f64 / 2.0 / 1e6)
    }
}

fn bucket(micros: u64) -> usize {
    let Some(power) = micros.checked_ilog2().filter(|power| *power >= 2) else { return micros as usize };
    let quarter = (micros >> (power - 2)) & 3;
    (4 * (power as usize - 1) + quarter as usize).min(BUCKETS - 1)
}

fn lower_bound(bucket: usize) -> u64 {
    if bucket < 4 { bucket as u64 } else { (4 + bucket as u64 % 4) << (bucket / 4 - 1) }
}

/// Returns the entry of a name; `None` if it is new and the map is full.
fn entry<'m, T: Default>(map: &'m mut HashMap<String, T>, name: &str, most: usize) -> Option<&'m mut T> {
    if !map.contains_key(name) {
        if map.len() >= most {
            return None;
        }
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name)
}

fn prefix(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the numbers are exact")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn counts_only_while_started() {
        let activity = Activity::default();
        activity.completed("GET", "a", 200, MS);
        activity.start();
        activity.completed("GET", "a", 200, MS);
        activity.completed("GET", "a", 429, 3 * MS);
        activity.completed("POST", "", 401, MS);
        let counts = activity.take();
        assert_eq!(counts.users["a"], Usage { requests: 2, failures: 1, time: 4 * MS, slowest: 3 * MS });
        assert_eq!(counts.users[UNKNOWN].requests, 1);
        assert_eq!(counts.verbs.len(), 2);
        assert!(activity.take().users.is_empty(), "taking resets");
        activity.completed("GET", "a", 200, MS);
        activity.stop();
        assert!(activity.take().users.is_empty(), "stopping forgets");
    }

    #[test]
    fn names_of_users_take_bounded_memory() {
        let mut counts = Counts::default();
        for number in 0..10_000 {
            counts.add("GET", &format!("{number}{}", "ü".repeat(500)), 200, MS);
        }
        assert_eq!(counts.users.len(), MAX_USERS + 1);
        assert_eq!(counts.users[OTHERS].requests, 10_000 - MAX_USERS as u64);
        assert!(counts.users.keys().all(|name| name.len() <= MAX_NAME));
    }

    #[test]
    fn quantiles_are_off_by_an_eighth_at_most() {
        assert_eq!(Latency::default().quantile(0.5), None);
        for micros in (0..28).map(|power| 1_u64 << power).chain([3, 5, 7, 11, 999, 1_001, 65_535]) {
            let mut latency = Latency::default();
            latency.add(Duration::from_micros(micros));
            let (seconds, expected) = (latency.quantile(0.99).unwrap(), micros as f64 / 1e6);
            assert!((seconds - expected).abs() <= expected.mul_add(0.125, 0.6e-6), "{micros}: {seconds}");
        }
        let mut latency = Latency::default();
        latency.add(Duration::MAX);
        assert!(latency.quantile(0.99).unwrap() > 235.0, "the last bucket has no end");
        let mut latency = Latency::default();
        for millis in 1..=100 {
            latency.add(millis * MS);
        }
        let near =
            |part: f64, expected: f64| (latency.quantile(part).unwrap() / expected - 1.0).abs() < 0.125;
        assert!(near(0.5, 0.05) && near(0.99, 0.099));
    }
}
