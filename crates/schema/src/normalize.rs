//! Normalization: the effect of decoding an object into upstream's Go structs and encoding it again.
//!
//! | input | output |
//! | --- | --- |
//! | wrong type, number out of range, invalid time, quantity or base64 | a [`NormalizeError`] |
//! | unknown field | dropped, and reported by its path |
//! | `null`; empty list or map; `false`, `0`, `""` in a field that is not a pointer in Go | dropped, unless the field
//! is `always` |
//! | empty list or map in an `always` field | `null`, as after a round trip through protobuf |
//! | absent `always` field | the zero value: `{}`, `""`, `0`, `false`, or `null` for lists, maps and times |
//! | time, quantity, base64 | the canonical text |
//! | resource amount below a thousandth | rounded up to a thousandth |
//!
//! Normalization is idempotent.

mod scalar;

use std::fmt::Write;

use nave_machinery::limits::{self, Budget, LimitError, cost};
use nave_machinery::{Map, Value};

use crate::types::{AnyForm, Field, Scalar, SchemaSet, Shape, StructType, TypeId};

/// Maximum number of unknown fields reported for one object, as upstream.
const UNKNOWN_MAX: usize = 100;

/// Maximum length of the path of a reported unknown field, in bytes.
const UNKNOWN_MAX_BYTES: usize = 512;

/// Prefix of the types whose resource lists (`v1.ResourceList`) are rounded to thousandths, as by upstream's
/// defaulting.
const CORE: &str = "io.k8s.api.core.v1.";

/// Reporting of unknown fields, which are always dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Collect their paths (`fieldValidation` is `Warn` or `Strict`).
    Report,
    /// Do not collect them (`fieldValidation` is `Ignore`).
    Ignore,
}

/// The result of a normalization.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct Normalized {
    /// The paths of unknown fields in upstream's format (`spec.containers[0].foo`), in order, at most 100.
    pub unknown: Vec<String>,
}

/// Error of normalizing an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// The field cannot hold the value. The message is from upstream's decoder.
    #[error("{0}")]
    Type(String),
    /// The added values exceed the memory limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Changes `object` into the form that upstream would store and return. After an error, the object is partly changed.
///
/// ```
/// use nave_schema::normalize::{Mode, normalize};
///
/// let set = nave_schema::builtin();
/// let id = set.find("io.k8s.api.core.v1.ServiceSpec").unwrap();
/// let mut spec = serde_json::json!({"type": "", "ports": [{"port": 80, "portt": 1, "nodePort": 0, "targetPort": 80}]});
/// let found = normalize(set, id, &mut spec, Mode::Report).unwrap();
/// assert_eq!(found.unknown, ["ports[0].portt"]);
/// assert_eq!(spec, serde_json::json!({"ports": [{"port": 80, "targetPort": 80}]}));
/// ```
pub fn normalize(
    set: &SchemaSet,
    id: TypeId,
    object: &mut Value,
    mode: Mode,
) -> Result<Normalized, NormalizeError> {
    let mut walk = Walk { set, mode, added: Budget::default(), found: Normalized::default() };
    let ty = set.get(id);
    let Value::Object(map) = object else {
        let message =
            format!("json: cannot unmarshal {} into Go value of type {}", kind_of(object), go_struct(ty));
        return Err(NormalizeError::Type(message));
    };
    walk.structure(id, map, &Path::Root)?;
    Ok(walk.found)
}

/// The path from the root of the object to a value. It is kept on the stack and formatted only when needed.
pub(crate) enum Path<'a> {
    Root,
    /// A field of a struct.
    Field(&'a Path<'a>, &'a StructType, &'a str),
    /// A key of a map.
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

struct Walk<'a> {
    set: &'a SchemaSet,
    mode: Mode,
    /// Memory budget for zero values: an empty object of a few bytes can receive many.
    added: Budget,
    found: Normalized,
}

/// The decision of normalization about a field.
#[derive(PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
}

