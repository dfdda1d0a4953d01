//! Durations, points in time, and their parts.

use std::fmt::Write as _;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::{Timestamp, Value};

/// The parts of timestamps and durations.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("timestamp_to_year", "timestamp::getFullYear() int", Some(get_full_year)),
        ("timestamp_to_year_with_tz", "timestamp::getFullYear(string) int", Some(get_full_year)),
        ("timestamp_to_month", "timestamp::getMonth() int", Some(get_month)),
        ("timestamp_to_month_with_tz", "timestamp::getMonth(string) int", Some(get_month)),
        ("timestamp_to_day_of_year", "timestamp::getDayOfYear() int", Some(get_day_of_year)),
        ("timestamp_to_day_of_year_with_tz", "timestamp::getDayOfYear(string) int", Some(get_day_of_year)),
        ("timestamp_to_day_of_month", "timestamp::getDayOfMonth() int", Some(get_day_of_month)),
        ("timestamp_to_day_of_month_with_tz", "timestamp::getDayOfMonth(string) int", Some(get_day_of_month)),
        ("timestamp_to_day_of_month_1_based", "timestamp::getDate() int", Some(get_date)),
        ("timestamp_to_day_of_month_1_based_with_tz", "timestamp::getDate(string) int", Some(get_date)),
        ("timestamp_to_day_of_week", "timestamp::getDayOfWeek() int", Some(get_day_of_week)),
        ("timestamp_to_day_of_week_with_tz", "timestamp::getDayOfWeek(string) int", Some(get_day_of_week)),
        ("timestamp_to_hours", "timestamp::getHours() int", Some(get_hours)),
        ("timestamp_to_hours_with_tz", "timestamp::getHours(string) int", Some(get_hours)),
        ("duration_to_hours", "duration::getHours() int", Some(duration_hours)),
        ("timestamp_to_minutes", "timestamp::getMinutes() int", Some(get_minutes)),
        ("timestamp_to_minutes_with_tz", "timestamp::getMinutes(string) int", Some(get_minutes)),
        ("duration_to_minutes", "duration::getMinutes() int", Some(duration_minutes)),
        ("timestamp_to_seconds", "timestamp::getSeconds() int", Some(get_seconds)),
        ("timestamp_to_seconds_tz", "timestamp::getSeconds(string) int", Some(get_seconds)),
        ("duration_to_seconds", "duration::getSeconds() int", Some(duration_seconds)),
        ("timestamp_to_milliseconds", "timestamp::getMilliseconds() int", Some(get_milliseconds)),
        (
            "timestamp_to_milliseconds_with_tz",
            "timestamp::getMilliseconds(string) int",
            Some(get_milliseconds),
        ),
        ("duration_to_milliseconds", "duration::getMilliseconds() int", Some(duration_milliseconds)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// Returns the date and time in the time zone of the second argument, or in UTC without one.
fn local(args: &[Value<'_>]) -> Result<DateTime, Failure> {
    let (at, zone) = match args {
        [Value::Timestamp(at)] => (*at, None),
        [Value::Timestamp(at), Value::String(zone)] => (*at, Some(&**zone)),
        _ => return Err(Failure::overload()),
    };
    let overflow = || Failure::new("timestamp overflow");
    let zone = match zone {
        None | Some("" | "UTC") => return civil(at.seconds, at.nanos).ok_or_else(Failure::overload),
        Some(name) => match name.split_once(':') {
            None => named_zone(name)?,
            Some((hours, minutes)) => {
                let (hours, minutes) = (number(hours)?, number(minutes)?);
                let minutes = if name.starts_with('-') { hours * 60 - minutes } else { hours * 60 + minutes };
                return civil(at.seconds.saturating_add(minutes * 60), at.nanos).ok_or_else(overflow);
            }
        },
    };
    let instant = jiff::Timestamp::new(at.seconds, at.nanos as i32).map_err(|_| overflow())?;
    Ok(zone.to_datetime(instant))
}

fn named_zone(name: &str) -> Result<TimeZone, Failure> {
    if name == "Local" {
        return Ok(TimeZone::UTC);
    }
    if name.starts_with(['/', '\\']) || name.split(['/', '\\']).any(|part| part == "..") {
        return Err(Failure::new("time: invalid location name"));
    }
    // Names are case-sensitive, because Go reads them as file names.
    let zone = TimeZone::get(name).ok().filter(|zone| zone.iana_name() == Some(name));
    zone.ok_or_else(|| Failure::new(format!("unknown time zone {name}")))
}

/// Reads a number as Go's `strconv.Atoi` does.
fn number(text: &str) -> Result<i64, Failure> {
    match text.parse::<i64>() {
        Ok(number) if number.abs() < 1_000_000 => Ok(number),
        _ => {
            let quoted = super::format::go_quote(text);
            Err(Failure::new(format!("strconv.Atoi: parsing {quoted}: invalid syntax")))
        }
    }
}

macro_rules! part {
    ($name:ident, $at:ident, $value:expr) => {
        fn $name<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
            let $at = local(args)?;
            Ok(Value::Int(i64::from($value)))
        }
    };
}

part!(get_full_year, at, at.year());
part!(get_month, at, at.month() - 1);
part!(get_day_of_year, at, at.day_of_year() - 1);
part!(get_day_of_month, at, at.day() - 1);
part!(get_date, at, at.day());
part!(get_day_of_week, at, at.weekday().to_sunday_zero_offset());
part!(get_hours, at, at.hour());
part!(get_minutes, at, at.minute());
part!(get_seconds, at, at.second());
part!(get_milliseconds, at, at.subsec_nanosecond() / 1_000_000);

macro_rules! duration_part {
    ($name:ident, $nanos:ident, $value:expr) => {
        fn $name<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
            match args {
                [Value::Duration($nanos)] => Ok(Value::Int($value)),
                _ => Err(Failure::overload()),
            }
        }
    };
}

