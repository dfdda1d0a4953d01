//! The types of a document: the structure comes from the schema set, the descriptions from [`Documentation`].

use std::collections::{BTreeMap, HashMap};

use nave_machinery::{GroupVersionKind, Map, Value};
use nave_resources::optional::is_enabled_by_default;
use nave_schema::{Field, ListTopology, PatchStrategy, Scalar, SchemaSet, Shape, StructType};
use serde_json::json;

use super::custom::CustomTypes;
use super::documentation::Documentation;

/// The package of types that all groups use.
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// The OpenAPI version of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

/// The groups, versions and kinds of each top-level type.
pub(super) type Kinds = HashMap<String, Vec<GroupVersionKind>>;

/// Collects types and all types that they refer to.
pub(super) struct Definitions<'a> {
    dialect: Dialect,
    schemas: &'a SchemaSet,
    documentation: &'a Documentation,
    kinds: &'a Kinds,
    custom: CustomTypes<'a>,
    facts: HashMap<&'static str, Vec<Fact>>,
    found: BTreeMap<String, Value>,
    pending: Vec<String>,
}

impl<'a> Definitions<'a> {
    /// Creates an empty collection.
    pub(super) fn new(
        dialect: Dialect,
        schemas: &'a SchemaSet,
        documentation: &'a Documentation,
        kinds: &'a Kinds,
    ) -> Self {
        Self {
            dialect,
            schemas,
            documentation,
            kinds,
            custom: CustomTypes::new(),
            facts: facts(),
            found: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    /// Returns the collection with the types of custom resources.
    pub(super) fn with_custom(self, custom: CustomTypes<'a>) -> Self {
        Self { custom, ..self }
    }

    /// Returns the OpenAPI version.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns the documentation of built-in types.
    pub(super) fn documentation(&self) -> &'a Documentation {
        self.documentation
    }

    /// Returns a reference to a type, and adds the type to the document.
    pub(super) fn reference(&mut self, type_name: &str) -> Value {
        if !self.found.contains_key(type_name) {
            self.found.insert(type_name.to_owned(), Value::Null);
            self.pending.push(type_name.to_owned());
        }
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{type_name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{type_name}")}),
        }
    }

    /// Returns all collected types, by name.
    pub(super) fn finish(mut self) -> Map {
        while let Some(type_name) = self.pending.pop() {
            let definition = self.definition(&type_name);
            self.found.insert(type_name, definition);
        }
        self.found.into_iter().collect()
    }

    fn definition(&mut self, type_name: &str) -> Value {
        let schemas = self.schemas;
        // A built-in type takes precedence over a custom one of the same name.
        if let Some(custom) =
            self.custom.get(type_name).copied().filter(|_| schemas.find(type_name).is_none())
        {
            let mut definition = custom.definition(self);
            if let Some(kinds) = self.kinds.get(type_name) {
                definition.insert("x-kubernetes-group-version-kind".to_owned(), json!(kinds));
            }
            return Value::Object(definition);
        }
        let mut definition = match schemas.find(type_name) {
            Some(id) => self.structure(schemas.get(id)),
            None => self.leaf(type_name),
        };
        self.add_facts(type_name, &mut definition);
        list_enum_values(&mut definition);
        match (self.documentation.of_type(type_name), type_name.rsplit('.').next()) {
            ("", Some(name)) if self.kinds.contains_key(type_name) => {
                describe(&mut definition, &of_list(name).unwrap_or_default());
            }
            (documentation, _) => describe(&mut definition, documentation),
        }
        if let Some(kinds) = self.kinds.get(type_name) {
            definition.insert("x-kubernetes-group-version-kind".to_owned(), json!(kinds));
        }
        Value::Object(definition)
    }

    fn structure(&mut self, ty: &StructType) -> Map {
        let mut definition = object(json!({"type": "object"}));
        let required: Vec<&str> =
            ty.fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        if !required.is_empty() {
            definition.insert("required".to_owned(), json!(required));
        }
        let properties: Map =
            ty.fields.iter().map(|field| (field.name.clone(), self.property(ty, field))).collect();
        if !properties.is_empty() {
            definition.insert("properties".to_owned(), Value::Object(properties));
        }
        if ty.atomic {
            definition.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        definition
    }

    /// Returns the schema of a type that is not a struct. OpenAPI 3 describes some of these types more precisely.
    fn leaf(&self, type_name: &str) -> Map {
        let exact = self.dialect == Dialect::V3;
        object(match type_name {
            QUANTITY if exact => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            QUANTITY => json!({"type": "string"}),
            INT_OR_STRING if exact => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            INT_OR_STRING => json!({"type": "string", "format": "int-or-string"}),
            name if name.ends_with(".Time") || name.ends_with(".MicroTime") => {
                json!({"type": "string", "format": "date-time"})
            }
            RAW_EXTENSION => json!({"type": "object"}),
            name if name.starts_with(META) => json!({"type": "object"}),
            _ => json!({}),
        })
    }

    fn add_facts(&self, type_name: &str, definition: &mut Map) {
        let Some(name) = type_name.strip_prefix("io.k8s.") else { return };
        let own = self.facts.get(name).into_iter().flatten();
        // The types of a version before the stable one have the stable types' facts too.
        let stable = stable_type(name).and_then(|name| self.facts.get(&*name));
        for fact in stable.into_iter().flatten().chain(own) {
            if fact.keyword == "default" && self.dialect == Dialect::V2 {
                continue;
            }
            let schema =
                fact.path.iter().try_fold(&mut *definition, |at, step| at.get_mut(*step)?.as_object_mut());
            let Some(schema) = schema else { continue };
            if fact.value.is_null() {
                schema.remove(fact.keyword);
            } else {
                schema.insert(fact.keyword.to_owned(), fact.value.clone());
            }
        }
    }

    fn property(&mut self, ty: &StructType, field: &Field) -> Value {
        let documentation = self.documentation;
        let behind = documentation.type_behind(&ty.name, &field.name);
        let mut schema = self.shape(&field.shape, behind);
        if self.dialect == Dialect::V3 {
            // A reference must not have siblings.
            if schema.contains_key("$ref") {
                schema = object(json!({"allOf": [schema]}));
            }
            if let Some(default) = default_of(field) {
                schema.insert("default".to_owned(), default);
            }
        }
        describe(&mut schema, documentation.of_field(&ty.name, &field.name));
        if !field.enumeration.is_empty() {
            schema.insert("enum".to_owned(), json!(field.enumeration));
        }
        add_topology(&mut schema, field);
        add_patch_strategy(&mut schema, &field.patch);
        Value::Object(schema)
    }

    fn shape(&mut self, shape: &Shape, behind: Option<&str>) -> Map {
        object(match shape {
            Shape::Scalar(scalar) => return self.scalar(*scalar),
            Shape::Struct(id) => {
                let schemas = self.schemas;
                self.reference(&schemas.get(*id).name)
            }
            Shape::List { items, .. } => json!({"type": "array", "items": self.shape(items, behind)}),
            Shape::Map { values, .. } => {
                json!({"type": "object", "additionalProperties": self.shape(values, behind)})
            }
            Shape::Any => self.reference(behind.unwrap_or(RAW_EXTENSION)),
        })
    }

    fn scalar(&mut self, scalar: Scalar) -> Map {
        object(match scalar {
            Scalar::String | Scalar::Duration => json!({"type": "string"}),
            Scalar::Bool => json!({"type": "boolean"}),
            Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
            Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
            Scalar::Double => json!({"type": "number", "format": "double"}),
            Scalar::Bytes => json!({"type": "string", "format": "byte"}),
            Scalar::Time => self.reference(&format!("{META}Time")),
            Scalar::MicroTime => self.reference(&format!("{META}MicroTime")),
            Scalar::Quantity => self.reference(QUANTITY),
            Scalar::IntOrString => self.reference(INT_OR_STRING),
        })
    }
}

/// Returns the name of a type in the stable version of its group; `None` if the type's version is stable.
fn stable_type(name: &str) -> Option<String> {
    let (package, kind) = name.rsplit_once('.')?;
    let (group, version) = package.rsplit_once('.')?;
    (!is_enabled_by_default(version)).then(|| format!("{group}.v1.{kind}"))
}

/// A keyword of a type's definition.
struct Fact {
    /// The path of the keyword in the definition.
    path: Vec<&'static str>,
    keyword: &'static str,
    value: Value,
}

/// Parses `facts.txt`, by type.
fn facts() -> HashMap<&'static str, Vec<Fact>> {
    let mut facts: HashMap<&'static str, Vec<Fact>> = HashMap::new();
    for line in include_str!("facts.txt").lines().filter(|line| !line.starts_with('#')) {
        // A test rejects invalid lines.
        if let Some((type_name, fact)) = fact(line) {
            facts.entry(type_name).or_default().push(fact);
        }
    }
    facts
}

fn fact(line: &'static str) -> Option<(&'static str, Fact)> {
    let mut words = line.splitn(4, ' ');
    let (type_name, place, keyword) = (words.next()?, words.next()?, words.next()?);
    let value = serde_json::from_str(words.next()?).ok()?;
    let path =
        if place == "-" { Vec::new() } else { ["properties"].into_iter().chain(place.split('/')).collect() };
    Some((type_name, Fact { path, keyword, value }))
}

/// Returns the default of a field: the declared one, or the zero value that Go's types always encode.
fn default_of(field: &Field) -> Option<Value> {
    if let Some(default) = &field.default {
        return Some(default.0.clone());
    }
    let zero = match &field.shape {
        Shape::Struct(_) => json!({}),
        Shape::Scalar(Scalar::String) => json!(""),
        Shape::Scalar(Scalar::Bool) => json!(false),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => json!(0),
        _ => return None,
    };
    (field.always && !field.pointer).then_some(zero)
}

fn add_topology(schema: &mut Map, field: &Field) {
    let mut say = |extension: &str, value: Value| schema.insert(format!("x-kubernetes-{extension}"), value);
    match &field.shape {
        Shape::List { topology: ListTopology::Set, .. } => {
            say("list-type", json!("set"));
        }
        Shape::List { topology: ListTopology::Map(keys), .. } => {
            say("list-map-keys", json!(keys));
            say("list-type", json!("map"));
        }
        Shape::List { .. } if field.declared_atomic => {
            say("list-type", json!("atomic"));
        }
        Shape::Map { atomic: true, .. } => {
            say("map-type", json!("atomic"));
        }
        _ => {}
    }
}

fn add_patch_strategy(schema: &mut Map, patch: &PatchStrategy) {
    let strategies: Vec<&str> = [(patch.merge, "merge"), (patch.retain_keys, "retainKeys")]
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| *name)
        .collect();
    if !strategies.is_empty() {
        schema.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategies.join(",")));
    }
    if let Some(key) = &patch.merge_key {
        schema.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
    }
}

