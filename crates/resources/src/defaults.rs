//! Helpers for modifying objects, mainly for defaulting.

use nave_machinery::{Map, Value};

/// Returns the object at `field`, created if absent; `None` if the value has another type.
pub(crate) fn object<'a>(map: &'a mut Map, field: &str) -> Option<&'a mut Map> {
    if !map.contains_key(field) {
        map.insert(field.to_owned(), Value::Object(Map::new()));
    }
    let place = map.get_mut(field)?;
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

/// Returns the object at a path, if it exists.
pub(crate) fn object_at<'a>(map: &'a mut Map, path: &[&str]) -> Option<&'a mut Map> {
    path.iter().try_fold(map, |place, field| place.get_mut(*field)?.as_object_mut())
}

/// Returns the objects in the list at `field`.
pub(crate) fn each<'a>(map: &'a mut Map, field: &str) -> impl Iterator<Item = &'a mut Map> {
    let list = map.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Sets a field that is absent, `null` or an empty string.
pub(crate) fn set(map: &mut Map, field: &str, value: impl Into<Value>) {
    if map.get(field).is_none_or(|found| found.is_null() || found == "") {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a field that is absent or `null`. The field is a pointer in Go, so an empty string counts as a value.
pub(crate) fn set_absent(map: &mut Map, field: &str, value: impl Into<Value>) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a field that is absent, `null` or 0. The field is a number in Go, where absent and 0 are equal.
pub(crate) fn set_number(map: &mut Map, field: &str, number: i64) {
    if map.get(field).is_none_or(|found| found.is_null() || found == 0) {
        map.insert(field.to_owned(), number.into());
    }
}
