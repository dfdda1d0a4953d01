//! Types as data: structs, their fields, and what may stand in a field.

use std::collections::HashMap;

use nave_machinery::Value;

use crate::field_index::FieldIndex;

/// The place of a [`StructType`] in its [`SchemaSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// All the struct types of one world (the built-in kinds, or one custom resource's version).
#[derive(Debug, std::default::Default)]
pub struct SchemaSet {
    types: Vec<StructType>,
    plans: Vec<WirePlan>,
    /// By type: whether there are static defaults in it or below it.
    defaults: Vec<bool>,
    /// By type: the places in [`StructType::fields`] of the fields that have a static default or lead to one.
    defaulted: Vec<Vec<u16>>,
    /// By type: the places in [`StructType::fields`] of the fields that are encoded even when empty.
    always: Vec<Vec<u16>>,
    by_name: HashMap<String, TypeId>,
}

/// What a protobuf codec looks at for each field of a message, kept apart from the fields and close together.
#[derive(Debug, std::default::Default)]
pub struct WirePlan {
    /// [`Wire::place`] of each field of [`StructType::by_number`], in its order.
    pub places: Vec<u64>,
    /// The positions in [`StructType::by_number`] of the fields that JSON always has and protobuf may lack.
    pub always: Vec<u16>,
}

/// A struct: an object whose fields are known.
#[derive(Debug)]
pub struct StructType {
    /// The OpenAPI definition name, such as `io.k8s.api.core.v1.Pod`.
    pub name: String,
    /// The fields, sorted by JSON name.
    pub fields: Vec<Field>,
    /// Indexes into `fields`, sorted by [`Wire::place`]: the order in which the message is written.
    pub by_number: Vec<u16>,
    /// Whether server-side apply treats the struct as one value (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Finds the places in `fields` by JSON name.
    index: FieldIndex,
}

/// A field of a struct.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Field {
    /// The JSON name.
    pub name: String,
    /// What the field holds.
    pub shape: Shape,
    /// Whether encoding writes the field even when it is empty (Go: no `omitempty`, or a struct held by value).
    pub always: bool,
    /// Whether the API documents the field as required.
    pub required: bool,
    /// Whether Go holds the scalar by pointer: `false`, `0` and `""` then differ from absence and are kept.
    pub pointer: bool,
    /// Whether the API says outright that the list or map is atomic (a list that says nothing is so too).
    pub declared_atomic: bool,
    /// The static default, if any.
    pub default: Option<Default>,
    /// The strategic merge patch behaviour.
    pub patch: PatchStrategy,
    /// The values allowed, where the field is an enumeration; informative, validation decides.
    pub enumeration: Vec<String>,
    /// The field on the protobuf wire; number 0 where the kind has no protobuf form.
    pub wire: Wire,
}

/// A static default (`+default=`).
#[derive(Debug, Clone, PartialEq)]
pub struct Default(pub Value);

/// What may stand in a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// One value.
    Scalar(Scalar),
    /// An object with known fields.
    Struct(TypeId),
    /// A list.
    List {
        /// What its elements are.
        items: Box<Shape>,
        /// How the list is merged by server-side apply.
        topology: ListTopology,
    },
    /// An object whose keys are data.
    Map {
        /// What its values are.
        values: Box<Shape>,
        /// Whether server-side apply treats it as one value.
        atomic: bool,
    },
    /// Any JSON (RawExtension, JSON, FieldsV1, `x-kubernetes-preserve-unknown-fields`).
    Any,
}

/// A value without parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON, bytes in protobuf.
    Bytes,
    /// RFC 3339 with seconds; protobuf message `Time {seconds, nanos}`.
    Time,
    /// RFC 3339 with microseconds; protobuf message `MicroTime {seconds, nanos}`.
    MicroTime,
    /// Go's duration text (`metav1.Duration`): `1h2m3s`; protobuf message `Duration {duration: int64 nanoseconds}`.
    Duration,
    /// A resource quantity, string (or number on input) in JSON; protobuf message `Quantity {string = 1}`.
    Quantity,
    /// A number or a string; protobuf message `IntOrString {type, intVal, strVal}`.
    IntOrString,
}

