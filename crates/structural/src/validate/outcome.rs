//! The errors of a schema at one value (upstream: `validate.Result`).

use nave_machinery::FieldError;

use super::{Findings, MAX_ERRORS};

/// The result of validating a value.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// False if only [`Self::failed`] matters.
    collects: bool,
    failed: bool,
    errors: Vec<FieldError>,
    ratcheted: Vec<FieldError>,
    /// The number of checks that passed. Of failed alternatives, the errors of the alternative with the most matches
    /// are reported.
    pub(super) matches: u64,
}

impl Outcome {
    /// Creates an outcome that keeps errors.
    pub(super) fn collect() -> Self {
        Self { collects: true, ..Self::default() }
    }

    /// Creates an outcome that only records whether an error occurred.
    pub(super) fn quick() -> Self {
        Self::default()
    }

    pub(super) fn collects(&self) -> bool {
        self.collects
    }

    pub(super) fn is_valid(&self) -> bool {
        !self.failed
    }

    /// Returns whether further checks cannot change the outcome.
    pub(super) fn is_done(&self) -> bool {
        self.failed && (!self.collects || self.errors.len() >= MAX_ERRORS)
    }

    /// Adds an error, unless it is already present.
    pub(super) fn error(&mut self, error: impl FnOnce() -> FieldError) {
        self.failed = true;
        if self.collects && self.errors.len() < MAX_ERRORS {
            let error = error();
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.failed |= other.failed;
        self.matches += other.matches;
        for error in other.errors {
            self.error(|| error);
        }
        let space = MAX_ERRORS.saturating_sub(self.ratcheted.len());
        self.ratcheted.extend(other.ratcheted.into_iter().take(space));
    }

    /// Accepts the errors, because the value is unchanged.
    pub(super) fn ratchet(&mut self) {
        self.failed = false;
        let space = MAX_ERRORS.saturating_sub(self.ratcheted.len());
        self.ratcheted.extend(self.errors.drain(..).take(space));
    }

    pub(super) fn into_findings(self) -> Findings {
        Findings { errors: self.errors, ratcheted: self.ratcheted }
    }
}
