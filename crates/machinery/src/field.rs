//! Field paths and validation errors (upstream: the `field` package).

use std::fmt::{self, Write};

use serde_json::Value;

use crate::go_value::{GoNumber, GoQuoted};
use crate::limits;

/// Maximum length of a path in bytes. A map key can be as long as the request body, and is part of the path of every
/// value below it.
const MAX_PATH_BYTES: usize = 1024;

/// Maximum number of bytes of a value in an error.
const MAX_SHOWN_BYTES: usize = 2 * 1024;

/// Maximum number of bytes of a detail in an error. The message of a validation rule has up to 5 KiB.
const MAX_DETAIL_BYTES: usize = 6 * 1024;

/// The path of a field in an object, such as `spec.containers[0].name` or `data[a.b]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// Returns the path of a top-level field; an empty name is the path of the object itself.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Returns the path for errors of the whole object, which upstream writes as `[]`.
    pub fn whole() -> Self {
        Self("[]".to_owned())
    }

    /// Returns the path of the field `name` of the object at this path.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { self.joined([name, "", ""]) } else { self.joined([".", name, ""]) }
    }

    /// Returns the path of element `index` of the list at this path.
    pub fn index(&self, index: usize) -> Self {
        self.joined(["[", &index.to_string(), "]"])
    }

    /// Returns the path of the value with `key` in the map at this path.
    pub fn key(&self, key: &str) -> Self {
        self.joined(["[", key, "]"])
    }

    /// Appends a step, unless the path is already too long.
    fn joined(&self, step: [&str; 3]) -> Self {
        if self.0.len() > MAX_PATH_BYTES {
            return self.clone();
        }
        let length = self.0.len() + step.iter().map(|part| part.len()).sum::<usize>();
        if length > MAX_PATH_BYTES {
            let [first, second, third] = step;
            let whole = format_args!("{}{first}{second}{third}", self.0);
            return Self(limits::clipped(whole, MAX_PATH_BYTES));
        }
        // Concatenated without the formatter, because validation creates paths on every write.
        let mut path = String::with_capacity(length);
        path.push_str(&self.0);
        for part in step {
            path.push_str(part);
        }
        Self(path)
    }

    /// Returns the path as text; `[]` for the object itself, as upstream.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "[]" } else { &self.0 }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of a validation error. `reason` is the reason in `Status` causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A required value is missing.
    Required,
    /// The value violates a rule of the field.
    Invalid,
    /// The value violates a rule of the field. The message omits the value, or the detail contains it.
    InvalidWithoutValue,
    /// The value has the wrong type.
    TypeInvalid,
    /// The value is not one of the supported values.
    NotSupported,
    /// The value must not be set or changed.
    Forbidden,
    /// The value occurs twice but must be unique.
    Duplicate,
    /// The value occurs twice but must be unique. The message omits the value.
    DuplicateWithoutValue,
    /// The object that the value refers to does not exist.
    NotFound,
    /// The value is longer than allowed.
    TooLong,
    /// The list has more elements than allowed.
    TooMany,
    /// The check itself failed.
    Internal,
}

impl FieldErrorKind {
    /// Returns the machine-readable reason in `Status.details.causes`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid | Self::InvalidWithoutValue => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate | Self::DuplicateWithoutValue => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::InvalidWithoutValue | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate | Self::DuplicateWithoutValue => "Duplicate value",
            Self::NotFound => "Not found",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        matches!(
            self,
            Self::Invalid | Self::TypeInvalid | Self::NotSupported | Self::Duplicate | Self::NotFound
        )
    }
}

/// A validation error: a field, the kind of error, and the field's value.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The kind of error.
    pub kind: FieldErrorKind,
    /// The path of the field.
    pub field: FieldPath,
    /// The value; `Null` if it is not shown.
    pub value: Value,
    /// The explanation; may be empty.
    pub detail: String,
}

impl FieldError {
    /// Returns an error for a missing value.
    pub fn required(field: &FieldPath, detail: impl Into<String>) -> Self {
        Self::with(FieldErrorKind::Required, field, Value::Null, detail)
    }

    /// Returns an error for a value that violates a rule.
    pub fn invalid(field: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(FieldErrorKind::Invalid, field, value.into(), detail)
    }

    /// Returns an error for a value of the wrong type.
    pub fn type_invalid(field: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(FieldErrorKind::TypeInvalid, field, value.into(), detail)
    }

