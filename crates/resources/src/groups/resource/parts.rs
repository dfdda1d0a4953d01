//! Validation shared by the kinds of dynamic resource allocation (upstream: `pkg/apis/resource/validation`).

use std::collections::HashSet;

use nave_machinery::{FieldError, FieldPath, Value, names};

use crate::validate::{At, Errors, checked, driver_name, required_text};

const POOL_MAX: usize = 253;
const ID_MAX: usize = 32;
const CONDITIONS_MAX: usize = 4;
const NO_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

/// Checks each item of a list. Reports only the list if it is longer than `max`.
pub(super) fn each<'v>(
    list: At<'_, 'v>,
    max: usize,
    errors: &mut Errors,
    check: impl Fn(At<'_, 'v>, &mut Errors),
) {
    if list.len() > max {
        errors.push(list.too_many(max));
        return;
    }
    list.items().for_each(|item| check(item, errors));
}

/// Reports items with duplicate keys. Skips a list longer than `max`.
pub(super) fn unique<'v>(
    list: At<'_, 'v>,
    max: usize,
    errors: &mut Errors,
    key: impl Fn(At<'_, 'v>) -> &'v str,
) {
    let mut seen = HashSet::new();
    for item in list.items().take(if list.len() > max { 0 } else { max }) {
        let key = key(item);
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(&item.path(), key));
        }
    }
}

/// Checks a qualified name: an optional domain and a C identifier.
pub(super) fn qualified(path: &FieldPath, name: &str, errors: &mut Errors) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [id] => identifier(path, id, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                let value = Value::from(domain);
                let mut found = Errors::new();
                driver_name(At::named("", Some(&value)), &mut found);
                errors.extend(found.into_iter().map(|error| FieldError { field: path.clone(), ..error }));
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(path, id, errors);
            }
        }
        // Upstream accepts more than one slash.
        _ => {}
    }
}

fn identifier(path: &FieldPath, id: &str, errors: &mut Errors) {
    if id.len() > ID_MAX {
        errors.push(FieldError::too_long(path, ID_MAX));
    }
    if id.is_empty()
        || id.starts_with(|first: char| first.is_ascii_digit())
        || !id.bytes().all(|byte: u8| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        errors.push(FieldError::invalid(path, id, NO_IDENTIFIER));
    }
}

/// Checks a fully qualified name: a required domain and a C identifier.
pub(super) fn fully_qualified(name: At, errors: &mut Errors) {
    qualified(&name.path(), name.text(), errors);
    if !name.text().contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(name.invalid_text(why));
    }
}

/// Checks the name of a pool: DNS subdomains separated by slashes.
pub(super) fn pool_name(name: At, errors: &mut Errors) {
    if !required_text(name, errors) {
        return;
    }
    if name.text().len() > POOL_MAX {
        errors.push(FieldError::too_long(&name.path(), POOL_MAX));
    }
    let wrong = name.text().split('/').flat_map(names::is_dns1123_subdomain);
    errors.extend(wrong.map(|why| name.invalid(why)));
}

/// Checks driver parameters: an object of at most `max` bytes.
pub(super) fn raw(at: At, max: usize, errors: &mut Errors) {
    match at.value() {
        None => errors.push(at.required("")),
        Some(value) if value.to_string().len() > max => errors.push(FieldError::too_long(&at.path(), max)),
        Some(Value::Object(_)) => {}
        Some(_) => {
            let why = "must be a valid JSON object";
            errors.push(FieldError::invalid(&at.path(), "<value omitted>", why));
        }
    }
}

/// Checks that binding conditions and binding failure conditions of a device are distinct.
pub(super) fn binding_conditions(device: At, errors: &mut Errors) {
    let (success, failure) = (device.field("bindingConditions"), device.field("bindingFailureConditions"));
    for list in [success, failure] {
        each(list, CONDITIONS_MAX, errors, |it, errors| checked(it, names::is_qualified_name, errors));
        let mut seen = HashSet::new();
        for condition in list.items().filter(|it| !seen.insert(it.text())) {
            errors.push(condition.duplicate());
        }
    }
    let successes: HashSet<&str> = success.items().map(|it| it.text()).collect();
    for condition in failure.items().filter(|it| successes.contains(it.text())) {
        errors.push(condition.invalid("bindingFailureConditions must not overlap with bindingConditions"));
    }
    if success.len() == 0 && failure.len() > 0 {
        errors.push(success.invalid("bindingConditions are required to use bindingFailureConditions"));
    }
    if failure.len() == 0 && success.len() > 0 {
        errors.push(failure.invalid("bindingFailureConditions are required to use bindingConditions"));
    }
}