duration_part!(duration_hours, nanos, whole_units(*nanos, HOUR));
duration_part!(duration_minutes, nanos, whole_units(*nanos, MINUTE));
duration_part!(duration_seconds, nanos, whole_units(*nanos, SECOND));
duration_part!(duration_milliseconds, nanos, nanos / 1_000_000);

/// Reads a duration in Go's notation, such as `1h30m` or `-1.5s`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_end = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(whole_end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_end = after.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse().ok().filter(|it: &i128| *it < 1 << 63)? };
        total += whole.checked_mul(scale)?;
        let digits = fraction.get(..fraction.len().min(18)).unwrap_or_default();
        if !digits.is_empty() {
            total += digits.parse::<i128>().ok()? * scale / 10i128.pow(digits.len() as u32);
        }
        if total > 1 << 63 {
            return None;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Reads a duration as in the schema format `duration`: Go's notation, or words such as `3 days`.
pub(crate) fn parse_openapi_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_duration(text) {
        return Some(nanos);
    }
    let (mut total, mut found, mut rest) = (0i64, false, text);
    while let Some(start) = rest.find(|it: char| it.is_ascii_digit()) {
        let tail = rest.get(start..)?;
        let end = tail.find(|it: char| !it.is_ascii_digit()).unwrap_or(tail.len());
        let (digits, after) = tail.split_at(end);
        let after = after.trim_start();
        let unit_end = after.find(|it: char| !it.is_ascii_alphabetic() && it != 'µ').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let lower = unit.to_ascii_lowercase();
        for (names, prefix, nanos) in UNITS {
            if names.contains(&lower.as_str()) || (!lower.is_empty() && lower.starts_with(prefix)) {
                found = true;
                total = total.checked_add(digits.parse::<i64>().ok()?.checked_mul(*nanos)?)?;
                break;
            }
        }
        rest = after;
    }
    found.then_some(total)
}

/// The names of each unit, the prefix of longer names, and the nanoseconds.
const UNITS: &[(&[&str], &str, i64)] = &[
    (&["ns"], "nano", 1),
    (&["us", "µs"], "micro", 1_000),
    (&["ms"], "milli", 1_000_000),
    (&["s"], "sec", 1_000_000_000),
    (&["m"], "min", 60_000_000_000),
    (&["h", "hr"], "hour", 3_600_000_000_000),
    (&["d"], "day", 86_400_000_000_000),
    (&["w", "wk"], "week", 604_800_000_000_000),
];

