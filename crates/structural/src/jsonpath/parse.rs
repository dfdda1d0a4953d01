//! Parses paths.

use nave_machinery::Value;

use super::{End, JsonPathError, Slice, Step, Test};

/// Maximum nesting of filters and unions.
const MAX_DEPTH: usize = 16;

/// Maximum length of a path in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Parses the first action of a template, which is the text in the first pair of braces.
pub(super) fn template(text: &str, depth: usize) -> Result<Vec<Step>, JsonPathError> {
    if depth > MAX_DEPTH || text.len() > MAX_LENGTH {
        return Err(JsonPathError::new("the path is too long or nested too deeply"));
    }
    let mut rest = text;
    let mut first = None;
    while let Some(start) = rest.find('{') {
        let mut parser = Parser { rest: rest.get(start + 1..).unwrap_or_default(), steps: Vec::new(), depth };
        parser.action()?;
        rest = parser.rest;
        first.get_or_insert(parser.steps);
    }
    let mut steps = first.unwrap_or_default();
    // Kept for as long as the column.
    steps.shrink_to_fit();
    Ok(steps)
}

struct Parser<'t> {
    rest: &'t str,
    steps: Vec<Step>,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn action(&mut self) -> Result<(), JsonPathError> {
        loop {
            if let Some(rest) = self.rest.strip_prefix('}') {
                self.rest = rest;
                return Ok(());
            }
            if let Some(rest) = self.rest.strip_prefix("[?(") {
                self.rest = rest;
                self.filter()?;
            } else if let Some(rest) = self.rest.strip_prefix("..") {
                self.rest = rest;
                self.recursive()?;
            } else {
                self.step()?;
            }
        }
    }

    fn step(&mut self) -> Result<(), JsonPathError> {
        let next = self.rest.chars().next().filter(|next| !matches!(next, '\r' | '\n'));
        let Some(next) = next else { return Err(JsonPathError::new("unclosed action")) };
        let after = self.rest.get(next.len_utf8()..).unwrap_or_default();
        match next {
            ' ' | '@' | '$' => self.rest = after,
            '[' => {
                self.rest = after;
                self.brackets()?;
            }
            '"' | '\'' => {
                self.rest = after;
                self.quoted(next)?;
            }
            '.' => {
                self.rest = after;
                self.field();
            }
            '+' | '-' => self.number()?,
            digit if digit.is_numeric() => self.number()?,
            letter if letter == '_' || letter.is_alphabetic() => self.word(),
            other => {
                let code = u32::from(other);
                return Err(JsonPathError::new(format!(
                    "unrecognized character in action: U+{code:04X} '{other}'"
                )));
            }
        }
        Ok(())
    }

    /// Takes the text up to the next character that ends a name. A backslash escapes a character.
    fn name(&mut self) -> &'t str {
        let mut end = self.rest.len();
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => {
                    characters.next();
                }
                ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}' => {
                    end = at;
                    break;
                }
                _ => {}
            }
        }
        let (name, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        name
    }

    fn field(&mut self) {
        let name = self.name();
        self.steps.push(match name {
            "*" => Step::Wildcard,
            name => Step::Field(name.replace('\\', "")),
        });
    }

    fn recursive(&mut self) -> Result<(), JsonPathError> {
        if self.steps.last() == Some(&Step::Recursive) {
            return Err(JsonPathError::new("invalid multiple recursive descent"));
        }
        self.steps.push(Step::Recursive);
        if self.rest.starts_with(|next: char| next == '_' || next.is_alphanumeric()) {
            self.field();
        }
        Ok(())
    }

    fn word(&mut self) {
        let word = self.name();
        self.steps.push(match word {
            "true" => Step::Constant(Value::Bool(true)),
            "false" => Step::Constant(Value::Bool(false)),
            word => Step::Word(word.to_owned()),
        });
    }

    fn number(&mut self) -> Result<(), JsonPathError> {
        let unsigned = self.rest.strip_prefix(['+', '-']).unwrap_or(self.rest);
        let after = unsigned.trim_start_matches(|next: char| next == '.' || next.is_numeric());
        let text = self.rest.strip_suffix(after).unwrap_or_default();
        self.rest = after;
        let number = match text.parse::<i64>() {
            Ok(int) => Some(Value::from(int)),
            Err(_) => text.parse::<f64>().ok().filter(|float| float.is_finite()).map(Value::from),
        };
        let number = number.ok_or_else(|| JsonPathError::new(format!("cannot parse number {text}")))?;
        self.steps.push(Step::Constant(number));
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), JsonPathError> {
        let mut text = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next() {
                None | Some('\n') => return Err(JsonPathError::new("unterminated quoted string")),
                Some('\\') => {
                    let (character, rest) = unescape(characters.as_str(), quote)
                        .ok_or_else(|| JsonPathError::new("unquote string error invalid syntax"))?;
                    text.push(character);
                    characters = rest.chars();
                }
                Some(end) if end == quote => break,
                Some(other) => text.push(other),
            }
        }
        self.rest = characters.as_str();
        self.steps.push(Step::Constant(Value::String(text)));
        Ok(())
    }

    fn filter(&mut self) -> Result<(), JsonPathError> {
        let end = filter_end(self.rest).ok_or_else(|| JsonPathError::new("unterminated filter"))?;
        let (text, rest) =
            (self.rest.get(..end).unwrap_or_default(), self.rest.get(end + 1..).unwrap_or_default());
        self.rest = rest.strip_prefix(']').ok_or_else(|| JsonPathError::new("unclosed array expect ]"))?;
        let step = match comparison(text) {
            Some((left, operator, right)) => Step::Filter {
                left: self.inner(left)?,
                test: Test::Compare(operator.to_owned(), self.inner(right)?),
            },
            None => Step::Filter { left: self.inner(text)?, test: Test::Exists },
        };
        self.steps.push(step);
        Ok(())
    }

    fn inner(&self, text: &str) -> Result<Vec<Step>, JsonPathError> {
        template(&format!("{{{text}}}"), self.depth + 1)
    }

    /// Parses an index, a slice, a union, or a quoted name in brackets.
    fn brackets(&mut self) -> Result<(), JsonPathError> {
        let end = self.rest.find([']', '\n']).filter(|at| self.rest.get(*at..=*at) == Some("]"));
        let end = end.ok_or_else(|| JsonPathError::new("unterminated array"))?;
        let (text, rest) =
            (self.rest.get(..end).unwrap_or_default(), self.rest.get(end + 1..).unwrap_or_default());
        self.rest = rest;
        let text = if text == "*" { ":" } else { text };
        if text.contains(',') {
            let parts = text.split(',').map(|part| self.inner(&format!("[{}]", part.trim_matches(' '))));
            let parts = parts.collect::<Result<_, _>>()?;
            self.steps.push(Step::Union(parts));
            return Ok(());
        }
        let key = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        if let Some(key) = key.filter(|key| !key.contains('\'')) {
            let steps = self.inner(&format!(".{key}"))?;
            self.steps.extend(steps);
            return Ok(());
        }
        self.steps.push(Step::Slice(slice(text)?));
        Ok(())
    }
}

