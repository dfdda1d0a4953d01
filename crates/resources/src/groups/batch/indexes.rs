//! Lists of job indexes, such as `0,2-4`.

/// Returns the number of indexes below `completions` in a list.
///
/// # Errors
/// The list is malformed or not in ascending order.
pub(super) fn count(list: &str, completions: i64) -> Result<i64, String> {
    let mut last: Option<i64> = None;
    let mut total = 0;
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(out_of_order(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// Returns the first index that both lists contain.
pub(super) fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let intervals = |list: &str| -> Vec<(i64, i64)> {
        list.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (one, other) = (intervals(one), intervals(other));
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    while let (Some((a, b)), Some((c, d))) = (one.peek(), other.peek()) {
        if a <= d && c <= b {
            return Some(*a.max(c));
        }
        if a <= c {
            one.next()
        } else {
            other.next()
        };
    }
    None
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let mut ends = part.split('-');
    let (first, second) = (ends.next().unwrap_or_default(), ends.next());
    if ends.next().is_some() {
        return Err(format!("the fragment {part:?} has more than two parts separated by '-'"));
    }
    let index = |text: &str| -> Result<i64, String> {
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
    };
    let first = index(first)?;
    let Some(second) = second else { return Ok((first, first)) };
    let second = index(second)?;
    if first >= second { Err(out_of_order(first, second)) } else { Ok((first, second)) }
}

fn out_of_order(previous: i64, current: i64) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_ascending_indexes() {
        for (list, expected) in [
            ("", Some(0)),
            ("0", Some(1)),
            ("0,2-4", Some(4)),
            ("2,1", None),
            ("4-2", None),
            ("1-2-3", None),
            ("x", None),
            ("5", None),
            ("1,,2", None),
        ] {
            assert_eq!(count(list, 5).ok(), expected, "{list}");
        }
    }

    #[test]
    fn finds_first_common_index() {
        for (one, other, expected) in [
            ("0,2", "1,3", None),
            ("0-3", "2", Some(2)),
            ("1", "0-4", Some(1)),
            ("", "1", None),
            ("x,1", "1", Some(1)),
        ] {
            assert_eq!(overlap(one, other, 5), expected, "{one} {other}");
        }
    }
}
