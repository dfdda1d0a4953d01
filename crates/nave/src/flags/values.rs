//! Flag values in Kubernetes' notation.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use nave_controllers::frame::Descriptor;
use nave_machinery::duration;

/// The enabled in-process controllers, by kube-controller-manager's rules: a name in the list, with or without a minus,
/// takes precedence; `*` enables the other controllers that are on by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controllers {
    all: bool,
    on: Vec<String>,
    off: Vec<String>,
}

impl Controllers {
    /// Returns whether a controller is enabled under any of its names.
    fn runs(&self, names: &[&str], on_by_default: bool) -> bool {
        let said = |list: &[String]| list.iter().any(|said| names.contains(&said.as_str()));
        said(&self.on) || (!said(&self.off) && self.all && on_by_default)
    }

    /// Returns the enabled controllers.
    pub(crate) fn selected(&self) -> impl Iterator<Item = &'static Descriptor> {
        let runs = |controller: &&Descriptor| {
            self.runs(&[controller.name, controller.alias], controller.on_by_default)
        };
        nave_controllers::CONTROLLERS.iter().filter(runs)
    }

    /// Returns the first name in the list that matches no controller.
    pub(crate) fn unknown(&self, known: impl Fn(&str) -> bool) -> Option<&str> {
        self.on.iter().chain(&self.off).map(String::as_str).find(|name| !known(name))
    }
}

impl fmt::Display for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all.then(|| "*".to_owned());
        let off = self.off.iter().map(|name| format!("-{name}"));
        let words: Vec<String> = all.into_iter().chain(self.on.iter().cloned()).chain(off).collect();
        f.write_str(if words.is_empty() { "none".to_owned() } else { words.join(",") }.as_str())
    }
}

/// Parses `*`, `foo`, `-foo`, separated by commas, or `none`.
pub(super) fn parse_controllers(list: &str) -> Result<Controllers, String> {
    let mut controllers = Controllers::default();
    if list == "none" {
        return Ok(controllers);
    }
    for word in list.split(',').map(str::trim) {
        let name = word.strip_prefix('-').unwrap_or(word);
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match word {
            "*" => controllers.all = true,
            "none" => return Err("'none' cannot be combined with other names".to_owned()),
            _ if name.is_empty() || !name.chars().all(legal) => {
                return Err(format!(
                    "{word:?} is not '*', a controller's name, or such a name with the prefix '-'"
                ));
            }
            _ if name == word => controllers.on.push(name.to_owned()),
            _ => controllers.off.push(name.to_owned()),
        }
    }
    Ok(controllers)
}

/// Parses `30000-32767`, `30000+2767` or a single port.
pub(super) fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is not a range such as 30000-32767, of ports from 1 to {}", u16::MAX);
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (port(first)?, port(last)?)
    } else if let Some((first, more)) = text.split_once('+') {
        let first = port(first)?;
        (first, first.checked_add(port(more)?).ok_or_else(wrong)?)
    } else {
        (port(text)?, port(text)?)
    };
    if first > last {
        return Err(format!("{text:?} ends before it starts; did you mean {last}-{first}?"));
    }
    if first == 0 { Err(wrong()) } else { Ok(first..=last) }
}

/// Parses a duration in Go's notation: `300ms`, `1.5h`, `2h45m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanos = duration::parse_nanos(text)
        .map_err(|_| format!("{text:?} is not a duration such as 300ms, 30s or 1h15m"))?;
    let nanos = u64::try_from(nanos).map_err(|_| "a duration must not be negative".to_owned())?;
    Ok(Duration::from_nanos(nanos))
}

/// Parses a count of requests, connections or objects.
pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    whole(0..=MAX_COUNT)(text)
}

/// Parses the log level.
pub(super) fn parse_verbosity(text: &str) -> Result<u8, String> {
    whole(0..=10)(text).map_err(|_| "must be a whole number from 0 (quiet) to 10 (everything)".to_owned())
}

