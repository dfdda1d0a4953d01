//! The scalars that JSON writes as text and protobuf as messages of their own: times, durations.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// RFC 3339 in UTC, with seconds; `None` outside of the years 0 to 9999, which have no such text.
pub(super) fn time_text(seconds: i64) -> Option<TimeText> {
    TimeText::new(seconds, None)
}

/// RFC 3339 in UTC, with microseconds.
pub(super) fn micro_time_text(seconds: i64, nanos: i32) -> Option<TimeText> {
    TimeText::new(seconds, Some(nanos))
}

/// The seconds and nanoseconds since 1970 of an RFC 3339 text.
pub(super) fn parse_time(text: &str) -> Option<(i64, i32)> {
    let time: Timestamp = text.parse().ok()?;
    let micros = time.as_microsecond();
    Some((micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as i32 * 1000))
}

/// A time's text without an allocation.
pub(super) struct TimeText {
    bytes: [u8; 27],
    len: usize,
}

impl TimeText {
    fn new(seconds: i64, nanos: Option<i32>) -> Option<Self> {
        let time = Timestamp::from_second(seconds).ok()?;
        let time = TimeZone::UTC.to_datetime(time);
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

/// Go's text for a duration: `1h2m3.5s`, `1.5ms`, `0s`.
pub(super) fn duration_text(nanos: i64) -> String {
    let mut text = String::new();
    if nanos < 0 {
        text.push('-');
    }
    let size = nanos.unsigned_abs();
    let fraction = |text: &mut String, size: u64, unit: u64, digits: usize, suffix: &str| {
        let _ = write!(text, "{}", size / unit);
        let rest = format!("{:0digits$}", size % unit);
        let rest = rest.trim_end_matches('0');
        if unit > 1 && !rest.is_empty() {
            let _ = write!(text, ".{rest}");
        }
        text.push_str(suffix);
    };
    match size {
        0 => text.push_str("0s"),
        1..1_000 => fraction(&mut text, size, 1, 0, "ns"),
        1_000..1_000_000 => fraction(&mut text, size, 1_000, 3, "µs"),
        1_000_000..1_000_000_000 => fraction(&mut text, size, 1_000_000, 6, "ms"),
        _ => {
            let minutes = size / 60_000_000_000;
            if minutes >= 60 {
                let _ = write!(text, "{}h", minutes / 60);
            }
            if minutes > 0 {
                let _ = write!(text, "{}m", minutes % 60);
            }
            fraction(&mut text, size % 60_000_000_000, 1_000_000_000, 9, "s");
        }
    }
    text
}

/// The nanoseconds of Go's text for a duration; `None` if it is not one, or does not fit.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = SignedDuration::ZERO;
    while !rest.is_empty() || total.is_zero() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|&at| at > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        total = total.checked_add(SignedDuration::from_nanos(part_nanos(number, unit)?))?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let nanos = total.as_nanos();
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

/// The nanoseconds of one part, such as `1.5` and `h`.
fn part_nanos(number: &str, unit: &str) -> Option<i64> {
    let scale: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() > 19 || (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    // Eighteen digits are finer than a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
    let nanos = parse(whole)? * scale + parse(fraction)? * scale / 10i128.pow(fraction.len() as u32);
    i64::try_from(nanos).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_as_in_go() {
        assert_eq!(time_text(1_199_149_261).unwrap().as_str(), "2008-01-01T01:01:01Z");
        assert_eq!(micro_time_text(1_199_149_261, 5_999).unwrap().as_str(), "2008-01-01T01:01:01.000005Z");
        assert_eq!(time_text(-62_167_219_200).unwrap().as_str(), "0000-01-01T00:00:00Z");
        assert!(time_text(-62_167_219_201).is_none() && time_text(i64::MAX).is_none());
        assert!(micro_time_text(0, -1).is_none());
        assert_eq!(parse_time("2008-01-01T02:01:01.5+01:00"), Some((1_199_149_261, 500_000_000)));
        assert_eq!(parse_time("2008-01-01"), None);
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_500_000_000, "-1.5s"),
            (i64::MAX, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(duration_text(nanos), text);
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
        assert_eq!(parse_duration("1.5h"), Some(5_400_000_000_000));
        assert_eq!(parse_duration(".5s"), Some(500_000_000));
        for bad in ["", "1", "s", "1x", "1s ", "..s", "1.2.3s", "9999999999999h", "-"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn durations_come_back(nanos: i64) {
            prop_assert_eq!(parse_duration(&duration_text(nanos)), (nanos != i64::MIN).then_some(nanos).or(Some(nanos)));
        }

        #[test]
        fn times_come_back(seconds in -62_167_219_200i64..253_402_300_799, nanos in 0i32..1_000_000_000) {
            let text = micro_time_text(seconds, nanos).unwrap();
            prop_assert_eq!(parse_time(text.as_str()), Some((seconds, nanos / 1000 * 1000)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (parse_duration(&text), parse_time(&text));
        }
    }
}
