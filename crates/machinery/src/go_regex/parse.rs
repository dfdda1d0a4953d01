//! Parses expressions by Go's rules, with Go's errors.

use super::draft::{Alternation, Draft, Instruction, Look, Part, TooLarge};
use super::{GoRegexError, MAX_LENGTH, class, clipped, escape};

/// Maximum count of a repetition, and maximum product of the counts of nested repetitions, as in Go.
const MAX_REPEAT: u32 = 1000;

/// Maximum nesting of groups, as in Go.
const MAX_DEPTH: usize = 999;

/// Parses an expression.
pub(super) fn parse(pattern: &str) -> Result<Draft, GoRegexError> {
    if pattern.len() > MAX_LENGTH {
        return Err(GoRegexError::too_large(pattern));
    }
    Parser::new(pattern).parse()
}

struct Parser<'p> {
    pattern: &'p str,
    rest: &'p str,
    draft: Draft,
    flags: Flags,
    names: class::Names,
    /// The open groups. The first is the whole expression.
    groups: Vec<Group>,
    last: Last<'p>,
}

/// The flags in effect.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
struct Flags {
    ignores_case: bool,
    is_multiline: bool,
    dot_matches_newline: bool,
    /// Swaps the meaning of `x*` and `x*?`.
    is_ungreedy: bool,
}

/// An open group.
struct Group {
    /// The largest repetition product of the group's parts.
    repeats: u32,
    alternation: Alternation,
    /// True if an earlier alternative can match the empty text.
    is_nullable: bool,
    /// True if all parts of the open alternative can match the empty text.
    is_open_nullable: bool,
    /// The flags in front of the group.
    flags: Flags,
}

/// The part in front of a repetition operator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last<'p> {
    /// No part that can be repeated.
    Nothing,
    /// A part, with the product of the repetitions in it.
    Part(Part, u32),
    /// A repetition: the text from the operator on, the part, and the product of repetitions.
    Repeat(&'p str, Part, u32),
}

impl Last<'_> {
    fn repeats(self) -> u32 {
        match self {
            Self::Nothing => 1,
            Self::Part(_, repeats) | Self::Repeat(_, _, repeats) => repeats,
        }
    }
}

impl<'p> Parser<'p> {
    fn new(pattern: &'p str) -> Self {
        Self {
            pattern,
            rest: pattern,
            draft: Draft::default(),
            flags: Flags::default(),
            names: class::Names::default(),
            groups: Vec::new(),
            last: Last::Nothing,
        }
    }

    fn parse(mut self) -> Result<Draft, GoRegexError> {
        self.begin_group(Flags::default())?;
        while let Some(next) = self.rest.chars().next() {
            self.step(next)?;
        }
        if self.groups.len() > 1 {
            return Err(GoRegexError::new("missing closing )", clipped(self.pattern)));
        }
        if let Some(whole) = self.groups.pop() {
            self.draft.end(&whole.alternation);
        }
        Ok(self.draft)
    }

    fn sized<T>(&self, result: Result<T, TooLarge>) -> Result<T, GoRegexError> {
        result.map_err(|TooLarge| GoRegexError::too_large(self.pattern))
    }

