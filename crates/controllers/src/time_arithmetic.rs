//! Saturating arithmetic of timestamps and durations.
//!
//! The operators of `jiff` panic on overflow. A field such as `activeDeadlineSeconds` can contain any number, and a
//! status any time. Controllers must add and subtract them with these functions.

use jiff::{SignedDuration, Timestamp};

/// Adds `duration` to `at`, clamped to the range of timestamps.
pub(crate) fn saturating_add(at: Timestamp, duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(duration).unwrap_or(end)
}

/// Subtracts `duration` from `at`, clamped to the range of timestamps.
pub(crate) fn saturating_sub(at: Timestamp, duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MAX } else { Timestamp::MIN };
    at.checked_sub(duration).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_to_the_range_of_timestamps() {
        let epoch = Timestamp::UNIX_EPOCH;
        let seconds = SignedDuration::from_secs;
        assert_eq!(saturating_add(epoch, seconds(5)), saturating_sub(epoch, seconds(-5)));
        assert_eq!(saturating_add(epoch, seconds(5)).as_second(), 5);
        for at in [Timestamp::MIN, epoch, Timestamp::MAX] {
            assert_eq!(saturating_add(at, SignedDuration::MAX), Timestamp::MAX);
            assert_eq!(saturating_add(at, SignedDuration::MIN), Timestamp::MIN);
            assert_eq!(saturating_sub(at, SignedDuration::MAX), Timestamp::MIN);
            assert_eq!(saturating_sub(at, SignedDuration::MIN), Timestamp::MAX);
        }
    }
}
