//! Printer columns, subresources, selectable fields and the deprecation of a version.

use std::collections::HashSet;

use nave_machinery::{FieldError, FieldPath, Value};
use nave_structural::rules;

use crate::validate::{At, Errors};

const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Maximum number of selectable fields of a version.
const MAX_SELECTABLE: usize = 8;

/// Maximum length of the warning of a deprecated version, in bytes.
const MAX_WARNING_BYTES: usize = 256;

/// Checks `additionalPrinterColumns`.
pub(super) fn check(columns: At, errors: &mut Errors) {
    for column in columns.items() {
        let (name, kind, format) = (column.field("name"), column.field("type"), column.field("format"));
        if name.text().is_empty() {
            errors.push(name.required(""));
        }
        let one_of = |known: &[&str]| format!("must be one of {}", known.join(","));
        if kind.text().is_empty() {
            errors.push(kind.required(one_of(&TYPES)));
        } else if !TYPES.contains(&kind.text()) {
            errors.push(kind.invalid(one_of(&TYPES)));
        }
        if !format.text().is_empty() && !FORMATS.contains(&format.text()) {
            errors.push(format.invalid(one_of(&FORMATS)));
        }
        // Upstream's error path has the field name of v1beta1.
        let path = column.path().child("JSONPath");
        match column.field("jsonPath").text() {
            "" => errors.push(FieldError::required(&path, "")),
            text => simple_path(text, &path, errors),
        }
    }
}

/// Checks that a path begins with a dot.
fn simple_path(text: &str, path: &FieldPath, errors: &mut Errors) {
    if !text.starts_with('.') {
        errors.push(FieldError::invalid(path, text, "must be a simple json path starting with ."));
    }
}

/// Checks `subresources`.
pub(super) fn subresources(at: At, errors: &mut Errors) {
    let scale = at.field("scale");
    if !scale.is_set() {
        return;
    }
    for (field, prefix) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let path = scale.field(field);
        if path.text().is_empty() {
            errors.push(path.required(""));
        } else {
            below(path, &[prefix], &format!("should be a json path under {prefix}"), errors);
        }
    }
    let selector = scale.field("labelSelectorPath");
    if !selector.text().is_empty() {
        let why = "should be a json path under either .spec or .status";
        below(selector, &[".spec", ".status"], why, errors);
    }
}

fn below(path: At, prefixes: &[&str], why: &str, errors: &mut Errors) {
    let text = path.text();
    let is_below = |prefix: &&str| text.strip_prefix(*prefix).is_some_and(|rest| rest.starts_with('.'));
    if !text.starts_with('.') {
        simple_path(text, &path.path(), errors);
    } else if !prefixes.iter().any(is_below) {
        errors.push(path.invalid(why));
    }
}

/// Checks `selectableFields` against a schema. An update that does not change the fields may exceed the limit.
pub(super) fn selectable(fields: At, schema: &Value, old: Option<&Value>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for field in fields.items() {
        let path = field.field("jsonPath");
        if path.text().is_empty() {
            errors.push(path.required(""));
            continue;
        }
        let target = match rules::field_path(schema, path.text()) {
            Ok(target) => target,
            Err(why) => {
                errors.push(path.invalid(format!("is an invalid path: {why}")));
                continue;
            }
        };
        if target.root == "metadata" {
            errors.push(path.invalid("must not point to fields in metadata"));
        }
        if !matches!(target.kind.as_str(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(path.invalid(why));
        }
        if !seen.insert(target.path) {
            errors.push(path.duplicate());
        }
    }
    let is_unchanged = old.is_some_and(|old| Some(old) == fields.value());
    if seen.len() > MAX_SELECTABLE && !is_unchanged {
        errors.push(FieldError::too_many(&fields.path(), seen.len(), MAX_SELECTABLE));
    }
}

/// Checks `deprecationWarning`.
pub(super) fn deprecation(version: At, errors: &mut Errors) {
    let warning = version.field("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    if !version.field("deprecated").flag() {
        errors.push(warning.invalid("can only be set for deprecated versions"));
        return;
    }
    let text = warning.text();
    if text.len() > MAX_WARNING_BYTES {
        errors.push(warning.invalid("must be <= 256 characters long"));
    }
    if text.is_empty() {
        errors.push(warning.invalid("must not be an empty string"));
    }
    if let Some((index, _)) = text.char_indices().find(|(_, character)| !is_printable(*character)) {
        errors.push(warning.invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        )));
    }
}

/// Returns whether a character is printable, like Go's `unicode.IsPrint`; unassigned characters count as printable.
fn is_printable(character: char) -> bool {
    let is_format = matches!(character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..='\u{10ffff}');
    character == ' ' || !(character.is_control() || character.is_whitespace() || is_format)
}
