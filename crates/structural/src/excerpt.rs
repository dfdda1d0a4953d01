//! Cuts the values in errors. Otherwise, each error of a large value would be as large as the value.

use nave_machinery::{Value, limits};

/// Maximum number of bytes of a value that an error copies. Messages show less.
const MAX_BYTES: usize = 4 * 1024;

pub(crate) fn excerpt(value: &Value) -> Value {
    limits::excerpt(value, MAX_BYTES)
}

pub(crate) fn excerpt_text(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_BYTES)).unwrap_or(text)
}
