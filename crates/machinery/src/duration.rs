//! Durations in Go's format (`time.ParseDuration`, `Duration.String`): `1h2m3.5s`, `300ms`, `-1.5h`.

use std::fmt::Write as _;
use std::time::Duration;

/// Error of parsing a duration, with Go's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number with a unit, or more than 64 bits of nanoseconds.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without a unit.
    #[error("time: missing unit in duration {0:?}")]
    NoUnit(String),
    /// A unit unknown to Go, such as `d`.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Parses a duration and returns its nanoseconds.
///
/// ```
/// # use nave_machinery::duration;
/// assert_eq!(duration::parse_nanos("-1.5s"), Ok(-1_500_000_000));
/// assert!(duration::parse_nanos("1d").is_err());
/// ```
///
/// # Errors
/// The text is not a duration.
pub fn parse_nanos(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, following) = after.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && !fraction.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(invalid());
        }
        // Go treats a second point as the start of a number without a unit.
        if unit.is_empty() || fraction.contains('.') {
            return Err(DurationError::NoUnit(text.to_owned()));
        }
        let Some(scale) = unit_nanos(unit) else {
            return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() });
        };
        let part = part_nanos(whole, fraction, scale).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|total| *total <= LARGEST).ok_or_else(invalid)?;
        rest = following;
    }
    if negative { Ok(0i64.wrapping_sub_unsigned(total)) } else { i64::try_from(total).map_err(|_| invalid()) }
}

/// Parses a duration; `None` if it is invalid or negative.
pub fn parse(text: &str) -> Option<Duration> {
    parse_nanos(text).ok().and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
}

/// Formats a duration: `1h2m3.5s`, `1.5ms`, `0s`.
pub fn write_nanos(nanos: i64) -> String {
    let mut text = String::new();
    if nanos < 0 {
        text.push('-');
    }
    let size = nanos.unsigned_abs();
    match size {
        0 => text.push_str("0s"),
        1..1_000 => push_part(&mut text, size, 1, "ns"),
        1_000..1_000_000 => push_part(&mut text, size, 1_000, "µs"),
        1_000_000..1_000_000_000 => push_part(&mut text, size, 1_000_000, "ms"),
        _ => {
            let minutes = size / 60_000_000_000;
            // Writing to a string cannot fail.
            if minutes >= 60 {
                let _ = write!(text, "{}h", minutes / 60);
            }
            if minutes > 0 {
                let _ = write!(text, "{}m", minutes % 60);
            }
            push_part(&mut text, size % 60_000_000_000, 1_000_000_000, "s");
        }
    }
    text
}

/// Appends an amount in `unit`, with as many decimals as needed.
fn push_part(text: &mut String, nanos: u64, unit: u64, suffix: &str) {
    let _ = write!(text, "{}", nanos / unit);
    if !nanos.is_multiple_of(unit) {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", nanos % unit);
        let _ = write!(text, ".{}", rest.trim_end_matches('0'));
    }
    text.push_str(suffix);
}

fn unit_nanos(unit: &str) -> Option<u64> {
    match unit {
        "ns" => Some(1),
        // The micro sign and the Greek letter mu.
        "us" | "µs" | "μs" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    }
}

/// Returns the nanoseconds of one part, such as `1.5` and `h`; `None` beyond [`LARGEST`].
fn part_nanos(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    let number = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u64>().ok() };
    let whole = number(whole)?.checked_mul(scale)?;
    // Eighteen digits are finer than a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = u128::from(number(fraction)?) * u128::from(scale) / 10u128.pow(fraction.len() as u32);
    whole.checked_add(u64::try_from(part).ok()?).filter(|nanos| *nanos <= LARGEST)
}

/// The magnitude of the most negative duration, in nanoseconds.
const LARGEST: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_formats_as_go() {
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
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(write_nanos(nanos), text);
            assert_eq!(parse_nanos(text), Ok(nanos), "{text}");
        }
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1m1m", 120_000_000_000),
            ("1us", 1_000),
            ("1μs", 1_000),
            ("0.9ns", 0),
        ] {
            assert_eq!(parse_nanos(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn errors_have_gos_text() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            ("..s", "time: invalid duration \"..s\""),
            ("1.2.3s", "time: missing unit in duration \"1.2.3s\""),
            ("1", "time: missing unit in duration \"1\""),
            ("1s2", "time: missing unit in duration \"1s2\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1s ", "time: unknown unit \"s \" in duration \"1s \""),
            ("1 s", "time: unknown unit \" s\" in duration \"1 s\""),
            ("9999999999999h", "time: invalid duration \"9999999999999h\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
        ] {
            assert_eq!(parse_nanos(text).unwrap_err().to_string(), error);
        }
        assert_eq!(parse("-1s"), None);
        assert_eq!(parse("1.5h"), Some(Duration::from_mins(90)));
    }

    proptest! {
        #[test]
        fn durations_round_trip(nanos: i64) {
            prop_assert_eq!(parse_nanos(&write_nanos(nanos)), Ok(nanos));
        }

        #[test]
        fn parsing_never_panics(text in "[-+.0-9a-zµ ]{0,40}|\\PC{0,40}") {
            let _ = parse_nanos(&text);
        }
    }
}
