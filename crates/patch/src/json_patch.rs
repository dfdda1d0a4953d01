//! JSON patch (RFC 6902): a sequence of operations at JSON pointers (RFC 6901).

use nave_machinery::Value;
use nave_machinery::limits::{self, Budget, LimitError, MAX_DEPTH};

use crate::{PatchError, check_patched};

/// Maximum number of operations in a patch (the limit of upstream).
pub const MAX_OPERATIONS: usize = 10_000;

/// Maximum number of bytes of JSON that `copy` operations may add (upstream's `JSONPatchMaxCopyBytes`). It prevents a
/// patch from doubling an object repeatedly.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Maximum number of values that a patch may move: the values after an insertion or removal in a list, and the values
/// below a moved value. A list of 2,000 items can take the maximum number of operations, all as insertions at its
/// front.
pub const MAX_STEPS: usize = 20_000_000;

/// Maximum number of unknown fields reported for a patch.
const MAX_UNKNOWN: usize = 100;

/// Maximum length of a reported unknown field's name, in bytes.
const MAX_UNKNOWN_BYTES: usize = 512;

/// Number of moves within a list that cost the same as visiting one value.
const STEPS_PER_VISIT: usize = 8;

/// Applies a patch, which is a list of operations.
///
/// # Errors
/// The list or an operation is malformed, a path does not exist, a test fails, or the object exceeds the limits.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = match patch {
        // Go's decoder reads null as an empty list.
        Value::Null => &[],
        Value::Array(operations) => operations.as_slice(),
        other => return Err(malformed(other, "value of type []handlers.jsonPatchOp")),
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut patching = Patching {
        copied: Budget::new(MAX_COPIED_BYTES),
        tree: Budget::default(),
        steps: Budget::new(MAX_STEPS),
    };
    operations.iter().try_for_each(check_form)?;
    for operation in operations {
        patching.apply(target, operation)?;
    }
    check_patched(target)
}

/// Checks that an operation is an object whose `op`, `path` and `from` are strings.
fn check_form(operation: &Value) -> Result<(), PatchError> {
    match operation {
        Value::Null => Ok(()),
        Value::Object(fields) => {
            ["op", "path", "from"].into_iter().try_for_each(|name| match fields.get(name) {
                None | Some(Value::Null | Value::String(_)) => Ok(()),
                Some(other) => {
                    Err(malformed(other, &format!("struct field jsonPatchOp.{name} of type string")))
                }
            })
        }
        other => Err(malformed(other, "value of type handlers.jsonPatchOp")),
    }
}

/// Returns the unknown fields of operations in the strict decoder's format, at most [`MAX_UNKNOWN`].
pub fn unknown_fields(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let unknown = operations.iter().enumerate().flat_map(|(at, operation)| {
        let names = operation.as_object().into_iter().flat_map(|fields| fields.keys());
        names.filter(|name| !["op", "path", "from", "value"].contains(&name.as_str())).map(move |name| {
            format!("unknown field {:?}", limits::clipped(format_args!("[{at}].{name}"), MAX_UNKNOWN_BYTES))
        })
    });
    unknown.take(MAX_UNKNOWN).collect()
}

/// The remaining budgets of a patch.
struct Patching {
    /// Bytes of JSON that may be copied.
    copied: Budget,
    /// Memory that copies may use. A short JSON text can contain many values.
    tree: Budget,
    /// Number of values that may be moved.
    steps: Budget,
}

impl Patching {
    fn apply(&mut self, target: &mut Value, operation: &Value) -> Result<(), PatchError> {
        // `check_form` has rejected paths that are not strings.
        let text = |name: &str| operation.get(name).and_then(Value::as_str);
        let path = || Pointer::parse(text("path"));
        let from = || Pointer::parse(text("from"));
        // A missing value means null.
        let value = operation.get("value").unwrap_or(&Value::Null);
        match text("op") {
            Some("add") => {
                let path = path()?;
                path.check_depth(value)?;
                path.add(target, value.clone(), &mut self.steps)
            }
            Some("remove") => path()?.remove(target, &mut self.steps).map(drop),
            Some("replace") => {
                let path = path()?;
                path.check_depth(value)?;
                path.replace(target, value.clone())
            }
            Some("move") => {
                let (from, path) = (from()?, path()?);
                if path.0.len() > from.0.len() && path.0.starts_with(&from.0) {
                    return Err(not_applicable("a value cannot be moved into itself"));
                }
                let moved = from.remove(target, &mut self.steps)?;
                if path.0.len() > from.0.len() {
                    self.steps.charge(count(&moved).saturating_mul(STEPS_PER_VISIT))?;
                    path.check_depth(&moved)?;
                }
                path.add(target, moved, &mut self.steps)
            }
            Some("copy") => {
                let path = path()?;
                // A missing field is copied as null, as by upstream's library.
                let value = from()?.find(target)?.unwrap_or(&Value::Null);
                let bytes = size(value);
                if self.copied.charge(bytes).is_err() {
                    return Err(not_applicable(&format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED_BYTES}",
                        MAX_COPIED_BYTES - self.copied.left() + bytes,
                    )));
                }
                self.tree.charge_tree(value, path.depth_left()?)?;
                path.add(target, value.clone(), &mut self.steps)
            }
            // A missing field equals null, as in upstream's library.
            Some("test") => {
                if path()?.find(target)?.unwrap_or(&Value::Null) == value {
                    Ok(())
                } else {
                    Err(PatchError::TestFailed(format!("testing value {} failed", path()?.text())))
                }
            }
            op => Err(not_applicable(&format!("Unexpected kind: {}", op.unwrap_or("unknown")))),
        }
    }
}