/// How a list is merged by server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListTopology {
    /// One value.
    Atomic,
    /// A set of scalars.
    Set,
    /// Structs found by these keys.
    Map(Vec<String>),
}

/// Strategic merge patch behaviour of a field.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// `patchStrategy` has `merge`.
    pub merge: bool,
    /// `patchStrategy` has `retainKeys`.
    pub retain_keys: bool,
    /// `patchMergeKey`.
    pub merge_key: Option<String>,
}

/// A field on the protobuf wire.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct Wire {
    /// The field number; 0 if the field is not on the protobuf wire.
    pub number: u32,
    /// The number of the submessage the field lies in, where Go inlines a struct into the JSON object that is a
    /// message of its own on the protobuf wire (`Volume.volumeSource`, `Probe.handler`); 0 for the struct's own
    /// message. Two levels (`NamedRuleWithOperations` holds `RuleWithOperations` holds `Rule`) are written
    /// `outer << 16 | inner`.
    pub via: u32,
    /// Whether the list or map that the JSON field holds is wrapped in a message of its own with `items = 1`
    /// (`ExtraValue`, `Verbs`-like named slice types).
    pub wrapped: bool,
    /// The message behind a [`Shape::Any`] (the field itself, its list items or its map values).
    pub any: AnyForm,
    /// Whether a zero value on the wire (`""`, `0`, `false`) means absence: in Go the field has `omitempty` and is
    /// no pointer, and Go's writers put the zero there all the same.
    pub omit_zero: bool,
}

/// The protobuf message behind a value that JSON leaves untyped.
#[derive(Clone, Copy, Debug, std::default::Default, PartialEq, Eq)]
pub enum AnyForm {
    /// `{raw = 1}`, JSON text (`RawExtension`, `JSON`, `FieldsV1`).
    #[default]
    Raw,
    /// `JSONSchemaPropsOrBool {allows = 1, schema = 2}`; the schema is of the type that the field lies in, here
    /// and below.
    SchemaOrBool,
    /// `JSONSchemaPropsOrArray {schema = 1, jSONSchemas = 2}`.
    SchemaOrArray,
    /// `JSONSchemaPropsOrStringArray {schema = 1, property = 2}`.
    SchemaOrStrings,
}

impl SchemaSet {
    /// Makes a set from its types; a [`TypeId`] is the place in this list.
    pub fn new(mut types: Vec<StructType>) -> Self {
        for ty in &mut types {
            ty.fields.sort_by(|one, other| one.name.cmp(&other.name));
            let mut order: Vec<u16> = (0..ty.fields.len() as u16).collect();
            order.sort_by_key(|&at| ty.fields[at as usize].wire.place());
            ty.by_number = order;
            ty.index = FieldIndex::new(ty.fields.iter().map(|field| field.name.as_str()));
        }
        let by_name = types.iter().enumerate().map(|(at, ty)| (ty.name.clone(), TypeId(at as u32))).collect();
        let plans = types.iter().map(WirePlan::of).collect();
        let defaults = with_defaults(&types);
        let places = |ty: &StructType| {
            (0..).zip(&ty.fields).filter(|(_, field)| field.always).map(|(at, _)| at).collect()
        };
        let always = types.iter().map(places).collect();
        let defaulted = types.iter().map(|ty| ty.defaulted(&defaults)).collect();
        Self { types, plans, defaults, defaulted, always, by_name }
    }

    /// The fields of the type at `id` that are encoded even when they are empty.
    pub fn always(&self, id: TypeId) -> impl Iterator<Item = &Field> {
        self.always[id.0 as usize].iter().map(move |&at| &self.get(id).fields[at as usize])
    }

    /// The fields of the type at `id` that have a static default, or lead to a type that has.
    pub fn defaulted(&self, id: TypeId) -> impl Iterator<Item = &Field> {
        self.defaulted[id.0 as usize].iter().map(move |&at| &self.get(id).fields[at as usize])
    }

    /// Whether the type at `id`, or any type that it leads to, has static defaults.
    pub fn has_defaults(&self, id: TypeId) -> bool {
        self.defaults[id.0 as usize]
    }

