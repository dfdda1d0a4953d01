//! Regular expressions in the syntax and with the meaning of Go's `regexp` package (RE2), matched by the `regex` crate.
//!
//! The two syntaxes differ in details. In Go, `\d`, `\w`, `\s` and `\b` are ASCII; brackets inside classes, braces that
//! are not repetitions and some escapes are literals; `&&` and `\<` have no meaning. The expression is therefore parsed
//! by Go's rules, with Go's errors, and translated to the syntax of `regex`.

mod class;
mod escape;

use regex::{Regex, RegexBuilder};

/// Maximum memory of a compiled expression in bytes.
const MAX_COMPILED_BYTES: usize = 4 * 1024 * 1024;

/// Maximum memory of the lazy automaton built during matching, in bytes.
const MAX_CACHE_BYTES: usize = 512 * 1024;

/// Maximum length of an expression in bytes. Longer expressions cannot compile within the memory limit.
const MAX_LENGTH: usize = 256 * 1024;

/// Maximum count of a repetition, and maximum product of the counts of nested repetitions, as in Go.
const MAX_REPEAT: u32 = 1000;

/// Maximum nesting of groups; Go allows 1000.
const MAX_DEPTH: usize = 250;

/// Error of parsing an expression, with Go's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {reason}: `{part}`")]
pub struct GoRegexError {
    reason: &'static str,
    part: String,
}

impl GoRegexError {
    fn new(reason: &'static str, part: impl Into<String>) -> Self {
        Self { reason, part: part.into() }
    }
}

/// Compiles an expression in Go's syntax.
///
/// ```
/// use nave_machinery::go_regex::compile;
///
/// assert!(compile(r"^[a-z[]{2}\d$").unwrap().is_match("a[3"));
/// let error = compile("^(?!x)").unwrap_err();
/// assert_eq!(error.to_string(), "error parsing regexp: invalid or unsupported Perl syntax: `(?!`");
/// ```
///
/// # Errors
/// The expression is not valid in Go, or too large.
pub fn compile(pattern: &str) -> Result<Regex, GoRegexError> {
    if pattern.len() > MAX_LENGTH {
        return Err(too_large(pattern));
    }
    let translated = Translator::new(pattern).translate()?;
    let built =
        RegexBuilder::new(&translated).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_CACHE_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => too_large(pattern),
        _ => GoRegexError::new("invalid character class range", clipped(pattern)),
    })
}

fn too_large(pattern: &str) -> GoRegexError {
    GoRegexError::new("expression too large", clipped(pattern))
}

fn clipped(text: &str) -> String {
    crate::limits::clipped(text, 1024)
}

struct Translator<'p> {
    pattern: &'p str,
    rest: &'p str,
    out: String,
    groups: Vec<Group>,
    last: Last<'p>,
}

/// An open group.
struct Group {
    /// The largest repetition product of the group's parts.
    repeats: u32,
}

/// The part in front of a repetition operator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last<'p> {
    /// No part that can be repeated.
    Nothing,
    /// A part, with the product of the repetitions in it.
    Part(u32),
    /// A repetition: the text from the operator on, and the product of repetitions.
    Repeat(&'p str, u32),
}

impl Last<'_> {
    fn repeats(self) -> u32 {
        match self {
            Self::Nothing => 1,
            Self::Part(repeats) | Self::Repeat(_, repeats) => repeats,
        }
    }
}

impl<'p> Translator<'p> {
    fn new(pattern: &'p str) -> Self {
        Self {
            pattern,
            rest: pattern,
            out: String::with_capacity(pattern.len() + 16),
            groups: vec![Group { repeats: 1 }],
            last: Last::Nothing,
        }
    }

    fn translate(mut self) -> Result<String, GoRegexError> {
        while let Some(next) = self.rest.chars().next() {
            self.step(next)?;
        }
        if self.groups.len() > 1 {
            return Err(GoRegexError::new("missing closing )", clipped(self.pattern)));
        }
        Ok(self.out)
    }

