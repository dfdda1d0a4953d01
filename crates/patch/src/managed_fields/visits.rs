//! The number of path elements that set operations look at or move, as a measure of their cost. Only tests count.

#[cfg(test)]
thread_local! {
    static VISITS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Adds to the count of this thread.
#[inline]
pub(super) fn visit(elements: usize) {
    #[cfg(test)]
    VISITS.set(VISITS.get() + elements);
    #[cfg(not(test))]
    let _ = elements;
}

/// Returns the count of what a function does.
#[cfg(test)]
pub(super) fn visits_of(work: impl FnOnce()) -> usize {
    let before = VISITS.get();
    work();
    VISITS.get() - before
}