    /// The type with this OpenAPI definition name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The type at `id`, which must come from this set.
    pub fn get(&self, id: TypeId) -> &StructType {
        &self.types[id.0 as usize]
    }

    /// The protobuf layout of the type at `id`, which must come from this set.
    pub fn wire_plan(&self, id: TypeId) -> &WirePlan {
        &self.plans[id.0 as usize]
    }

    /// All types, in order of their ids.
    pub fn types(&self) -> &[StructType] {
        &self.types
    }
}

/// The types that have defaults or lead to one that does.
fn with_defaults(types: &[StructType]) -> Vec<bool> {
    let mut found: Vec<bool> =
        types.iter().map(|ty| ty.fields.iter().any(|field| field.default.is_some())).collect();
    loop {
        let leads = |ty: &StructType, found: &[bool]| {
            ty.fields.iter().filter_map(|field| field.shape.target()).any(|id| found[id.0 as usize])
        };
        let mut grown = false;
        for at in 0..types.len() {
            if !found[at] && leads(&types[at], &found) {
                (found[at], grown) = (true, true);
            }
        }
        if !grown {
            return found;
        }
    }
}

impl Shape {
    /// The struct type that the shape is, or is a list or map of.
    pub fn target(&self) -> Option<TypeId> {
        match self {
            Self::Struct(id) => Some(*id),
            Self::List { items: inner, .. } | Self::Map { values: inner, .. } => inner.target(),
            Self::Scalar(_) | Self::Any => None,
        }
    }
}

impl StructType {
    /// A struct with these fields, in any order. The set that it becomes part of orders and indexes them.
    pub fn new(name: String, fields: Vec<Field>, atomic: bool) -> Self {
        Self { name, fields, by_number: Vec::new(), atomic, index: FieldIndex::default() }
    }

    /// The field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index.find(name, |at| self.fields[at].name == name).map(|at| &self.fields[at])
    }

    /// The places of the fields that have a static default or lead to a type that has. `has_defaults` is by type.
    fn defaulted(&self, has_defaults: &[bool]) -> Vec<u16> {
        let leads = |field: &Field| field.shape.target().is_some_and(|id| has_defaults[id.0 as usize]);
        let fields = (0..).zip(&self.fields);
        fields.filter(|(_, field)| field.default.is_some() || leads(field)).map(|(at, _)| at).collect()
    }

    /// The field with this protobuf number, in the struct's own message (`via` 0) or in an inlined one.
    pub fn field_by_number(&self, via: u32, number: u32) -> Option<&Field> {
        let place = Wire { number, via, ..Wire::default() }.place();
        let at =
            self.by_number.binary_search_by_key(&place, |&at| self.fields[at as usize].wire.place()).ok()?;
        Some(&self.fields[self.by_number[at] as usize])
    }
}

impl Shape {
    /// Whether this is a list or map of lists or maps. Protobuf has no such thing: the inner ones are wrapped in
    /// messages of their own.
    pub fn holds_collections(&self) -> bool {
        let (Self::List { items: inner, .. } | Self::Map { values: inner, .. }) = self else { return false };
        matches!(**inner, Self::List { .. } | Self::Map { .. })
    }
}

impl WirePlan {
    fn of(ty: &StructType) -> Self {
        let fields = ty.by_number.iter().map(|&at| &ty.fields[at as usize]);
        let always = (0u16..).zip(fields.clone()).filter(|(_, field)| field.always && field.wire.number != 0);
        Self {
            always: always.map(|(at, _)| at).collect(),
            places: fields.map(|field| field.wire.place()).collect(),
        }
    }
}

impl Wire {
    /// What orders fields on the wire: the path of field numbers from the struct's own message down to the field,
    /// 16 bits a step with the first step highest, so that an inlined message's fields are neighbours and stand
    /// where its own number puts them.
    pub fn place(&self) -> u64 {
        let number = u64::from(self.number);
        match (u64::from(self.via >> 16), u64::from(self.via & 0xffff)) {
            (0, 0) => number << 48,
            (0, via) => via << 48 | number << 32,
            (outer, inner) => outer << 48 | inner << 32 | number << 16,
        }
    }
}
