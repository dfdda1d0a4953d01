//! JSONPath as `kubectl` and printer columns write it (upstream: `client-go/util/jsonpath`).
//!
//! Supports fields, indexes, slices, unions, wildcards, recursive descent and filters. Does not support `range`,
//! because a column has one value.

mod compare;
mod evaluate;
mod parse;

use std::borrow::Cow;

use nave_machinery::Value;

/// Maximum number of values that an evaluation visits. Nested recursive descents multiply the number.
const MAX_STEPS: usize = 100_000;

/// Error of parsing or evaluating a path, with upstream's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonPathError(String);

impl JsonPathError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

/// A step of a path, which maps values to values.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A constant.
    Constant(Value),
    Field(String),
    Slice(Slice),
    Filter {
        left: Vec<Step>,
        test: Test,
    },
    Wildcard,
    Recursive,
    Union(Vec<Vec<Step>>),
    /// A word that is neither a field nor a boolean. Evaluation fails.
    Word(String),
}

/// `[start:end:step]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    start: Option<i64>,
    end: End,
    step: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Absent, as in `[start]`: selects one element.
    AfterStart,
    /// Empty, as in `[start:]`: the end of the list.
    Open,
    At(i64),
}

/// The condition of a filter.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// The left side has a value.
    Exists,
    /// The comparison of both sides by this operator is true.
    Compare(String, Vec<Step>),
}

impl JsonPath {
    /// Parses a path without braces, such as `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// The path is malformed, too long or nested too deeply.
    pub fn parse(path: &str) -> Result<Self, JsonPathError> {
        parse::template(&format!("{{{path}}}"), 0).map(|steps| Self { steps })
    }

    /// Returns the values at the path. Missing fields have no value.
    ///
    /// # Errors
    /// A step does not apply to a value, or the evaluation visits too many values.
    pub fn find<'v>(&'v self, object: &'v Value) -> Result<Vec<Cow<'v, Value>>, JsonPathError> {
        evaluate::Evaluation::default().steps(vec![Cow::Borrowed(object)], &self.steps)
    }
}

#[cfg(test)]
mod tests;
