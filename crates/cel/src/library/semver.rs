//! Semantic versions.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::Library;
use super::format::go_quote;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// Kubernetes' functions on semantic versions, version 1.
pub(super) const LIBRARY: Library = Library {
    since: 33,
    patch: false,
    overloads: &[
        ("string_to_semver", "semver(string) semver", Some(to_semver)),
        ("string_bool_to_semver", "semver(string, bool) semver", Some(to_semver)),
        ("is_semver_string", "isSemver(string) bool", Some(is_semver)),
        ("is_semver_string_bool", "isSemver(string, bool) bool", Some(is_semver)),
        ("semver_is_greater_than", "semver::isGreaterThan(semver) bool", Some(is_greater_than)),
        ("semver_is_less_than", "semver::isLessThan(semver) bool", Some(is_less_than)),
        ("semver_compare_to", "semver::compareTo(semver) int", Some(compare_to)),
        ("semver_major", "semver::major() int", Some(major)),
        ("semver_minor", "semver::minor() int", Some(minor)),
        ("semver_patch", "semver::patch() int", Some(patch)),
    ],
    singletons: &[],
    unguarded: &[],
};

/// A version.
#[derive(Clone, Debug)]
pub(crate) struct Semver {
    numbers: [u64; 3],
    pre: Vec<Pre>,
    build: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pre {
    Number(u64),
    Text(String),
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (index, part) in self.pre.iter().enumerate() {
            let separator = if index == 0 { '-' } else { '.' };
            match part {
                Pre::Number(number) => write!(f, "{separator}{number}")?,
                Pre::Text(text) => write!(f, "{separator}{text}")?,
            }
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build.join("."))?;
        }
        Ok(())
    }
}

impl Semver {
    /// Parses a version.
    ///
    /// # Errors
    /// The text is not a version.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let major = number("Major", "major", major)?;
        let minor = number("Minor", "minor", minor)?;
        let (rest, build) = rest.split_once('+').map_or((*rest, None), |(a, b)| (a, Some(b)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
        let patch = number("Patch", "patch", patch)?;
        let pre = pre.map_or(Ok(Vec::new()), |pre| pre.split('.').map(pre_release).collect())?;
        let build: Vec<String> = match build {
            None => Vec::new(),
            Some(build) => build.split('.').map(build_part).collect::<Result<_, _>>()?,
        };
        Ok(Self { numbers: [major, minor, patch], pre, build })
    }

    /// Parses a version without a prefix `v`, leading zeros and missing numbers.
    fn parse_tolerant(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(strip_zeros).collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        while parts.len() < 3 {
            parts.push("0".to_owned());
        }
        Self::parse(&parts.join("."))
    }

    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        if numbers.is_ne() {
            return numbers;
        }
        match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => {}
        }
        for (a, b) in self.pre.iter().zip(&other.pre) {
            let order = match (a, b) {
                (Pre::Number(a), Pre::Number(b)) => a.cmp(b),
                (Pre::Number(_), Pre::Text(_)) => Ordering::Less,
                (Pre::Text(_), Pre::Number(_)) => Ordering::Greater,
                (Pre::Text(a), Pre::Text(b)) => a.cmp(b),
            };
            if order.is_ne() {
                return order;
            }
        }
        self.pre.len().cmp(&other.pre.len())
    }
}

fn strip_zeros(part: &str) -> String {
    if part.len() <= 1 {
        return part.to_owned();
    }
    let stripped = part.trim_start_matches('0');
    if stripped.starts_with(|it: char| it.is_ascii_digit()) {
        stripped.to_owned()
    } else {
        format!("0{stripped}")
    }
}

fn number(name: &str, lower: &str, text: &str) -> Result<u64, String> {
    let quoted = go_quote(text);
    if !text.bytes().all(|it| it.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {lower} number {quoted}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {quoted}"));
    }
    parse_u64(text)
}

fn parse_u64(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        let why = if text.is_empty() { "invalid syntax" } else { "value out of range" };
        format!("strconv.ParseUint: parsing {}: {why}", go_quote(text))
    })
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
}

fn pre_release(text: &str) -> Result<Pre, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if text.bytes().all(|it| it.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            let quoted = go_quote(text);
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {quoted}"));
        }
        return parse_u64(text).map(Pre::Number);
    }
    if !is_identifier(text) {
        return Err(format!("Invalid character(s) found in prerelease {}", go_quote(text)));
    }
    Ok(Pre::Text(text.to_owned()))
}

fn build_part(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("Build meta data is empty".to_owned());
    }
    if !is_identifier(text) {
        return Err(format!("Invalid character(s) found in build meta data {}", go_quote(text)));
    }
    Ok(text.to_owned())
}

fn parse(args: &[Value<'_>]) -> Result<Result<Semver, String>, Failure> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Ok(Semver::parse(text)),
        [Value::String(text), Value::Bool(true)] => Ok(Semver::parse_tolerant(text)),
        _ => Err(Failure::overload()),
    }
}

fn to_semver<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    parse(args)?.map(|it| Value::Semver(Arc::new(it))).map_err(Failure::new)
}

fn is_semver<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    Ok(Value::Bool(parse(args)?.is_ok()))
}

fn order(args: &[Value<'_>]) -> Result<Ordering, Failure> {
    match args {
        [Value::Semver(a), Value::Semver(b)] => Ok(a.compare(b)),
        _ => Err(Failure::overload()),
    }
}

fn is_greater_than<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    order(args).map(|order| Value::Bool(order.is_gt()))
}

fn is_less_than<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    order(args).map(|order| Value::Bool(order.is_lt()))
}

fn compare_to<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    order(args).map(|order| Value::Int(order as i64))
}

fn part<'a>(args: &[Value<'a>], index: usize) -> Result<Value<'a>, Failure> {
    match args {
        // Wraps around, as upstream.
        [Value::Semver(it)] => Ok(Value::Int(it.numbers.get(index).copied().unwrap_or_default() as i64)),
        _ => Err(Failure::overload()),
    }
}

fn major<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, 0)
}

fn minor<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, 1)
}

fn patch<'a>(_: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    part(args, 2)
}
