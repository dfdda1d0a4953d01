//! Classes of characters.

use std::collections::HashSet;
use std::fmt::Write;

use super::{GoRegexError, escape};

const BAD_RANGE: &str = "invalid character class range";

/// Names in `[:name:]`.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// The names of Unicode classes that are known to exist.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Returns whether a class such as `\p{Greek}` exists.
    fn exists(&mut self, class: &str) -> bool {
        let exists = self.0.contains(class) || regex_syntax::parse(class).is_ok();
        if exists && self.0.len() < MAX_NAMES {
            self.0.insert(class.to_owned());
        }
        exists
    }
}

/// Maximum number of remembered names. Unicode has some hundreds.
const MAX_NAMES: usize = 1000;

/// Translates the bracketed class at the start of a text to the syntax of the `regex` crate and returns the rest.
pub(super) fn translate<'t>(
    text: &'t str,
    out: &mut String,
    names: &mut Names,
) -> Result<&'t str, GoRegexError> {
    let missing = || GoRegexError::new("missing closing ]", text);
    let mut rest = text.get(1..).unwrap_or_default();
    out.push('[');
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut is_first = true;
    while is_first || !rest.starts_with(']') {
        is_first = false;
        if let Some((class, after)) = posix(rest)? {
            out.push_str(&class);
            rest = after;
        } else if let Some((class, after)) = shorthand(rest, names)? {
            out.push_str(&class);
            rest = after;
        } else {
            rest = range(rest, out).map_err(|error| error.unwrap_or_else(missing))?;
        }
    }
    out.push(']');
    Ok(rest.get(1..).unwrap_or_default())
}

/// Parses `[:name:]`.
fn posix(text: &str) -> Result<Option<(String, &str)>, GoRegexError> {
    let Some(inner) = text.strip_prefix("[:") else { return Ok(None) };
    let Some((name, rest)) = inner.split_once(":]") else { return Ok(None) };
    let whole = text.strip_suffix(rest).unwrap_or(text);
    if POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
        return Ok(Some((whole.to_owned(), rest)));
    }
    Err(GoRegexError::new(BAD_RANGE, whole))
}

/// Parses `\d`, `\s`, `\w`, their negations, and Unicode classes; returns the equivalent inside brackets.
pub(super) fn shorthand<'t>(
    text: &'t str,
    names: &mut Names,
) -> Result<Option<(String, &'t str)>, GoRegexError> {
    let class = match text.get(..2) {
        Some(r"\d") => "0-9",
        Some(r"\D") => "[^0-9]",
        Some(r"\s") => r"\t\n\x0C\r\x20",
        Some(r"\S") => r"[^\t\n\x0C\r\x20]",
        Some(r"\w") => "0-9A-Za-z_",
        Some(r"\W") => "[^0-9A-Za-z_]",
        Some(r"\p" | r"\P") => return unicode(text, names).map(Some),
        _ => return Ok(None),
    };
    Ok(Some((class.to_owned(), text.get(2..).unwrap_or_default())))
}

/// Parses `\pL`, `\p{Greek}`, `\P{Greek}` and `\p{^Greek}`.
fn unicode<'t>(text: &'t str, names: &mut Names) -> Result<(String, &'t str), GoRegexError> {
    let is_negated = text.starts_with(r"\P");
    let after = text.get(2..).unwrap_or_default();
    let (name, rest) = match after.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or_else(|| GoRegexError::new(BAD_RANGE, text))?,
        None => after.split_at(after.chars().next().map_or(0, char::len_utf8)),
    };
    let (is_negated, name) = match name.strip_prefix('^') {
        Some(name) => (!is_negated, name),
        None => (is_negated, name),
    };
    let whole = text.strip_suffix(rest).unwrap_or(text);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let class = format!(r"\{}{{{name}}}", if is_negated { 'P' } else { 'p' });
    if !is_name || !names.exists(&class) {
        return Err(GoRegexError::new(BAD_RANGE, whole));
    }
    Ok((class, rest))
}

/// Translates a character or a range of characters. The error `None` means the end of the text.
fn range<'t>(text: &'t str, out: &mut String) -> Result<&'t str, Option<GoRegexError>> {
    let (low, rest) = character(text)?;
    let high = rest.strip_prefix('-').filter(|after| !after.starts_with(']'));
    let (high, rest) = match high {
        Some("") | None => (low, rest),
        Some(after) => character(after)?,
    };
    if high < low {
        let part = text.strip_suffix(rest).unwrap_or(text);
        return Err(Some(GoRegexError::new(BAD_RANGE, part)));
    }
    let _ = write!(out, r"\x{{{:X}}}", u32::from(low));
    if high != low {
        let _ = write!(out, r"-\x{{{:X}}}", u32::from(high));
    }
    Ok(rest)
}

fn character(text: &str) -> Result<(char, &str), Option<GoRegexError>> {
    if text.starts_with('\\') {
        return escape::character(text).map_err(Some);
    }
    let first = text.chars().next().ok_or(None)?;
    Ok((first, text.get(first.len_utf8()..).unwrap_or_default()))
}