/// Formats a duration in seconds, as `string()` does. Long durations lose digits, as in Go.
pub(crate) fn format_duration(nanos: i64) -> String {
    format!("{}s", in_units(nanos, SECOND))
}

/// Converts a duration to a floating-point number of units, with Go's rounding.
fn in_units(nanos: i64, unit: i64) -> f64 {
    (nanos / unit) as f64 + (nanos % unit) as f64 / unit as f64
}

/// Returns the whole units of a duration, from the rounded number, as upstream.
fn whole_units(nanos: i64, unit: i64) -> i64 {
    in_units(nanos, unit) as i64
}

/// Nanoseconds of the units.
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Reads an RFC 3339 time.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = parse_date(date)?;
    let rest = rest.strip_prefix('T')?;
    let zone = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once(['.', ',']).map_or((clock, None), |(a, b)| (a, Some(b)));
    let time = parse_clock(clock)?;
    let nanos = match fraction {
        None => 0,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()) => {
            format!("{:0<9}", digits.get(..digits.len().min(9))?).parse().ok()?
        }
        Some(_) => return None,
    };
    let offset = match zone {
        "Z" => 0,
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let two = |text: &str, max: i64| {
                let fits = text.len() == 2 && text.bytes().all(|it| it.is_ascii_digit());
                text.parse::<i64>().ok().filter(|it| fits && *it <= max)
            };
            let seconds = two(hours, 24)? * 3600 + two(minutes, 60)? * 60;
            if zone.starts_with('-') { -seconds } else { seconds }
        }
    };
    let seconds = seconds_of(DateTime::from_parts(date, time)) - offset;
    Some(Timestamp { seconds, nanos, offset: offset as i32 })
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Returns the seconds since 1970 of a date and time in UTC.
fn seconds_of(at: DateTime) -> i64 {
    at.duration_since(EPOCH).as_secs()
}

/// Returns the date and time in UTC.
fn civil(seconds: i64, nanos: u32) -> Option<DateTime> {
    EPOCH.checked_add(jiff::SignedDuration::new(seconds, nanos as i32)).ok()
}

fn parse_date(text: &str) -> Option<Date> {
    let digits = |part: &str| part.bytes().all(|it| it.is_ascii_digit());
    let (year, month, day) = (text.get(..4)?, text.get(5..7)?, text.get(8..10)?);
    if text.len() != 10
        || text.get(4..5)? != "-"
        || text.get(7..8)? != "-"
        || !digits(&[year, month, day].concat())
    {
        return None;
    }
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn parse_clock(text: &str) -> Option<Time> {
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|it| it.is_ascii_digit());
    // As in Go, the hour can have one digit.
    let padded = format!("0{text}");
    let text = if text.find(':') == Some(1) { &*padded } else { text };
    let mut parts = text.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || ![hour, minute, second].into_iter().all(digits) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, second.parse().ok()?, 0).ok()
}

/// Reads a date as in the schema format `date`.
pub(crate) fn parse_full_date(text: &str) -> Option<Timestamp> {
    let seconds = seconds_of(parse_date(text)?.to_datetime(Time::midnight()));
    Some(Timestamp { seconds, nanos: 0, offset: 0 })
}

/// Reads a time as in the schema format `date-time`.
pub(crate) fn parse_date_time(text: &str) -> Option<Timestamp> {
    parse_timestamp(&text.to_ascii_uppercase())
}

/// Formats a time in RFC 3339, in its zone.
pub(crate) fn format_timestamp(at: Timestamp) -> String {
    let Some(local) = civil(at.seconds + i64::from(at.offset), 0) else { return format!("{}s", at.seconds) };
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        local.year(),
        local.month(),
        local.day(),
        local.hour(),
        local.minute(),
        local.second()
    );
    if at.nanos != 0 {
        text.push('.');
        text.push_str(format!("{:09}", at.nanos).trim_end_matches('0'));
    }
    if at.offset == 0 {
        text.push('Z');
    } else {
        let (sign, minutes) = (if at.offset < 0 { '-' } else { '+' }, at.offset.abs() / 60);
        let _ = write!(text, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    }
    text
}
