//! Shared checks on a view of an object that tracks its field path.
//!
//! [`At`] is a field of an object: its value, if present, and its path. Descending does not allocate. The path is
//! built only for an error.

use nave_machinery::quantity::Quantity;
use nave_machinery::{FieldError, FieldErrorKind, FieldErrors, FieldPath, Map, Value, limits, names};

pub(crate) use crate::ip::ip;

/// The errors found so far.
pub(crate) type Errors = FieldErrors;

pub(crate) const IMMUTABLE: &str = "field is immutable";
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

const DRIVER_NAME_MAX: usize = 63;

/// The maximum size of a value's excerpt in an error.
const MAX_SHOWN_BYTES: usize = 4 * 1024;

/// A field of an object. `null` counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct At<'p, 'v> {
    parent: Option<&'p At<'p, 'v>>,
    part: Part<'v>,
    value: Option<&'v Value>,
    /// A filter of the field names in the value.
    fields: FieldFilter,
}

/// A Bloom filter of an object's field names: may report false positives, never false negatives.
#[derive(Clone, Copy)]
struct FieldFilter(u64);

impl FieldFilter {
    /// The filter that accepts all names.
    const ANY: Self = Self(u64::MAX);

    fn new(value: &Value) -> Self {
        let names = value.as_object().into_iter().flat_map(Map::keys);
        Self(names.fold(0, |filter, name| filter | Self::bit(name)))
    }

    fn may_have(self, name: &str) -> bool {
        self.0 & Self::bit(name) != 0
    }

    fn bit(name: &str) -> u64 {
        let (first, last) = (name.as_bytes().first(), name.as_bytes().last());
        let mixed = [first, last]
            .into_iter()
            .flatten()
            .fold(name.len(), |mixed, byte| mixed * 7 + usize::from(*byte));
        1 << (mixed % 64)
    }
}

#[derive(Clone, Copy)]
enum Part<'v> {
    Field(&'static str),
    Index(usize),
    Key(&'v str),
}

impl<'p, 'v> At<'p, 'v> {
    /// Creates the view of an object.
    pub(crate) fn root(object: &'v Value) -> Self {
        Self::named("", Some(object))
    }

    /// Creates the view of a value with a name, such as `spec`.
    pub(crate) fn named(name: &'static str, value: Option<&'v Value>) -> Self {
        let value = value.filter(|it| !it.is_null());
        Self { parent: None, part: Part::Field(name), value, fields: FieldFilter::ANY }
    }

    /// Returns the same field with a filter, for many lookups of mostly absent fields.
    pub(crate) fn with_field_filter(self) -> Self {
        Self { fields: self.value.map_or(FieldFilter(0), FieldFilter::new), ..self }
    }

    /// Returns the field `name` of this object.
    pub(crate) fn field<'c>(&'c self, name: &'static str) -> At<'c, 'v> {
        let value = self.value.filter(|_| self.fields.may_have(name));
        self.down(Part::Field(name), value.and_then(|it| it.get(name)))
    }

    /// Returns the value of `key` in this map; its path ends with `[key]`.
    pub(crate) fn key<'c>(&'c self, key: &'v str) -> At<'c, 'v> {
        self.down(Part::Key(key), self.value.and_then(|it| it.get(key)))
    }

    /// Returns the item `index` of this list.
    pub(crate) fn index<'c>(&'c self, index: usize) -> At<'c, 'v> {
        self.down(Part::Index(index), self.value.and_then(|it| it.get(index)))
    }

    fn down<'c>(&'c self, part: Part<'v>, value: Option<&'v Value>) -> At<'c, 'v> {
        let value = value.filter(|it| !it.is_null());
        At { parent: Some(self), part, value, fields: FieldFilter::ANY }
    }

    /// Returns the same path with another value.
    pub(crate) fn with(self, value: Option<&'v Value>) -> Self {
        Self { value: value.filter(|it| !it.is_null()), fields: FieldFilter::ANY, ..self }
    }

    /// Returns the quantity of `key` in this map.
    pub(crate) fn quantity_of(&self, key: &str) -> Option<Quantity> {
        quantity(self.with(Some(self.value?.get(key)?)))
    }

    /// Returns the items of this list.
    pub(crate) fn items<'c>(&'c self) -> impl Iterator<Item = At<'c, 'v>> + use<'c, 'p, 'v> {
        let list = self.value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(index, item)| self.down(Part::Index(index), Some(item)))
    }

    /// Returns the keys and values of this map.
    pub(crate) fn entries<'c>(&'c self) -> impl Iterator<Item = (&'v str, At<'c, 'v>)> + use<'c, 'p, 'v> {
        let map = self.map().into_iter().flatten();
        map.map(|(key, value)| (key.as_str(), self.down(Part::Key(key), Some(value))))
    }

    /// Returns the value; `None` if absent or `null`.
    pub(crate) fn value(&self) -> Option<&'v Value> {
        self.value
    }

    /// Returns whether the value is present.
    pub(crate) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// Returns the string; empty if absent.
    pub(crate) fn text(&self) -> &'v str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the integer.
    pub(crate) fn int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    /// Returns the boolean; false if absent.
    pub(crate) fn flag(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or_default()
    }

    /// Returns the map.
    pub(crate) fn map(&self) -> Option<&'v Map> {
        self.value.and_then(Value::as_object)
    }

    /// Returns the number of items or entries.
    pub(crate) fn len(&self) -> usize {
        match self.value {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> FieldPath {
        match (self.parent, self.part) {
            (None, Part::Field(name)) => FieldPath::new(name),
            (Some(parent), Part::Field(name)) => parent.path().child(name),
            (parent, Part::Index(index)) => parent.map(At::path).unwrap_or_default().index(index),
            (parent, Part::Key(key)) => parent.map(At::path).unwrap_or_default().key(key),
        }
    }

    fn value_for_error(&self) -> Value {
        self.value.map_or(Value::Null, |value| limits::excerpt(value, MAX_SHOWN_BYTES))
    }

    /// Returns the error about a missing value.
    pub(crate) fn required(&self, detail: impl Into<String>) -> FieldError {
        FieldError::required(&self.path(), detail)
    }

    /// Returns the error about a value that violates a rule.
    pub(crate) fn invalid(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path(), self.value_for_error(), detail)
    }

    /// Returns the error about a string that violates a rule; the string may be absent.
    pub(crate) fn invalid_text(&self, detail: impl Into<String>) -> FieldError {
        FieldError::invalid(&self.path(), self.text(), detail)
    }

    /// Returns the error about a value that must not be set or changed.
    pub(crate) fn forbidden(&self, detail: impl Into<String>) -> FieldError {
        FieldError::forbidden(&self.path(), detail)
    }

    /// Returns the error about a duplicate value.
    pub(crate) fn duplicate(&self) -> FieldError {
        FieldError::duplicate(&self.path(), self.value_for_error())
    }

    /// Returns the error about a reference to an object that does not exist.
    pub(crate) fn not_found(&self) -> FieldError {
        FieldError::not_found(&self.path(), self.text())
    }

    /// Returns the error about a list longer than `max`.
    pub(crate) fn too_many(&self, max: usize) -> FieldError {
        FieldError::too_many(&self.path(), self.len(), max)
    }

    /// Returns the error about a string that is not in `supported`.
    pub(crate) fn not_supported(&self, supported: &[&str]) -> FieldError {
        FieldError::not_supported(&self.path(), self.text(), supported)
    }
}

