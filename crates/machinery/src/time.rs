//! Timestamps and durations of the API (`metav1.Time`, `metav1.MicroTime`, `duration.HumanDuration`).

mod parse;

use std::fmt::Write as _;

use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;

pub use self::parse::{Layout, TimeError};

/// A point in time. A date and time in UTC, because `jiff::Timestamp` ends before the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime);

/// The first `metav1.Time`.
const FIRST: DateTime = date(1, 1, 1).at(0, 0, 0, 0);
const UNIX_EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Returns the current time.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().to_zoned(TimeZone::UTC).datetime())
}

impl Timestamp {
    /// Parses a `metav1.Time`: RFC 3339, with an optional fraction and any offset.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_as(text, Layout::Seconds).ok()
    }

    /// Parses a time in a layout.
    ///
    /// # Errors
    /// The text does not match the layout.
    pub fn parse_as(text: &str, layout: Layout) -> Result<Self, TimeError> {
        parse::parse(text, layout).map(Self)
    }

    /// Returns the time this many seconds and nanoseconds after 1970-01-01T00:00:00Z; `None` out of range.
    pub fn from_unix(seconds: i64, nanoseconds: i32) -> Option<Self> {
        let since = jiff::SignedDuration::from_secs(seconds);
        let since = since.checked_add(jiff::SignedDuration::from_nanos(nanoseconds.into()))?;
        UNIX_EPOCH.checked_add(since).ok().map(Self)
    }

    /// Returns whole seconds since 1970-01-01T00:00:00Z.
    pub fn unix_seconds(self) -> i64 {
        self.0.duration_since(UNIX_EPOCH).as_secs()
    }

    /// Returns the nanoseconds within the second.
    pub fn subsecond_nanoseconds(self) -> i32 {
        self.0.duration_since(UNIX_EPOCH).subsec_nanos()
    }

    /// Formats as `metav1.Time`: seconds, in UTC.
    pub fn rfc3339(self) -> String {
        self.write(false)
    }

    /// Formats as `metav1.MicroTime`: microseconds, in UTC.
    pub fn rfc3339_micro(self) -> String {
        self.write(true)
    }

    /// Adds seconds. Saturates at the first and last time that RFC 3339 can express.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        let later = self.0.checked_add(jiff::SignedDuration::from_secs(seconds));
        let later = later.unwrap_or(if seconds < 0 { DateTime::MIN } else { DateTime::MAX });
        Self(later.max(FIRST))
    }

    /// Returns the seconds since `earlier`; negative if `earlier` is later.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        self.0.duration_since(earlier.0).as_secs()
    }

    fn write(self, micro: bool) -> String {
        let time = self.0;
        let mut text = String::with_capacity(27);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        );
        if micro {
            let _ = write!(text, ".{:06}", time.subsec_nanosecond() / 1000);
        }
        text.push('Z');
        text
    }
}

/// Returns an age as shown in tables: `5s`, `3m20s`, `2d3h`; `<unknown>` without a time.
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.and_then(Timestamp::parse) {
        Some(since) => human_duration(now.seconds_since(since)),
        None => "<unknown>".to_owned(),
    }
}

/// Formats a duration in at most two significant units, as kubectl shows ages (upstream: `duration.HumanDuration`).
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        two(days, 'd', hours % 24, 'h')
    } else if days < 730 {
        format!("{days}d")
    } else if years < 8 {
        two(years, 'y', days % 365, 'd')
    } else {
        format!("{years}y")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_any_offset_and_formats_in_utc() {
        let cases = [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.123456789+01:00", "2026-01-02T02:04:05Z", "2026-01-02T02:04:05.123456Z"),
        ];
        for (text, seconds, micro) in cases {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!((time.rfc3339(), time.rfc3339_micro()), (seconds.to_owned(), micro.to_owned()));
        }
        for text in ["", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "2026-01-02 03:04:05Z"]
        {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn limits_times_to_the_calendar() {
        for text in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!(time.rfc3339(), text);
            assert_eq!(Timestamp::from_unix(time.unix_seconds(), 0), Some(time));
        }
        assert!(now().plus_seconds(i64::MAX) > now());
        assert!(now().plus_seconds(i64::MIN) < now());
        // Every sum can be formatted and parsed.
        for seconds in [i64::MIN, i64::MIN + 1, -(1 << 40), -(1 << 37), -1, 0, 1 << 37, 1 << 40, i64::MAX] {
            let text = now().plus_seconds(seconds).rfc3339();
            assert_eq!(text.len(), "2026-01-02T03:04:05Z".len(), "{text}");
            assert!(Timestamp::parse(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn formats_ages_as_kubectl() {
        let minute = 60;
        let (hour, day) = (60 * minute, 24 * 60 * minute);
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (10 * minute, "10m"),
            (3 * hour, "3h"),
            (3 * hour + minute, "3h1m"),
            (8 * hour, "8h"),
            (48 * hour, "2d"),
            (49 * hour, "2d1h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (9 * 365 * day, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
