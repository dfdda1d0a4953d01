//! Histograms of a value over time: each bucket has the nanoseconds that the value spent in it (upstream:
//! `flowcontrol/metrics/timing_ratio_histogram.go`).

use tokio::time::Instant;

/// A histogram weighted by time.
#[derive(Clone, Debug)]
pub(crate) struct TimingHistogram {
    bounds: &'static [f64],
    /// Nanoseconds by bucket; the last one is above all bounds.
    nanoseconds: Vec<u64>,
    sum: f64,
    last: Instant,
    value: f64,
    bucket: usize,
}

impl TimingHistogram {
    /// Creates a histogram with these upper bounds, in ascending order. The value is 0.
    pub(crate) fn new(now: Instant, bounds: &'static [f64]) -> Self {
        let nanoseconds = vec![0; bounds.len() + 1];
        let mut histogram = Self { bounds, nanoseconds, sum: 0.0, last: now, value: 0.0, bucket: 0 };
        histogram.bucket = histogram.bucket_of(0.0);
        histogram
    }

    /// Records that the value is `numerator / denominator` from now on.
    pub(crate) fn set(&mut self, now: Instant, numerator: f64, denominator: f64) {
        let value = if denominator > 0.0 { numerator / denominator } else { numerator };
        self.advance(now);
        if value.total_cmp(&self.value).is_ne() {
            self.value = value;
            self.bucket = self.bucket_of(value);
        }
    }

    /// Counts the time until now.
    pub(crate) fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.last).as_nanos() as u64;
        self.last = self.last.max(now);
        if let Some(bucket) = self.nanoseconds.get_mut(self.bucket) {
            *bucket += elapsed;
        }
        self.sum += elapsed as f64 * self.value;
    }

    /// Returns each bound with the nanoseconds in which the value was not above it.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let below = self.nanoseconds.iter().scan(0, |below, nanoseconds| {
            *below += nanoseconds;
            Some(*below)
        });
        self.bounds.iter().copied().zip(below)
    }

    /// Returns the nanoseconds since the start.
    pub(crate) fn count(&self) -> u64 {
        self.nanoseconds.iter().sum()
    }

    /// Returns the integral of the value over nanoseconds.
    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    fn bucket_of(&self, value: f64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn buckets_have_the_time_of_the_value() {
        let start = Instant::now();
        let after = |nanoseconds| start + Duration::from_nanos(nanoseconds);
        let mut histogram = TimingHistogram::new(start, &[0.0, 0.5, 1.0]);
        histogram.set(after(10), 1.0, 2.0);
        histogram.set(after(30), 3.0, 2.0);
        histogram.set(after(60), 3.0, 0.0);
        histogram.advance(after(100));
        assert!(histogram.cumulative().eq([(0.0, 10), (0.5, 30), (1.0, 30)]));
        assert_eq!((histogram.count(), histogram.sum()), (100, 10.0 + 45.0 + 120.0));
    }
}
