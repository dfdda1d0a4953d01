//! Paths of fields in rules and selectable fields (upstream: `ValidFieldPath` in `apiserver/schema/cel`).

use nave_machinery::{FieldPath, Map, Value};

use super::map;
use crate::compile::text;

/// The field at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTarget {
    /// The path in its canonical form.
    pub path: FieldPath,
    /// The first field of the path.
    pub root: String,
    /// The type of the field; empty if the schema does not specify it.
    pub kind: String,
}

/// Finds the field of a schema at a path such as `.spec.name`.
///
/// # Errors
/// The path is invalid. The message is upstream's.
pub fn field_path(schema: &Value, path: &str) -> Result<FieldTarget, String> {
    let none = Map::new();
    resolve(schema.as_object().unwrap_or(&none), path, false)
}

pub(super) fn resolve(schema: &Map, path: &str, allows_brackets: bool) -> Result<FieldTarget, String> {
    let mut schema = schema;
    let mut target = FieldTarget { path: FieldPath::default(), root: String::new(), kind: String::new() };
    let mut tokens = Tokens { rest: path };
    let end = || "unexpected end of JSON path".to_owned();
    while let Some(token) = tokens.next() {
        let name = match token {
            "." => tokens.next().ok_or_else(end)?.to_owned(),
            "[" if !allows_brackets => return Err("array notation is not allowed".to_owned()),
            "[" => {
                let quoted = tokens.next().ok_or_else(end)?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                match tokens.next().ok_or_else(end)? {
                    "]" => inner.replace("\\'", "'").replace("\\\\", "\\"),
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        schema = step(schema, &name, &mut target)?;
    }
    text(schema, "type").unwrap_or_default().clone_into(&mut target.kind);
    Ok(target)
}

fn step<'s>(schema: &'s Map, name: &str, target: &mut FieldTarget) -> Result<&'s Map, String> {
    let invalid = || "does not refer to a valid field".to_owned();
    if target.root.is_empty() {
        name.clone_into(&mut target.root);
    }
    if let Some(properties) = map(schema, "properties").filter(|all| !all.is_empty()) {
        target.path = target.path.child(name);
        return properties.get(name).and_then(Value::as_object).ok_or_else(invalid);
    }
    target.path = target.path.key(name);
    map(schema, "additionalProperties").ok_or_else(invalid)
}

/// Splits a path at dots and brackets, which are also tokens.
struct Tokens<'p> {
    rest: &'p str,
}

impl<'p> Tokens<'p> {
    fn next(&mut self) -> Option<&'p str> {
        if self.rest.is_empty() {
            return None;
        }
        let length = if self.rest.starts_with('\'') {
            self.quoted()
        } else if self.rest.starts_with(['.', '[', ']']) {
            1
        } else {
            self.rest.find(['.', '[', ']']).unwrap_or(self.rest.len())
        };
        let (token, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(token)
    }

    /// Returns the length of a quoted text. A backslash escapes the quote.
    fn quoted(&self) -> usize {
        let bytes = self.rest.as_bytes();
        let is_end = |at: &usize| bytes.get(*at) == Some(&b'\'') && bytes.get(at - 1) != Some(&b'\\');
        (1..bytes.len()).find(is_end).map_or(bytes.len(), |at| at + 1)
    }
}
