//! Exponential backoff with jitter (upstream: `wait.Backoff`).

use std::time::Duration;

use rand::Rng;

/// Parameters of a backoff.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first pause.
    pub initial: Duration,
    /// The longest pause, before jitter.
    pub max: Duration,
    /// Factor by which the pause grows after each failure.
    pub factor: f64,
    /// Randomizes pauses: a pause of `d` becomes a random duration between `d` and `d × (1 + jitter)`, so that callers
    /// do not all retry at once.
    pub jitter: f64,
}

impl Backoff {
    /// The backoff of client-go's reflectors: from 0.8 s to 30 s, doubling, jitter 1.
    pub const REFLECTOR: Self =
        Self { initial: Duration::from_millis(800), max: Duration::from_secs(30), factor: 2.0, jitter: 1.0 };

    /// The backoff of upstream's webhook calls: 0.5 s, factor 1.5.
    pub const WEBHOOK: Self =
        Self { initial: Duration::from_millis(500), max: Duration::MAX, factor: 1.5, jitter: 0.2 };

    /// Returns a backoff with factor 2 and jitter 0.1.
    pub const fn doubling(initial: Duration, max: Duration) -> Self {
        Self { initial, max, factor: 2.0, jitter: 0.1 }
    }

    /// Returns the pause after `failures` failures, before jitter. The first failure is 1.
    pub fn after(&self, failures: u32) -> Duration {
        let growth = self.factor.max(1.0).powf(f64::from(failures.saturating_sub(1)));
        let pause = Duration::try_from_secs_f64(self.initial.as_secs_f64() * growth);
        pause.unwrap_or(self.max).min(self.max)
    }

    /// Starts counting failures.
    pub fn pauses(self) -> Pauses {
        Pauses { backoff: self, failures: 0 }
    }
}

/// Counts the failures of one caller and returns the pause after each.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    backoff: Backoff,
    failures: u32,
}

impl Pauses {
    /// Counts a failure and returns the pause after it.
    pub fn next_pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jittered(self.backoff.after(self.failures), self.backoff.jitter)
    }

    /// Resets the count after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Returns a random duration between `pause` and `pause × (1 + jitter)`.
pub fn jittered(pause: Duration, jitter: f64) -> Duration {
    let spread = pause.as_secs_f64() * (1.0 + rand::rng().random::<f64>() * jitter.max(0.0));
    Duration::try_from_secs_f64(spread).unwrap_or(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_reset_after_a_success() {
        let mut pauses = Backoff { jitter: 0.0, ..Backoff::REFLECTOR }.pauses();
        let seen: Vec<_> = (0..8).map(|_| pauses.next_pause().as_millis()).collect();
        assert_eq!(seen, [800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        pauses.reset();
        assert_eq!(pauses.next_pause().as_millis(), 800);
    }

    #[test]
    fn any_number_of_failures_is_valid() {
        let backoff = Backoff::doubling(Duration::from_millis(5), Duration::from_secs(1_000));
        let cases =
            [(0, 5), (1, 5), (2, 10), (11, 5_120), (18, 655_360), (19, 1_000_000), (u32::MAX, 1_000_000)];
        for (failures, millis) in cases {
            assert_eq!(backoff.after(failures), Duration::from_millis(millis), "{failures}");
        }
        assert_eq!(Backoff::WEBHOOK.after(u32::MAX), Duration::MAX);
    }

    #[test]
    fn jitter_extends_pauses_within_its_limit() {
        let pause = Duration::from_secs(1);
        for _ in 0..1_000 {
            let spread = jittered(pause, 1.0);
            assert!(pause <= spread && spread < 2 * pause, "{spread:?}");
        }
        assert_eq!(jittered(Duration::MAX, 1.0), Duration::MAX);
    }
}
