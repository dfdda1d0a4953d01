//! Regular expressions with Go's syntax and meaning.

use std::fmt::Write as _;

use regex::Regex;

use super::Library;
use crate::failure::Failure;
use crate::run::Context;
use crate::value::Value;

/// Kubernetes' regular expressions.
pub(super) const LIBRARY: Library = Library {
    since: 0,
    patch: false,
    overloads: &[
        ("string_find_string", "string::find(string) string", Some(find)),
        ("string_find_all_string", "string::findAll(string) list(string)", Some(find_all)),
        ("string_find_all_string_int", "string::findAll(string, int) list(string)", Some(find_all)),
    ],
    singletons: &[],
    unguarded: &[],
};

fn find<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let [Value::String(text), Value::String(pattern)] = args else { return Err(Failure::overload()) };
    let regex = illegal(context.regex(pattern))?;
    Ok(Value::text(regex.find(text).map_or("", |found| found.as_str())))
}

fn find_all<'a>(context: &Context<'a>, args: &[Value<'a>]) -> Result<Value<'a>, Failure> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
        _ => return Err(Failure::overload()),
    };
    let regex = illegal(context.regex(pattern))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found: Vec<String> = regex.find_iter(text).take(limit).map(|it| it.as_str().to_owned()).collect();
    context.allocate(found.len() * 64)?;
    Ok(Value::texts(found))
}

fn illegal<T>(result: Result<T, String>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(format!("Illegal regex: {error}")))
}

/// Compiles a pattern.
///
/// # Errors
/// The pattern is invalid. The message is Go's for common mistakes.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = Translator { rest: pattern.chars().collect(), at: 0, out: String::new() }.run();
    let error = |why: String| format!("error parsing regexp: {why}");
    let translated = translated.map_err(error)?;
    let built = regex::RegexBuilder::new(&translated).size_limit(MAX_SIZE).nest_limit(MAX_NESTING).build();
    built.map_err(|_| error(explain(pattern)))
}

const MAX_SIZE: usize = 4 << 20;
const MAX_NESTING: u32 = 250;
const MAX_REPEAT: u32 = 1000;

/// Translates Go's syntax where it differs from the syntax of the `regex` crate.
struct Translator {
    rest: Vec<char>,
    at: usize,
    out: String,
}

