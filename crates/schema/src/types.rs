//! Types as data: structs, their fields, and the types of fields.

use std::collections::HashMap;

use nave_machinery::Value;

use crate::field_index::FieldIndex;

/// Position of a [`StructType`] in its [`SchemaSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// A closed set of struct types: all types of the built-in kinds, or of one version of a custom resource.
#[derive(Debug, std::default::Default)]
pub struct SchemaSet {
    types: Vec<StructType>,
    plans: Vec<WirePlan>,
    /// By type: positions in [`StructType::fields`] of the fields that have a static default or lead to one.
    defaulted: Vec<Vec<u16>>,
    /// By type: positions in [`StructType::fields`] of the fields that are encoded even when empty.
    always: Vec<Vec<u16>>,
    by_name: HashMap<String, TypeId>,
}

/// The data that a protobuf codec needs for each field of a message, stored compactly for fast access.
#[derive(Debug, std::default::Default)]
pub struct WirePlan {
    /// [`Wire::place`] of each field, in the order of [`StructType::by_number`].
    pub places: Vec<u64>,
    /// Positions in [`StructType::by_number`] of the fields that JSON always has and protobuf may omit.
    pub always: Vec<u16>,
}

/// A struct: an object with known fields.
#[derive(Debug)]
pub struct StructType {
    /// The OpenAPI definition name, such as `io.k8s.api.core.v1.Pod`.
    pub name: String,
    /// The fields, sorted by JSON name.
    pub fields: Vec<Field>,
    /// Indexes into `fields`, sorted by [`Wire::place`]: the order in which the message is encoded.
    pub by_number: Vec<u16>,
    /// True if server-side apply treats the struct as one value (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Index of `fields` by JSON name.
    index: FieldIndex,
}

/// A field of a struct.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Field {
    /// The JSON name.
    pub name: String,
    /// The type of the field.
    pub shape: Shape,
    /// True if the field is encoded even when empty (Go: no `omitempty`, or a struct held by value).
    pub always: bool,
    /// True if the API documents the field as required.
    pub required: bool,
    /// True if the scalar is a pointer in Go: `false`, `0` and `""` then differ from absence and are kept.
    pub pointer: bool,
    /// True if the API explicitly declares the list or map atomic. A list without a declaration is also atomic.
    pub declared_atomic: bool,
    /// True if server-side apply merges the struct, although its type is atomic (`x-kubernetes-map-type: granular`).
    pub granular: bool,
    /// The static default, if any.
    pub default: Option<Default>,
    /// The strategic merge patch behaviour.
    pub patch: PatchStrategy,
    /// The version and kind of the objects in the field, which protobuf does not contain. Upstream's conversion adds
    /// them on reads (`Convert_apps_StatefulSetSpec_To_v1_StatefulSetSpec`).
    pub type_meta: Option<TypeMeta>,
    /// The allowed values of an enumeration; for documentation, validation decides.
    pub enumeration: Vec<String>,
    /// The protobuf encoding of the field; number 0 if the kind has no protobuf form.
    pub wire: Wire,
}

/// The `apiVersion` and `kind` of an embedded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMeta {
    /// The group and version, such as `v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
}

/// A static default (`+default=`).
#[derive(Debug, Clone, PartialEq)]
pub struct Default(pub Value);

/// The type of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// One value.
    Scalar(Scalar),
    /// An object with known fields.
    Struct(TypeId),
    /// A list.
    List {
        /// The type of the elements.
        items: Box<Shape>,
        /// How server-side apply merges the list.
        topology: ListTopology,
    },
    /// An object with arbitrary keys.
    Map {
        /// The type of the values.
        values: Box<Shape>,
        /// True if server-side apply treats the map as one value.
        atomic: bool,
    },
    /// Any JSON (RawExtension, JSON, FieldsV1, `x-kubernetes-preserve-unknown-fields`).
    Any,
}

/// A scalar value.
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

