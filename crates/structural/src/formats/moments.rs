//! Dates, times of day and durations.

use nave_machinery::duration;

pub(super) fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = bytes else { return false };
    let number = |digits: &[&u8]| {
        let all = digits.iter().all(|digit| digit.is_ascii_digit());
        all.then(|| digits.iter().fold(0, |number, digit| number * 10 + u32::from(*digit - b'0')))
    };
    let (Some(year), Some(month), Some(day)) =
        (number(&[y1, y2, y3, y4]), number(&[m1, m2]), number(&[d1, d2]))
    else {
        return false;
    };
    (1..=days(year, month)).contains(&day)
}

/// Returns the number of days of a month; 0 if the month does not exist.
fn days(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    }
}

/// Returns whether a text is a date and a time of day. Ignores text after a second `T`.
pub(super) fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    is_date(date) && is_time(time)
}

/// Checks `hh:mm:ss`, an optional fraction after any separator, and a zone.
fn is_time(time: &str) -> bool {
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((clock, rest)) = time.split_at_checked(8) else { return false };
    let mut fields = clock.split(':');
    let (Some(hour), Some(minute), Some(second), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    if ![hour, minute, second].into_iter().all(two_digits) || hour > "23" || minute > "59" || second > "59" {
        return false;
    }
    is_zone(rest) || {
        let mut fraction = rest.chars();
        let is_separated = fraction.next().is_some_and(|first| first != '\n');
        let zone = fraction.as_str().trim_start_matches(|digit: char| digit.is_ascii_digit());
        is_separated && zone.len() < fraction.as_str().len() && is_zone(zone)
    }
}

fn is_zone(zone: &str) -> bool {
    match zone.as_bytes() {
        b"z" => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].into_iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Spellings of the units of Scala's durations. The last spelling of a unit is a prefix that also matches longer words.
const UNITS: [&[&str]; 8] = [
    &["ns", "nano"],
    &["us", "µs", "micro"],
    &["ms", "milli"],
    &["s", "sec"],
    &["m", "min"],
    &["h", "hr", "hour"],
    &["d", "day"],
    &["w", "wk", "week"],
];

/// Returns whether a text is a duration in Go's format, or contains an amount with a unit in Scala's format.
pub(super) fn is_duration(text: &str) -> bool {
    if duration::parse(text).is_some() {
        return true;
    }
    let mut has_unit = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let from = rest.get(start..).unwrap_or_default();
        let after = from.trim_start_matches(|c: char| c.is_ascii_digit());
        let amount = from.strip_suffix(after).unwrap_or_default();
        let spaced = after.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
        let end = spaced.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == 'µ');
        let unit = spaced.strip_suffix(end).unwrap_or_default().to_lowercase();
        rest = end;
        if unit.is_empty() {
            continue;
        }
        if amount.parse::<i64>().is_err() {
            return false;
        }
        has_unit |= UNITS.iter().any(|spellings| {
            spellings.contains(&unit.as_str()) || spellings.last().is_some_and(|last| unit.starts_with(last))
        });
    }
    has_unit
}
