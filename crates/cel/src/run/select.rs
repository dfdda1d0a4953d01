//! Variables and selections from them.

use std::sync::Arc;

use super::{Machine, Selected, fatal};
use crate::failure::Failure;
use crate::plan::{Attribute, Index, Qualifier, Root};
use crate::policies::VARIABLES;
use crate::value::{Value, display, go_type};

impl<'a> Machine<'a, '_> {
    /// Returns the value of an attribute, without the cost of the attribute itself.
    pub(super) fn resolve(&mut self, attribute: &'a Attribute) -> Result<Value<'a>, Failure> {
        let root = match &attribute.root {
            Root::Variable(index) => match self.context.variables.get(*index) {
                Some(Some(value)) => value.clone()?,
                _ => {
                    let name = self.context.names.get(*index).map_or("", |name| name);
                    if name == VARIABLES && self.context.lazy.is_some() {
                        return self.lazy(attribute);
                    }
                    return Err(Failure::new(format!("no such attribute(s): {name}")));
                }
            },
            Root::Local(slot) => self.local(*slot)?,
            Root::Value(node) => self.eval(node)?,
            Root::Conditional { test, yes, no } => {
                return match self.eval(test)? {
                    Value::Bool(true) => self.resolve(yes),
                    Value::Bool(false) => self.resolve(no),
                    _ => Err(Failure::overload()),
                };
            }
        };
        if attribute.qualifiers.is_empty() {
            return Ok(collapsed(root));
        }
        self.selected(root, &attribute.qualifiers, attribute.test)
    }

    /// Evaluates a variable and selects from its value.
    fn lazy(&mut self, attribute: &'a Attribute) -> Result<Value<'a>, Failure> {
        let Some((first, rest)) = attribute.qualifiers.split_first() else { return Err(Failure::overload()) };
        let Index::Const(Value::String(name)) = &first.index else { return Err(Failure::overload()) };
        let found = self.context.lazy.as_ref().and_then(|lazy| lazy.get(name));
        self.context.charge(1)?;
        match found {
            _ if first.test => Ok(Value::Bool(found.is_some())),
            Some(value) if first.optional => self.selected(Value::some(value?), rest, attribute.test),
            Some(value) => self.selected(value?, rest, attribute.test),
            None => Err(Failure::new(format!("no such key: {}", &**name))),
        }
    }

    /// Selects from a value.
    fn selected(
        &mut self,
        root: Value<'a>,
        qualifiers: &'a [Qualifier],
        test: bool,
    ) -> Result<Value<'a>, Failure> {
        let (mut value, mut optional) = match root {
            Value::Optional(None) if test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, false),
        };
        if qualifiers.is_empty() {
            return Ok(if optional { Value::some(value) } else { value });
        }
        for qualifier in qualifiers {
            optional |= qualifier.optional;
            match self.qualify(&value, qualifier, optional)? {
                Some(found) => value = found,
                None if test => return Ok(Value::Bool(false)),
                None => return Ok(Value::Optional(None)),
            }
        }
        Ok(match (optional, test) {
            (true, true) => Value::Bool(true),
            (true, false) => Value::some(value),
            (false, _) => value,
        })
    }

    /// Selects from a value. Returns `None` only for optional selections.
    fn qualify(&mut self, value: &Value<'a>, qualifier: &'a Qualifier, optional: bool) -> Selected<'a> {
        let (found, key) = match &qualifier.index {
            Index::Const(key) => (select(value, key), None),
            Index::Attribute(attribute) => {
                let key = self.resolve(attribute);
                fatal(&key)?;
                match key {
                    Ok(key) => (select(value, &key), Some(key)),
                    Err(failure) => (Err(failure), None),
                }
            }
        };
        if !optional || matches!(&found, Ok(Some(_))) {
            self.context.charge(1)?;
        }
        let found = found?;
        if qualifier.test {
            return match (optional, found) {
                (false, found) => Ok(Some(Value::Bool(found.is_some()))),
                (true, found) => Ok(found),
            };
        }
        if found.is_none() && !optional {
            let key = match (&qualifier.index, &key) {
                (Index::Const(key), _) => display(key),
                (_, Some(key)) => display(key),
                _ => String::new(),
            };
            let what = if matches!(value, Value::List(_)) { "index out of bounds" } else { "no such key" };
            return Err(Failure::new(format!("{what}: {key}")));
        }
        Ok(found)
    }
}

/// Selects from a value by a key.
fn select<'a>(value: &Value<'a>, key: &Value<'_>) -> Selected<'a> {
    match key {
        Value::String(name) => match value {
            Value::Map(map) => map.field(name),
            other => other.get(key),
        },
        Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_) => value.get(key),
        other => Err(Failure::new(format!("invalid qualifier type: {}", go_type(other)))),
    }
}

/// Flattens an optional value of an optional value, as cel-go's attributes do.
fn collapsed(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Optional(Some(outer)) => match &*outer {
            Value::Optional(Some(inner)) => Value::Optional(Some(Arc::clone(inner))),
            Value::Optional(None) => Value::some(Value::Null),
            _ => Value::Optional(Some(outer)),
        },
        other => other,
    }
}
