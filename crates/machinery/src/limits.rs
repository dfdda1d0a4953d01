//! Limits of every object that is decoded, built or stored, by any path: request body, patch, conversion.
//!
//! | limit | reason |
//! | --- | --- |
//! | [`MAX_DEPTH`] | all readers accept it, including those with a limit of 128 levels, such as `serde_json` |
//! | [`MAX_TREE_BYTES`] | ten times the largest body; real objects need four to twelve times the size of their text |
//!
//! ```
//! use nave_machinery::limits;
//!
//! let nested = |depth: usize| (1..depth).fold(serde_json::json!([]), |inner, _| serde_json::json!([inner]));
//! assert_eq!(limits::check(&nested(limits::MAX_DEPTH)), Ok(()));
//! assert_eq!(limits::check(&nested(limits::MAX_DEPTH + 1)), Err(limits::LimitError::TooDeep));
//! ```

use std::fmt::{self, Write};

use crate::{Map, Status, Value};

/// Maximum size of a request body in bytes (upstream's `MaxRequestBodyBytes`).
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Maximum nesting depth of an object. Documents that contain objects (lists, tables, watch events, reviews) then stay
/// below 128 levels, the limit of parsers such as `serde_json`.
pub const MAX_DEPTH: usize = 100;

/// Maximum nesting depth of a document that contains objects.
pub const MAX_DOCUMENT_DEPTH: usize = MAX_DEPTH + 8;

/// Maximum memory of one object's value tree, as estimated by [`Budget`].
pub const MAX_TREE_BYTES: usize = 32 * 1024 * 1024;

/// Maximum length of a [`Status`] message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The limit that an object exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The nesting is deeper than [`MAX_DEPTH`].
    #[error("exceeded max depth")]
    TooDeep,
    /// The value tree needs more than [`MAX_TREE_BYTES`], or an intermediate step more than its own budget.
    #[error("Request entity too large: the object has too many values")]
    TooLarge,
}

impl LimitError {
    /// Returns the response to a request whose object exceeds the limit.
    pub fn into_status(self) -> Status {
        match self {
            Self::TooDeep => Status::bad_request(self.to_string()),
            Self::TooLarge => Status::too_large(self.to_string()),
        }
    }
}

/// Checks an object against [`MAX_DEPTH`] and [`MAX_TREE_BYTES`].
///
/// # Errors
/// The limit that is exceeded.
pub fn check(value: &Value) -> Result<(), LimitError> {
    Budget::default().charge_tree(value, MAX_DEPTH)
}

/// Returns whether the nesting depth is at most `max`.
pub fn is_within_depth(value: &Value, max: usize) -> bool {
    let Some(deeper) = max.checked_sub(1) else { return !value.is_object() && !value.is_array() };
    match value {
        Value::Array(items) => items.iter().all(|item| is_within_depth(item, deeper)),
        Value::Object(fields) => fields.values().all(|field| is_within_depth(field, deeper)),
        _ => true,
    }
}

/// A memory budget, counted down by estimates while values are built.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(MAX_TREE_BYTES)
    }
}

impl Budget {
    /// Returns a budget of this many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self { left: bytes }
    }

    /// Returns the remaining bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes bytes from the budget.
    ///
    /// # Errors
    /// [`LimitError::TooLarge`] if fewer bytes remain.
    #[inline]
    pub fn charge(&mut self, bytes: usize) -> Result<(), LimitError> {
        self.left = self.left.checked_sub(bytes).ok_or(LimitError::TooLarge)?;
        Ok(())
    }

    /// Takes the cost of a value tree with a maximum depth of `depth` from the budget.
    ///
    /// # Errors
    /// The limit that is exceeded.
    #[inline]
    pub fn charge_tree(&mut self, value: &Value, depth: usize) -> Result<(), LimitError> {
        match value {
            Value::String(text) => self.charge(cost::text(text.len())),
            Value::Array(items) => self.charge_items(items, depth),
            Value::Object(fields) => self.charge_fields(fields, depth),
            _ => Ok(()),
        }
    }

    fn charge_items(&mut self, items: &[Value], depth: usize) -> Result<(), LimitError> {
        let deeper = depth.checked_sub(1).ok_or(LimitError::TooDeep)?;
        self.charge(items.len().saturating_mul(cost::ITEM))?;
        items.iter().try_for_each(|item| self.charge_tree(item, deeper))
    }

    fn charge_fields(&mut self, fields: &Map, depth: usize) -> Result<(), LimitError> {
        let deeper = depth.checked_sub(1).ok_or(LimitError::TooDeep)?;
        self.charge(cost::fields(fields))?;
        fields.iter().try_for_each(|(name, field)| {
            self.charge(cost::text(name.len()))?;
            self.charge_tree(field, deeper)
        })
    }
}

/// Estimated memory of the parts of a value tree, in bytes.
pub mod cost {
    use super::Map;

