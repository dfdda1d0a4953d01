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
    apply_unchecked(target, patch)?;
    check_patched(target)
}

/// As [`apply`], for callers that check the limits of the patched object. Its depth is within the limit; its memory is
/// bounded by the memory of the object, the patch and the limits of copies.
///
/// # Errors
/// See [`apply`], except for the limits.
pub fn apply_unchecked(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = match patch {
        // Go's decoder reads null as an empty list.
        Value::Null => &[],
        Value::Array(operations) => operations.as_slice(),
        other => return Err(malformed(other, "value of type jsonpatch.Patch")),
    };
    let is_operation = |operation: &&Value| !(operation.is_object() || operation.is_null());
    if let Some(other) = operations.iter().find(is_operation) {
        return Err(malformed(other, "value of type jsonpatch.Operation"));
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut patching = Patching {
        copied: Budget::new(MAX_COPIED_BYTES),
        tree: Budget::default(),
        steps: Budget::new(MAX_STEPS),
    };
    for operation in operations {
        patching.apply(target, operation)?;
    }
    Ok(())
}

/// Checks the form of a patch as upstream's strict decoder does, which reads it before the library for patches.
///
/// # Errors
/// The patch is not a list of objects whose `op`, `path` and `from` are strings.
pub fn check_strict(patch: &Value) -> Result<(), PatchError> {
    match patch {
        Value::Null => Ok(()),
        Value::Array(operations) => operations.iter().try_for_each(check_operation),
        other => Err(malformed(other, "value of type []handlers.jsonPatchOp").in_patch()),
    }
}

fn check_operation(operation: &Value) -> Result<(), PatchError> {
    match operation {
        Value::Null => Ok(()),
        Value::Object(fields) => {
            ["op", "path", "from"].into_iter().try_for_each(|name| match fields.get(name) {
                None | Some(Value::Null | Value::String(_)) => Ok(()),
                Some(other) => {
                    Err(malformed(other, &format!("struct field jsonPatchOp.{name} of type string"))
                        .in_patch())
                }
            })
        }
        other => Err(malformed(other, "value of type handlers.jsonPatchOp").in_patch()),
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
                // The target is looked up after the removal, so a value cannot be moved into itself.
                let (from, path) = (from()?, path()?);
                let moved = from.remove(target, &mut self.steps)?;
                if path.0.len() > from.0.len() {
                    self.steps.charge(count(&moved).saturating_mul(STEPS_PER_VISIT))?;
                    path.check_depth(&moved)?;
                }
                path.add(target, moved, &mut self.steps)
            }
            Some("copy") => {
                let (from, path) = (from()?, path()?);
                if from.0.is_empty() {
                    return Err(from.missing());
                }
                // A missing field is copied as null, as by upstream's library.
                let value = from.find(target)?.unwrap_or(&Value::Null);
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
            op => Err(not_applicable(&format!("unexpected kind: {}", op.unwrap_or("unknown")))),
        }
    }
}

/// A JSON pointer.
struct Pointer(Vec<String>);

impl Pointer {
    /// Parses a pointer. Text before the first slash is ignored, as by upstream's library.
    fn parse(text: Option<&str>) -> Result<Self, PatchError> {
        let text = text.ok_or_else(|| not_applicable("an operation lacks a path"))?;
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let (_, rest) =
            text.split_once('/').ok_or_else(|| not_applicable(&format!("the path {text:?} has no slash")))?;
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

    /// Replaces a value. Like upstream's library, it adds a missing field of an object, and only this operation can
    /// replace the whole document.
    fn replace(&self, target: &mut Value, value: Value) -> Result<(), PatchError> {
        let place = match self.parent(target)? {
            None if value.is_object() || value.is_array() => target,
            None => return Err(not_applicable("a document is an object or a list")),
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
            None | Some(_) => return Err(self.missing()),
        }
        Ok(())
    }

    fn remove(&self, target: &mut Value, steps: &mut Budget) -> Result<Value, PatchError> {
        let removed = match self.parent(target)? {
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
            None | Some(_) => None,
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
    PatchError::Malformed(format!("json: cannot unmarshal {found} into Go {wanted}"))
}

fn not_applicable(text: &str) -> PatchError {
    PatchError::Unfit(text.to_owned())
}

#[cfg(test)]
mod tests;
