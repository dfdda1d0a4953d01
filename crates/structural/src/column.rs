//! Cells of `additionalPrinterColumns`, and values of selectable fields.

use nave_machinery::Value;
use nave_machinery::go_value::GoNumber;
use nave_machinery::time::{self, Timestamp};

use crate::jsonpath::{JsonPath, JsonPathError};

/// The path and the type of a printer column.
#[derive(Clone, Debug)]
pub struct PrinterColumn {
    kind: CellKind,
    path: JsonPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CellKind {
    Integer,
    Number,
    String,
    Boolean,
    Date,
    /// A type that validation rejects. The cells are empty.
    Unknown,
}

impl PrinterColumn {
    /// Creates a column of `type` and `jsonPath`.
    ///
    /// # Errors
    /// The path cannot be parsed. Upstream serves such a version without custom columns.
    pub fn new(kind: &str, json_path: &str) -> Result<Self, JsonPathError> {
        let kind = match kind {
            "integer" => CellKind::Integer,
            "number" => CellKind::Number,
            "string" => CellKind::String,
            "boolean" => CellKind::Boolean,
            "date" => CellKind::Date,
            _ => CellKind::Unknown,
        };
        Ok(Self { kind, path: JsonPath::parse(json_path)? })
    }

    /// Returns the cell of an object: the first value at the path, converted. Returns `null` if the value is missing or
    /// has another type.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Ok(found) = self.path.find(object) else { return Value::Null };
        let Some(value) = found.first() else { return Value::Null };
        match (self.kind, &**value) {
            (CellKind::String, value) => Value::String(text(value)),
            (CellKind::Integer, Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => Value::from(int),
                (None, Some(float)) => Value::from(float as i64),
                (None, None) => Value::Null,
            },
            (CellKind::Number, Value::Number(number)) => whole(number),
            (CellKind::Boolean, Value::Bool(flag)) => Value::Bool(*flag),
            (CellKind::Date, Value::String(text)) => Value::String(elapsed(text, now)),
            _ => Value::Null,
        }
    }
}

/// Converts a double without a fraction to an integer, as Go's JSON writes it.
fn whole(number: &serde_json::Number) -> Value {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            Value::from(float as i64)
        }
        _ => Value::Number(number.clone()),
    }
}

fn elapsed(text: &str, now: Timestamp) -> String {
    if text.is_empty() || text == "null" {
        return "<unknown>".to_owned();
    }
    match Timestamp::parse(text) {
        Some(then) => time::human_duration(now.seconds_since(then)),
        None => "<invalid>".to_owned(),
    }
}

/// Returns the text of a value as Go prints it. Objects and lists become JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => GoNumber(number).to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => escape_html(&value.to_string()),
    }
}

/// Escapes the characters that Go's JSON escapes for HTML.
fn escape_html(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' => escaped.push_str(r"\u003c"),
            '>' => escaped.push_str(r"\u003e"),
            '&' => escaped.push_str(r"\u0026"),
            '\u{2028}' => escaped.push_str(r"\u2028"),
            '\u{2029}' => escaped.push_str(r"\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The path of a selectable field.
#[derive(Clone, Debug)]
pub struct SelectablePath(JsonPath);

impl SelectablePath {
    /// Parses `jsonPath` of a selectable field.
    ///
    /// # Errors
    /// The path cannot be parsed.
    pub fn parse(json_path: &str) -> Result<Self, JsonPathError> {
        JsonPath::parse(json_path).map(Self)
    }

    /// Returns the value of the field as text for selectors; empty if the field is missing.
    pub fn value(&self, object: &Value) -> String {
        let found = self.0.find(object).unwrap_or_default();
        found.first().filter(|value| !value.is_null()).map_or_else(String::new, |value| text(value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_have_the_type_of_the_column() {
        let now = Timestamp::parse("2024-05-01T12:00:00Z").unwrap();
        let object = json!({
            "i": 7, "f": 2.5, "w": 3.0, "big": 1e21, "b": true, "s": "x", "n": null, "o": {"b": "<&>", "a": [1]},
            "t": "2024-05-01T10:00:00Z", "e": "",
        });
        for (kind, path, expected) in [
            ("integer", ".i", json!(7)),
            ("integer", ".f", json!(2)),
            ("integer", ".s", json!(null)),
            ("number", ".i", json!(7)),
            ("number", ".f", json!(2.5)),
            ("number", ".w", json!(3)),
            ("boolean", ".b", json!(true)),
            ("boolean", ".s", json!(null)),
            ("string", ".s", json!("x")),
            ("string", ".i", json!("7")),
            ("string", ".f", json!("2.5")),
            ("string", ".w", json!("3")),
            ("string", ".big", json!("1e+21")),
            ("string", ".b", json!("true")),
            ("string", ".n", json!("<no value>")),
            ("string", ".o", json!(r#"{"a":[1],"b":"\u003c\u0026\u003e"}"#)),
            ("string", ".missing", json!(null)),
            ("string", ".s[0]", json!(null)),
            ("date", ".t", json!("120m")),
            ("date", ".e", json!("<unknown>")),
            ("date", ".s", json!("<invalid>")),
            ("date", ".i", json!(null)),
        ] {
            let column = PrinterColumn::new(kind, path).unwrap();
            assert_eq!(column.cell(&object, now), expected, "{kind} {path}");
        }
    }

    #[test]
    fn selectable_fields_are_texts() {
        let object = json!({"spec": {"s": "x", "i": 3, "b": false, "n": null}});
        for (path, expected) in
            [(".spec.s", "x"), (".spec.i", "3"), (".spec.b", "false"), (".spec.n", ""), (".spec.missing", "")]
        {
            assert_eq!(SelectablePath::parse(path).unwrap().value(&object), expected);
        }
    }
}