pub(super) fn describe(schema: &mut Map, text: &str) {
    if !text.is_empty() {
        schema.insert("description".to_owned(), json!(text));
    }
}

/// Returns the description of a list type, which the sources lack.
fn of_list(kind: &str) -> Option<String> {
    let item = kind.strip_suffix("List").filter(|item| !item.is_empty())?;
    Some(format!("{kind} is a list of {item} objects."))
}

/// Appends the allowed values to the description of each enumeration, for `kubectl explain`.
fn list_enum_values(definition: &mut Map) {
    let properties = definition.get_mut("properties").and_then(Value::as_object_mut);
    for schema in properties.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        let Some(values) = schema.get("enum").and_then(Value::as_array) else { continue };
        let mut lines: Vec<String> = values.iter().map(|value| format!(" - `{value}`")).collect();
        lines.sort_unstable();
        let list = format!("Possible enum values:\n{}", lines.join("\n"));
        let text = match schema.get("description").and_then(Value::as_str) {
            Some(text) => format!("{text}\n\n{list}"),
            None => list,
        };
        describe(schema, &text);
    }
}

/// Returns the fields of an object literal.
pub(super) fn object(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_valid_and_has_its_field() {
        let schemas = nave_schema::builtin();
        for line in include_str!("facts.txt").lines().filter(|line| !line.starts_with('#')) {
            let (type_name, fact) = fact(line).unwrap_or_else(|| panic!("{line}"));
            let id = schemas.find(&format!("io.k8s.{type_name}")).unwrap_or_else(|| panic!("{line}"));
            let field = fact.path.get(1);
            assert!(field.is_none_or(|field| schemas.get(id).field(field).is_some()), "{line}");
        }
    }

    #[test]
    fn references_in_version_3_have_no_siblings() {
        let documentation = Documentation::new();
        let kinds = Kinds::new();
        let schemas = nave_schema::builtin();
        let of = |dialect| {
            let mut definitions = Definitions::new(dialect, schemas, &documentation, &kinds);
            definitions.reference("io.k8s.api.core.v1.Pod");
            let found = definitions.finish();
            let mut property = found["io.k8s.api.core.v1.Pod"]["properties"]["spec"].clone();
            property.as_object_mut().unwrap().remove("description");
            property
        };
        assert_eq!(of(Dialect::V2), json!({"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"}));
        let reference = json!({"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"});
        assert_eq!(of(Dialect::V3), json!({"allOf": [reference], "default": {}}));
    }
}
