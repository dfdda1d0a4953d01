//! Times: text in JSON, messages in protobuf.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use nave_machinery::time::Timestamp;

const UNIX_EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Formats RFC 3339 in UTC with seconds; `None` outside the years 0 to 9999.
pub(super) fn time_text(seconds: i64) -> Option<TimeText> {
    TimeText::new(seconds, None)
}

/// Formats RFC 3339 in UTC with microseconds.
pub(super) fn micro_time_text(seconds: i64, nanos: i32) -> Option<TimeText> {
    TimeText::new(seconds, Some(nanos))
}

/// Parses an RFC 3339 text into seconds and nanoseconds since 1970.
pub(super) fn parse_time(text: &str) -> Option<(i64, i32)> {
    let time = Timestamp::parse(text)?;
    let micros = time.unix_seconds() * 1_000_000 + i64::from(time.subsecond_nanoseconds() / 1000);
    Some((micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as i32 * 1000))
}

/// The text of a time, without an allocation.
pub(super) struct TimeText {
    bytes: [u8; 27],
    len: usize,
}

impl TimeText {
    fn new(seconds: i64, nanos: Option<i32>) -> Option<Self> {
        let time = UNIX_EPOCH.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        if time.year() < 0 || nanos.is_some_and(|nanos| !(0..1_000_000_000).contains(&nanos)) {
            return None;
        }
        let mut text = Self { bytes: *b"0000-00-00T00:00:00.000000Z", len: 27 };
        text.put(0, 4, u32::from(time.year().unsigned_abs()));
        for (at, part) in
            [(5, time.month()), (8, time.day()), (11, time.hour()), (14, time.minute()), (17, time.second())]
        {
            text.put(at, 2, u32::from(part.unsigned_abs()));
        }
        if let Some(nanos) = nanos {
            text.put(20, 6, nanos.unsigned_abs() / 1000);
        } else {
            text.bytes[19] = b'Z';
            text.len = 20;
        }
        Some(text)
    }

    fn put(&mut self, at: usize, digits: usize, mut number: u32) {
        for byte in self.bytes[at..at + digits].iter_mut().rev() {
            *byte = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_times_as_go() {
        assert_eq!(time_text(1_199_149_261).unwrap().as_str(), "2008-01-01T01:01:01Z");
        assert_eq!(micro_time_text(1_199_149_261, 5_999).unwrap().as_str(), "2008-01-01T01:01:01.000005Z");
        assert_eq!(time_text(-62_167_219_200).unwrap().as_str(), "0000-01-01T00:00:00Z");
        assert!(time_text(-62_167_219_201).is_none() && time_text(i64::MAX).is_none());
        assert!(micro_time_text(0, -1).is_none());
        assert_eq!(parse_time("2008-01-01T02:01:01.5+01:00"), Some((1_199_149_261, 500_000_000)));
        assert_eq!(parse_time("2008-01-01"), None);
    }

    proptest! {
        #[test]
        fn times_round_trip(seconds in -62_167_219_200i64..253_402_300_799, nanos in 0i32..1_000_000_000) {
            let text = micro_time_text(seconds, nanos).unwrap();
            prop_assert_eq!(parse_time(text.as_str()), Some((seconds, nanos / 1000 * 1000)));
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = parse_time(&text);
        }
    }
}