impl Walk<'_> {
    fn structure(&mut self, id: TypeId, map: &mut Map, path: &Path) -> Result<(), NormalizeError> {
        let set = self.set;
        let ty = set.get(id);
        let mut drops = Vec::new();
        for (place, (name, value)) in map.iter_mut().enumerate() {
            let Some(field) = ty.field(name) else {
                self.report(path, name);
                drops.push(place);
                continue;
            };
            if is_plain(field, value) {
                continue;
            }
            if self.field(id, field, value, &Path::Field(path, ty, &field.name))? == Fate::Drop {
                drops.push(place);
            }
        }
        if !drops.is_empty() {
            let (mut drops, mut place) = (drops.into_iter().peekable(), 0..);
            map.retain(|_, _| drops.next_if_eq(&place.next().unwrap_or_default()).is_none());
        }
        for field in set.always(id) {
            if !map.contains_key(&field.name) {
                let mut zero = Value::Null;
                self.field(id, field, &mut zero, &Path::Field(path, ty, &field.name))?;
                let node = if map.is_empty() { cost::OBJECT } else { 0 };
                self.added.charge(node + cost::FIELD + cost::text(field.name.len()))?;
                map.insert(field.name.clone(), zero);
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        owner: TypeId,
        field: &Field,
        value: &mut Value,
        path: &Path,
    ) -> Result<Fate, NormalizeError> {
        if value.is_null() {
            if !field.always {
                return Ok(Fate::Drop);
            }
            if !field.pointer {
                *value = zero(&field.shape);
            }
            if value.is_null() {
                return Ok(Fate::Keep);
            }
        }
        self.value(owner, field.wire.any, &field.shape, value, path)?;
        let empty = match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty() && matches!(field.shape, Shape::Map { .. }),
            Value::String(text) => {
                text.is_empty() && !field.pointer && field.shape != Shape::Scalar(Scalar::IntOrString)
            }
            Value::Bool(on) => !*on && field.wire.omit_zero,
            Value::Number(number) => field.wire.omit_zero && number.as_f64() == Some(0.0),
            Value::Null => true,
        };
        // Objects are stored as protobuf, which does not distinguish an empty list or map from an absent one. Lists of
        // objects are not stored.
        if empty
            && field.always
            && (value.is_array() || value.is_object())
            && !matches!(path, Path::Field(Path::Root, _, "items"))
        {
            *value = Value::Null;
        }
        let stays = !empty || field.always || matches!(field.shape, Shape::Any);
        Ok(if stays { Fate::Keep } else { Fate::Drop })
    }

    /// Normalizes a value that is present. `owner` is the type of the enclosing struct, which is the schema type of the
    /// `SchemaOr…` forms.
    fn value(
        &mut self,
        owner: TypeId,
        any: AnyForm,
        shape: &Shape,
        value: &mut Value,
        path: &Path,
    ) -> Result<(), NormalizeError> {
        match (shape, &mut *value) {
            (Shape::Struct(id), Value::Object(map)) => self.structure(*id, map, path),
            (Shape::List { items, .. }, Value::Array(list)) => {
                for (at, item) in list.iter_mut().enumerate() {
                    self.element(owner, any, items, item, &Path::Index(path, at))?;
                }
                Ok(())
            }
            (Shape::Map { values, .. }, Value::Object(map)) => {
                for (key, item) in map.iter_mut() {
                    self.element(owner, any, values, item, &Path::Key(path, key))?;
                }
                if **values == Shape::Scalar(Scalar::Quantity) && self.set.get(owner).name.starts_with(CORE) {
                    map.values_mut().for_each(scalar::round_resource);
                }
                Ok(())
            }
            (Shape::Scalar(Scalar::String), Value::String(_))
            | (Shape::Scalar(Scalar::Bool), Value::Bool(_)) => Ok(()),
            (Shape::Scalar(scalar), _) => {
                scalar::canonical(*scalar, value, path).map_err(NormalizeError::Type)
            }
            (Shape::Any, _) => self.any(owner, any, value, path),
            _ => Err(NormalizeError::Type(mismatch(kind_of(value), &go_type(self.set, shape), path))),
        }
    }

    /// Normalizes an element of a list or map: `null` becomes the zero value.
    fn element(
        &mut self,
        owner: TypeId,
        any: AnyForm,
        shape: &Shape,
        value: &mut Value,
        path: &Path,
    ) -> Result<(), NormalizeError> {
        if value.is_null() {
            *value = match shape {
                Shape::Scalar(Scalar::Bytes) => Value::String(String::new()),
                _ => zero(shape),
            };
            if value.is_null() {
                return Ok(());
            }
        }
        self.value(owner, any, shape, value, path)
    }

    /// Leaves untyped JSON unchanged. Normalizes the schema in the `SchemaOr…` forms.
    fn any(
        &mut self,
        owner: TypeId,
        form: AnyForm,
        value: &mut Value,
        path: &Path,
    ) -> Result<(), NormalizeError> {
        match (form, &mut *value) {
            (AnyForm::Raw | AnyForm::FieldsV1, _) | (AnyForm::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (_, Value::Object(map)) => self.unreported(|walk| walk.structure(owner, map, path)),
            (AnyForm::SchemaOrArray, Value::Array(list)) => self.unreported(|walk| {
                let mut items = list.iter_mut().enumerate();
                items.try_for_each(|(at, item)| {
                    walk.element(owner, form, &Shape::Struct(owner), item, &Path::Index(path, at))
                })
            }),
            (AnyForm::SchemaOrStrings, Value::Array(list)) if list.iter().all(Value::is_string) => Ok(()),
            (AnyForm::SchemaOrBool, _) => {
                Err(NormalizeError::Type("boolean or JSON schema expected".to_owned()))
            }
            (AnyForm::SchemaOrStrings, Value::Array(_)) => {
                Err(NormalizeError::Type(mismatch(kind_of(value), &go_struct(self.set.get(owner)), path)))
            }
            // Go reads other values as neither a schema nor a list.
            (AnyForm::SchemaOrArray | AnyForm::SchemaOrStrings, _) => {
                *value = Value::Null;
                Ok(())
            }
        }
    }

    /// Runs `walk` without reporting unknown fields. Go reads the `SchemaOr…` forms with decoders that are not strict.
    fn unreported<T>(&mut self, walk: impl FnOnce(&mut Self) -> T) -> T {
        let mode = std::mem::replace(&mut self.mode, Mode::Ignore);
        let outcome = walk(self);
        self.mode = mode;
        outcome
    }

    fn report(&mut self, path: &Path, name: &str) {
        if self.mode == Mode::Report && self.found.unknown.len() < UNKNOWN_MAX {
            self.found.unknown.push(limits::clipped(Path::Key(path, name), UNKNOWN_MAX_BYTES));
        }
    }
}

/// Returns whether the value is a text that stays as it is, as most values of fields.
#[inline]
fn is_plain(field: &Field, value: &Value) -> bool {
    match (&field.shape, value) {
        (Shape::Scalar(Scalar::String), Value::String(text)) => !text.is_empty(),
        _ => false,
    }
}

/// Returns the value Go writes for an unset field. The caller completes an empty object.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Struct(_) => Value::Object(Map::new()),
        Shape::Scalar(Scalar::String) => Value::String(String::new()),
        Shape::Scalar(Scalar::Duration) => Value::String("0s".to_owned()),
        Shape::Scalar(Scalar::Bool) => Value::Bool(false),
        Shape::Scalar(Scalar::Quantity) => Value::String("0".to_owned()),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => Value::from(0),
        Shape::Scalar(Scalar::Bytes | Scalar::Time | Scalar::MicroTime)
        | Shape::List { .. }
        | Shape::Map { .. }
        | Shape::Any => Value::Null,
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(parent, at) => write!(f, "{parent}[{at}]"),
            Self::Field(Path::Root, _, name) | Self::Key(Path::Root, name) => f.write_str(name),
            Self::Field(parent, _, name) | Self::Key(parent, name) => write!(f, "{parent}.{name}"),
        }
    }
}

