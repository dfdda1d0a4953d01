//! Parses the sources of the crate `k8s-openapi`. They are generated with one file per type, so matching lines is
//! enough.

use std::path::Path;
use std::{fs, io};

use super::model::{Field, Shape, Type, Types};

/// The facts from `k8s-openapi`.
#[derive(Default)]
pub(crate) struct OpenApi {
    /// The struct types.
    pub(crate) types: Types,
    /// The kinds, and whether each has a list kind.
    pub(crate) kinds: Vec<(String, bool)>,
}

impl OpenApi {
    /// Parses all files below `folder` (`src/v1_36`).
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        found.walk(folder)?;
        found.kinds.sort();
        Ok(found)
    }

    fn walk(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.walk(&path)?;
            } else {
                self.file(&fs::read_to_string(&path)?);
            }
        }
        Ok(())
    }

    fn file(&mut self, text: &str) {
        let Some(name) = text.strip_prefix("// Generated from definition io.k8s.") else { return };
        let name = name.lines().next().unwrap_or_default().to_owned();
        let fields = fields(text);
        let is_kind = text.contains("\nimpl crate::Resource for ");
        if is_kind {
            self.kinds.push((name.clone(), text.contains("\nimpl crate::ListableResource for ")));
        }
        self.types.insert(name, Type { atomic: false, fields });
    }
}

fn fields(text: &str) -> std::collections::BTreeMap<String, Field> {
    let body =
        text.split_once("\npub struct ").and_then(|(_, rest)| rest.split_once("\n}")).map_or("", |(b, _)| b);
    let required = required(text);
    let declared: Vec<(&str, &str)> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.strip_suffix(',')?.split_once(": "))
        .map(|(name, ty)| (name.trim_start_matches("r#").trim_matches('_'), ty))
        .collect();
    keys(text)
        .filter_map(|(json, key)| {
            let mut field = Field::default();
            match declared.iter().find(|(name, _)| *name == key) {
                Some((name, ty)) => {
                    field.always = !ty.starts_with("Option<");
                    field.shape = shape(ty)?;
                    merge(text, name, &mut field);
                }
                // For these fields, the crate has constants instead of struct fields.
                None if json == "apiVersion" || json == "kind" => field.shape = Shape::Word("string"),
                None => return None,
            }
            field.required = required.contains(&json);
            Some((json.to_owned(), field))
        })
        .collect()
}

/// Returns pairs of JSON name and Rust field name: `"nodePort" => Field::Key_node_port,`.
fn keys(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (json, key) = line.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
        Some((json, key.trim_end_matches(',').trim_matches('_')))
    })
}

/// Returns the top-level list of required fields. Nested lists have a larger indentation.
fn required(text: &str) -> Vec<&str> {
    let Some((_, rest)) = text.split_once("\n            \"required\": [\n") else { return Vec::new() };
    rest.lines()
        .map(str::trim)
        .take_while(|line| *line != "],")
        .map(|line| line.trim_matches(['"', ',']))
        .collect()
}

/// Reads the merge strategy of a field. Its keys are the keys of strategic merge patch, so markers of `k8s-pb` take
/// precedence.
fn merge(text: &str, name: &str, field: &mut Field) {
    for (word, on) in [("list::set", &mut field.set), ("map::atomic", &mut field.atomic)] {
        *on |= text.contains(&format!("crate::merge_strategies::{word}(&mut self.{name},"));
    }
    let opening = format!("crate::merge_strategies::list::map(\n            &mut self.{name},");
    let Some((_, rest)) = text.split_once(&opening) else { return };
    let keys = rest.split_once("&[").and_then(|(_, rest)| rest.split_once("],")).map_or("", |(keys, _)| keys);
    field.keys =
        keys.split(", ").filter_map(|part| part.rsplit_once("rhs.")).map(|(_, key)| camel(key)).collect();
}

/// Converts `container_port` to its JSON name. The overlay corrects exceptions.
pub(crate) fn camel(snake: &str) -> String {
    let mut out = String::new();
    for (at, part) in snake.trim_matches('_').split('_').enumerate() {
        let mut chars = part.chars();
        match chars.next() {
            Some(first) if at > 0 => out.extend(first.to_uppercase()),
            Some(first) => out.push(first),
            None => {}
        }
        out.push_str(chars.as_str());
    }
    out
}

fn shape(ty: &str) -> Option<Shape> {
    let inside = |opening: &str| ty.strip_prefix(opening).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("Option<").or_else(|| inside("std::boxed::Box<")) {
        return shape(inner);
    }
    if let Some(inner) = inside("std::vec::Vec<") {
        return Some(Shape::List(Box::new(shape(inner)?)));
    }
    if let Some(inner) = inside("std::collections::BTreeMap<std::string::String, ") {
        return Some(Shape::Map(Box::new(shape(inner)?)));
    }
    Some(match ty {
        "std::string::String" => Shape::Word("string"),
        "bool" => Shape::Word("bool"),
        "i32" => Shape::Word("int32"),
        "i64" => Shape::Word("int64"),
        "f64" => Shape::Word("double"),
        "crate::ByteString" => Shape::Word("bytes"),
        _ => named(&ty.strip_prefix("crate::")?.replace("::", ".").replace('_', "-")),
    })
}

/// Returns the shape of a definition name.
pub(crate) fn named(name: &str) -> Shape {
    let special = SPECIAL.iter().find(|(special, _)| *special == name);
    special.map_or_else(|| Shape::Struct(name.to_owned()), |(_, word)| Shape::Word(word))
}

/// Definitions that are not JSON structs.
const SPECIAL: [(&str, &str); 11] = [
    ("apimachinery.pkg.apis.meta.v1.Time", "Time"),
    ("apimachinery.pkg.apis.meta.v1.MicroTime", "MicroTime"),
    ("apimachinery.pkg.apis.meta.v1.Duration", "Duration"),
    ("apimachinery.pkg.api.resource.Quantity", "Quantity"),
    ("apimachinery.pkg.util.intstr.IntOrString", "IntOrString"),
    ("apimachinery.pkg.runtime.RawExtension", "any"),
    ("apimachinery.pkg.apis.meta.v1.FieldsV1", "FieldsV1"),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "any"),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "SchemaOrArray"),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "SchemaOrBool"),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "SchemaOrStrings"),
];
