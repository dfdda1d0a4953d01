//! The names of a custom resource.

use nave_machinery::names;

use crate::validate::{At, Errors};

/// Checks the names that are present.
pub(super) fn check(at: At, errors: &mut Errors) {
    for field in ["plural", "singular"] {
        label(at.field(field), errors);
    }
    for field in ["kind", "listKind"] {
        let name = at.field(field);
        let wrong = names::is_dns1035_label(&name.text().to_lowercase());
        if !name.text().is_empty() && !wrong.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(name.invalid(why));
        }
    }
    for name in at.field("shortNames").items() {
        label_in_list(name, errors);
    }
    let (kind, list_kind) = (at.field("kind"), at.field("listKind"));
    if !kind.text().is_empty() && kind.text() == list_kind.text() {
        errors.push(list_kind.invalid("kind and listKind may not be the same"));
    }
    for category in at.field("categories").items() {
        label_in_list(category, errors);
    }
}

fn label(at: At, errors: &mut Errors) {
    if !at.text().is_empty() {
        label_in_list(at, errors);
    }
}

fn label_in_list(at: At, errors: &mut Errors) {
    let wrong = names::is_dns1035_label(at.text());
    if !wrong.is_empty() {
        errors.push(at.invalid_text(wrong.join(",")));
    }
}
