//! Decodes a message and emits its fields to a [`Sink`].
//!
//! Decoding has two steps per message. The first collects the fields of the message and of inlined messages, with their
//! positions in the type's order. The second emits the fields in that order. Fields may therefore arrive in any order
//! and in any number of pieces. Fields that JSON always has are added if the message lacks them.

use std::borrow::Cow;

use nave_machinery::duration;
use nave_machinery::limits::{Budget, LimitError, MAX_DEPTH};
use nave_schema::{AnyForm, Field, Scalar, SchemaSet, Shape, TypeId, TypeMeta, WirePlan};

use super::{
    MAX_JOINED_BYTES, ProtobufError, Root, scalar,
    sink::Sink,
    wire::{Raw, Reader},
};

type Result<T> = std::result::Result<T, ProtobufError>;

/// Decodes the message of an object of the type `id` into `sink`.
pub(super) fn walk<S: Sink>(
    set: &SchemaSet,
    id: TypeId,
    message: &[u8],
    root: Root<'_>,
    sink: &mut S,
) -> Result<()> {
    sink.open_object();
    for (name, value) in [("kind", root.kind), ("apiVersion", root.api_version)] {
        if !value.is_empty() {
            sink.name(name);
            sink.text(value);
        }
    }
    let joined = Budget::new(MAX_JOINED_BYTES);
    let embedded_types = root.embedded_types;
    let mut walker =
        Walker { set, sink, embedded_types, collected: Vec::with_capacity(64), entries: Vec::new(), joined };
    walker.fields(id, message, MAX_DEPTH, root.resource_version.map_or(Inject::No, Inject::Root))?;
    sink.close_object();
    Ok(())
}

/// A field of a message: its position in the type's order, and its content.
#[derive(Clone, Copy)]
struct CollectedField<'a> {
    at: u16,
    raw: Raw<'a>,
}

/// The key of a map entry, and its value if present.
type Entry<'a> = (&'a str, Option<Raw<'a>>);

