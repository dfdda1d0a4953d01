//! JSON patch (RFC 6902): operations, one after the other, at JSON pointers (RFC 6901).

use nave_machinery::Value;

use crate::PatchError;

/// The most operations one patch may have, as upstream allows.
pub const MAX_OPERATIONS: usize = 10_000;

/// The most bytes that `copy` operations may add, relative to which a patch could otherwise grow without bound.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies a patch: a list of operations.
///
/// # Errors
/// A malformed list or operation, a path that leads nowhere, a test that fails.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch.as_array().ok_or_else(|| malformed("a JSON patch is a list of operations"))?;
    if operations.len() > MAX_OPERATIONS {
        let text = format!(
            "the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        );
        return Err(malformed(&text));
    }
    let mut copied = 0;
    for operation in operations {
        apply_one(target, operation, &mut copied)?;
    }
    Ok(())
}

fn apply_one(target: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), PatchError> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = || Pointer::parse(text("path").ok_or_else(|| malformed("an operation has no path"))?);
    let from = || Pointer::parse(text("from").ok_or_else(|| malformed("the operation has no from"))?);
    let value = || operation.get("value").ok_or_else(|| malformed("the operation has no value"));
    match text("op") {
        Some("add") => path()?.add(target, value()?.clone()),
        Some("remove") => path()?.remove(target).map(drop),
        Some("replace") => {
            *path()?.find_mut(target)? = value()?.clone();
            Ok(())
        }
        Some("move") => {
            let (from, path) = (from()?, path()?);
            if path.0.len() > from.0.len() && path.0.starts_with(&from.0) {
                return Err(unfit("a value cannot be moved into itself"));
            }
            let moved = from.remove(target)?;
            path.add(target, moved)
        }
        Some("copy") => {
            let value = from()?.find(target)?.clone();
            *copied += size(&value);
            if *copied > MAX_COPIED {
                return Err(unfit(&format!("copies add more than {MAX_COPIED} bytes")));
            }
            path()?.add(target, value)
        }
        // An absent place equals null, as upstream's library has it.
        Some("test") => {
            let wanted = operation.get("value").unwrap_or(&Value::Null);
            let found = path()?.find(target).unwrap_or(&Value::Null);
            if found == wanted {
                Ok(())
            } else {
                Err(unfit(&format!("testing value {} failed", path()?.text())))
            }
        }
        Some(other) => Err(unfit(&format!("unexpected kind of operation: {other}"))),
        None => Err(malformed("an operation has no op")),
    }
}

/// A place in a document.
struct Pointer(Vec<String>);

impl Pointer {
    fn parse(text: &str) -> Result<Self, PatchError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| unfit(&format!("the path {text:?} does not begin with a slash")))?;
        Ok(Self(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()))
    }

    fn text(&self) -> String {
        self.0.iter().flat_map(|part| ["/", part]).collect()
    }

    fn missing(&self) -> PatchError {
        unfit(&format!("the path {:?} does not exist", self.text()))
    }

    fn find<'v>(&self, target: &'v Value) -> Result<&'v Value, PatchError> {
        self.0.iter().try_fold(target, |place, part| step(place, part)).ok_or_else(|| self.missing())
    }

    fn find_mut<'v>(&self, target: &'v mut Value) -> Result<&'v mut Value, PatchError> {
        self.0.iter().try_fold(target, |place, part| step_mut(place, part)).ok_or_else(|| self.missing())
    }

    /// The value the last part is a part of, and that part; `None` for the whole document.
    fn parent<'v>(&self, target: &'v mut Value) -> Result<Option<(&'v mut Value, &str)>, PatchError> {
        let Some((last, parents)) = self.0.split_last() else { return Ok(None) };
        let parent = parents.iter().try_fold(target, |place, part| step_mut(place, part));
        parent.map(|parent| Some((parent, last.as_str()))).ok_or_else(|| self.missing())
    }

    fn add(&self, target: &mut Value, value: Value) -> Result<(), PatchError> {
        match self.parent(target)? {
            None => *target = value,
            Some((Value::Object(fields), name)) => {
                fields.insert(name.to_owned(), value);
            }
            Some((Value::Array(list), "-")) => list.push(value),
            Some((Value::Array(list), place)) => {
                match index(place, list.len()).filter(|at| *at <= list.len()) {
                    Some(at) => list.insert(at, value),
                    None => return Err(self.missing()),
                }
            }
            Some(_) => return Err(self.missing()),
        }
        Ok(())
    }

    fn remove(&self, target: &mut Value) -> Result<Value, PatchError> {
        let removed = match self.parent(target)? {
            None => Some(std::mem::take(target)),
            Some((Value::Object(fields), name)) => fields.remove(name),
            Some((Value::Array(list), place)) => {
                index(place, list.len()).filter(|at| *at < list.len()).map(|at| list.remove(at))
            }
            Some(_) => None,
        };
        removed.ok_or_else(|| self.missing())
    }
}

fn step<'v>(place: &'v Value, part: &str) -> Option<&'v Value> {
    match place {
        Value::Object(fields) => fields.get(part),
        Value::Array(list) => list.get(index(part, list.len())?),
        _ => None,
    }
}

