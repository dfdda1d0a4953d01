//! The `fieldPath` of a rule: a simple JSON path relative to the rule.

use serde_json::Value as Json;

use super::error::Path;

/// Checks a path against a schema and returns its canonical form; `None` if it is invalid.
pub(super) fn normalize(text: &str, schema: &Json) -> Option<String> {
    let mut tokens = Tokens(text);
    let (mut path, mut schema) = (Path::default(), schema);
    while !tokens.0.is_empty() {
        let token = tokens.next()?;
        match token {
            "[" => {
                let quoted = tokens.next()?;
                let inner = quoted.strip_prefix('\'')?.strip_suffix('\'').filter(|_| quoted.len() >= 2)?;
                step(&mut path, &mut schema, &unescape(inner)?)?;
                if tokens.next()? != "]" {
                    return None;
                }
            }
            "." => {
                let name = tokens.next()?;
                step(&mut path, &mut schema, name)?;
            }
            _ => return None,
        }
    }
    Some(path.0)
}

fn step(path: &mut Path, schema: &mut &Json, name: &str) -> Option<()> {
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        *path = path.child(name);
        *schema = properties.get(name)?;
    } else {
        let values = schema.get("additionalProperties").filter(|it| it.is_object())?;
        *path = path.key(name);
        *schema = values;
    }
    Some(())
}

struct Tokens<'t>(&'t str);

impl<'t> Tokens<'t> {
    /// Returns the next token; `None` at the end.
    fn next(&mut self) -> Option<&'t str> {
        if self.0.is_empty() {
            return None;
        }
        let end = if self.0.starts_with('\'') {
            let bytes = self.0.as_bytes();
            let end = (1..bytes.len())
                .find(|at| bytes.get(*at) == Some(&b'\'') && bytes.get(at - 1) != Some(&b'\\'));
            end.map_or(self.0.len(), |end| end + 1)
        } else {
            let end = self.0.find(['.', '[', ']']).unwrap_or(self.0.len());
            end.max(1)
        };
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(token)
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        plain.push(match letters.next()? {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            it @ ('\'' | '\\') => it,
            _ => return None,
        });
    }
    Some(plain)
}
