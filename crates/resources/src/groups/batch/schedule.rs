//! The schedules of cron jobs, as `robfig/cron` reads them.

/// The words of months and of days, each standing for its place.
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

struct Field {
    min: u32,
    max: u32,
    words: &'static [&'static str],
}

/// Minutes, hours, days of the month, months, days of the week.
const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, words: &[] },
    Field { min: 0, max: 23, words: &[] },
    Field { min: 1, max: 31, words: &[] },
    Field { min: 1, max: 12, words: &MONTHS },
    Field { min: 0, max: 6, words: &DAYS },
];

/// Whether a text is a schedule; why not, if it is none.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let schedule = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(zoned) => zoned.split_once(' ').map_or("", |(_, rest)| rest.trim()),
        None => schedule,
    };
    if let Some(duration) = schedule.strip_prefix("@every ") {
        let is_duration =
            duration.starts_with(|c: char| c.is_ascii_digit()) && duration.ends_with(['s', 'm', 'h']);
        return if is_duration {
            Ok(())
        } else {
            Err(format!("failed to parse duration {schedule}: time: invalid duration \"{duration}\""))
        };
    }
    if schedule.starts_with('@') {
        return if DESCRIPTORS.contains(&schedule) {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            parts.len(),
            parts.join(" ")
        ));
    }
    parts
        .iter()
        .zip(&FIELDS)
        .flat_map(|(part, field)| part.split(',').map(move |range| (range, field)))
        .try_for_each(|(range, field)| check_range(range, field))
}

/// A range such as `5`, `1-5`, `*/5`, `mon-fri`.
fn check_range(text: &str, field: &Field) -> Result<(), String> {
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
    let (low, high) = if first == "*" || first == "?" {
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
    match step.map(plain_number).transpose()? {
        Some(0) => Err(format!("step of range should be a positive number: {text}")),
        _ => Ok(()),
    }
}

fn number(text: &str, field: &Field) -> Result<u32, String> {
    let word = field.words.iter().position(|word| word.eq_ignore_ascii_case(text));
    match word.and_then(|place| u32::try_from(place).ok()) {
        Some(place) => Ok(place + field.min),
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
    fn schedules_are_told_from_other_texts() {
        for good in ["*/5 * * * *", "0 0 1,15 JAN-mar mon", "@hourly", "@every 1h30m", "5/15 ? * * *"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let cases = [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("@often", "unrecognized descriptor: @often"),
        ];
        for (schedule, why) in cases {
            assert_eq!(check(schedule), Err(why.to_owned()));
        }
    }
}
