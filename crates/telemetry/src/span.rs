//! A span of a trace.

use std::time::SystemTime;

use crate::TraceContext;

/// A completed span.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace and the id of the span.
    pub context: TraceContext,
    /// The id of the parent span; `None` for the root.
    pub parent: Option<[u8; 8]>,
    /// The position of the request in its client's trace, if it does not continue that trace.
    pub link: Option<TraceContext>,
    /// The name.
    pub name: String,
    /// The role of the span.
    pub kind: Kind,
    /// The start.
    pub start: SystemTime,
    /// The end.
    pub end: SystemTime,
    /// The attributes.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// True if the work failed.
    pub failed: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for Attribute {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// The role of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the work.
    Internal = 1,
    /// A request of a client.
    Server = 2,
}
