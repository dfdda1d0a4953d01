//! Checks that each field in a value validation at the root also has a structural schema (upstream:
//! `apiserver/schema/complete.go`, which ignores value validations below the root).

use nave_machinery::{FieldPath, Map, Value};

use super::{Errors, list, map};

pub(super) fn check(schema: &Map, path: &FieldPath, errors: &mut Errors) {
    logic(schema, schema, path, path, errors);
}

/// Checks the alternatives in `validation` against the structure.
fn logic(validation: &Map, structure: &Map, at: &FieldPath, from: &FieldPath, errors: &mut Errors) {
    if let Some(not) = map(validation, "not") {
        nested(not, Some(structure), at, &from.child("not"), errors);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, alternative) in list(validation, name).iter().enumerate() {
            if let Value::Object(alternative) = alternative {
                nested(alternative, Some(structure), at, &from.child(name).index(index), errors);
            }
        }
    }
}

fn nested(validation: &Map, structure: Option<&Map>, at: &FieldPath, from: &FieldPath, errors: &mut Errors) {
    let Some(structure) = structure else {
        errors.required(at, format!("because it is defined in {from}"));
        return;
    };
    logic(validation, structure, at, from, errors);
    if let Some(items) = map(validation, "items") {
        nested(items, map(structure, "items"), &at.child("items"), &from.child("items"), errors);
    }
    let known = map(structure, "properties");
    for (name, property) in map(validation, "properties").into_iter().flatten() {
        let Value::Object(property) = property else { continue };
        let (at, from) = (at.child("properties").key(name), from.child("properties").key(name));
        let structure = known.and_then(|all| all.get(name)).and_then(Value::as_object);
        nested(property, structure, &at, &from, errors);
    }
}