/// How server-side apply merges a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListTopology {
    /// Replaces the list as one value.
    Atomic,
    /// Merges the list as a set of scalars.
    Set,
    /// Merges structs identified by these keys.
    Map(Vec<String>),
}

/// Strategic merge patch behaviour of a field.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// `patchStrategy` contains `merge`.
    pub merge: bool,
    /// `patchStrategy` contains `retainKeys`.
    pub retain_keys: bool,
    /// `patchMergeKey`.
    pub merge_key: Option<String>,
}

/// The protobuf encoding of a field.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq)]
pub struct Wire {
    /// The field number; 0 if the field has no protobuf encoding.
    pub number: u32,
    /// The number of the submessage that contains the field; 0 for the struct's own message. Set if Go inlines a struct
    /// in JSON that is a separate message in protobuf (`Volume.volumeSource`, `Probe.handler`). Two levels
    /// (`NamedRuleWithOperations` holds `RuleWithOperations` holds `Rule`) are encoded as `outer << 16 | inner`.
    pub via: u32,
    /// True if the list or map is wrapped in a separate message with `items = 1` (`ExtraValue`, named slice types
    /// such as `Verbs`).
    pub wrapped: bool,
    /// The message of a [`Shape::Any`] (the field itself, its list items or its map values).
    pub any: AnyForm,
    /// True if a zero value in protobuf (`""`, `0`, `false`) means absence. In Go, the field has `omitempty` and is not
    /// a pointer, but Go's protobuf encoder writes the zero value.
    pub omit_zero: bool,
}

/// The protobuf message of a value that is untyped in JSON.
#[derive(Clone, Copy, Debug, std::default::Default, PartialEq, Eq)]
pub enum AnyForm {
    /// `{raw = 1}`, JSON text (`RawExtension`, `JSON`).
    #[default]
    Raw,
    /// Like `Raw`, for the fields of a field manager. The value may be a string that contains the JSON text.
    FieldsV1,
    /// `JSONSchemaPropsOrBool {allows = 1, schema = 2}`. In all `SchemaOr…` forms, the schema has the type of the
    /// enclosing struct.
    SchemaOrBool,
    /// `JSONSchemaPropsOrArray {schema = 1, jSONSchemas = 2}`.
    SchemaOrArray,
    /// `JSONSchemaPropsOrStringArray {schema = 1, property = 2}`.
    SchemaOrStrings,
}

impl SchemaSet {
    /// Creates a set from its types; a [`TypeId`] is a position in this list.
    pub fn new(mut types: Vec<StructType>) -> Self {
        for ty in &mut types {
            ty.fields.sort_by(|one, other| one.name.cmp(&other.name));
            ty.fields.shrink_to_fit();
            let mut order: Vec<u16> = (0..ty.fields.len() as u16).collect();
            order.sort_by_key(|&at| ty.fields[at as usize].wire.place());
            ty.by_number = order;
            ty.index = FieldIndex::new(ty.fields.iter().map(|field| field.name.as_str()));
        }
        let by_name = types.iter().enumerate().map(|(at, ty)| (ty.name.clone(), TypeId(at as u32))).collect();
        let plans = types.iter().map(WirePlan::new).collect();
        let defaults = with_defaults(&types);
        let places = |ty: &StructType| {
            (0..).zip(&ty.fields).filter(|(_, field)| field.always).map(|(at, _)| at).collect()
        };
        let always = types.iter().map(places).collect();
        let defaulted = types.iter().map(|ty| ty.defaulted(&defaults)).collect();
        Self { types, plans, defaulted, always, by_name }
    }

    /// Returns the fields of the type `id` that are encoded even when empty.
    pub fn always(&self, id: TypeId) -> impl Iterator<Item = &Field> {
        self.always[id.0 as usize].iter().map(move |&at| &self.get(id).fields[at as usize])
    }

