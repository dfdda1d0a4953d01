//! Schedules of cron jobs (upstream: `robfig/cron`).

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit, Zoned};

use crate::duration;

/// A cron schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Calendar fields, such as `0 3 * * mon`.
    Calendar(Box<Calendar>),
    /// A fixed interval.
    Every(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Calendar {
    minutes: ValueSet,
    hours: ValueSet,
    days: ValueSet,
    months: ValueSet,
    weekdays: ValueSet,
}

/// The matching values of a field as a bit set, and whether the field is unrestricted (`*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ValueSet {
    bits: u64,
    open: bool,
}

/// Returns a time zone by its IANA name.
///
/// # Errors
/// The name is not in the time zone database.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let zone = TimeZone::get(name).ok();
    // Names are case-sensitive, because upstream reads them as file names.
    let zone = zone.filter(|zone| zone.iana_name().is_none_or(|known| known == name));
    zone.ok_or_else(|| format!("unknown time zone {name}"))
}

impl Schedule {
    /// Parses a schedule: five fields, a descriptor such as `@hourly`, or `@every 1h30m`. Skips a leading time zone,
    /// which the API does not allow.
    ///
    /// # Errors
    /// The text is not a schedule. The message is from upstream's library.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            Some(zoned) => zoned.split_once(' ').map_or("", |(_, rest)| rest.trim()),
            None => text,
        };
        if let Some(duration) = text.strip_prefix("@every ") {
            let nanos = duration::parse_nanos(duration)
                .map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            // Truncates intervals to seconds; the minimum is one second.
            let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(0);
            return Ok(Self(Kind::Every(Duration::from_secs(seconds.max(1)))));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            _ => text,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            let (wanted, found) = (FIELDS.len(), parts.len());
            return Err(format!("expected exactly {wanted} fields, found {found}: [{}]", parts.join(" ")));
        };
        let [minute, hour, day, month, weekday] = &FIELDS;
        Ok(Self(Kind::Calendar(Box::new(Calendar {
            minutes: value_set(minutes, minute)?,
            hours: value_set(hours, hour)?,
            days: value_set(days, day)?,
            months: value_set(months, month)?,
            weekdays: value_set(weekdays, weekday)?,
        }))))
    }

    /// Returns the first due time after `after`; `None` if no time is due within five years. A time skipped by a clock
    /// change is not due; a repeated time is due twice.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(duration) => {
                let due = after.checked_add(*duration).ok()?;
                due.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Trunc))
                    .ok()
            }
            Kind::Calendar(calendar) => calendar.next(after, zone),
        }
    }

    /// Returns the last due time after `after` and not after `now`.
    pub fn last(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let due = |from: Timestamp| self.next(from, zone).filter(|due| *due <= now);
        let mut latest = due(after)?;
        if let Kind::Every(duration) = &self.0 {
            let passed = u64::try_from(latest.duration_until(now).as_secs()).unwrap_or(0);
            let whole = passed - passed % duration.as_secs();
            return latest.checked_add(Duration::from_secs(whole)).ok();
        }
        // `next` is monotonic, so a binary search finds the last time.
        let (mut early, mut late) = (latest.as_second(), now.as_second());
        while late - early > 1 {
            let middle = early + (late - early) / 2;
            match Timestamp::from_second(middle).ok().and_then(due) {
                Some(found) => (latest, early) = (found, middle),
                None => late = middle,
            }
        }
        Some(latest)
    }
}

impl Calendar {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole_minute = after.as_second().div_euclid(60) * 60 + 60;
        let mut time = Timestamp::from_second(whole_minute).ok()?.to_zoned(zone.clone());
        // Stepping by minutes is exact: only in the distant past have zones had offsets with seconds.
        let last_year = time.year() + 5;
        while time.year() <= last_year {
            if !self.months.has(time.month()) {
                time = time.first_of_month().ok()?.checked_add(1.month()).ok()?.start_of_day().ok()?;
            } else if !self.has_day(&time) {
                time = time.tomorrow().ok()?.start_of_day().ok()?;
            } else if !self.hours.has(time.hour()) {
                time = time.checked_add((60 - i64::from(time.minute())).minutes()).ok()?;
            } else if !self.minutes.has(time.minute()) {
                time = time.checked_add(1.minute()).ok()?;
            } else {
                return Some(time.timestamp());
            }
        }
        None
    }

    /// Returns whether the day matches. If day of month and day of week are both restricted, either may match.
    fn has_day(&self, time: &Zoned) -> bool {
        let day = self.days.has(time.day());
        let weekday = self.weekdays.has(time.weekday().to_sunday_zero_offset());
        if self.days.open || self.weekdays.open { day && weekday } else { day || weekday }
    }
}

impl ValueSet {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

/// Names of months and weekdays, in the order of their values.
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    min: u32,
    max: u32,
    words: &'static [&'static str],
}

/// Minute, hour, day of month, month, day of week.
const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, words: &[] },
    Field { min: 0, max: 23, words: &[] },
    Field { min: 1, max: 31, words: &[] },
    Field { min: 1, max: 12, words: &MONTHS },
    Field { min: 0, max: 6, words: &DAYS },
];

