//! Encodes messages.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nave_machinery::limits::{self, LimitError};
use nave_machinery::{Map, Value, duration};
use nave_schema::{AnyForm, Field, Scalar, SchemaSet, Shape, TypeId};

use super::{
    ProtobufError, scalar,
    wire::{put_bytes, put_fixed64, put_int, put_message},
};
use crate::json;

type Result<T> = std::result::Result<T, ProtobufError>;

/// Appends the message of an object of the type `id`, with at most `depth` levels.
pub(super) fn message(
    set: &SchemaSet,
    id: TypeId,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let object = value.as_object().ok_or_else(|| ProtobufError::WrongType(set.get(id).name.clone()))?;
    Writer { set, present: Vec::with_capacity(64) }.message(id, object, depth, out)
}

/// A present field of an object, with its [`nave_schema::Wire::place`].
type Present<'a> = (u64, &'a Field, &'a Value);

struct Writer<'a> {
    set: &'a SchemaSet,
    /// A stack of fields: the current message's fields follow the fields of the enclosing messages.
    present: Vec<Present<'a>>,
}

/// A field during encoding: the field, the type that contains it, and the remaining levels of nesting.
#[derive(Clone, Copy)]
struct FieldContext<'a> {
    field: &'a Field,
    owner: TypeId,
    depth: usize,
}

impl FieldContext<'_> {
    fn wrong_type(&self) -> ProtobufError {
        ProtobufError::WrongType(self.field.name.clone())
    }

    fn deeper(self) -> Result<Self> {
        Ok(Self { depth: self.depth.checked_sub(1).ok_or(LimitError::TooDeep)?, ..self })
    }
}

impl<'a> Writer<'a> {
    fn message(&mut self, id: TypeId, object: &'a Map, depth: usize, out: &mut Vec<u8>) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or(LimitError::TooDeep)?;
        let ty = self.set.get(id);
        let start = self.present.len();
        for (name, value) in object {
            if let Some(field) = ty.field(name).filter(|field| field.wire.number != 0 && !value.is_null()) {
                self.present.push((field.wire.place(), field, value));
            }
        }
        self.present[start..].sort_unstable_by_key(|(place, ..)| *place);
        let written = self.fields(id, start..self.present.len(), 48, depth, out);
        self.present.truncate(start);
        written
    }

    /// Writes fields in the order of their places. The bits above `shift` select this message.
    fn fields(
        &mut self,
        owner: TypeId,
        mut range: std::ops::Range<usize>,
        shift: u32,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        while let Some(at) = range.next() {
            let (place, field, value) = self.present[at];
            let number = (place >> shift & 0xffff) as u32;
            if place & ((1 << shift) - 1) == 0 {
                self.field(FieldContext { field, owner, depth }, number, value, out)?;
                continue;
            }
            // The field is in an inlined message, together with the following fields that have the same number at this
            // level.
            while range.start < range.end && self.present[range.start].0 >> shift == place >> shift {
                range.start += 1;
            }
            let inlined = at..range.start;
            put_message(out, number, |out| self.fields(owner, inlined, shift - 16, depth, out))?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        context: FieldContext<'a>,
        number: u32,
        value: &'a Value,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let field = context.field;
        match &field.shape {
            shape @ (Shape::List { .. } | Shape::Map { .. })
                if field.wire.wrapped && !shape.holds_collections() =>
            {
                self.element(context, number, shape, value, out)
            }
            shape @ (Shape::List { .. } | Shape::Map { .. }) => {
                self.collection(context, number, shape, value, out)
            }
            shape => self.element(context, number, shape, value, out),
        }
    }

    /// Writes the items of a list or the entries of a map, each as a field with this number.
    fn collection(
        &mut self,
        context: FieldContext<'a>,
        number: u32,
        shape: &'a Shape,
        value: &'a Value,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        let context = context.deeper()?;
        match (shape, value) {
            (Shape::List { items, .. }, Value::Array(list)) => {
                list.iter().try_for_each(|item| self.element(context, number, items, item, out))
            }
            (Shape::Map { values, .. }, Value::Object(object)) => {
                // A `Map` iterates in key order, as Go's encoder does.
                object.iter().try_for_each(|(key, value)| {
                    put_message(out, number, |out| {
                        put_bytes(out, 1, key.as_bytes());
                        self.element(context, 2, values, value, out)
                    })
                })
            }
            _ => Err(context.wrong_type()),
        }
    }

    /// Writes a value as one field.
    fn element(
        &mut self,
        context: FieldContext<'a>,
        number: u32,
        shape: &'a Shape,
        value: &'a Value,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match (shape, value) {
            (Shape::Scalar(scalar), value) => put_scalar(context, number, *scalar, value, out),
            (Shape::Struct(id), Value::Object(object)) => {
                put_message(out, number, |out| self.message(*id, object, context.depth, out))
            }
            (Shape::Struct(_), Value::Null) => {
                put_bytes(out, number, &[]);
                Ok(())
            }
            (Shape::Struct(_), _) => Err(context.wrong_type()),
            (Shape::List { .. } | Shape::Map { .. }, _) => {
                put_message(out, number, |out| self.collection(context, 1, shape, value, out))
            }
            (Shape::Any, value) => put_message(out, number, |out| self.any(context, value, out)),
        }
    }

