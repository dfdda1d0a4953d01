//! Statistics of the demand for seats over an adjustment period (upstream: `fairqueuing/integrator.go`).

use tokio::time::Instant;

/// The weight of the past in each smoothing: half of it is forgotten in five minutes.
const SMOOTHING: f64 = 0.977;

/// Integrates the demand for seats over time.
#[derive(Debug)]
pub(crate) struct Integrator {
    last: Instant,
    value: f64,
    seconds: f64,
    sum: f64,
    sum_of_squares: f64,
    max: f64,
}

/// The demand for seats in past periods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DemandStats {
    /// Average of the last period, weighted by time.
    pub average: f64,
    /// Standard deviation of the last period.
    pub deviation: f64,
    /// Maximum of the last period.
    pub high_watermark: u32,
    /// Envelope of all periods: rises at once and falls slowly.
    pub smoothed: f64,
}

impl Integrator {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, value: 0.0, seconds: 0.0, sum: 0.0, sum_of_squares: 0.0, max: 0.0 }
    }

    /// Records that the demand has a new value from now on.
    pub(crate) fn set(&mut self, now: Instant, value: f64) {
        self.advance(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    /// Ends a period: adds it to the statistics and starts the next one.
    pub(crate) fn end_period(&mut self, now: Instant, stats: &mut DemandStats) {
        self.advance(now);
        stats.high_watermark = self.max.round() as u32;
        if self.seconds > 0.0 {
            stats.average = self.sum / self.seconds;
            let variance = self.sum_of_squares / self.seconds - stats.average * stats.average;
            stats.deviation = variance.max(0.0).sqrt();
            let envelope = stats.average + stats.deviation;
            stats.smoothed = envelope.max(SMOOTHING * stats.smoothed + (1.0 - SMOOTHING) * envelope);
        }
        *self = Self { value: self.value, max: self.value, ..Self::new(now) };
    }

    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now.max(self.last);
        self.seconds += seconds;
        self.sum += self.value * seconds;
        self.sum_of_squares += self.value * self.value * seconds;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn statistics_are_weighted_by_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let (mut integrator, mut stats) = (Integrator::new(start), DemandStats::default());
        integrator.set(after(0), 2.0);
        integrator.set(after(5), 6.0);
        integrator.end_period(after(10), &mut stats);
        let first = DemandStats { average: 4.0, deviation: 2.0, high_watermark: 6, smoothed: 6.0 };
        assert_eq!(stats, first);
        // The demand stays, and the next period starts with it.
        integrator.set(after(10), 0.0);
        integrator.end_period(after(20), &mut stats);
        assert_eq!((stats.average, stats.deviation, stats.high_watermark), (0.0, 0.0, 6));
        assert!((stats.smoothed - 6.0 * SMOOTHING).abs() < 1e-9);
        // Half of a peak is left after five minutes.
        for period in 3..32 {
            integrator.end_period(after(period * 10), &mut stats);
        }
        assert!((stats.smoothed - 3.0).abs() < 0.05, "{}", stats.smoothed);
        // A period without time changes only the watermark.
        let before = stats;
        integrator.set(after(310), 9.0);
        integrator.end_period(after(310), &mut stats);
        assert_eq!(stats, DemandStats { high_watermark: 9, ..before });
    }
}
