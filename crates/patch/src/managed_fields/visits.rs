//! Counts the path elements that set operations examine or move, as a measure of cost. Used only in tests.

#[cfg(test)]
thread_local! {
    static VISITS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Adds to the counter of this thread.
#[inline]
pub(super) fn visit(elements: usize) {
    #[cfg(test)]
    VISITS.set(VISITS.get() + elements);
    #[cfg(not(test))]
    let _ = elements;
}

/// Returns the number of visits during a function call.
#[cfg(test)]
pub(super) fn visits_of(work: impl FnOnce()) -> usize {
    let before = VISITS.get();
    work();
    VISITS.get() - before
}
