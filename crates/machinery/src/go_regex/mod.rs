//! Regular expressions in the syntax and with the meaning of Go's `regexp` package (RE2).
//!
//! The syntax of the `regex` crate differs in details. In Go, `\d`, `\w`, `\s` and `\b` are ASCII; brackets inside
//! classes, braces that are not repetitions and some escapes are literals; `&&` and `\<` have no meaning.
//!
//! Expressions come from tenants, so each step has a bounded cost. An expression is parsed to a [`Draft`] of
//! instructions that match whole characters: `\pL` is one instruction with a shared class, whereas an automaton of bytes
//! has hundreds of states for it. [`check`] ends there. [`compile`] also looks up the characters of the classes. A search
//! simulates all threads of the program at once (Pike's algorithm), in time linear in the text and the program, and
//! counts its steps.

mod class;
mod draft;
mod escape;
mod parse;
mod program;
mod search;

pub use program::Regex;
pub use search::{MAX_STEPS, OutOfSteps};

/// Maximum length of an expression in bytes.
const MAX_LENGTH: usize = 256 * 1024;

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

    fn too_large(pattern: &str) -> Self {
        Self::new("expression too large", clipped(pattern))
    }
}

/// Checks the syntax and size of an expression in Go's syntax, without compiling it.
///
/// # Errors
/// The expression is not valid in Go, or too large.
pub fn check(pattern: &str) -> Result<(), GoRegexError> {
    parse::parse(pattern).map(drop)
}

/// Compiles an expression in Go's syntax.
///
/// ```
/// use nave_machinery::go_regex::compile;
///
/// assert_eq!(compile(r"^[a-z[]{2}\d$").unwrap().is_match("a[3"), Ok(true));
/// let error = compile("^(?!x)").unwrap_err();
/// assert_eq!(error.to_string(), "error parsing regexp: invalid or unsupported Perl syntax: `(?!`");
/// ```
///
/// # Errors
/// The expression is not valid in Go, or too large.
pub fn compile(pattern: &str) -> Result<Regex, GoRegexError> {
    Regex::link(&parse::parse(pattern)?).ok_or_else(|| GoRegexError::too_large(pattern))
}

fn clipped(text: &str) -> String {
    crate::limits::clipped(text, 1024)
}

#[cfg(test)]
mod tests;