/// Checks that the string is not empty, and returns whether it passed.
pub(crate) fn required_text(at: At, errors: &mut Errors) -> bool {
    let is_empty = at.text().is_empty();
    if is_empty {
        errors.push(at.required(""));
    }
    !is_empty
}

/// Checks that the string is in `supported`, which is sorted as in upstream's messages. An absent string is an error.
pub(crate) fn one_of(at: At, supported: &[&str], errors: &mut Errors) {
    if !supported.contains(&at.text()) {
        errors.push(at.not_supported(supported));
    }
}

/// Checks that the string, if present, is in `supported`.
pub(crate) fn absent_or_one_of(at: At, supported: &[&str], errors: &mut Errors) {
    if at.is_set() {
        one_of(at, supported, errors);
    }
}

/// Adds an error about an unsupported value unless `holds`.
pub(crate) fn not_supported_unless(holds: bool, at: At, supported: &[&str], errors: &mut Errors) {
    if !holds {
        errors.push(at.not_supported(supported));
    }
}

/// Checks the name of a CSI driver: a DNS subdomain of at most 63 characters; upper case is allowed.
pub(crate) fn driver_name(at: At, errors: &mut Errors) {
    if !required_text(at, errors) {
        return;
    }
    if at.text().len() > DRIVER_NAME_MAX {
        errors.push(FieldError::too_long(&at.path(), DRIVER_NAME_MAX));
    }
    let found = names::is_dns1123_subdomain(&at.text().to_lowercase());
    errors.extend(found.into_iter().map(|why| at.invalid(why)));
}

/// Checks that the number, if present, is not negative.
pub(crate) fn not_negative(at: At, errors: &mut Errors) {
    if at.int().is_some_and(|number| number < 0) {
        errors.push(at.invalid(NOT_NEGATIVE));
    }
}

/// Checks that the number is in the range; an absent number counts as 0.
pub(crate) fn in_range(at: At, min: i64, max: i64, errors: &mut Errors) {
    let number = at.int().unwrap_or_default();
    if number < min || number > max {
        let detail = format!("must be between {min} and {max}, inclusive");
        errors.push(FieldError::invalid(&at.path(), number, detail));
    }
}

/// Checks that the number is a port number; an absent number counts as 0.
pub(crate) fn port_number(at: At, errors: &mut Errors) {
    in_range(at, 1, 65535, errors);
}

/// Checks a port number or port name.
pub(crate) fn port_number_or_name(at: At, errors: &mut Errors) {
    match at.value() {
        Some(Value::String(name)) => {
            errors.extend(port_name(name).into_iter().map(|why| at.invalid(why)));
        }
        _ => port_number(at, errors),
    }
}

