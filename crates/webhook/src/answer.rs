//! JSON answers of webhooks and identity providers.

use serde_json::Value;

/// Maximum number of values in an answer. A tree takes up to a hundred times the memory of its text, and real answers
/// have some thousands of values at most: the groups of a user, or the keys of a provider.
const MAX_VALUES: usize = 64 * 1024;

/// The error of [`parse`]. Its text follows the name of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The answer is not JSON.
    #[error("is not JSON")]
    NotJson,
    /// The answer has too many values.
    #[error("has more than {MAX_VALUES} values")]
    TooManyValues,
}

/// Parses an answer.
///
/// # Errors
/// It is not JSON, or has too many values.
pub fn parse(text: &[u8]) -> Result<Value, AnswerError> {
    // Each value but the first follows one of these bytes. Those in texts count too.
    let values = text.iter().filter(|byte| matches!(byte, b'[' | b',' | b':')).count();
    if values > MAX_VALUES {
        return Err(AnswerError::TooManyValues);
    }
    serde_json::from_slice(text).map_err(|_| AnswerError::NotJson)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_have_a_bounded_number_of_values() {
        for (item, number, expected) in [
            ("{}", 1000, Ok(())),
            ("\"group\"", 50_000, Ok(())),
            ("{\"\":0}", 40_000, Err(AnswerError::TooManyValues)),
            ("0", 100_000, Err(AnswerError::TooManyValues)),
            ("[[[[]]]]", 40_000, Err(AnswerError::TooManyValues)),
            ("x", 1, Err(AnswerError::NotJson)),
        ] {
            let text = format!("[{}]", vec![item; number].join(","));
            assert_eq!(parse(text.as_bytes()).map(drop), expected, "{number} {item}");
        }
        assert_eq!(parse(b"{\"status\":{\"allowed\":true}}"), Ok(json!({"status": {"allowed": true}})));
    }
}