/// Returns the position of the parenthesis that closes a filter. Ignores parentheses in the first quoted text.
fn filter_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut is_closed = false;
    let mut previous = None;
    for (at, character) in text.char_indices() {
        match character {
            '\n' => return None,
            '"' | '\'' if quote.is_none() => quote = Some(character),
            '"' | '\'' if previous != Some('\\') && quote == Some(character) => is_closed = true,
            ')' if quote.is_some() == is_closed => return Some(at),
            _ => {}
        }
        previous = Some(character);
    }
    None
}

/// Splits a comparison into left side, operator and right side. Returns `None` without an operator.
fn comparison(text: &str) -> Option<(&str, &str, &str)> {
    let is_operator = |character: char| "!<>=".contains(character);
    let start = text.find(is_operator).filter(|start| *start > 0)?;
    let (left, from) = text.split_at(start);
    let right = from.trim_start_matches(is_operator);
    if right.is_empty() {
        let split = from.len().checked_sub(1).filter(|split| *split > 0)?;
        let (operator, right) = from.split_at(split);
        return Some((left, operator, right));
    }
    Some((left, from.strip_suffix(right)?, right))
}

fn slice(text: &str) -> Result<Slice, JsonPathError> {
    let invalid = || JsonPathError::new(format!("invalid array index {text}"));
    let number = |part: &str| match part {
        "" => Ok(None),
        part => {
            let digits = part.strip_prefix('-').unwrap_or(part);
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(invalid());
            }
            let number = part.parse::<i64>();
            number.map(Some).map_err(|_| JsonPathError::new(format!("array index {part} is not a number")))
        }
    };
    let mut parts = text.split(':');
    let start = number(parts.next().unwrap_or_default())?;
    let end = match parts.next() {
        None => End::AfterStart,
        Some(part) => number(part)?.map_or(End::Open, End::At),
    };
    let step = number(parts.next().unwrap_or_default())?;
    if parts.next().is_some() {
        return Err(invalid());
    }
    Ok(Slice { start, end, step })
}

/// Parses an escape, without its backslash, as Go's `strconv.UnquoteChar` does.
fn unescape(text: &str, quote: char) -> Option<(char, &str)> {
    let letter = text.chars().next()?;
    let rest = text.get(letter.len_utf8()..)?;
    let coded = |length: usize| {
        let code = u32::from_str_radix(rest.get(..length)?, 16).ok()?;
        Some((char::from_u32(code)?, rest.get(length..)?))
    };
    let plain = match letter {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        '"' | '\'' if letter == quote => letter,
        'x' => return coded(2),
        'u' => return coded(4),
        'U' => return coded(8),
        '0'..='7' => {
            let code = u8::from_str_radix(text.get(..3)?, 8).ok()?;
            return Some((char::from(code), text.get(3..)?));
        }
        _ => return None,
    };
    Some((plain, rest))
}