/// Validates a port name (IANA service name).
pub(crate) fn port_name(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if name.len() > 15 {
        found.push("must be no more than 15 characters".to_owned());
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        found.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') || name.is_empty() {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}

/// Checks that the string passes `check` (one of `names::is_…`).
pub(crate) fn checked(at: At, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    errors.extend(check(at.text()).into_iter().map(|why| at.invalid_text(why)));
}

/// Checks that the string is present and passes `check`.
pub(crate) fn required_checked(at: At, check: fn(&str) -> Vec<String>, errors: &mut Errors) {
    if required_text(at, errors) {
        checked(at, check, errors);
    }
}

/// Checks that the string is a domain name with at least three labels.
pub(crate) fn fully_qualified_name(at: At, errors: &mut Errors) {
    if !required_text(at, errors) {
        return;
    }
    let found = names::is_dns1123_subdomain(at.text());
    if found.is_empty() && at.text().split('.').count() < 3 {
        errors.push(at.invalid("should be a domain with at least three segments separated by dots"));
    }
    errors.extend(found.into_iter().map(|why| at.invalid(why)));
}

/// Checks that the keys and values of the map are valid labels.
pub(crate) fn labels(at: At, errors: &mut Errors) {
    for (key, value) in at.entries() {
        let bad_key = names::is_qualified_name(key);
        errors.extend(bad_key.into_iter().map(|why| FieldError::invalid(&at.path(), key, why)));
        let bad_value = names::is_valid_label_value(value.text());
        errors.extend(bad_value.into_iter().map(|why| FieldError::invalid(&at.path(), value.text(), why)));
    }
}

/// Checks a `metav1.LabelSelector`.
pub(crate) fn label_selector(at: At, errors: &mut Errors) {
    labels(at.field("matchLabels"), errors);
    for expression in at.field("matchExpressions").items() {
        let (key, operator, values) =
            (expression.field("key"), expression.field("operator"), expression.field("values"));
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                errors.push(
                    values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid_text("not a valid selector operator")),
        }
        checked(key, names::is_qualified_name, errors);
        for value in values.items() {
            checked(value, names::is_valid_label_value, errors);
        }
    }
}

/// Checks that the value does not change.
pub(crate) fn immutable(at: At, old: At, errors: &mut Errors) {
    if at.value() != old.value() {
        errors.push(at.invalid(IMMUTABLE));
    }
}

/// Parses the quantity; `None` if absent or malformed. Decoding rejects malformed quantities.
pub(crate) fn quantity(at: At) -> Option<Quantity> {
    match at.value()? {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => number.as_i64().map(Quantity::from_value),
        _ => None,
    }
}

/// Checks that the quantity is not negative.
pub(crate) fn quantity_not_negative(at: At, errors: &mut Errors) {
    if quantity(at).is_some_and(Quantity::is_negative) {
        errors.push(FieldError::invalid(&at.path(), at.value_for_error(), NOT_NEGATIVE));
    }
}

/// Returns an error of this type without a value.
pub(crate) fn plain(kind: FieldErrorKind, at: At, detail: impl Into<String>) -> FieldError {
    FieldError::with(kind, &at.path(), Value::Null, detail)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{At, Errors, Value};

    /// Returns the fields in which a check of a spec finds errors.
    pub(crate) fn fields(check: fn(At, &mut Errors), spec: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(At::named("spec", Some(&spec)), &mut errors);
        errors.iter().map(|error| error.field.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn field_has_value_and_path() {
        let object = json!({"spec": {"list": [{"n": null}, {"n": 3}], "map": {"a.b": "c"}}});
        let root = At::root(&object);
        let spec = root.field("spec");
        let list = spec.field("list");
        let numbers: Vec<_> = list.items().map(|it| it.field("n").int()).collect();
        assert_eq!(numbers, [None, Some(3)]);
        assert_eq!(list.index(1).field("n").path().as_str(), "spec.list[1].n");
        let map = spec.field("map");
        let entries: Vec<_> = map.entries().map(|(key, value)| (key, value.path().to_string())).collect();
        assert_eq!(entries, [("a.b", "spec.map[a.b]".to_owned())]);
    }

    #[test]
    fn errors_have_field_and_rule() {
        let object = json!({"port": 0, "name": "-x", "operator": "y", "q": "-1"});
        let root = At::root(&object);
        let mut errors = Errors::new();
        port_number(root.field("port"), &mut errors);
        port_number_or_name(root.field("name"), &mut errors);
        one_of(root.field("operator"), &["a", "b"], &mut errors);
        quantity_not_negative(root.field("q"), &mut errors);
        required_text(root.field("gone"), &mut errors);
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "name: Invalid value: \"-x\": must not begin or end with a hyphen",
                "operator: Unsupported value: \"y\": supported values: \"a\", \"b\"",
                "q: Invalid value: \"-1\": must be greater than or equal to 0",
                "gone: Required value",
            ]
        );
    }
}