    /// Writes the content of an untyped value's message.
    fn any(&mut self, context: FieldContext<'a>, value: &'a Value, out: &mut Vec<u8>) -> Result<()> {
        let schema = if context.field.wire.any == AnyForm::SchemaOrBool { 2 } else { 1 };
        match (context.field.wire.any, value) {
            (_, Value::Null) => {}
            (AnyForm::Raw | AnyForm::FieldsV1, value) if !limits::is_within_depth(value, context.depth) => {
                return Err(LimitError::TooDeep.into());
            }
            (AnyForm::FieldsV1, Value::String(text)) => put_bytes(out, 1, text.as_bytes()),
            (form @ (AnyForm::Raw | AnyForm::FieldsV1), value) => {
                put_message(out, 1, |out| {
                    match form {
                        AnyForm::Raw => json::encode_as_go_into(value, out),
                        _ => json::encode_into(value, out),
                    }
                    Ok::<_, ProtobufError>(())
                })?;
            }
            (form, Value::Object(object)) => {
                if form == AnyForm::SchemaOrBool {
                    put_int(out, 1, 1);
                }
                put_message(out, schema, |out| self.message(context.owner, object, context.depth, out))?;
            }
            (AnyForm::SchemaOrBool, Value::Bool(allows)) => put_int(out, 1, u64::from(*allows)),
            (AnyForm::SchemaOrArray, Value::Array(list)) => {
                let context = context.deeper()?;
                for item in list {
                    let object = item.as_object().ok_or_else(|| context.wrong_type())?;
                    put_message(out, 2, |out| self.message(context.owner, object, context.depth, out))?;
                }
            }
            (AnyForm::SchemaOrStrings, Value::Array(list)) => {
                let context = context.deeper()?;
                for item in list {
                    put_bytes(out, 2, item.as_str().ok_or_else(|| context.wrong_type())?.as_bytes());
                }
            }
            _ => return Err(context.wrong_type()),
        }
        Ok(())
    }
}

/// Writes a scalar; null is written as zero.
fn put_scalar(
    context: FieldContext<'_>,
    number: u32,
    scalar: Scalar,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<()> {
    let wrong = || context.wrong_type();
    let text = || if value.is_null() { Ok("") } else { value.as_str().ok_or_else(wrong) };
    match scalar {
        Scalar::String => put_bytes(out, number, text()?.as_bytes()),
        Scalar::Bool => {
            put_int(out, number, u64::from(!value.is_null() && value.as_bool().ok_or_else(wrong)?));
        }
        Scalar::Int32 | Scalar::Int64 => {
            put_int(out, number, integer(scalar, value).ok_or_else(wrong)? as u64);
        }
        Scalar::Double => {
            let double = if value.is_null() { 0.0 } else { value.as_f64().ok_or_else(wrong)? };
            put_fixed64(out, number, double.to_bits());
        }
        Scalar::Bytes => put_bytes(out, number, &STANDARD.decode(text()?).map_err(|_| wrong())?),
        Scalar::Time | Scalar::MicroTime => put_message(out, number, |out| {
            if value.is_null() {
                return Ok(());
            }
            let (seconds, nanos) = scalar::parse_time(text()?).ok_or_else(wrong)?;
            put_int(out, 1, seconds as u64);
            put_int(out, 2, if scalar == Scalar::MicroTime { nanos as u64 } else { 0 });
            Ok::<_, ProtobufError>(())
        })?,
        Scalar::Duration => put_message(out, number, |out| {
            let nanos = if value.is_null() { Some(0) } else { duration::parse_nanos(text()?).ok() };
            put_int(out, 1, nanos.ok_or_else(wrong)? as u64);
            Ok::<_, ProtobufError>(())
        })?,
        Scalar::Quantity => put_message(out, number, |out| {
            if let Value::Number(amount) = value {
                put_bytes(out, 1, amount.to_string().as_bytes());
            } else {
                put_bytes(out, 1, text()?.as_bytes());
            }
            Ok::<_, ProtobufError>(())
        })?,
        Scalar::IntOrString => put_message(out, number, |out| {
            let (is_text, int, text) = match value {
                Value::String(text) => (1, 0, text.as_str()),
                _ => (0, integer(Scalar::Int32, value).ok_or_else(wrong)?, ""),
            };
            put_int(out, 1, is_text);
            put_int(out, 2, int as u64);
            put_bytes(out, 3, text.as_bytes());
            Ok::<_, ProtobufError>(())
        })?,
    }
    Ok(())
}

/// Returns `value` as an integer of the type `scalar`, if it fits. A double without a fraction counts as an integer,
/// null as 0.
fn integer(scalar: Scalar, value: &Value) -> Option<i64> {
    if value.is_null() {
        return Some(0);
    }
    let number = value.as_i64().or_else(|| {
        let double = value.as_f64()?;
        (double.fract() == 0.0 && double.abs() < 9e18).then_some(double as i64)
    })?;
    match scalar {
        Scalar::Int32 => i32::try_from(number).ok().map(i64::from),
        _ => Some(number),
    }
}
