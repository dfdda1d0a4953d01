//! The memory and processor time that evaluations use.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nave_machinery::go_regex::{MAX_STEPS, OutOfSteps, Regex};

use crate::failure::Failure;

/// The resources used by evaluations whose values are in memory at the same time, such as an expression and the
/// variables it reads. The costs of CEL do not bound them: they ignore the sizes of most results and the compilation of
/// patterns.
#[derive(Debug)]
pub(crate) struct Consumption {
    /// The bytes of created values.
    memory: AtomicUsize,
    /// The steps left for regular expressions.
    steps: AtomicU64,
}

impl Default for Consumption {
    fn default() -> Self {
        Self { memory: AtomicUsize::new(0), steps: AtomicU64::new(MAX_STEPS) }
    }
}

impl Consumption {
    /// Returns the bytes of created values.
    pub(crate) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Counts bytes that are about to be allocated.
    pub(super) fn allocate(&self, bytes: usize) -> Result<(), Failure> {
        let total = self.memory().saturating_add(bytes);
        if total > MAX_MEMORY {
            return Err(Failure::Memory);
        }
        self.memory.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Sets the bytes after values are dropped.
    pub(crate) fn reset_memory(&self, bytes: usize) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// Counts a pattern that was compiled.
    pub(super) fn compiled(&self, regex: &Regex) -> Result<(), Failure> {
        self.allocate(regex.bytes())?;
        self.search(|steps| {
            *steps = steps.checked_sub(regex.work()).ok_or(OutOfSteps)?;
            Ok(())
        })
    }

    /// Runs a search with the steps that are left.
    pub(super) fn search<T>(
        &self,
        search: impl FnOnce(&mut u64) -> Result<T, OutOfSteps>,
    ) -> Result<T, Failure> {
        let mut steps = self.steps.load(Ordering::Relaxed);
        let found = search(&mut steps);
        self.steps.store(steps, Ordering::Relaxed);
        found.map_err(|OutOfSteps| Failure::Cost)
    }
}

/// Maximum size in bytes of the values that evaluations hold at the same time.
const MAX_MEMORY: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use nave_machinery::go_regex::compile;

    use super::*;

    #[test]
    fn searches_share_a_limit_of_steps() {
        let consumption = Consumption { steps: AtomicU64::new(20_000), ..Consumption::default() };
        let (regex, text) = (compile("(?:x?){10}y").unwrap(), "x".repeat(50));
        let search = || consumption.search(|steps| regex.is_match_within(&text, steps));
        assert_eq!(search(), Ok(false));
        let searches = (0..100).take_while(|_| search().is_ok()).count();
        assert!((1..50).contains(&searches), "{searches}");
        assert_eq!(search(), Err(Failure::Cost));
    }

    #[test]
    fn compiled_patterns_use_steps_and_memory() {
        let consumption = Consumption::default();
        let regex = compile(r"^\pL{1000}").unwrap();
        let compiled = (0..100_000).take_while(|_| consumption.compiled(&regex).is_ok()).count();
        assert!((1000..20_000).contains(&compiled), "{compiled}");
        assert!(consumption.memory() <= MAX_MEMORY);
    }
}