    fn step(&mut self, next: char) -> Result<(), GoRegexError> {
        match next {
            '(' => self.open(),
            ')' => self.close(),
            '|' => {
                self.advance(1);
                self.note_last();
                self.last = Last::Nothing;
                self.alternative()
            }
            '^' | '$' => {
                self.advance(1);
                self.look(match (next, self.flags.is_multiline) {
                    ('^', true) => Look::LineStart,
                    ('^', false) => Look::TextStart,
                    (_, true) => Look::LineEnd,
                    (_, false) => Look::TextEnd,
                })
            }
            '.' => {
                self.advance(1);
                if self.flags.dot_matches_newline {
                    return self.part(false, |draft| draft.push(Instruction::Any));
                }
                self.class(r"[^\n]".to_owned(), false)
            }
            '[' => {
                let mut class = String::new();
                self.rest = class::translate(self.rest, &mut class, &mut self.names)?;
                self.class(class, self.flags.ignores_case)
            }
            '*' => self.repeat(1, 0, None),
            '+' => self.repeat(1, 1, None),
            '?' => self.repeat(1, 0, Some(1)),
            '{' if let Some((length, min, max)) = counts(self.rest) => self.counted(length, min, max),
            '\\' => self.escape(),
            other => {
                self.advance(other.len_utf8());
                self.literal(other)
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// Adds a part that is one instruction.
    fn part(
        &mut self,
        is_nullable: bool,
        push: impl FnOnce(&mut Draft) -> Result<(), TooLarge>,
    ) -> Result<(), GoRegexError> {
        self.note_last();
        let start = self.draft.code.len();
        let pushed = push(&mut self.draft);
        self.sized(pushed)?;
        self.last = Last::Part(Part { start, is_nullable }, 1);
        Ok(())
    }

    fn look(&mut self, look: Look) -> Result<(), GoRegexError> {
        self.part(true, |draft| draft.push(Instruction::Look(look)))
    }

    fn class(&mut self, text: String, ignores_case: bool) -> Result<(), GoRegexError> {
        self.part(false, |draft| draft.push_class(text, ignores_case))
    }

    fn literal(&mut self, character: char) -> Result<(), GoRegexError> {
        let has_cases = character.is_ascii_alphabetic() || !character.is_ascii();
        if self.flags.ignores_case && has_cases {
            return self.class(format!(r"[\x{{{:X}}}]", u32::from(character)), true);
        }
        self.part(false, |draft| draft.push(Instruction::Char(character)))
    }

    fn alternative(&mut self) -> Result<(), GoRegexError> {
        let Some(group) = self.groups.last_mut() else { return Ok(()) };
        group.is_nullable |= group.is_open_nullable;
        group.is_open_nullable = true;
        let next = self.draft.next(&mut group.alternation);
        self.sized(next)
    }

    /// Includes the last part in its group.
    fn note_last(&mut self) {
        let repeats = self.last.repeats();
        let is_nullable = match self.last {
            Last::Nothing => true,
            Last::Part(part, _) | Last::Repeat(_, part, _) => part.is_nullable,
        };
        if let Some(group) = self.groups.last_mut() {
            group.repeats = group.repeats.max(repeats);
            group.is_open_nullable &= is_nullable;
        }
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
        self.begin_group(self.flags)
    }

    /// Begins a group, with the flags in it.
    fn begin_group(&mut self, flags: Flags) -> Result<(), GoRegexError> {
        self.note_last();
        let alternation = self.draft.begin();
        let alternation = self.sized(alternation)?;
        let before = std::mem::replace(&mut self.flags, flags);
        self.groups.push(Group {
            repeats: 1,
            alternation,
            is_nullable: false,
            is_open_nullable: true,
            flags: before,
        });
        self.last = Last::Nothing;
        Ok(())
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
        let mut new = self.flags;
        let mut has_sign = false;
        let mut has_flag = false;
        for (at, flag) in flags.char_indices() {
            match flag {
                'i' | 'm' | 's' | 'U' => {
                    new.set(flag, !has_sign);
                    has_flag = true;
                }
                '-' if !has_sign => {
                    has_sign = true;
                    has_flag = false;
                }
                ':' | ')' if has_flag || !has_sign => {
                    let text = start.get(..at + 3).unwrap_or(start);
                    self.advance(text.len());
                    if flag == ':' {
                        return self.begin_group(new);
                    }
                    self.flags = new;
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
        self.note_last();
        let group = self.groups.pop().filter(|_| !self.groups.is_empty());
        let Some(group) = group else {
            return Err(GoRegexError::new("unexpected )", clipped(self.pattern)));
        };
        self.advance(1);
        self.flags = group.flags;
        let start = self.draft.end(&group.alternation);
        let is_nullable = group.is_nullable || group.is_open_nullable;
        self.last = Last::Part(Part { start, is_nullable }, group.repeats);
        Ok(())
    }

    fn counted(&mut self, length: usize, min: u32, max: Option<u32>) -> Result<(), GoRegexError> {
        let text = self.rest.get(..length).unwrap_or_default();
        let is_sound = min <= MAX_REPEAT && max.is_none_or(|max| max <= MAX_REPEAT && min <= max);
        if !is_sound {
            return Err(GoRegexError::new("invalid repeat count", text));
        }
        self.repeat(length, min, max)
    }

    /// Parses a repetition operator of `length` bytes. A following `?` makes it lazy.
    fn repeat(&mut self, length: usize, min: u32, max: Option<u32>) -> Result<(), GoRegexError> {
        let from = self.rest;
        let is_lazy = from.get(length..).is_some_and(|rest| rest.starts_with('?'));
        let text = from.get(..length + usize::from(is_lazy)).unwrap_or(from);
        let (part, inner) = match self.last {
            Last::Nothing => {
                let operator = from.get(..length).unwrap_or(from);
                return Err(GoRegexError::new("missing argument to repetition operator", operator));
            }
            Last::Repeat(start, ..) => {
                let rest = from.get(text.len()..).unwrap_or_default();
                let part = start.strip_suffix(rest).unwrap_or(start);
                return Err(GoRegexError::new("invalid nested repetition operator", part));
            }
            Last::Part(part, repeats) => (part, repeats),
        };
        // Only counted repetitions multiply the product.
        let is_counted = text.starts_with('{');
        let count = max.unwrap_or(min).max(1);
        let repeats = if is_counted { inner.saturating_mul(count) } else { inner };
        if repeats > MAX_REPEAT {
            return Err(GoRegexError::new("invalid repeat count", text));
        }
        self.advance(text.len());
        let repeated = self.draft.repeat(part, min, max, is_lazy != self.flags.is_ungreedy);
        let is_nullable = self.sized(repeated)?;
        self.last = Last::Repeat(from, Part { is_nullable, ..part }, repeats);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), GoRegexError> {
        let rest = self.rest;
        let look = match rest.as_bytes().get(1) {
            Some(b'A') => Look::TextStart,
            Some(b'z') => Look::TextEnd,
            Some(b'b') => Look::WordBoundary,
            Some(b'B') => Look::NoWordBoundary,
            Some(b'Q') => {
                let quoted = rest.get(2..).unwrap_or_default();
                let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
                self.rest = after;
                return text.chars().try_for_each(|character| self.literal(character));
            }
            _ => {
                if let Some((class, after)) = class::shorthand(rest, &mut self.names)? {
                    self.rest = after;
                    return self.class(format!("[{class}]"), self.flags.ignores_case);
                }
                let (character, after) = escape::character(rest)?;
                self.rest = after;
                return self.literal(character);
            }
        };
        self.advance(2);
        self.look(look)
    }
}

impl Flags {
    fn set(&mut self, flag: char, value: bool) {
        match flag {
            'i' => self.ignores_case = value,
            'm' => self.is_multiline = value,
            's' => self.dot_matches_newline = value,
            _ => self.is_ungreedy = value,
        }
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