/// The fields to add to a message: the resourceVersion, or the version and kind of an embedded object.
#[derive(Clone, Copy)]
enum Inject<'i> {
    /// The current message is the object. Its `metadata` receives the resourceVersion.
    Root(&'i str),
    /// The current message is the `metadata`, which receives the resourceVersion.
    Metadata(&'i str),
    /// The current message is an embedded object.
    TypeMeta(&'i TypeMeta),
    /// No field is added to this message or to messages inside it.
    No,
}

/// A field during decoding: the field, the type that contains it, and the remaining levels of nesting.
#[derive(Clone, Copy)]
struct FieldContext<'f> {
    field: &'f Field,
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

struct Walker<'a, 's, S> {
    set: &'a SchemaSet,
    sink: &'s mut S,
    /// [`Root::embedded_types`].
    embedded_types: bool,
    /// A stack of fields: the current message's fields follow the fields of the enclosing messages.
    collected: Vec<CollectedField<'a>>,
    /// Reused buffer for the entries of a map.
    entries: Vec<Entry<'a>>,
    /// Remaining bytes for joining split messages.
    joined: Budget,
}

impl<'a, S: Sink> Walker<'a, '_, S> {
    fn message(&mut self, id: TypeId, message: &'a [u8], depth: usize, inject: Inject<'_>) -> Result<()> {
        self.sink.open_object();
        self.fields(id, message, depth, inject)?;
        self.sink.close_object();
        Ok(())
    }

    /// Emits the fields of a message in the type's order.
    fn fields(&mut self, id: TypeId, message: &'a [u8], depth: usize, inject: Inject<'_>) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or(LimitError::TooDeep)?;
        let set = self.set;
        let (ty, plan) = (set.get(id), set.wire_plan(id));
        match inject {
            Inject::Metadata(version) => {
                self.sink.name(RESOURCE_VERSION);
                self.sink.text(version);
            }
            Inject::TypeMeta(TypeMeta { api_version, kind }) => {
                for (name, value) in [("kind", kind), ("apiVersion", api_version)] {
                    self.sink.name(name);
                    self.sink.text(value);
                }
            }
            Inject::Root(_) | Inject::No => {}
        }
        let start = self.collected.len();
        collect_fields(plan, message, Level::TOP, &mut self.collected)?;
        if !self.collected[start..].is_sorted_by_key(|collected| collected.at) {
            self.collected[start..].sort_by_key(|collected| collected.at);
        }
        let mut next = start;
        let mut always = plan.always.iter().copied().peekable();
        while let Some(at) =
            first_of(self.collected.get(next).map(|collected| collected.at), always.peek().copied())
        {
            let first = next;
            while self.collected.get(next).is_some_and(|collected| collected.at == at) {
                next += 1;
            }
            always.next_if_eq(&at);
            let field = &ty.fields[usize::from(ty.by_number[usize::from(at)])];
            if matches!(inject, Inject::Metadata(_)) && field.name == RESOURCE_VERSION {
                continue;
            }
            let inject = match inject {
                Inject::Root(version) if field.name == "metadata" => Inject::Metadata(version),
                _ => Inject::No,
            };
            self.field(FieldContext { field, owner: id, depth }, first..next, inject)?;
        }
        self.collected.truncate(start);
        Ok(())
    }

    /// Emits a field with the given `pieces`, which may be empty.
    fn field(
        &mut self,
        context: FieldContext<'_>,
        pieces: std::ops::Range<usize>,
        inject: Inject<'_>,
    ) -> Result<()> {
        let field = context.field;
        let last = pieces.clone().next_back().map(|at| self.collected[at].raw);
        match (&field.shape, last) {
            (Shape::Scalar(scalar), last) => self.scalar_field(context, *scalar, last),
            (Shape::Struct(id), Some(_)) if pieces.len() > 1 => {
                // A split message equals the concatenation of its pieces. This is rare, so the message is decoded as a
                // separate document.
                let whole = self.joined(context, pieces)?;
                self.sink.name(&field.name);
                let (set, joined, embedded_types) = (self.set, self.joined, self.embedded_types);
                let mut apart = Walker {
                    set,
                    sink: &mut *self.sink,
                    embedded_types,
                    collected: Vec::new(),
                    entries: Vec::new(),
                    joined,
                };
                apart.message(*id, &whole, context.depth, inject)?;
                self.joined = apart.joined;
                Ok(())
            }
            (Shape::Struct(_), None) if field.pointer => {
                self.sink.name(&field.name);
                self.sink.null();
                Ok(())
            }
            (Shape::Struct(id), last) => {
                self.sink.name(&field.name);
                let message = last.map_or(Ok(&[][..]), |raw| bytes_of(raw, context))?;
                self.message(*id, message, context.depth, inject)
            }
            (_, None) => {
                self.sink.name(&field.name);
                self.sink.null();
                Ok(())
            }
            (Shape::List { .. } | Shape::Map { .. }, Some(last))
                if field.wire.wrapped && !field.shape.holds_collections() =>
            {
                self.sink.name(&field.name);
                self.wrapped(context, &field.shape, last)
            }
            (Shape::List { items, .. }, _) => {
                self.sink.name(&field.name);
                let context = context.deeper()?;
                self.sink.open_list();
                for at in pieces {
                    self.items(context, items, self.collected[at].raw)?;
                }
                self.sink.close_list();
                Ok(())
            }
            (Shape::Map { values, .. }, _) => {
                self.sink.name(&field.name);
                let mut entries = std::mem::take(&mut self.entries);
                for at in pieces {
                    entries.push(entry(context, self.collected[at].raw)?);
                }
                self.map(context, values, entries)
            }
            (Shape::Any, Some(raw)) => {
                self.sink.name(&field.name);
                self.any(context, raw)
            }
        }
    }

    fn scalar_field(
        &mut self,
        context: FieldContext<'_>,
        scalar: Scalar,
        raw: Option<Raw<'a>>,
    ) -> Result<()> {
        let field = context.field;
        let value = match raw {
            Some(raw) => Plain::read(scalar, raw, context)?,
            None if field.pointer => Plain::Null,
            None => Plain::zero(scalar),
        };
        // An IntOrString is a struct in Go, and `omitempty` does not omit structs.
        let omit_zero = field.wire.omit_zero && scalar != Scalar::IntOrString;
        if !field.always && (matches!(value, Plain::Null) || omit_zero && value.is_zero()) {
            return Ok(());
        }
        self.sink.name(&field.name);
        value.put(self.sink);
        Ok(())
    }

    /// Concatenates the pieces of a message.
    fn joined(&mut self, context: FieldContext<'_>, pieces: std::ops::Range<usize>) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        for collected in &self.collected[pieces] {
            let piece = bytes_of(collected.raw, context)?;
            self.joined.charge(piece.len())?;
            whole.extend_from_slice(piece);
        }
        Ok(whole)
    }

    /// Emits one item of a list, or several if they are packed. `context` is the context of the item.
    fn items(&mut self, context: FieldContext<'_>, shape: &Shape, raw: Raw<'a>) -> Result<()> {
        let (Shape::Scalar(scalar), Raw::Bytes(packed)) = (shape, raw) else {
            return self.value(context, shape, Some(raw));
        };
        let mut reader = Reader::new(packed);
        match scalar {
            Scalar::Bool | Scalar::Int32 | Scalar::Int64 => {
                while let Some(value) = reader.next_packed()? {
                    self.value(context, shape, Some(Raw::Varint(value)))?;
                }
            }
            Scalar::Double => {
                while let Some(value) = reader.next_fixed64()? {
                    self.value(context, shape, Some(Raw::Fixed64(value)))?;
                }
            }
            _ => self.value(context, shape, Some(raw))?,
        }
        Ok(())
    }

    /// Emits an item of a list or a value of a map.
    fn value(&mut self, context: FieldContext<'_>, shape: &Shape, raw: Option<Raw<'a>>) -> Result<()> {
        let empty = Raw::Bytes(&[]);
        match shape {
            Shape::Scalar(scalar) => {
                raw.map_or(Ok(Plain::zero(*scalar)), |raw| Plain::read(*scalar, raw, context))?
                    .put(self.sink);
                Ok(())
            }
            Shape::Struct(id) => {
                let type_meta = context.field.type_meta.as_ref().filter(|_| self.embedded_types);
                let inject = type_meta.map_or(Inject::No, Inject::TypeMeta);
                self.message(*id, bytes_of(raw.unwrap_or(empty), context)?, context.depth, inject)
            }
            Shape::List { .. } | Shape::Map { .. } => self.wrapped(context, shape, raw.unwrap_or(empty)),
            Shape::Any => self.any(context, raw.unwrap_or(empty)),
        }
    }

    /// Emits a list or map that is field 1 of a wrapper message.
    fn wrapped(&mut self, context: FieldContext<'_>, shape: &Shape, raw: Raw<'a>) -> Result<()> {
        let mut reader = Reader::new(bytes_of(raw, context)?);
        match shape {
            Shape::Map { values, .. } => {
                let mut entries = std::mem::take(&mut self.entries);
                while let Some((number, raw)) = reader.next()? {
                    if number == 1 {
                        entries.push(entry(context, raw)?);
                    }
                }
                self.map(context, values, entries)
            }
            Shape::List { items, .. } => {
                let context = context.deeper()?;
                self.sink.open_list();
                while let Some((number, raw)) = reader.next()? {
                    if number == 1 {
                        self.items(context, items, raw)?;
                    }
                }
                self.sink.close_list();
                Ok(())
            }
            _ => Err(context.wrong_type()),
        }
    }

    /// Emits the entries of a map. The last entry of equal keys wins.
    fn map(&mut self, context: FieldContext<'_>, values: &Shape, mut entries: Vec<Entry<'a>>) -> Result<()> {
        if !entries.is_sorted_by(|(one, _), (other, _)| one < other) {
            entries.reverse();
            entries.sort_by_key(|(key, _)| *key);
            entries.dedup_by_key(|(key, _)| *key);
        }
        let context = context.deeper()?;
        self.sink.open_object();
        for (key, raw) in &entries {
            self.sink.key(key);
            self.value(context, values, *raw)?;
        }
        self.sink.close_object();
        entries.clear();
        self.entries = entries;
        Ok(())
    }

    fn any(&mut self, context: FieldContext<'_>, raw: Raw<'a>) -> Result<()> {
        let name = &context.field.name;
        let message = Reader::new(bytes_of(raw, context)?);
        if !matches!(context.field.wire.any, AnyForm::Raw | AnyForm::FieldsV1) {
            return self.schema_or(context, message);
        }
        match last_of(message, 1)? {
            Some(Raw::Bytes(text)) if !text.is_empty() => self.sink.json(name, text, context.depth),
            Some(Raw::Bytes(_)) | None => {
                self.sink.null();
                Ok(())
            }
            Some(_) => Err(context.wrong_type()),
        }
    }

    /// Emits a message of a `SchemaOr…` form.
    fn schema_or(&mut self, context: FieldContext<'_>, mut message: Reader<'a>) -> Result<()> {
        let (mut schema, mut allows, mut list) = (None, None, Vec::new());
        let schema_number = if context.field.wire.any == AnyForm::SchemaOrBool { 2 } else { 1 };
        while let Some((number, raw)) = message.next()? {
            match (number, raw) {
                (1 | 2, Raw::Bytes(message)) if number == schema_number => schema = Some(message),
                (1, Raw::Varint(value)) => allows = Some(value != 0),
                (2, Raw::Bytes(item)) => list.push(item),
                (1 | 2, _) => return Err(context.wrong_type()),
                _ => {}
            }
        }
        if !list.is_empty() {
            let context = context.deeper()?;
            self.sink.open_list();
            for item in list {
                if context.field.wire.any == AnyForm::SchemaOrStrings {
                    let text = utf8(item, context)?;
                    self.sink.text(text);
                } else {
                    self.message(context.owner, item, context.depth, Inject::No)?;
                }
            }
            self.sink.close_list();
        } else if let Some(message) = schema {
            self.message(context.owner, message, context.depth, Inject::No)?;
        } else if context.field.wire.any == AnyForm::SchemaOrBool {
            self.sink.bool(allows.unwrap_or(false));
        } else {
            self.sink.null();
        }
        Ok(())
    }
}

