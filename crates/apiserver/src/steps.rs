//! The times of a request's steps: for slow-request logs, audit annotations and traces.

use std::fmt::Write;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The steps of a request that have ended.
#[derive(Debug, Default)]
pub(crate) struct Steps(Mutex<Vec<Step>>);

/// A step of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The name.
    pub(crate) name: &'static str,
    /// The start.
    pub(crate) start: Instant,
    /// The end.
    pub(crate) end: Instant,
}

impl Step {
    fn duration(&self) -> Duration {
        self.end.saturating_duration_since(self.start)
    }
}

impl Steps {
    /// Records the time of a step that ends now. Steps beyond a maximum number are not recorded.
    pub(crate) fn record(&self, name: &'static str, start: Instant) {
        let steps = &mut *self.0.lock();
        if steps.len() < MAX_STEPS {
            steps.push(Step { name, start, end: Instant::now() });
        }
    }

    /// Removes and returns the steps, in the order of their ends.
    pub(crate) fn take(&self) -> Vec<Step> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Returns the total time of each kind of step, in the order of the first ends.
pub(crate) fn totals(steps: &[Step]) -> Vec<(&'static str, Duration)> {
    let mut totals: Vec<(&'static str, Duration)> = Vec::new();
    for step in steps {
        match totals.iter_mut().find(|(name, _)| *name == step.name) {
            Some((_, total)) => *total += step.duration(),
            None => totals.push((step.name, step.duration())),
        }
    }
    totals
}

/// Describes the totals: `authorization 1ms, storage 620ms`.
pub(crate) fn describe(totals: &[(&'static str, Duration)]) -> String {
    let mut text = String::new();
    for (name, total) in totals {
        let separator = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{name} {}ms", total.as_millis());
    }
    text
}

/// The time from which a request is slow, as upstream.
pub(crate) const SLOW: Duration = Duration::from_millis(500);

/// Maximum number of recorded steps: a deletion of a collection has several for each object.
const MAX_STEPS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_kind_are_added_up() {
        let steps = Steps::default();
        for name in ["storage", "admission", "storage"] {
            steps.record(name, Instant::now());
        }
        let taken = steps.take();
        assert_eq!(taken.len(), 3);
        let start = Instant::now();
        let step =
            |name, milliseconds| Step { name, start, end: start + Duration::from_millis(milliseconds) };
        let totals = totals(&[step("a", 5), step("b", 1), step("a", 7)]);
        assert_eq!(describe(&totals), "a 12ms, b 1ms");
        for _ in 0..2 * MAX_STEPS {
            steps.record("a", Instant::now());
        }
        assert_eq!(steps.take().len(), MAX_STEPS);
    }
}