/// A JSON pointer.
struct Pointer(Vec<String>);

impl Pointer {
    fn parse(text: Option<&str>) -> Result<Self, PatchError> {
        let text = text.ok_or_else(|| not_applicable("an operation lacks a path"))?;
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| not_applicable(&format!("the path {text:?} does not begin with a slash")))?;
        Ok(Self(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()))
    }

    fn text(&self) -> String {
        self.0.iter().flat_map(|part| ["/", part]).collect()
    }

    fn missing(&self) -> PatchError {
        not_applicable(&format!("the path {:?} does not exist", self.text()))
    }

    /// Returns the value at this pointer; `None` if an object lacks the last field.
    fn find<'v>(&self, target: &'v Value) -> Result<Option<&'v Value>, PatchError> {
        let Some((last, parents)) = self.0.split_last() else { return Ok(Some(target)) };
        let parent = parents.iter().try_fold(target, |place, part| child(place, part));
        match parent.ok_or_else(|| self.missing())? {
            Value::Object(fields) => Ok(fields.get(last)),
            parent => child(parent, last).map(Some).ok_or_else(|| self.missing()),
        }
    }

    /// Returns the parent of the value and the last part of the pointer; `None` if the pointer is the whole document.
    fn parent<'v>(&self, target: &'v mut Value) -> Result<Option<(&'v mut Value, &str)>, PatchError> {
        let Some((last, parents)) = self.0.split_last() else { return Ok(None) };
        let parent = parents.iter().try_fold(target, |place, part| child_mut(place, part));
        parent.map(|parent| Some((parent, last.as_str()))).ok_or_else(|| self.missing())
    }

    /// Returns the maximum depth of a value at this pointer.
    fn depth_left(&self) -> Result<usize, LimitError> {
        MAX_DEPTH.checked_sub(self.0.len()).ok_or(LimitError::TooDeep)
    }

    /// Checks the depth of a value at this pointer. Without the check, intermediate states of a patch could overflow
    /// the stack.
    fn check_depth(&self, value: &Value) -> Result<(), LimitError> {
        let fits = limits::is_within_depth(value, self.depth_left()?);
        if fits { Ok(()) } else { Err(LimitError::TooDeep) }
    }

    /// Replaces a value. Like upstream's library, it adds a missing field of an object.
    fn replace(&self, target: &mut Value, value: Value) -> Result<(), PatchError> {
        let place = match self.parent(target)? {
            None => target,
            Some((Value::Object(fields), name)) => {
                fields.insert(name.to_owned(), value);
                return Ok(());
            }
            Some((parent, place)) => child_mut(parent, place).ok_or_else(|| self.missing())?,
        };
        *place = value;
        Ok(())
    }

    fn add(&self, target: &mut Value, value: Value, steps: &mut Budget) -> Result<(), PatchError> {
        match self.parent(target)? {
            None => *target = value,
            Some((Value::Object(fields), name)) => {
                fields.insert(name.to_owned(), value);
            }
            Some((Value::Array(list), "-")) => list.push(value),
            Some((Value::Array(list), place)) => {
                // Negative indexes count from the end.
                match index(place, list.len() + 1).filter(|at| *at <= list.len()) {
                    Some(at) => {
                        steps.charge(list.len() - at)?;
                        list.insert(at, value);
                    }
                    None => return Err(self.missing()),
                }
            }
            Some(_) => return Err(self.missing()),
        }
        Ok(())
    }

    fn remove(&self, target: &mut Value, steps: &mut Budget) -> Result<Value, PatchError> {
        let removed = match self.parent(target)? {
            None => Some(std::mem::take(target)),
            Some((Value::Object(fields), name)) => fields.remove(name),
            Some((Value::Array(list), place)) => {
                match index(place, list.len()).filter(|at| *at < list.len()) {
                    Some(at) => {
                        steps.charge(list.len() - at)?;
                        Some(list.remove(at))
                    }
                    None => None,
                }
            }
            Some(_) => None,
        };
        removed.ok_or_else(|| self.missing())
    }
}