    /// A list item: a [`Value`](crate::Value) in a vector that doubles.
    pub const ITEM: usize = 64;
    /// A field without its name: a slot in a half-full B-tree node.
    pub const FIELD: usize = 112;
    /// The first B-tree node of a non-empty object, which has space for eleven fields.
    pub const OBJECT: usize = 544;

    /// Returns the cost of a string of this length on the heap.
    #[inline]
    pub const fn text(len: usize) -> usize {
        if len == 0 { 0 } else { len.saturating_add(32) }
    }

    /// Returns the cost of an object's nodes, without names and values.
    pub fn fields(fields: &Map) -> usize {
        if fields.is_empty() { 0 } else { fields.len().saturating_mul(FIELD).saturating_add(OBJECT) }
    }
}

/// Formats `shown`, cut after about `max` bytes. The rest is not formatted.
pub fn clipped(shown: impl fmt::Display, max: usize) -> String {
    let mut clip = Clip { text: String::new(), max };
    if write!(clip, "{shown}").is_err() {
        clip.text.push_str(ELLIPSIS);
    }
    clip.text
}

/// Returns `text`, cut after `max` bytes and marked with an ellipsis if it is longer.
pub fn clip(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push_str(ELLIPSIS);
        text.shrink_to_fit();
    }
    text
}

/// Returns a copy of the beginning of a value, about `max` bytes as text. Error messages cut values at that length, so
/// the rest is not copied.
pub fn excerpt(value: &Value, max: usize) -> Value {
    copy_within(value, &mut { max })
}

fn copy_within(value: &Value, left: &mut usize) -> Value {
    match value {
        Value::String(text) => {
            let shown = text.get(..text.floor_char_boundary(*left)).unwrap_or_default();
            *left = left.saturating_sub(shown.len() + 1);
            Value::String(shown.to_owned())
        }
        Value::Array(items) => {
            let mut copy = Vec::new();
            for item in items {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    break;
                }
                copy.push(copy_within(item, left));
            }
            Value::Array(copy)
        }
        Value::Object(fields) => {
            let mut copy = Map::new();
            for (name, field) in fields {
                *left = left.saturating_sub(name.len() + 4);
                if *left == 0 {
                    break;
                }
                copy.insert(name.clone(), copy_within(field, left));
            }
            Value::Object(copy)
        }
        other => other.clone(),
    }
}

const ELLIPSIS: &str = "...";

struct Clip {
    text: String,
    max: usize,
}

impl Write for Clip {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let left = self.max - self.text.len();
        if part.len() <= left {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..part.floor_char_boundary(left)]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_many_small_values_of_any_kind() {
        let items = [json!({"": 0}), json!([0]), json!("x"), json!(0), json!({}), json!({"a": {"b": {}}})];
        for item in items {
            let some = Value::Array(vec![item.clone(); 1000]);
            assert_eq!(check(&some), Ok(()), "{item}");
            let many = Value::Array(vec![item.clone(); MAX_TREE_BYTES / cost::ITEM + 1]);
            assert_eq!(check(&many), Err(LimitError::TooLarge), "{item}");
        }
    }

    #[test]
    fn limits_depth_of_objects_and_lists() {
        let deep = (0..MAX_DEPTH)
            .fold(json!(1), |inner, at| if at % 2 == 0 { json!([inner]) } else { json!({"a": inner}) });
        assert_eq!(check(&deep), Ok(()));
        assert!(is_within_depth(&deep, MAX_DEPTH) && !is_within_depth(&deep, MAX_DEPTH - 1));
        assert_eq!(check(&json!([deep])), Err(LimitError::TooDeep));
        assert!(is_within_depth(&json!("x"), 0) && !is_within_depth(&json!({}), 0));
    }

    #[test]
    fn an_excerpt_has_the_text_of_the_beginning() {
        let small = json!({"a": [1, "b", null, {"c": true}]});
        assert_eq!(excerpt(&small, 100), small);
        let items: Vec<Value> = (0..1000).map(|n| json!({"name": format!("é{n}"), "n": [n, n]})).collect();
        for value in
            [json!(items), json!({"list": items}), json!("é".repeat(1000)), json!({"é".repeat(500): 1})]
        {
            let (whole, part) = (clipped(&value, 200), clipped(excerpt(&value, 200), 200));
            assert!(part == whole || part.len() <= 200, "{part}");
            assert!(excerpt(&value, 200).to_string().len() < 2000);
        }
    }

    #[test]
    fn cuts_long_texts_between_characters() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("abcd", 3), "abc...");
        assert_eq!(clipped(format_args!("{}{}", "aé", "b"), 2), "a...");
        assert_eq!(clip("aéb".to_owned(), 2), "a...");
        assert_eq!(clip("aéb".to_owned(), 4), "aéb");
    }
}
