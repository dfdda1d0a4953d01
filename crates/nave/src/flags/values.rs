//! Values of flags that are written as Kubernetes writes them.

use std::{fmt, ops::RangeInclusive, time::Duration};

use nave_machinery::duration;

/// Which in-process controllers run, by kube-controller-manager's rules: a name said, with or without a minus, holds;
/// of the others `*` runs those that are on by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controllers {
    all: bool,
    on: Vec<String>,
    off: Vec<String>,
}

impl Controllers {
    /// Whether a controller runs, by any of its names.
    pub(crate) fn runs(&self, names: &[&str], on_by_default: bool) -> bool {
        let said = |list: &[String]| list.iter().any(|said| names.contains(&said.as_str()));
        said(&self.on) || (!said(&self.off) && self.all && on_by_default)
    }

    /// The first name said that no controller has.
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

/// Reads `*`, `foo`, `-foo`, separated by commas, or `none`.
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
            "none" => return Err("'none' stands alone".to_owned()),
            _ if name.is_empty() || !name.chars().all(legal) => {
                return Err(format!("{word:?} is not '*', a controller's name, or one with '-' before it"));
            }
            _ if name == word => controllers.on.push(name.to_owned()),
            _ => controllers.off.push(name.to_owned()),
        }
    }
    Ok(controllers)
}

/// Reads `30000-32767`, `30000+2767` or a single port.
pub(super) fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is not a range such as 30000-32767");
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (port(first)?, port(last)?)
    } else if let Some((first, more)) = text.split_once('+') {
        let first = port(first)?;
        (first, first.checked_add(port(more)?).ok_or_else(wrong)?)
    } else {
        (port(text)?, port(text)?)
    };
    if first == 0 || last < first { Err(wrong()) } else { Ok(first..=last) }
}

/// Reads a duration as Go writes them: `300ms`, `1.5h`, `2h45m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| format!("{text:?} is not a duration such as 300ms, 30s or 1h15m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
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
    fn ports_are_a_range_of_two_kinds_or_one() {
        assert_eq!(parse_ports("30000-32767"), Ok(30000..=32767));
        assert_eq!(parse_ports("30000+100"), Ok(30000..=30100));
        assert_eq!(parse_ports("80"), Ok(80..=80));
        for wrong in ["", "0-10", "10-9", "1-70000", "65535+1", "a-b", "1-2-3"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn controllers_follow_the_controller_managers_rules() {
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