/// Returns a parser of whole numbers within a range. The error names the range.
pub(super) fn whole<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone
where
    RangeInclusive<T>: Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// Parses a ratio: a finite, non-negative number.
pub(super) fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio >= 0.0);
    ratio.ok_or_else(|| "must be a number such as 0.1 that is not negative".to_owned())
}

/// Parses a boolean in Go's notation (`strconv.ParseBool`).
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// The maximum count. Kubernetes' flags of this kind are 32-bit integers.
pub(super) const MAX_COUNT: usize = i32::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_go_durations() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("300ms", 300), ("1m0s", 60_000), ("1.5h", 5_400_000), ("2h45m", 9_900_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "1", "s", "-1s", "1 s", "1d", "1s2", "1..5s", "999999999999999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn range_errors_name_the_range() {
        assert_eq!(parse_duration("-1s"), Err("a duration must not be negative".to_owned()));
        assert_eq!((parse_count("0"), parse_count("2147483647")), (Ok(0), Ok(2_147_483_647)));
        for wrong in ["-1", "2147483648", "99999999999999999999", "1.5", "x", ""] {
            assert_eq!(parse_count(wrong), Err("must be a whole number from 0 to 2147483647".to_owned()));
        }
        assert_eq!((parse_verbosity("0"), parse_verbosity("10")), (Ok(0), Ok(10)));
        for wrong in ["-1", "11", "256", "x", ""] {
            assert!(parse_verbosity(wrong).unwrap_err().contains("0 (quiet) to 10"), "{wrong}");
        }
    }

    #[test]
    fn parses_port_ranges_and_single_ports() {
        assert_eq!(parse_ports("30000-32767"), Ok(30000..=32767));
        assert_eq!(parse_ports("30000+100"), Ok(30000..=30100));
        assert_eq!(parse_ports("80"), Ok(80..=80));
        for wrong in ["", "0-10", "1-70000", "65535+1", "a-b", "1-2-3", "-1"] {
            assert!(parse_ports(wrong).unwrap_err().contains("such as 30000-32767"), "{wrong}");
        }
        assert!(parse_ports("10-9").unwrap_err().ends_with("did you mean 9-10?"));
    }

    #[test]
    fn parses_truth_values_as_go() {
        for (value, texts) in [
            (true, ["1", "t", "T", "true", "TRUE", "True"]),
            (false, ["0", "f", "F", "false", "FALSE", "False"]),
        ] {
            for text in texts {
                assert_eq!(parse_bool(text), Ok(value), "{text}");
            }
        }
        for wrong in ["", "maybe", "yes", "tRUE", "2"] {
            assert_eq!(parse_bool(wrong), Err("must be true or false".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn ratio_is_finite_and_not_negative() {
        assert_eq!((parse_ratio("0"), parse_ratio("0.25")), (Ok(0.0), Ok(0.25)));
        for wrong in ["", "-0.1", "NaN", "inf", "x"] {
            assert!(parse_ratio(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn selects_controllers_as_kube_controller_manager() {
        let runs =
            |list: &str, name: &str, default: bool| parse_controllers(list).unwrap().runs(&[name], default);
        assert!(runs("*", "a", true) && !runs("*", "a", false));
        assert!(runs("a", "a", false) && !runs("a", "b", true));
        assert!(!runs("*,-a", "a", true) && runs("*,-a", "b", true));
        assert!(!runs("none", "a", true));
        assert!(!parse_controllers("*,-short").unwrap().runs(&["long-controller", "short"], true));
        assert_eq!(parse_controllers("*,-a,b").unwrap().unknown(|name| name == "b"), Some("a"));
        assert_eq!(parse_controllers("*,a,-b").unwrap().to_string(), "*,a,-b");
        assert_eq!(parse_controllers("none").unwrap().to_string(), "none");
        for wrong in ["", ",", "-", "a,none", "A", "a b"] {
            assert!(parse_controllers(wrong).is_err(), "{wrong}");
        }
    }
}
