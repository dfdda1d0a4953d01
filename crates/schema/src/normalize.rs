//! What decoding into upstream's Go structs and encoding again does to an object.
//!
//! | in | out |
//! | --- | --- |
//! | a value of another type, a number out of range, a bad time, quantity or base64 | a [`NormalizeError`] |
//! | an unknown field | dropped, and reported by its path |
//! | `null`; an empty list or map; `false`, `0`, `""` where Go holds no pointer | dropped, unless the field is `always` |
//! | an empty list or map in an `always` field | `null`, as what is read back from protobuf has it |
//! | nothing, in an `always` field | the zero value: `{}`, `""`, `0`, `false`, or `null` for lists, maps and times |
//! | a time, a quantity, base64 | the canonical text |
//! | an amount of a resource below a thousandth | rounded up to one |
//!
//! Normalizing twice is the same as normalizing once.

mod scalar;

use std::fmt::Write;

use nave_machinery::limits::{self, Budget, LimitError, cost};
use nave_machinery::{Map, Value};

use crate::types::{AnyForm, Field, Scalar, SchemaSet, Shape, StructType, TypeId};

/// Unknown fields reported for one object at most; upstream stops there too.
const UNKNOWN_MAX: usize = 100;

/// The longest path of an unknown field that is reported, in bytes.
const UNKNOWN_MAX_BYTES: usize = 512;

/// The types whose lists of resources (`v1.ResourceList`) keep thousandths, as upstream's defaults round them.
const CORE: &str = "io.k8s.api.core.v1.";

/// What is done about unknown fields, which are dropped in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Their paths are collected (`fieldValidation` is `Warn` or `Strict`).
    Report,
    /// They are not looked at (`fieldValidation` is `Ignore`).
    Ignore,
}

/// What was found on the way.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct Normalized {
    /// The paths of unknown fields as upstream writes them (`spec.containers[0].foo`), in order, 100 at most.
    pub unknown: Vec<String>,
}

/// Why an object cannot be of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NormalizeError {
    /// A value that its field cannot hold, in the words of upstream's decoder.
    #[error("{0}")]
    Type(String),
    /// The object gets too large by what is filled in.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// Makes `object` what upstream would store and answer for it. After an error the object is half done.
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

/// The way from the object's root to a value, kept on the stack and written out only when it is needed.
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
    /// The memory that zero values may take: an empty object of a few bytes can get many.
    added: Budget,
    found: Normalized,
}

/// Whether a field stays in the object.
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
            Value::String(text) => text.is_empty() && !field.pointer,
            Value::Bool(on) => !*on && field.wire.omit_zero,
            Value::Number(number) => field.wire.omit_zero && number.as_f64() == Some(0.0),
            Value::Null => true,
        };
        // Protobuf, in which objects are stored, does not tell an empty list or map from none. Lists of objects are
        // not stored.
        let is_stored = !matches!(path, Path::Field(Path::Root, _, "items"));
        if empty && is_stored && field.always && (value.is_array() || value.is_object()) {
            *value = Value::Null;
        }
        let stays = field.always || field.shape == Shape::Any || !empty;
        Ok(if stays { Fate::Keep } else { Fate::Drop })
    }

    /// A value that is present. `owner` is the type whose field it is in, which is the schema of the `SchemaOr…`
    /// forms.
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

    /// An element of a list or map: `null` stands for the zero value.
    fn element(
        &mut self,
        owner: TypeId,
        any: AnyForm,
        shape: &Shape,
        value: &mut Value,
        path: &Path,
    ) -> Result<(), NormalizeError> {
        if value.is_null() {
            *value = zero(shape);
            if value.is_null() {
                return Ok(());
            }
        }
        self.value(owner, any, shape, value, path)
    }

    /// Untyped JSON stays as it is; the forms of JSON schema have a schema in them.
    fn any(
        &mut self,
        owner: TypeId,
        form: AnyForm,
        value: &mut Value,
        path: &Path,
    ) -> Result<(), NormalizeError> {
        match (form, &mut *value) {
            (AnyForm::Raw, _) | (AnyForm::SchemaOrBool, Value::Bool(_)) => Ok(()),
            (_, Value::Object(map)) => self.structure(owner, map, path),
            (AnyForm::SchemaOrArray, Value::Array(list)) => {
                for (at, item) in list.iter_mut().enumerate() {
                    self.element(owner, form, &Shape::Struct(owner), item, &Path::Index(path, at))?;
                }
                Ok(())
            }
            (AnyForm::SchemaOrStrings, Value::Array(list)) if list.iter().all(Value::is_string) => Ok(()),
            (AnyForm::SchemaOrBool, _) => {
                Err(NormalizeError::Type("boolean or JSON schema expected".to_owned()))
            }
            _ => Err(NormalizeError::Type(mismatch(kind_of(value), &go_struct(self.set.get(owner)), path))),
        }
    }

    fn report(&mut self, path: &Path, name: &str) {
        if self.mode == Mode::Report && self.found.unknown.len() < UNKNOWN_MAX {
            self.found.unknown.push(limits::clipped(Path::Key(path, name), UNKNOWN_MAX_BYTES));
        }
    }
}

/// What Go writes for a value that was never set; an empty object still has to be completed.
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
    /// The names of the struct fields on the way, and the last struct.
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

/// The message of Go's JSON decoder: the innermost struct, the fields from the root on (no indexes, no keys).
pub(crate) fn mismatch(found: &str, wanted: &str, path: &Path) -> String {
    let mut fields = String::new();
    let mut message = format!("json: cannot unmarshal {found} into Go ");
    let _ = match path.fields(&mut fields) {
        Some(ty) => write!(message, "struct field {}.{fields} of type {wanted}", last(&ty.name)),
        None => write!(message, "value of type {wanted}"),
    };
    message
}

/// What Go's decoder calls a JSON value.
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

/// What Go calls a type, as far as the table knows: named scalars appear as what they are made of.
fn go_type(set: &SchemaSet, shape: &Shape) -> String {
    match shape {
        Shape::Struct(id) => go_struct(set.get(*id)),
        Shape::List { items, .. } => format!("[]{}", go_type(set, items)),
        Shape::Map { values, .. } => format!("map[string]{}", go_type(set, values)),
        Shape::Scalar(scalar) => scalar::go_name(*scalar).to_owned(),
        Shape::Any => "interface {}".to_owned(),
    }
}

/// `v1.PodSpec`.
fn go_struct(ty: &StructType) -> String {
    let package = ty.name.rsplit('.').nth(1).unwrap_or_default();
    format!("{package}.{}", last(&ty.name))
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests;