const RESOURCE_VERSION: &str = "resourceVersion";

/// The nesting of an inlined message: the common prefix of its fields' places, and the shift of the bits that
/// distinguish the fields.
#[derive(Clone, Copy)]
struct Level {
    prefix: u64,
    shift: u32,
}

impl Level {
    const TOP: Self = Self { prefix: 0, shift: 48 };
}

/// Collects the known fields of a message and of the messages inlined in it.
fn collect_fields<'a>(
    plan: &WirePlan,
    message: &'a [u8],
    level: Level,
    collected: &mut Vec<CollectedField<'a>>,
) -> Result<()> {
    let mut reader = Reader::new(message);
    let mut next = 0;
    while let Some((number, raw)) = reader.next()? {
        if number > 0xffff {
            continue;
        }
        let place = level.prefix | u64::from(number) << level.shift;
        // Fields are mostly in order: this is the previous field again, or the next field.
        if plan.places.get(next) != Some(&place) {
            next = match plan.places.get(next + 1) {
                Some(&after) if after == place => next + 1,
                _ => plan.places.partition_point(|&other| other < place),
            };
        }
        let Some(&found) = plan.places.get(next) else { continue };
        if found == place {
            collected.push(CollectedField { at: next as u16, raw });
        } else if let Raw::Bytes(inlined) = raw
            && level.shift > 16
            && found >> level.shift == place >> level.shift
        {
            collect_fields(plan, inlined, Level { prefix: place, shift: level.shift - 16 }, collected)?;
        }
    }
    Ok(())
}