fn child<'v>(place: &'v Value, part: &str) -> Option<&'v Value> {
    match place {
        Value::Object(fields) => fields.get(part),
        Value::Array(list) => list.get(index(part, list.len())?),
        _ => None,
    }
}

fn child_mut<'v>(place: &'v mut Value, part: &str) -> Option<&'v mut Value> {
    match place {
        Value::Object(fields) => fields.get_mut(part),
        Value::Array(list) => {
            let at = index(part, list.len())?;
            list.get_mut(at)
        }
        _ => None,
    }
}

/// Parses a list index like Go's number parser. Negative indexes count from the end, as in upstream's library.
fn index(part: &str, len: usize) -> Option<usize> {
    let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<usize>().ok())??;
    if part.starts_with('-') && number > 0 { len.checked_sub(number) } else { Some(number) }
}

/// Returns the number of values in a value, including itself.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// Returns the approximate size of a value in bytes of JSON.
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

/// Returns the error for a patch of the wrong form, with the text of Go's decoder.
fn malformed(found: &Value, wanted: &str) -> PatchError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    PatchError::Malformed(format!("error decoding patch: json: cannot unmarshal {found} into Go {wanted}"))
}

fn not_applicable(text: &str) -> PatchError {
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
    fn applies_each_operation() {
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
            // Upstream's library accepts these.
            (json!({}), json!({"op": "replace", "path": "/a", "value": 1}), json!({"a": 1})),
            (json!({}), json!({"op": "add", "path": "/a"}), json!({"a": null})),
            (json!({}), json!({"op": "copy", "from": "/a", "path": "/b"}), json!({"b": null})),
            (json!([1, 2]), json!({"op": "add", "path": "/-1", "value": 3}), json!([1, 2, 3])),
            (json!([1, 2]), json!({"op": "add", "path": "/-3", "value": 3}), json!([3, 1, 2])),
            (json!([1, 2]), json!({"op": "replace", "path": "/01", "value": 3}), json!([1, 3])),
        ];
        for (target, operation, wanted) in cases {
            assert_eq!(patched(target, &json!([operation])), Ok(wanted), "{operation}");
        }
    }

    #[test]
    fn distinguishes_malformed_and_inapplicable_patches() {
        let unfit = [
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "remove", "path": "/none"}),
            json!({"op": "replace", "path": "/none/x", "value": 1}),
            json!({"op": "replace", "path": "/l/1", "value": 1}),
            json!({"op": "replace", "path": "/l/-2", "value": 1}),
            json!({"op": "replace", "path": "/l/-", "value": 1}),
            json!({"op": "copy", "from": "/none/x", "path": "/a"}),
            json!({"op": "test", "path": "/l/1"}),
            json!({"op": "add", "path": "/none/x", "value": 1}),
            json!({"op": "add", "path": "/l/5", "value": 1}),
            json!({"op": "add", "path": "/l/x", "value": 1}),
            json!({"op": "move", "from": "/o", "path": "/o/x"}),
            json!({"op": "zap", "path": "/a"}),
            json!({"op": "remove", "path": "a"}),
            json!({"op": "remove"}),
            json!({}),
            json!(null),
        ];
        for operation in unfit {
            let outcome = patched(json!({"a": 1, "l": [1], "o": {}}), &json!([operation]));
            assert_eq!(outcome.unwrap_err().into_status().code, 422, "{operation}");
        }
        for (patch, why) in [
            (json!({"op": "x"}), "object into Go value of type []handlers.jsonPatchOp"),
            (json!("x"), "string into Go value of type []handlers.jsonPatchOp"),
            (json!([1]), "number into Go value of type handlers.jsonPatchOp"),
            (json!([{"op": 1}]), "number into Go struct field jsonPatchOp.op of type string"),
            (json!([{"path": []}]), "array into Go struct field jsonPatchOp.path of type string"),
        ] {
            let status = patched(json!({}), &patch).unwrap_err().into_status();
            let wanted = format!("error decoding patch: json: cannot unmarshal {why}");
            assert_eq!((status.code, status.message), (400, wanted), "{patch}");
        }
        for nothing in [json!(null), json!([])] {
            assert_eq!(patched(json!({"a": 1}), &nothing), Ok(json!({"a": 1})));
        }
        let unknown = json!([{"op": "add", "x": 1}, {"path": "", "from": "", "value": 1}, 5, {"y\"": 1}]);
        assert_eq!(unknown_fields(&unknown), [r#"unknown field "[0].x""#, r#"unknown field "[3].y\"""#]);
    }

    #[test]
    fn limits_the_growth_of_the_object() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["xxxxxxxxxxxxxxxx"]})];
        operations.extend((0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
        assert_eq!(patched(json!({}), &Value::Array(operations)).unwrap_err().into_status().code, 422);
        let many = vec![json!({"op": "test", "path": "/x"}); MAX_OPERATIONS + 1];
        assert_eq!(patched(json!({}), &Value::Array(many)).unwrap_err().into_status().code, 413);
    }

    /// A short JSON text with many values.
    #[test]
    fn limits_the_memory_of_copies() {
        let copy = json!({"op": "copy", "from": "/a", "path": "/b/-"});
        let target = json!({"a": vec![json!({"": 0}); 10_000], "b": []});
        let error = patched(target, &Value::Array(vec![copy; 40])).unwrap_err();
        assert_eq!(error, PatchError::Limit(LimitError::TooLarge));
    }

    /// Tries every way to deepen an object. Neither the result nor an intermediate state exceeds the limit.
    #[test]
    fn limits_the_depth_of_the_object() {
        let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
        let path = |depth: usize| "/a".repeat(depth);
        let half = MAX_DEPTH / 2;
        let target = json!({"a": nested(half), "b": nested(half), "c": {}});
        let doubling =
            (0..20).map(|at| json!({"op": "copy", "from": "/c", "path": path((1 << at).min(MAX_DEPTH))}));
        let too_deep = [
            json!([{"op": "add", "path": path(half + 1), "value": nested(half)}]),
            json!([{"op": "replace", "path": path(half + 1), "value": nested(half)}]),
            json!([{"op": "copy", "from": "/b", "path": path(half + 1)}]),
            json!([{"op": "move", "from": "/b", "path": path(half + 1)}]),
            json!([{"op": "add", "path": "", "value": nested(MAX_DEPTH + 1)}]),
            json!([{"op": "add", "path": path(half + 1), "value": nested(half)}, {"op": "remove", "path": "/a"}]),
            Value::Array(vec![json!({"op": "copy", "from": "", "path": path(half)}); 2]),
            Value::Array(
                std::iter::once(json!({"op": "copy", "from": "/a", "path": "/c/a"}))
                    .chain(doubling)
                    .collect(),
            ),
        ];
        for patch in too_deep {
            let error = patched(target.clone(), &patch).unwrap_err();
            assert_eq!(error, PatchError::Limit(LimitError::TooDeep), "{patch}");
        }
        let deepest = [
            json!([{"op": "add", "path": path(half + 1), "value": nested(half - 1)}]),
            json!([{"op": "move", "from": "/b", "path": path(half)}]),
            json!([{"op": "add", "path": "", "value": nested(MAX_DEPTH)}]),
        ];
        for patch in deepest {
            let object = patched(target.clone(), &patch).unwrap();
            assert_eq!(limits::check(&object), Ok(()), "{patch}");
        }
    }

    /// Each operation alone is cheap, but a patch may have 10,000.
    #[test]
    fn limits_the_cost_of_all_operations() {
        let list = json!({"a": vec![0; 300_000], "b": {"c": {}}});
        let front = json!({"op": "add", "path": "/a/0", "value": 0});
        let shift = json!({"op": "move", "from": "/a/0", "path": "/a/1"});
        let gone = json!({"op": "remove", "path": "/a/0"});
        let moved = [
            json!({"op": "move", "from": "/a", "path": "/b/c/a"}),
            json!({"op": "move", "from": "/b/c/a", "path": "/a"}),
        ];
        for operations in [
            vec![front; 1000],
            vec![shift; 1000],
            vec![gone; 1000],
            moved.iter().cycle().take(1000).cloned().collect(),
        ] {
            let error = patched(list.clone(), &Value::Array(operations)).unwrap_err();
            assert_eq!(error, PatchError::Limit(LimitError::TooLarge));
        }
    }

    proptest! {
        #[test]
        fn adding_then_removing_changes_nothing(name in "[a-c/~]{1,3}", value in any::<i32>()) {
            let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let target = json!({"z": 1});
            let patch = json!([{"op": "add", "path": path, "value": value}, {"op": "remove", "path": path}]);
            prop_assert_eq!(patched(target.clone(), &patch).unwrap(), target);
        }

        #[test]
        fn applying_never_panics(op in "add|remove|replace|move|copy|test", path in "[-/a0-9~]{0,6}", from in "[-/a0-9~]{0,6}") {
            let operation = json!([{"op": op, "path": path, "from": from, "value": [1]}]);
            let _ = patched(json!({"a": [1, {"0": []}], "0": {"a": 1}}), &operation);
        }
    }
}
