//! Removes response bodies from errors.
//!
//! Responses can contain secrets. The client library and the JSON parser include parts of invalid input in their
//! errors, which appear in logs, conditions and events.

use std::fmt;

use serde::de::Error as _;

/// A JSON error: its kind and position, without the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    kind: &'static str,
    line: usize,
    column: usize,
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        let kind = match error.classify() {
            serde_json::error::Category::Io => "cannot be read",
            serde_json::error::Category::Syntax => "invalid JSON",
            serde_json::error::Category::Data => "unexpected type or field",
            serde_json::error::Category::Eof => "unexpected end",
        };
        Self { kind, line: error.line(), column: error.column() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, line, column } = self;
        write!(f, "{kind} at line {line} column {column}")
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl std::error::Error for DecodeError {}

/// Removes the response body from an error. Keeps the message of a `Status`.
pub fn redacted(error: kube::Error) -> kube::Error {
    match error {
        kube::Error::SerdeError(error) => invalid(DecodeError::from(error)),
        kube::Error::FromUtf8(_) => invalid("the response is not UTF-8"),
        kube::Error::Api(mut status) if status.reason == NOT_A_STATUS => {
            status.message = format!("the response with code {} is not a Status", status.code);
            kube::Error::Api(status)
        }
        other => other,
    }
}

fn invalid(why: impl fmt::Display) -> kube::Error {
    kube::Error::SerdeError(serde_json::Error::custom(why))
}

/// The reason that the client library sets if an error response is not a `Status`. The message of such an error is
/// the response body.
const NOT_A_STATUS: &str = "Failed to parse error data";