    /// Returns the fields of the type `id` that have a static default or lead to one.
    pub fn defaulted(&self, id: TypeId) -> impl Iterator<Item = &Field> {
        self.defaulted[id.0 as usize].iter().map(move |&at| &self.get(id).fields[at as usize])
    }

    /// Returns the type with this OpenAPI definition name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// Returns the type `id`, which must be from this set.
    pub fn get(&self, id: TypeId) -> &StructType {
        &self.types[id.0 as usize]
    }

    /// Returns the protobuf layout of the type `id`, which must be from this set.
    pub fn wire_plan(&self, id: TypeId) -> &WirePlan {
        &self.plans[id.0 as usize]
    }

    /// Returns all types, ordered by ID.
    pub fn types(&self) -> &[StructType] {
        &self.types
    }
}

/// Returns, by type, whether the type has defaults or leads to a type that has defaults.
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
    /// Returns the struct type of the shape, or of its elements.
    pub fn target(&self) -> Option<TypeId> {
        match self {
            Self::Struct(id) => Some(*id),
            Self::List { items: inner, .. } | Self::Map { values: inner, .. } => inner.target(),
            Self::Scalar(_) | Self::Any => None,
        }
    }
}

impl StructType {
    /// Creates a struct with these fields, in any order. [`SchemaSet::new`] sorts and indexes them.
    pub fn new(name: String, fields: Vec<Field>, atomic: bool) -> Self {
        Self { name, fields, by_number: Vec::new(), atomic, index: FieldIndex::default() }
    }

    /// Returns the field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index.find(name, |at| self.fields[at].name == name).map(|at| &self.fields[at])
    }

    /// Returns the positions of the fields that have a static default or lead to one. `has_defaults` is indexed by
    /// type.
    fn defaulted(&self, has_defaults: &[bool]) -> Vec<u16> {
        let leads = |field: &Field| field.shape.target().is_some_and(|id| has_defaults[id.0 as usize]);
        let fields = (0..).zip(&self.fields);
        fields.filter(|(_, field)| field.default.is_some() || leads(field)).map(|(at, _)| at).collect()
    }

    /// Returns the field with this protobuf number, in the struct's own message (`via` 0) or in an inlined message.
    pub fn field_by_number(&self, via: u32, number: u32) -> Option<&Field> {
        let place = Wire { number, via, ..Wire::default() }.place();
        let at =
            self.by_number.binary_search_by_key(&place, |&at| self.fields[at as usize].wire.place()).ok()?;
        Some(&self.fields[self.by_number[at] as usize])
    }
}

impl Shape {
    /// Returns whether this is a list or map of lists or maps. Protobuf cannot express these directly and wraps the
    /// inner collections in separate messages.
    pub fn holds_collections(&self) -> bool {
        let (Self::List { items: inner, .. } | Self::Map { values: inner, .. }) = self else { return false };
        matches!(**inner, Self::List { .. } | Self::Map { .. })
    }
}

impl WirePlan {
    fn new(ty: &StructType) -> Self {
        let fields = ty.by_number.iter().map(|&at| &ty.fields[at as usize]);
        let always = (0u16..).zip(fields.clone()).filter(|(_, field)| field.always && field.wire.number != 0);
        Self {
            always: always.map(|(at, _)| at).collect(),
            places: fields.map(|field| field.wire.place()).collect(),
        }
    }
}

impl Wire {
    /// Returns the sort key of fields in the encoding: the path of field numbers from the struct's own message to the
    /// field, 16 bits per step, the first step highest. This places the fields of an inlined message together, at the
    /// position of the message's number.
    pub fn place(&self) -> u64 {
        let number = u64::from(self.number);
        match (u64::from(self.via >> 16), u64::from(self.via & 0xffff)) {
            (0, 0) => number << 48,
            (0, via) => via << 48 | number << 32,
            (outer, inner) => outer << 48 | inner << 32 | number << 16,
        }
    }
}