fn step_mut<'v>(place: &'v mut Value, part: &str) -> Option<&'v mut Value> {
    match place {
        Value::Object(fields) => fields.get_mut(part),
        Value::Array(list) => {
            let at = index(part, list.len())?;
            list.get_mut(at)
        }
        _ => None,
    }
}

/// A place in a list; a negative one counts from the end, as upstream's library allows.
fn index(part: &str, len: usize) -> Option<usize> {
    let canonical = part == "0" || !part.trim_start_matches('-').starts_with('0');
    match part.strip_prefix('-') {
        _ if !canonical => None,
        Some(back) => len.checked_sub(back.parse().ok()?),
        None if part.bytes().all(|b| b.is_ascii_digit()) => part.parse().ok(),
        None => None,
    }
}

/// About how many bytes a value has as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + size(value) + 4).sum::<usize>() + 2
        }
        _ => 5,
    }
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

fn unfit(text: &str) -> PatchError {
    PatchError::Unfit(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: &Value) -> Result<Value, PatchError> {
        apply(&mut target, patch).map(|()| target)
    }

    #[test]
    fn each_operation_does_what_the_rfc_says() {
        let cases = [
            (json!({"a": 1}), json!({"op": "add", "path": "/b", "value": 2}), json!({"a": 1, "b": 2})),
            (json!([1, 3]), json!({"op": "add", "path": "/1", "value": 2}), json!([1, 2, 3])),
            (json!([1]), json!({"op": "add", "path": "/-", "value": 2}), json!([1, 2])),
            (json!([1, 2]), json!({"op": "replace", "path": "/-1", "value": 9}), json!([1, 9])),
            (json!({"a": 1}), json!({"op": "remove", "path": "/a"}), json!({})),
            (
                json!({"a/b": {"~": 1}}),
                json!({"op": "replace", "path": "/a~1b/~0", "value": 2}),
                json!({"a/b": {"~": 2}}),
            ),
            (
                json!({"a": {"x": 1}, "b": {}}),
                json!({"op": "move", "from": "/a/x", "path": "/b/y"}),
                json!({"a": {}, "b": {"y": 1}}),
            ),
            (json!({"a": [1]}), json!({"op": "copy", "from": "/a/0", "path": "/a/-"}), json!({"a": [1, 1]})),
            (json!({"a": 1}), json!({"op": "test", "path": "/a", "value": 1}), json!({"a": 1})),
            (json!({"a": 1}), json!({"op": "test", "path": "/b", "value": null}), json!({"a": 1})),
            (json!(1), json!({"op": "replace", "path": "", "value": 2}), json!(2)),
        ];
        for (target, operation, wanted) in cases {
            assert_eq!(patched(target, &json!([operation])), Ok(wanted), "{operation}");
        }
    }

    #[test]
    fn a_malformed_patch_is_told_from_one_that_does_not_fit() {
        let unfit = [
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "remove", "path": "/none"}),
            json!({"op": "replace", "path": "/none", "value": 1}),
            json!({"op": "add", "path": "/none/x", "value": 1}),
            json!({"op": "add", "path": "/l/5", "value": 1}),
            json!({"op": "add", "path": "/l/01", "value": 1}),
            json!({"op": "move", "from": "/o", "path": "/o/x"}),
            json!({"op": "zap", "path": "/a"}),
            json!({"op": "remove", "path": "a"}),
        ];
        for operation in unfit {
            let outcome = patched(json!({"a": 1, "l": [1], "o": {}}), &json!([operation]));
            assert_eq!(outcome.unwrap_err().into_status().code, 422, "{operation}");
        }
        for patch in [
            json!({"op": "x"}),
            json!([{}]),
            json!([{"op": "add", "path": "/a"}]),
            json!([{"op": "remove"}]),
            json!([1]),
        ] {
            assert_eq!(patched(json!({}), &patch).unwrap_err().into_status().code, 400, "{patch}");
        }
    }

    #[test]
    fn a_patch_cannot_grow_an_object_without_bound() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["xxxxxxxxxxxxxxxx"]})];
        operations.extend((0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
        assert_eq!(patched(json!({}), &Value::Array(operations)).unwrap_err().into_status().code, 422);
        let many = vec![json!({"op": "test", "path": "/x"}); MAX_OPERATIONS + 1];
        assert_eq!(patched(json!({}), &Value::Array(many)).unwrap_err().into_status().code, 400);
    }

    proptest! {
        #[test]
        fn adding_and_removing_is_nothing(name in "[a-c/~]{1,3}", value in any::<i32>()) {
            let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let target = json!({"z": 1});
            let patch = json!([{"op": "add", "path": path, "value": value}, {"op": "remove", "path": path}]);
            prop_assert_eq!(patched(target.clone(), &patch).unwrap(), target);
        }

        #[test]
        fn nothing_panics(op in "add|remove|replace|move|copy|test", path in "[-/a0-9~]{0,6}", from in "[-/a0-9~]{0,6}") {
            let operation = json!([{"op": op, "path": path, "from": from, "value": [1]}]);
            let _ = patched(json!({"a": [1, {"0": []}], "0": {"a": 1}}), &operation);
        }
    }
}