/// Parses a field: ranges separated by commas.
fn value_set(text: &str, field: &Field) -> Result<ValueSet, String> {
    let mut all = ValueSet::default();
    for part in text.split(',') {
        let range = range(part, field)?;
        all = ValueSet { bits: all.bits | range.bits, open: all.open || range.open };
    }
    Ok(all)
}

/// Parses a range such as `5`, `1-5`, `*/5`, `mon-fri`.
fn range(text: &str, field: &Field) -> Result<ValueSet, String> {
    let mut parts = text.split('/');
    let range = parts.next().unwrap_or_default();
    let (step, rest) = (parts.next(), parts.next());
    if rest.is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let mut ends = range.split('-');
    let first = ends.next().unwrap_or_default();
    let (last, rest) = (ends.next(), ends.next());
    if rest.is_some() {
        return Err(format!("too many hyphens: {text}"));
    }
    let open = first == "*" || first == "?";
    let (low, high) = if open {
        (field.min, field.max)
    } else {
        let low = number(first, field)?;
        let alone = if step.is_some() { field.max } else { low };
        (low, last.map_or(Ok(alone), |last| number(last, field))?)
    };
    if low < field.min {
        return Err(format!("beginning of range ({low}) below minimum ({}): {text}", field.min));
    }
    if high > field.max {
        return Err(format!("end of range ({high}) above maximum ({}): {text}", field.max));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    let step = step.map_or(Ok(1), plain_number)?;
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (low..=high).step_by(step as usize).fold(0, |bits, value| bits | (1 << value));
    Ok(ValueSet { bits, open: open && step == 1 })
}

fn number(text: &str, field: &Field) -> Result<u32, String> {
    let word = field.words.iter().position(|word| word.eq_ignore_ascii_case(text));
    match word.and_then(|value| u32::try_from(value).ok()) {
        Some(value) => Ok(value + field.min),
        None => plain_number(text),
    }
}

fn plain_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_schedules_and_rejects_other_texts() {
        for good in ["*/5 * * * *", "0 0 1,15 JAN-mar mon", "@hourly", "@every 1h30m", "5/15 ? * * *"] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        let cases = [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every 1d", "failed to parse duration @every 1d: time: unknown unit \"d\" in duration \"1d\""),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ];
        for (schedule, why) in cases {
            assert_eq!(Schedule::parse(schedule), Err(why.to_owned()));
        }
    }

    fn due(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), time_zone(zone).unwrap());
        let first: Timestamp = after.parse().unwrap();
        let next = std::iter::successors(Some(first), |after| schedule.next(*after, &zone));
        next.skip(1).take(count).map(|time| time.to_string()).collect()
    }

    #[test]
    fn computes_the_next_times() {
        let cases: [(&str, &[&str]); 8] = [
            ("*/20 * * * *", &["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"]),
            ("30 6 * * *", &["2026-01-01T06:30:00Z", "2026-01-02T06:30:00Z"]),
            ("0 0 31 * *", &["2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"]),
            ("0 0 29 2 *", &["2028-02-29T00:00:00Z"]),
            ("0 0 30 2 *", &[]),
            // The 13th or a Friday; 2 January 2026 is a Friday.
            ("0 0 13 * fri", &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"]),
            ("@monthly", &["2026-02-01T00:00:00Z"]),
            ("@every 90m", &["2026-01-01T01:30:07Z", "2026-01-01T03:00:07Z"]),
        ];
        for (schedule, expected) in cases {
            let found = due(schedule, "UTC", "2026-01-01T00:00:07Z", expected.len().max(1));
            assert_eq!(found, expected, "{schedule}");
        }
    }

    #[test]
    fn clock_changes_skip_and_repeat_times() {
        // In Berlin, 02:30 does not occur on 29 March 2026 and occurs twice on 25 October.
        let spring = due("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1);
        assert_eq!(spring, ["2026-03-30T00:30:00Z"]);
        let autumn = due("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]);
        for unknown in ["Europe/Atlantis", "europe/berlin", "utc", "EUROPE/BERLIN"] {
            assert_eq!(time_zone(unknown).unwrap_err(), format!("unknown time zone {unknown}"));
        }
        for known in ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"] {
            assert!(time_zone(known).is_ok(), "{known}");
        }
    }

    #[test]
    fn finds_the_last_of_many_missed_times() {
        let now: Timestamp = "2026-06-01T10:07:30Z".parse().unwrap();
        for (schedule, after, expected) in [
            ("*/5 * * * *", "2020-01-01T00:00:00Z", Some("2026-06-01T10:05:00Z")),
            ("*/5 * * * *", "2026-06-01T10:05:00Z", None),
            ("0 0 1 1 *", "2020-01-01T00:00:00Z", Some("2026-01-01T00:00:00Z")),
            ("* * 1 6 *", "2020-01-01T00:00:00Z", Some("2026-06-01T10:07:00Z")),
            ("@every 1h", "2026-06-01T00:00:01Z", Some("2026-06-01T10:00:01Z")),
        ] {
            let last = Schedule::parse(schedule).unwrap().last(after.parse().unwrap(), now, &TimeZone::UTC);
            assert_eq!(last.map(|time| time.to_string()).as_deref(), expected, "{schedule}");
        }
    }
}