    fn step(&mut self, next: char) -> Result<(), GoRegexError> {
        match next {
            '(' => self.open(),
            ')' => self.close(),
            '|' => {
                self.advance(1);
                self.note_repeats();
                self.out.push('|');
                self.last = Last::Nothing;
                Ok(())
            }
            '^' | '$' | '.' => {
                self.advance(1);
                self.out.push(next);
                self.part();
                Ok(())
            }
            '[' => {
                self.rest = class::translate(self.rest, &mut self.out)?;
                self.part();
                Ok(())
            }
            '*' | '+' | '?' => self.repeat(1, 2),
            '{' if let Some((length, min, max)) = counts(self.rest) => self.counted(length, min, max),
            '\\' => self.escape(),
            other => {
                self.literal(other);
                Ok(())
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn part(&mut self) {
        self.note_repeats();
        self.last = Last::Part(1);
    }

    /// Includes the repetitions of the last part in its group.
    fn note_repeats(&mut self) {
        let repeats = self.last.repeats();
        if let Some(group) = self.groups.last_mut() {
            group.repeats = group.repeats.max(repeats);
        }
    }

    fn literal(&mut self, character: char) {
        self.advance(character.len_utf8());
        push_literal(character, &mut self.out);
        self.part();
    }

    fn open(&mut self) -> Result<(), GoRegexError> {
        let start = self.rest;
        if self.groups.len() > MAX_DEPTH {
            return Err(GoRegexError::new("expression nests too deeply", clipped(self.pattern)));
        }
        if let Some(named) = start.strip_prefix("(?P<").or_else(|| start.strip_prefix("(?<")) {
            self.named(start, named)?;
        } else if let Some(flags) = start.strip_prefix("(?") {
            return self.flags(start, flags);
        } else {
            self.advance(1);
        }
        self.begin_group("(?:");
        Ok(())
    }

    fn begin_group(&mut self, text: &str) {
        self.note_repeats();
        self.out.push_str(text);
        self.groups.push(Group { repeats: 1 });
        self.last = Last::Nothing;
    }

    fn named(&mut self, start: &'p str, named: &'p str) -> Result<(), GoRegexError> {
        let invalid = |part: &str| GoRegexError::new("invalid named capture", clipped(part));
        let Some((name, rest)) = named.split_once('>') else { return Err(invalid(start)) };
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            return Err(invalid(start.strip_suffix(rest).unwrap_or(start)));
        }
        // Several groups may have the same name.
        self.rest = rest;
        Ok(())
    }

    /// Parses `(?flags)` and `(?flags:`.
    fn flags(&mut self, start: &'p str, flags: &'p str) -> Result<(), GoRegexError> {
        let mut has_sign = false;
        let mut has_flag = false;
        for (at, flag) in flags.char_indices() {
            match flag {
                'i' | 'm' | 's' | 'U' => has_flag = true,
                '-' if !has_sign => {
                    has_sign = true;
                    has_flag = false;
                }
                ':' | ')' if has_flag || !has_sign => {
                    let text = start.get(..at + 3).unwrap_or(start);
                    self.advance(text.len());
                    if flag == ':' {
                        self.begin_group(text);
                    } else if has_flag {
                        self.out.push_str(text);
                    }
                    return Ok(());
                }
                _ => {
                    let part = start.get(..2 + at + flag.len_utf8()).unwrap_or(start);
                    return Err(GoRegexError::new("invalid or unsupported Perl syntax", part));
                }
            }
        }
        Err(GoRegexError::new("missing closing )", clipped(self.pattern)))
    }

    fn close(&mut self) -> Result<(), GoRegexError> {
        self.note_repeats();
        let group = self.groups.pop().filter(|_| !self.groups.is_empty());
        let Some(group) = group else {
            return Err(GoRegexError::new("unexpected )", clipped(self.pattern)));
        };
        self.advance(1);
        self.out.push(')');
        self.last = Last::Part(group.repeats);
        Ok(())
    }

    fn counted(&mut self, length: usize, min: u32, max: Option<u32>) -> Result<(), GoRegexError> {
        let text = self.rest.get(..length).unwrap_or_default();
        let is_sound = min <= MAX_REPEAT && max.is_none_or(|max| max <= MAX_REPEAT && min <= max);
        if !is_sound {
            return Err(GoRegexError::new("invalid repeat count", text));
        }
        self.repeat(length, max.unwrap_or(min).max(1))
    }

    /// Parses a repetition operator of `length` bytes. A following `?` makes it lazy.
    fn repeat(&mut self, length: usize, count: u32) -> Result<(), GoRegexError> {
        let from = self.rest;
        let is_lazy = from.get(length..).is_some_and(|rest| rest.starts_with('?'));
        let text = from.get(..length + usize::from(is_lazy)).unwrap_or(from);
        let inner = match self.last {
            Last::Nothing => {
                let operator = from.get(..length).unwrap_or(from);
                return Err(GoRegexError::new("missing argument to repetition operator", operator));
            }
            Last::Repeat(start, _) => {
                let rest = from.get(text.len()..).unwrap_or_default();
                let part = start.strip_suffix(rest).unwrap_or(start);
                return Err(GoRegexError::new("invalid nested repetition operator", part));
            }
            Last::Part(repeats) => repeats,
        };
        // Only counted repetitions multiply the product.
        let is_counted = text.starts_with('{');
        let repeats = if is_counted { inner.saturating_mul(count) } else { inner };
        if repeats > MAX_REPEAT {
            return Err(GoRegexError::new("invalid repeat count", text));
        }
        self.advance(text.len());
        self.out.push_str(text);
        self.last = Last::Repeat(from, repeats);
        self.note_repeats();
        Ok(())
    }

    fn escape(&mut self) -> Result<(), GoRegexError> {
        let rest = self.rest;
        match rest.as_bytes().get(1) {
            Some(b'A' | b'z') => {
                self.out.push_str(rest.get(..2).unwrap_or_default());
                self.advance(2);
            }
            Some(letter @ (b'b' | b'B')) => {
                self.out.push_str(if *letter == b'b' { r"(?-u:\b)" } else { r"(?-u:\B)" });
                self.advance(2);
            }
            Some(b'Q') => {
                let quoted = rest.get(2..).unwrap_or_default();
                let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
                for character in text.chars() {
                    push_literal(character, &mut self.out);
                }
                self.rest = after;
                if text.is_empty() {
                    return Ok(());
                }
            }
            _ => {
                if let Some((class, after)) = class::shorthand(rest)? {
                    self.out.push('[');
                    self.out.push_str(&class);
                    self.out.push(']');
                    self.rest = after;
                } else {
                    let (character, after) = escape::character(rest)?;
                    push_literal(character, &mut self.out);
                    self.rest = after;
                }
            }
        }
        self.part();
        Ok(())
    }
}

/// Parses `{n}`, `{n,}` or `{n,m}`. Returns the length of the text and the counts; `None` if the text is not a
/// repetition.
fn counts(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let inner = text.strip_prefix('{')?;
    let inner = inner.get(..inner.find('}')?)?;
    // Go accepts only numbers without leading zeros. The caller rejects numbers beyond the limit.
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = digits.len() == 1 || !digits.starts_with('0');
        (is_number && is_plain).then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (min, max) = match inner.split_once(',') {
        None => (number(inner)?, Some(number(inner)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((inner.len() + 2, min, max))
}

/// Writes a character that stands for itself.
fn push_literal(character: char, out: &mut String) {
    use std::fmt::Write;

    if character.is_ascii_alphanumeric() || !character.is_ascii() {
        out.push(character);
    } else {
        let _ = write!(out, r"\x{:02X}", u32::from(character));
    }
}

#[cfg(test)]
mod tests;
