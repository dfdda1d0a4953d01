//! Correlates values with old values. An error of an unchanged value is a warning (KEP-4008).

use serde_json::Value as Json;

use super::node::{correlated, list_keys};

/// A value, its old value and its schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlation<'a> {
    new: &'a Json,
    old: &'a Json,
    schema: &'a Json,
}

/// The correlation of a value, and the correlation of the nearest enclosing value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ratchet<'a> {
    current: Option<Correlation<'a>>,
    parent: Option<Correlation<'a>>,
}

impl<'a> Ratchet<'a> {
    /// Correlates an object with its old state.
    pub(super) fn new(new: &'a Json, old: Option<&'a Json>, schema: &'a Json) -> Self {
        Self { current: old.map(|old| Correlation { new, old, schema }), parent: None }
    }

    /// Returns the correlation of a value in `allOf`, whose errors are never warnings by themselves.
    pub(super) fn all_of(self) -> Self {
        Self { current: None, ..self }
    }

    /// Returns whether errors of the value are warnings.
    pub(super) fn is_unchanged(&self) -> bool {
        self.current.or(self.parent).is_some_and(Correlation::is_unchanged)
    }

    pub(super) fn key(self, name: &str) -> Self {
        match self.current {
            None => self,
            Some(_) if self.parent.is_none() && matches!(name, "apiVersion" | "kind") => Self::default(),
            Some(current) => Self { current: current.key(name), parent: Some(current) },
        }
    }

    pub(super) fn index(self, index: usize) -> Self {
        match self.current {
            None => self,
            Some(current) => Self { current: current.index(index), parent: Some(current) },
        }
    }
}

impl Correlation<'_> {
    fn key(self, name: &str) -> Option<Self> {
        let (new, old) = (self.new.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        let property = self.schema.get("properties").and_then(|it| it.get(name));
        let schema =
            property.or_else(|| self.schema.get("additionalProperties").filter(|it| it.is_object()))?;
        Some(Self { new, old, schema })
    }

    fn index(self, index: usize) -> Option<Self> {
        let (new, old) = (self.new.as_array()?.get(index)?, self.old.as_array()?);
        let old = correlated(old, new, &list_keys(self.schema)?)?;
        let schema = self.schema.get("items")?;
        Some(Self { new, old, schema })
    }

    /// Compares with the old value. Matches items of map lists by key. Fields without a schema count as changed.
    fn is_unchanged(self) -> bool {
        match (self.new, self.old) {
            (Json::Null, Json::Null) => true,
            (Json::Array(new), Json::Array(old)) => {
                if new.len() != old.len() {
                    return false;
                }
                if list_keys(self.schema).is_none() {
                    return new == old;
                }
                (0..new.len()).all(|index| self.index(index).is_some_and(Self::is_unchanged))
            }
            (Json::Object(new), Json::Object(old)) => {
                new.len() == old.len()
                    && new.keys().all(|name| self.key(name).is_some_and(Self::is_unchanged))
            }
            (new, old) => new == old,
        }
    }
}
