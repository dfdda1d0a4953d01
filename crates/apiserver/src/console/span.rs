//! Two samples of the server's state, and the rates between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use nave_store::StoreStatus;
use tokio::time::Instant;

use super::families::{Families, Totals};

/// Maximum number of rows of a list.
const MAX_ROWS: usize = 100;

/// Everything that is read at one time.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) families: Arc<Families>,
    pub(super) status: Option<StoreStatus>,
}

/// A sample and an earlier one.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) now: &'a Sample,
    pub(super) before: Option<&'a Sample>,
}

impl<'a> Span<'a> {
    pub(super) fn families(self) -> &'a Families {
        &self.now.families
    }

    /// Returns a rate for an increase; `None` for the first sample.
    pub(super) fn rate(self, increase: f64) -> Option<f64> {
        let seconds = (self.now.at - self.before?.at).as_secs_f64();
        (seconds > 0.0).then(|| increase / seconds)
    }

    /// Returns the current values and the increases of a family by labels.
    pub(super) fn by<const N: usize>(self, name: &str, labels: [&str; N]) -> BTreeMap<[String; N], Counted> {
        let before = self.before.map(|before| before.families.by(name, labels)).unwrap_or_default();
        let counted = |(key, now): ([String; N], Totals)| {
            let increase = now.since(before.get(&key));
            (key, Counted { total: now.value, increase })
        };
        self.families().by(name, labels).into_iter().map(counted).collect()
    }

    pub(super) fn total(self, name: &str) -> Counted {
        self.by(name, []).remove(&[]).unwrap_or_default()
    }
}

/// A value and its increase. The increase of the first sample is the value itself; [`Span::rate`] ignores it.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) total: f64,
    pub(super) increase: Totals,
}

/// Returns the rows with the largest values, largest first.
pub(super) fn largest<T>(rows: impl Iterator<Item = T>, value: impl Fn(&T) -> f64) -> Vec<T> {
    let mut rows: Vec<T> = rows.collect();
    rows.sort_by(|one, other| value(other).total_cmp(&value(one)));
    rows.truncate(MAX_ROWS);
    rows
}
