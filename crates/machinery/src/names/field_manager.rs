//! Validation of names of field managers, in queries and in `metadata.managedFields` (upstream:
//! `apimachinery/pkg/apis/meta/v1/validation`).

use serde_json::Value;

use crate::status::MAX_CAUSES;
use crate::{FieldError, FieldPath};

/// Maximum length of a field manager's name, in bytes.
pub const FIELD_MANAGER_MAX: usize = 128;

/// Maximum length of the subresource of a managed fields entry, in bytes.
const SUBRESOURCE_MAX: usize = 256;

/// Returns whether a character is a letter, mark, number, punctuation, symbol or the ASCII space (upstream:
/// `unicode.IsPrint`).
pub fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    // `escape_debug` escapes marks only at the beginning of a text.
    format!(" {character}").escape_debug().count() == 2
}

/// Validates the name of a field manager. Does not check the characters of a name that is too long.
pub fn validate_field_manager(manager: &str, path: &FieldPath) -> Vec<FieldError> {
    if manager.len() > FIELD_MANAGER_MAX {
        return vec![FieldError::too_long(path, FIELD_MANAGER_MAX)];
    }
    let unprintable = manager.char_indices().filter(|(_, character)| !is_printable(*character));
    let errors = unprintable.map(|(at, character)| {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(character));
        FieldError::invalid(path, manager, why)
    });
    errors.collect()
}

/// Validates the entries of `metadata.managedFields`. A body may have thousands of entries with many errors each, so
/// the result is limited to one error more than a status shows.
pub(super) fn validate_managed_fields(metadata: &Value, path: &FieldPath) -> Vec<FieldError> {
    let entries = metadata.get("managedFields").and_then(Value::as_array);
    let mut errors = Vec::new();
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        validate_entry(entry, &path.index(index), &mut errors);
        if errors.len() > MAX_CAUSES {
            break;
        }
    }
    errors
}

fn validate_entry(entry: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
    let operation = text("operation");
    if !matches!(operation, "Apply" | "Update") {
        errors.push(FieldError::invalid(&path.child("operation"), operation, "must be `Apply` or `Update`"));
    }
    let fields_type = text("fieldsType");
    if !matches!(fields_type, "" | "FieldsV1") {
        errors.push(FieldError::invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`"));
    }
    errors.extend(validate_field_manager(text("manager"), &path.child("manager")));
    if text("subresource").len() > SUBRESOURCE_MAX {
        errors.push(FieldError::too_long(&path.child("subresource"), SUBRESOURCE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn printable_characters_are_those_of_go() {
        for character in ['a', ' ', '~', '"', '\'', '\\', 'é', '\u{301}', '漢', '€', '\u{fffd}', '😀'] {
            assert!(is_printable(character), "{character:?}");
        }
        let others =
            ['\0', '\n', '\u{7f}', '\u{85}', '\u{a0}', '\u{200b}', '\u{2028}', '\u{3000}', '\u{e000}'];
        for character in others {
            assert!(!is_printable(character), "{character:?}");
        }
    }

    fn errors_of(entries: &Value) -> Vec<String> {
        let errors =
            validate_managed_fields(&json!({ "managedFields": entries }), &FieldPath::new("managedFields"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn validates_each_part_of_an_entry() {
        let valid =
            json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"});
        for (field, value, why) in [
            (
                "operation",
                json!("Delete"),
                "operation: Invalid value: \"Delete\": must be `Apply` or `Update`",
            ),
            ("operation", Value::Null, "operation: Invalid value: \"\": must be `Apply` or `Update`"),
            ("fieldsType", json!("FieldsV2"), "fieldsType: Invalid value: \"FieldsV2\": must be `FieldsV1`"),
            ("manager", json!("a".repeat(129)), "manager: Too long: may not be more than 128 bytes"),
            (
                "manager",
                json!("é\nb"),
                "manager: Invalid value: \"é\\nb\": invalid character U+000A (at position 2)",
            ),
            ("subresource", json!("s".repeat(257)), "subresource: Too long: may not be more than 256 bytes"),
        ] {
            let mut entry = valid.clone();
            entry[field] = value;
            assert_eq!(errors_of(&json!([valid, entry])), [format!("managedFields[1].{why}")]);
        }
        let mut longest = valid.clone();
        longest["manager"] = json!("a".repeat(128));
        longest["subresource"] = json!("s".repeat(256));
        longest["fieldsType"] = Value::Null;
        assert_eq!(errors_of(&json!([valid, longest])), [""; 0]);
    }

    #[test]
    fn errors_of_many_entries_are_bounded() {
        let entry = json!({"manager": "\u{1}".repeat(FIELD_MANAGER_MAX)});
        let found = errors_of(&Value::Array(vec![entry; 10_000]));
        assert!((MAX_CAUSES..MAX_CAUSES + 200).contains(&found.len()), "{}", found.len());
        assert_eq!(errors_of(&json!([{"operation": "Apply", "manager": "\u{1}".repeat(1 << 20)}])).len(), 1);
    }
}
