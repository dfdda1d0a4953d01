//! Parses times as Go's `time.Parse` does for the API's two layouts, with the same error messages.

use jiff::civil::{Date, DateTime, Time};

/// The layout of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `metav1.Time`: seconds, with an optional fraction.
    Seconds,
    /// `metav1.MicroTime`: a fraction of exactly six digits.
    Micros,
}

impl Layout {
    fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// Error of parsing a time, with Go's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(String);

/// Parses a time.
pub(super) fn parse(text: &str, layout: Layout) -> Result<DateTime, TimeError> {
    let mut input = Input { text, layout, rest: text.as_bytes() };
    let year = input.year()?;
    input.skip("-")?;
    let month = input.number("01", 2, 1..=12, "month")?;
    input.skip("-")?;
    let day = input.number("02", 2, 0..=99, "day")?;
    input.skip("T")?;
    // Go accepts hours with one digit.
    let hour = input.number("15", 1, 0..=23, "hour")?;
    input.skip(":")?;
    let minute = input.number("04", 2, 0..=59, "minute")?;
    input.skip(":")?;
    let second = input.number("05", 2, 0..=59, "second")?;
    let nanos = match layout {
        Layout::Seconds => input.any_fraction(),
        Layout::Micros => input.six_digits()?,
    };
    let offset = input.offset()?;
    if !input.rest.is_empty() {
        return Err(input.fail(&format!(": extra text: {}", quoted(input.rest))));
    }
    let out_of_range = |_| input.fail(": day out of range");
    let date = Date::new(year, month, day).map_err(out_of_range)?;
    let time = Time::new(hour, minute, second, nanos).map_err(out_of_range)?;
    date.to_datetime(time).checked_sub(jiff::SignedDuration::from_secs(offset)).map_err(out_of_range)
}

/// The text and its unparsed rest.
struct Input<'a> {
    text: &'a str,
    layout: Layout,
    rest: &'a [u8],
}

impl Input<'_> {
    fn skip(&mut self, separator: &str) -> Result<(), TimeError> {
        self.rest = self.rest.strip_prefix(separator.as_bytes()).ok_or_else(|| self.mismatch(separator))?;
        Ok(())
    }

    fn year(&mut self) -> Result<i16, TimeError> {
        let digits = self.digits(4).ok_or_else(|| self.mismatch("2006"))?;
        i16::try_from(digits).map_err(|_| self.mismatch("2006"))
    }

    /// Parses a number of two digits, or of one digit if `least` allows it.
    fn number(
        &mut self,
        element: &str,
        least: usize,
        range: std::ops::RangeInclusive<i8>,
        name: &str,
    ) -> Result<i8, TimeError> {
        let digits = self.digits(2).or_else(|| if least == 1 { self.digits(1) } else { None });
        let number = digits.and_then(|number| i8::try_from(number).ok());
        let number = number.ok_or_else(|| self.mismatch(element))?;
        if range.contains(&number) { Ok(number) } else { Err(self.fail(&format!(": {name} out of range"))) }
    }

    /// Parses a number of exactly `count` digits.
    fn digits(&mut self, count: usize) -> Option<i32> {
        let (digits, rest) = self.rest.split_at_checked(count)?;
        let number = digits.iter().try_fold(0, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + i32::from(byte - b'0'))
        })?;
        self.rest = rest;
        Some(number)
    }

    /// Parses an optional fraction into nanoseconds. Ignores digits after the ninth, as Go does.
    fn any_fraction(&mut self) -> i32 {
        let [b'.' | b',', digits @ ..] = self.rest else { return 0 };
        let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return 0;
        }
        let (digits, rest) = digits.split_at(length);
        self.rest = rest;
        let nine = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
        nine.fold(0, |number, byte| number * 10 + i32::from(byte - b'0'))
    }

    /// Parses a fraction of six digits into nanoseconds.
    fn six_digits(&mut self) -> Result<i32, TimeError> {
        let before = self.rest;
        let digits = match before {
            [b'.' | b',', rest @ ..] => {
                self.rest = rest;
                self.digits(6)
            }
            _ => None,
        };
        digits.map(|micros| micros * 1000).ok_or_else(|| {
            self.rest = before;
            self.mismatch(".000000")
        })
    }

    /// Parses an offset into seconds east of UTC.
    fn offset(&mut self) -> Result<i64, TimeError> {
        if let Some(rest) = self.rest.strip_prefix(b"Z") {
            self.rest = rest;
            return Ok(0);
        }
        let before = self.rest;
        let mismatch = |input: &mut Self| {
            input.rest = before;
            input.mismatch("Z07:00")
        };
        let sign = match before.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(mismatch(self)),
        };
        self.rest = &before[1..];
        let Some(hours) = self.digits(2) else { return Err(mismatch(self)) };
        if self.skip(":").is_err() {
            return Err(mismatch(self));
        }
        let Some(minutes) = self.digits(2) else { return Err(mismatch(self)) };
        // Go accepts offsets of 24 hours and 60 minutes.
        if hours > 24 {
            return Err(self.fail(": time zone offset hour out of range"));
        }
        if minutes > 60 {
            return Err(self.fail(": time zone offset minute out of range"));
        }
        Ok(sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
    }

    /// Returns the error for text that does not match this element of the layout.
    fn mismatch(&self, element: &str) -> TimeError {
        let layout = self.layout.as_str();
        self.fail(&format!(" as \"{layout}\": cannot parse {} as \"{element}\"", quoted(self.rest)))
    }

    fn fail(&self, message: &str) -> TimeError {
        TimeError(format!("parsing time {}{message}", quoted(self.text.as_bytes())))
    }
}

