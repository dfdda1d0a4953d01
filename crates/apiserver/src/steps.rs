//! The times of a request's steps: for slow-request logs, audit annotations and traces. The steps of most requests take no
//! allocation.

use std::fmt::Write;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The kinds of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StepKind {
    #[default]
    Authentication,
    Authorization,
    MutatingAdmission,
    ValidatingAdmission,
    /// A read of the latest state of an object.
    Get,
    /// A list, from the watch cache or the store.
    List,
    /// A transaction of the store that creates an object.
    Create,
    /// A transaction of the store that changes an object.
    Update,
    /// A transaction of the store that deletes or marks an object.
    Delete,
}

impl StepKind {
    /// Returns the name in logs and annotations. All operations of the store have one name, whatever its engine is.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::MutatingAdmission => "mutating admission",
            Self::ValidatingAdmission => "validating admission",
            Self::Get | Self::List | Self::Create | Self::Update | Self::Delete => "etcd",
        }
    }

    /// Returns the name of the span, as upstream.
    pub(crate) fn span_name(self) -> &'static str {
        match self {
            Self::Get => "cacher.Get",
            Self::List => "cacher.GetList",
            Self::Create => "Create etcd3",
            Self::Update => "GuaranteedUpdate etcd3",
            Self::Delete => "Delete etcd3",
            other => other.as_str(),
        }
    }
}

/// The steps of a request that have ended.
#[derive(Debug)]
pub struct Steps {
    received: Instant,
    recorded: Mutex<Recorded>,
}

/// The recorded steps: the first ones in place.
#[derive(Debug, Default)]
struct Recorded {
    first: [Offsets; FEW],
    count: usize,
    others: Vec<Offsets>,
}

/// A step by its times since the request was received, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Offsets {
    kind: StepKind,
    start: u32,
    end: u32,
}

/// A step of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The kind.
    pub(crate) kind: StepKind,
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
    /// Creates the steps of a request that was received at this time.
    pub fn new(received: Instant) -> Self {
        Self { received, recorded: Mutex::default() }
    }

    /// Records the time of a step that ends now. Steps beyond a maximum number are not recorded.
    pub(crate) fn record(&self, kind: StepKind, start: Instant) {
        self.record_until(kind, start, Instant::now());
    }

    /// Records the time of a step.
    pub(crate) fn record_until(&self, kind: StepKind, start: Instant, end: Instant) {
        let offset = |time: Instant| {
            u32::try_from(time.saturating_duration_since(self.received).as_micros()).unwrap_or(u32::MAX)
        };
        let step = Offsets { kind, start: offset(start), end: offset(end) };
        let recorded = &mut *self.recorded.lock();
        if let Some(place) = recorded.first.get_mut(recorded.count) {
            *place = step;
            recorded.count += 1;
        } else if recorded.others.len() < MAX_STEPS - FEW {
            recorded.others.push(step);
        }
    }

    /// Removes and returns the steps, in the order of their ends.
    pub(crate) fn take(&self) -> Vec<Step> {
        let Recorded { first, count, others } = std::mem::take(&mut *self.recorded.lock());
        let at = |micros: u32| self.received + Duration::from_micros(micros.into());
        let step = |Offsets { kind, start, end }| Step { kind, start: at(start), end: at(end) };
        first.into_iter().take(count).chain(others).map(step).collect()
    }
}

/// Returns the total time of each kind of step, in the order of the first ends.
pub(crate) fn totals(steps: &[Step]) -> Vec<(&'static str, Duration)> {
    let mut totals: Vec<(&'static str, Duration)> = Vec::new();
    for step in steps {
        let name = step.kind.as_str();
        match totals.iter_mut().find(|(known, _)| *known == name) {
            Some((_, total)) => *total += step.duration(),
            None => totals.push((name, step.duration())),
        }
    }
    totals
}

/// Describes the totals: `authorization 1ms, etcd 620ms`.
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

/// Number of steps without an allocation: those of a write that is tried twice.
const FEW: usize = 8;
/// Maximum number of recorded steps: a deletion of a collection has several for each object.
const MAX_STEPS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_kind_are_added_up() {
        let start = Instant::now();
        let step =
            |kind, milliseconds| Step { kind, start, end: start + Duration::from_millis(milliseconds) };
        let (read, store, admission) = (StepKind::Get, StepKind::Update, StepKind::MutatingAdmission);
        let totals = totals(&[step(read, 5), step(admission, 1), step(store, 7)]);
        assert_eq!(describe(&totals), "etcd 12ms, mutating admission 1ms");
    }

    #[test]
    fn steps_are_taken_in_their_order_and_bounded() {
        let received = Instant::now();
        let steps = Steps::new(received);
        for number in 0..2 * MAX_STEPS {
            let kind = if number % 2 == 0 { StepKind::Create } else { StepKind::Authorization };
            steps.record(kind, received);
        }
        let taken = steps.take();
        assert_eq!(taken.len(), MAX_STEPS);
        assert!(taken.is_sorted_by_key(|step| step.end));
        assert!(taken.chunks(2).all(|pair| pair[0].kind == StepKind::Create && pair[1].kind != pair[0].kind));
        assert!(steps.take().is_empty(), "taking removes");
    }
}
