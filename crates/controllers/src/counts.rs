//! Counts in the status of workloads.

/// Omits zero, as the API does.
pub(crate) fn omit_zero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count > 0)
}