/// Returns the smaller of two positions.
fn first_of(one: Option<u16>, other: Option<u16>) -> Option<u16> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

fn entry<'a>(context: FieldContext<'_>, raw: Raw<'a>) -> Result<Entry<'a>> {
    let mut reader = Reader::new(bytes_of(raw, context)?);
    let (mut key, mut value) = ("", None);
    while let Some((number, raw)) = reader.next()? {
        match number {
            1 => key = utf8(bytes_of(raw, context)?, context)?,
            2 => value = Some(raw),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Returns the last field with this number.
fn last_of(mut message: Reader<'_>, wanted: u32) -> Result<Option<Raw<'_>>> {
    let mut last = None;
    while let Some((number, raw)) = message.next()? {
        if number == wanted {
            last = Some(raw);
        }
    }
    Ok(last)
}

fn bytes_of<'a>(raw: Raw<'a>, context: FieldContext<'_>) -> Result<&'a [u8]> {
    match raw {
        Raw::Bytes(bytes) => Ok(bytes),
        _ => Err(context.wrong_type()),
    }
}

fn utf8<'a>(bytes: &'a [u8], context: FieldContext<'_>) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::NotUtf8(context.field.name.clone()))
}

/// A scalar in its JSON form.
enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Time(scalar::TimeText),
    Bytes(&'a [u8]),
}

impl<'a> Plain<'a> {
    /// Returns the value Go writes for an unset field.
    fn zero(scalar: Scalar) -> Self {
        match scalar {
            Scalar::String => Self::Text(Cow::Borrowed("")),
            Scalar::Bool => Self::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString => Self::Int(0),
            Scalar::Double => Self::Double(0.0),
            Scalar::Bytes | Scalar::Time | Scalar::MicroTime => Self::Null,
            Scalar::Duration => Self::Text(Cow::Borrowed("0s")),
            Scalar::Quantity => Self::Text(Cow::Borrowed("0")),
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::Text(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Time(_) => false,
        }
    }

    fn read(scalar: Scalar, raw: Raw<'a>, context: FieldContext<'_>) -> Result<Self> {
        Ok(match (scalar, raw) {
            (Scalar::String, Raw::Bytes(bytes)) => Self::Text(Cow::Borrowed(utf8(bytes, context)?)),
            (Scalar::Bool, Raw::Varint(value)) => Self::Bool(value != 0),
            (Scalar::Int32, Raw::Varint(value)) => Self::Int(i64::from(value as i32)),
            (Scalar::Int64, Raw::Varint(value)) => Self::Int(value as i64),
            (Scalar::Double, Raw::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
            (Scalar::Bytes, Raw::Bytes(bytes)) => Self::Bytes(bytes),
            (Scalar::Time | Scalar::MicroTime, Raw::Bytes(message)) => Self::time(scalar, message, context)?,
            (Scalar::Duration, Raw::Bytes(message)) => match last_of(Reader::new(message), 1)? {
                Some(Raw::Varint(nanos)) => Self::Text(Cow::Owned(duration::write_nanos(nanos as i64))),
                None => Self::zero(scalar),
                Some(_) => return Err(context.wrong_type()),
            },
            (Scalar::Quantity, Raw::Bytes(message)) => match last_of(Reader::new(message), 1)? {
                Some(Raw::Bytes(text)) if !text.is_empty() => Self::Text(Cow::Borrowed(utf8(text, context)?)),
                Some(Raw::Bytes(_)) | None => Self::zero(scalar),
                Some(_) => return Err(context.wrong_type()),
            },
            (Scalar::IntOrString, Raw::Bytes(message)) => Self::int_or_string(message, context)?,
            _ => return Err(context.wrong_type()),
        })
    }

    fn time(scalar: Scalar, message: &[u8], context: FieldContext<'_>) -> Result<Self> {
        if message.is_empty() {
            return Ok(Self::Null);
        }
        let mut reader = Reader::new(message);
        let (mut seconds, mut nanos) = (0, 0);
        while let Some((number, raw)) = reader.next()? {
            match (number, raw) {
                (1, Raw::Varint(value)) => seconds = value as i64,
                (2, Raw::Varint(value)) => nanos = value as i32,
                (1 | 2, _) => return Err(context.wrong_type()),
                _ => {}
            }
        }
        let text = match scalar {
            Scalar::MicroTime => scalar::micro_time_text(seconds, nanos),
            _ => scalar::time_text(seconds),
        };
        text.map(Self::Time).ok_or_else(|| context.wrong_type())
    }

    fn int_or_string(message: &'a [u8], context: FieldContext<'_>) -> Result<Self> {
        let mut reader = Reader::new(message);
        let (mut is_text, mut int, mut text) = (false, 0, "");
        while let Some((number, raw)) = reader.next()? {
            match (number, raw) {
                (1, Raw::Varint(value)) => is_text = value == 1,
                (2, Raw::Varint(value)) => int = i64::from(value as i32),
                (3, Raw::Bytes(bytes)) => text = utf8(bytes, context)?,
                (1..=3, _) => return Err(context.wrong_type()),
                _ => {}
            }
        }
        Ok(if is_text { Self::Text(Cow::Borrowed(text)) } else { Self::Int(int) })
    }

    fn put(&self, sink: &mut impl Sink) {
        match self {
            Self::Null => sink.null(),
            Self::Bool(value) => sink.bool(*value),
            Self::Int(value) => sink.int(*value),
            Self::Double(value) => sink.double(*value),
            Self::Text(text) => sink.text(text),
            Self::Time(text) => sink.text(text.as_str()),
            Self::Bytes(bytes) => sink.bytes(bytes),
        }
    }
}
