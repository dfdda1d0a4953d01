//! Field errors of rules, with the API's messages.

use std::fmt;

use nave_machinery::{FieldError, FieldErrorKind, FieldErrors, FieldPath};
use serde_json::Value as Json;

use crate::library::format::go_quote;

/// Kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The value is invalid.
    Invalid,
    /// A value is missing.
    Required,
    /// A value must not be set, or exceeds a limit.
    Forbidden,
    /// The value is not one of the supported values.
    NotSupported,
    /// The value occurs twice.
    Duplicate,
    /// The check failed with an internal error.
    Internal,
}

impl ErrorKind {
    /// Returns the cause in the details of a status.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid value",
            Self::Required => "Required value",
            Self::Forbidden => "Forbidden",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Internal => "Internal error",
        }
    }
}

/// An error of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The kind.
    pub kind: ErrorKind,
    /// The path; `<nil>` for the object itself.
    pub field: String,
    /// The text of the value, if the message contains it.
    pub value: Option<String>,
    /// The explanation.
    pub detail: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.kind.text())?;
        if let Some(value) = &self.value {
            write!(f, ": {value}")?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl RuleError {
    pub(super) fn new(
        kind: ErrorKind,
        path: &Path,
        value: Option<String>,
        detail: impl Into<String>,
    ) -> Self {
        let field = if path.0.is_empty() { NIL.to_owned() } else { path.0.clone() };
        Self { kind, field, value, detail: detail.into() }
    }
}

impl From<RuleError> for FieldError {
    fn from(error: RuleError) -> Self {
        let RuleError { kind, field, value, detail } = error;
        let field = FieldPath::new(&field);
        let parsed = |text: String| serde_json::from_str(&text).unwrap_or(Json::String(text));
        let kind = match kind {
            // The text of the value is in upstream's notation, not JSON, so it becomes part of the detail.
            ErrorKind::Invalid => {
                let detail = value.map_or_else(|| detail.clone(), |value| format!("{value}: {detail}"));
                return Self::with(FieldErrorKind::InvalidWithoutValue, &field, Json::Null, detail);
            }
            ErrorKind::Required => FieldErrorKind::Required,
            ErrorKind::Forbidden => FieldErrorKind::Forbidden,
            ErrorKind::NotSupported => FieldErrorKind::NotSupported,
            ErrorKind::Duplicate if value.is_none() => FieldErrorKind::DuplicateWithoutValue,
            ErrorKind::Duplicate => FieldErrorKind::Duplicate,
            ErrorKind::Internal => FieldErrorKind::Internal,
        };
        Self::with(kind, &field, value.map_or(Json::Null, parsed), detail)
    }
}

/// Returns the error that replaces the evaluation of rules if one of the `errors` of an object makes evaluation unsafe.
/// Upstream: `hasBlockingErr`.
pub fn blocking_error(errors: &FieldErrors) -> Option<FieldError> {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    let is_blocking =
        |error: &FieldError| matches!(error.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
               to complete validation";
    // An error that was not kept may be one of them.
    let blocks = errors.omitted() > 0 || errors.iter().any(is_blocking);
    blocks.then(|| FieldError::invalid(&FieldPath::new(NIL), Json::Null, why))
}

/// The path of the object itself.
const NIL: &str = "<nil>";

/// Formats a value for error messages.
pub(super) fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => go_quote(text),
        Json::Number(number) if number.is_f64() => {
            crate::value::display_double(number.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

/// A path to a field.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(pub(super) String);

impl Path {
    pub(super) fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    pub(super) fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}