impl Path<'_> {
    /// Writes the names of the struct fields on the path, and returns the last struct.
    fn fields(&self, out: &mut String) -> Option<&StructType> {
        match self {
            Self::Root => None,
            Self::Key(parent, _) | Self::Index(parent, _) => parent.fields(out),
            Self::Field(parent, ty, name) => {
                if parent.fields(out).is_some() {
                    out.push('.');
                }
                out.push_str(name);
                Some(ty)
            }
        }
    }
}

/// Formats the message of Go's JSON decoder, with the innermost struct and the fields from the root (without indexes
/// and keys).
pub(crate) fn mismatch(found: &str, wanted: &str, path: &Path) -> String {
    let mut fields = String::new();
    let mut message = format!("json: cannot unmarshal {found} into Go ");
    let _ = match path.fields(&mut fields) {
        Some(ty) => write!(message, "struct field {}.{fields} of type {wanted}", last_segment(&ty.name)),
        None => write!(message, "value of type {wanted}"),
    };
    message
}

/// Returns the name of a JSON value's kind in messages of Go's decoder.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns Go's name of a type, as far as the table knows it: named scalars appear as their underlying type.
fn go_type(set: &SchemaSet, shape: &Shape) -> String {
    match shape {
        Shape::Struct(id) => go_struct(set.get(*id)),
        Shape::List { items, .. } => format!("[]{}", go_type(set, items)),
        Shape::Map { values, .. } => format!("map[string]{}", go_type(set, values)),
        Shape::Scalar(scalar) => scalar::go_name(*scalar).to_owned(),
        Shape::Any => "interface {}".to_owned(),
    }
}

/// Returns Go's name of a struct, such as `v1.PodSpec`.
fn go_struct(ty: &StructType) -> String {
    let package = ty.name.rsplit('.').nth(1).unwrap_or_default();
    format!("{package}.{}", last_segment(&ty.name))
}

fn last_segment(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests;