    /// Returns an error for a value that is not in `supported`.
    pub fn not_supported(field: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut detail = String::new();
        for text in supported {
            detail.push_str(if detail.is_empty() { "supported values: " } else { ", " });
            // Writing to a `String` cannot fail.
            let _ = write!(detail, "{text:?}");
        }
        Self::with(FieldErrorKind::NotSupported, field, value.into(), detail)
    }

    /// Returns an error for a field that must not be set or changed.
    pub fn forbidden(field: &FieldPath, detail: impl Into<String>) -> Self {
        Self::with(FieldErrorKind::Forbidden, field, Value::Null, detail)
    }

    /// Returns an error for a value that occurs twice.
    pub fn duplicate(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::with(FieldErrorKind::Duplicate, field, value.into(), "")
    }

    /// Returns an error for a reference to an object that does not exist.
    pub fn not_found(field: &FieldPath, value: impl Into<Value>) -> Self {
        Self::with(FieldErrorKind::NotFound, field, value.into(), "")
    }

    /// Returns an error for a value longer than `max` bytes.
    pub fn too_long(field: &FieldPath, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::with(FieldErrorKind::TooLong, field, Value::Null, detail)
    }

    /// Returns an error for a list with `actual` elements, more than `max`.
    pub fn too_many(field: &FieldPath, actual: usize, max: usize) -> Self {
        let plural = if max == 1 { "" } else { "s" };
        let detail = format!("must have at most {max} item{plural}");
        Self::with(FieldErrorKind::TooMany, field, Value::from(actual), detail)
    }

    /// Returns an error of the given kind.
    pub fn with(kind: FieldErrorKind, field: &FieldPath, value: Value, detail: impl Into<String>) -> Self {
        Self { kind, field: field.clone(), value, detail: detail.into() }
    }

    /// Returns the message without the field, as in causes: `Invalid value: "x": must be y`.
    pub fn body(&self) -> String {
        let mut text = self.kind.title().to_owned();
        if self.kind == FieldErrorKind::TooMany && !self.value.is_null() {
            text = format!("{text}: {}", self.value);
        } else if self.kind.shows_value() {
            text = format!("{text}: {}", format_value(&self.value));
        }
        if !self.detail.is_empty() {
            text = format!("{text}: {}", limits::clipped(&self.detail, MAX_DETAIL_BYTES));
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

fn format_value(value: &Value) -> String {
    match value {
        Value::String(text) => limits::clipped(GoQuoted(text), MAX_SHOWN_BYTES),
        Value::Number(number) => GoNumber(number).to_string(),
        other => limits::clipped(other, MAX_SHOWN_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_paths_of_fields_indexes_and_keys() {
        let path = FieldPath::new("spec").child("containers").index(2).child("env").key("a.b");
        assert_eq!(path.as_str(), "spec.containers[2].env[a.b]");
        assert_eq!(FieldPath::default().child("x").as_str(), "x");
        assert_eq!(FieldPath::new("").child("x").as_str(), "x");
        assert_eq!(FieldError::forbidden(&FieldPath::new(""), "no").to_string(), "[]: Forbidden: no");
    }

    #[test]
    fn shows_the_value_only_for_some_kinds() {
        let at = FieldPath::new("spec").child("x");
        assert_eq!(FieldError::required(&at, "").to_string(), "spec.x: Required value");
        let hidden = FieldError::with(FieldErrorKind::InvalidWithoutValue, &at, Value::from("b"), "no");
        assert_eq!(hidden.to_string(), "spec.x: Invalid value: no");
        assert_eq!(FieldError::invalid(&at, "b", "no").to_string(), "spec.x: Invalid value: \"b\": no");
        let hidden = FieldError::with(FieldErrorKind::DuplicateWithoutValue, &at, Value::Null, "");
        assert_eq!(hidden.to_string(), "spec.x: Duplicate value");
        assert_eq!(FieldError::forbidden(&at, "never").to_string(), "spec.x: Forbidden: never");
        assert_eq!(
            FieldError::not_supported(&at, "z", &["a", "b"]).to_string(),
            "spec.x: Unsupported value: \"z\": supported values: \"a\", \"b\""
        );
        assert_eq!(
            FieldError::too_many(&at, 9, 8).to_string(),
            "spec.x: Too many: 9: must have at most 8 items"
        );
    }
}