/// Quotes and escapes a text as Go's package `time` does.
fn quoted(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::from('"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' | 0x7f => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_times_as_go() {
        let cases = [
            ("2026-01-02T03:04:05Z", Layout::Seconds, "2026-01-02T03:04:05Z"),
            ("2026-01-02T3:04:05Z", Layout::Seconds, "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.5Z", Layout::Seconds, "2026-01-02T03:04:05.5Z"),
            ("2026-01-02T03:04:05,1234567891Z", Layout::Seconds, "2026-01-02T03:04:05.123456789Z"),
            ("2026-01-02T03:04:05-00:30", Layout::Seconds, "2026-01-02T03:34:05Z"),
            ("2026-01-02T03:04:05+24:60", Layout::Seconds, "2026-01-01T02:04:05Z"),
            ("2026-01-02T03:04:05.123456Z", Layout::Micros, "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04:05.123456+01:00", Layout::Micros, "2026-01-02T02:04:05.123456Z"),
        ];
        for (text, layout, wanted) in cases {
            assert_eq!(format!("{}Z", parse(text, layout).unwrap()), wanted, "{text}");
        }
    }

    #[test]
    fn errors_name_the_mismatched_element() {
        let seconds = [
            ("", "cannot parse \"\" as \"2006\""),
            ("x", "cannot parse \"x\" as \"2006\""),
            ("2026/01", "cannot parse \"/01\" as \"-\""),
            ("2026-1-02T", "cannot parse \"1-02T\" as \"01\""),
            ("2026-01-02", "cannot parse \"\" as \"T\""),
            ("2026-01-02 03:04:05Z", "cannot parse \" 03:04:05Z\" as \"T\""),
            ("2026-01-02t03:04:05Z", "cannot parse \"t03:04:05Z\" as \"T\""),
            ("2026-01-02T03:04:05", "cannot parse \"\" as \"Z07:00\""),
            ("2026-01-02T03:04:05z", "cannot parse \"z\" as \"Z07:00\""),
            ("2026-01-02T03:04:05.Z", "cannot parse \".Z\" as \"Z07:00\""),
            ("2026-01-02T03:04:05+0100", "cannot parse \"+0100\" as \"Z07:00\""),
        ];
        for (text, reason) in seconds {
            let error = parse(text, Layout::Seconds).unwrap_err().to_string();
            assert_eq!(error, format!("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": {reason}"));
        }
        let micros = [
            ("2026-01-02T03:04:05Z", "cannot parse \"Z\" as \".000000\""),
            ("2026-01-02T03:04:05.123Z", "cannot parse \".123Z\" as \".000000\""),
            ("2026-01-02T03:04:05.1234567Z", "cannot parse \"7Z\" as \"Z07:00\""),
        ];
        for (text, reason) in micros {
            let error = parse(text, Layout::Micros).unwrap_err().to_string();
            let layout = "2006-01-02T15:04:05.000000Z07:00";
            assert_eq!(error, format!("parsing time \"{text}\" as \"{layout}\": {reason}"));
        }
        for (text, reason) in [
            ("2026-13-02T03:04:05Z", "month out of range"),
            ("2026-02-30T03:04:05Z", "day out of range"),
            ("2026-01-02T24:04:05Z", "hour out of range"),
            ("2026-01-02T03:60:05Z", "minute out of range"),
            ("2026-01-02T03:04:60Z", "second out of range"),
            ("2026-01-02T03:04:05+25:00", "time zone offset hour out of range"),
            ("2026-01-02T03:04:05Z ", "extra text: \" \""),
        ] {
            let error = parse(text, Layout::Seconds).unwrap_err().to_string();
            assert_eq!(error, format!("parsing time \"{text}\": {reason}"));
        }
        assert_eq!(quoted("é\"\n".as_bytes()), r#""\xc3\xa9\"\x0a""#);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}|[-0-9TZ:.+,]{0,40}") {
            let _ = (parse(&text, Layout::Seconds), parse(&text, Layout::Micros));
        }
    }
}
