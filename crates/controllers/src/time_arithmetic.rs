//! Arithmetic of timestamps with durations that clients choose.
//!
//! The operators of `jiff` panic where the outcome lies beyond the calendar. A field such as `activeDeadlineSeconds`
//! may hold any number, and a status any time, so controllers add and subtract with these functions only.

use jiff::{SignedDuration, Timestamp};

/// `at` plus `duration`; the first or last timestamp there is where the sum lies beyond the calendar.
pub(crate) fn saturating_add(at: Timestamp, duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    at.checked_add(duration).unwrap_or(end)
}

/// `at` minus `duration`; the first or last timestamp there is where the difference lies beyond the calendar.
pub(crate) fn saturating_sub(at: Timestamp, duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MAX } else { Timestamp::MIN };
    at.checked_sub(duration).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_beyond_the_calendar_are_its_ends() {
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