impl Translator {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }

    fn run(mut self) -> Result<String, String> {
        let mut repeated = false;
        while let Some(next) = self.peek(0) {
            let mut repeats = false;
            match next {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '{' => repeats = self.brace()?,
                '*' | '+' | '?' => {
                    if repeated && next != '?' {
                        let start = self.at.saturating_sub(1);
                        let shown: String =
                            self.rest.get(start..=self.at).unwrap_or_default().iter().collect();
                        return Err(format!("invalid nested repetition operator: `{shown}`"));
                    }
                    self.push(next);
                    // A question mark after a repetition makes it lazy.
                    repeats = !(repeated && next == '?');
                    if repeated && next == '?' && matches!(self.peek(0), Some('*' | '+' | '?')) {
                        let start = self.at.saturating_sub(2);
                        let shown: String =
                            self.rest.get(start..=self.at).unwrap_or_default().iter().collect();
                        return Err(format!("invalid nested repetition operator: `{shown}`"));
                    }
                }
                _ => self.push(next),
            }
            repeated = repeats;
        }
        Ok(self.out)
    }

    fn push(&mut self, it: char) {
        self.out.push(it);
        self.at += 1;
    }

    /// Translates an escape: Perl's classes are ASCII.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(letter) = self.peek(1) else {
            return Err("trailing backslash at end of expression: ``".into());
        };
        let replacement = match letter {
            'd' if in_class => "0-9",
            'w' if in_class => "0-9A-Za-z_",
            's' if in_class => "\\t\\n\\x0C\\r ",
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => "[\\t\\n\\x0C\\r ]",
            'S' => "[^\\t\\n\\x0C\\r ]",
            'b' if !in_class => "(?-u:\\b)",
            'Q' if !in_class => {
                self.quoted();
                return Ok(());
            }
            '0'..='7' => {
                let digits: String =
                    (1..4).map_while(|ahead| self.peek(ahead).filter(|it| it.is_digit(8))).collect();
                if letter != '0' && digits.len() < 3 {
                    return Err(format!("invalid escape sequence: `\\{letter}`"));
                }
                let code = u32::from_str_radix(&digits, 8).unwrap_or_default();
                let _ = write!(self.out, "\\x{{{code:x}}}");
                self.at += 1 + digits.len();
                return Ok(());
            }
            'A' | 'B' | 'z' | 'p' | 'P' | 'x' | 'a' | 'f' | 't' | 'n' | 'r' | 'v' => "",
            it if it.is_ascii_alphanumeric() => return Err(format!("invalid escape sequence: `\\{it}`")),
            _ => "",
        };
        if replacement.is_empty() {
            self.push('\\');
            self.push(letter);
            if matches!(letter, 'p' | 'P' | 'x') && self.peek(0) == Some('{') {
                while let Some(next) = self.peek(0) {
                    self.push(next);
                    if next == '}' {
                        break;
                    }
                }
            }
        } else {
            self.out.push_str(replacement);
            self.at += 2;
        }
        Ok(())
    }

    fn quoted(&mut self) {
        self.at += 2;
        while let Some(next) = self.peek(0) {
            if next == '\\' && self.peek(1) == Some('E') {
                self.at += 2;
                return;
            }
            self.out.push_str(&regex::escape(&next.to_string()));
            self.at += 1;
        }
    }

    /// Translates a character class. Only Go's notations are special inside the class.
    fn class(&mut self) -> Result<(), String> {
        let start = self.at;
        self.push('[');
        if self.peek(0) == Some('^') {
            self.push('^');
        }
        let mut first = true;
        loop {
            match self.peek(0) {
                None => {
                    let shown: String = self.rest.get(start..).unwrap_or_default().iter().collect();
                    return Err(format!("missing closing ]: `{shown}`"));
                }
                Some(']') if !first => {
                    self.push(']');
                    return Ok(());
                }
                Some(']') => {
                    self.out.push('\\');
                    self.push(']');
                }
                Some('\\') => self.escape(true)?,
                Some('[') if self.peek(1) == Some(':') => {
                    while let Some(next) = self.peek(0) {
                        self.push(next);
                        if next == ']' {
                            break;
                        }
                    }
                }
                Some(it @ ('[' | '&' | '~')) => {
                    self.out.push('\\');
                    self.push(it);
                }
                Some('-') if self.peek(1) == Some('-') || first || self.peek(1) == Some(']') => {
                    self.out.push('\\');
                    self.push('-');
                }
                Some(it) => self.push(it),
            }
            first = false;
        }
    }

    /// Translates a brace, which is a repetition or a literal. Returns whether it is a repetition.
    fn brace(&mut self) -> Result<bool, String> {
        let end = (1..).map_while(|ahead| self.peek(ahead)).position(|it| it == '}');
        let inner: Option<String> = end.map(|end| (1..=end).filter_map(|ahead| self.peek(ahead)).collect());
        let counts = inner.as_deref().and_then(|inner| {
            let (low, high) = inner.split_once(',').unwrap_or((inner, inner));
            let number = |text: &str| text.parse::<u32>().ok().filter(|_| !text.starts_with('+'));
            let high = if high.is_empty() { None } else { Some(number(high)?) };
            Some((number(low)?, high))
        });
        let (Some(inner), Some((low, high))) = (inner, counts) else {
            self.out.push_str("\\{");
            self.at += 1;
            return Ok(false);
        };
        if low > MAX_REPEAT || high.is_some_and(|high| high > MAX_REPEAT || high < low) {
            return Err(format!("invalid repeat count: `{{{inner}}}`"));
        }
        for _ in 0..inner.len() + 2 {
            if let Some(next) = self.peek(0) {
                self.push(next);
            }
        }
        Ok(true)
    }
}

/// Returns the error message for a fault that the translation does not detect.
fn explain(pattern: &str) -> String {
    let (mut depth, mut escaped) = (0i32, false);
    let mut before = None;
    for (at, letter) in pattern.char_indices() {
        if escaped {
            escaped = false;
            before = Some('x');
            continue;
        }
        match letter {
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth < 0 {
                    return format!("unexpected ): `{pattern}`");
                }
            }
            '*' | '+' | '?' if matches!(before, None | Some('(' | '|')) => {
                if before == Some('(') && letter == '?' {
                    let rest = pattern.get(at.saturating_sub(1)..).unwrap_or_default();
                    let shown = rest.get(..rest.len().min(3)).unwrap_or(rest);
                    if !rest.starts_with("(?:") && !rest.starts_with("(?i") && !rest.starts_with("(?P<") {
                        return format!("invalid or unsupported Perl syntax: `{shown}`");
                    }
                } else {
                    return format!("missing argument to repetition operator: `{letter}`");
                }
            }
            _ => {}
        }
        before = Some(letter);
    }
    if depth > 0 {
        return format!("missing closing ): `{pattern}`");
    }
    if pattern.contains('[') {
        return format!("invalid character class range: `{pattern}`");
    }
    "expression too large".to_owned()
}
