//! The built-in API types, from the committed table `facts/builtin.txt` (its header documents the format).

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::types::{
    AnyForm, Default, Field, ListTopology, PatchStrategy, Scalar, SchemaSet, Shape, StructType, TypeId,
    TypeMeta, Wire,
};

/// Returns the types of every built-in kind, of their lists, and of requests and responses (`Status`, `DeleteOptions`,
/// `WatchEvent`, …). Parsed on first use.
///
/// ```
/// let set = nave_schema::builtin();
/// let pod = set.get(set.find("io.k8s.api.core.v1.Pod").unwrap());
/// assert_eq!(pod.field("spec").unwrap().wire.number, 2);
/// ```
pub fn builtin() -> &'static SchemaSet {
    static SET: LazyLock<SchemaSet> = LazyLock::new(|| {
        // The table is compiled in, and a test parses the whole table, so it is valid.
        parse(include_str!("../facts/builtin.txt")).unwrap_or_default()
    });
    &SET
}

/// Error of parsing a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {reason}")]
pub struct TableError {
    /// Line number, starting at 1.
    pub line: usize,
    /// The problem.
    pub reason: String,
}

/// Parses a table of types.
pub fn parse(text: &str) -> Result<SchemaSet, TableError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let names = lines.clone().filter_map(|(_, line)| line.strip_prefix("type ")?.split(' ').next());
    let ids: HashMap<&str, TypeId> = (0..).map(TypeId).zip(names).map(|(id, name)| (name, id)).collect();
    let mut types: Vec<StructType> = Vec::with_capacity(ids.len());
    for (at, line) in lines {
        let failed = |reason: &str| TableError { line: at + 1, reason: format!("{reason}: {line}") };
        if let Some(heading) = line.strip_prefix("type ") {
            let (name, atomic) =
                heading.strip_suffix(" atomic").map_or((heading, false), |name| (name, true));
            let name = format!("{PREFIX}{name}");
            types.push(StructType::new(name, Vec::new(), atomic));
        } else {
            let ty = types.last_mut().ok_or_else(|| failed("a field without a type"))?;
            ty.fields.push(field(line.trim_start(), &ids).ok_or_else(|| failed("a bad field"))?);
        }
    }
    Ok(SchemaSet::new(types))
}

/// Parses `NAME SHAPE WORD…`.
fn field(line: &str, ids: &HashMap<&str, TypeId>) -> Option<Field> {
    let (line, default) =
        line.split_once(" default=").map_or((line, None), |(line, json)| (line, Some(json)));
    let default = match default {
        Some(json) => Some(Default(serde_json::from_str(json).ok()?)),
        None => None,
    };
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let mut wire = Wire::default();
    let shape = shape(words.next()?, ids, &mut wire.any)?;
    let (patch, enumeration) = (PatchStrategy::default(), Vec::new());
    let mut field = Field {
        name,
        shape,
        always: false,
        required: false,
        pointer: false,
        declared_atomic: false,
        granular: false,
        default,
        patch,
        type_meta: None,
        enumeration,
        wire,
    };
    for word in words {
        apply(&mut field, word)?;
    }
    let by_value = matches!(
        field.shape,
        Shape::Scalar(Scalar::String | Scalar::Bool | Scalar::Int32 | Scalar::Int64 | Scalar::Double)
    );
    field.wire.omit_zero = by_value && !field.always && !field.pointer;
    Some(field)
}

fn apply(field: &mut Field, word: &str) -> Option<()> {
    match word.split_once('=').unwrap_or((word, "")) {
        ("required", _) => field.required = true,
        ("always", _) => field.always = true,
        ("ptr", _) => field.pointer = true,
        ("atomic", _) => {
            field.declared_atomic = true;
            if let Shape::Map { atomic, .. } = &mut field.shape {
                *atomic = true;
            }
        }
        ("granular", _) => field.granular = true,
        ("set", _) => field.set_topology(ListTopology::Set)?,
        ("map", keys) => {
            field.set_topology(ListTopology::Map(keys.split(',').map(str::to_owned).collect()))?;
        }
        ("patch", strategies) => {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => field.patch.merge = true,
                    "retainKeys" => field.patch.retain_keys = true,
                    "replace" => {}
                    _ => return None,
                }
            }
        }
        ("key", key) => field.patch.merge_key = Some(key.to_owned()),
        ("typed", type_meta) => {
            let (api_version, kind) = type_meta.rsplit_once('/')?;
            field.type_meta = Some(TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() });
        }
        _ => place(&mut field.wire, word.strip_prefix('@')?)?,
    }
    Some(())
}

/// Parses `7`, `2/7` or `1/1/7`, followed by `*` if the list is wrapped.
fn place(wire: &mut Wire, word: &str) -> Option<()> {
    let path = word.strip_suffix('*').unwrap_or(word);
    wire.wrapped = path.len() < word.len();
    let (via, number) = path.rsplit_once('/').unwrap_or(("", path));
    wire.number = number.parse().ok()?;
    for step in via.split('/').filter(|step| !step.is_empty()) {
        wire.via = wire.via << 16 | u32::from(step.parse::<u16>().ok()?);
    }
    Some(())
}

fn shape(word: &str, ids: &HashMap<&str, TypeId>, any: &mut AnyForm) -> Option<Shape> {
    let inside = |open: char, close: char| word.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(inner) = inside('[', ']') {
        let items = Box::new(shape(inner, ids, any)?);
        return Some(Shape::List { items, topology: ListTopology::Atomic });
    }
    if let Some(inner) = inside('{', '}') {
        return Some(Shape::Map { values: Box::new(shape(inner, ids, any)?), atomic: false });
    }
    if let Some(&id) = ids.get(word) {
        return Some(Shape::Struct(id));
    }
    let form = match word {
        "any" => Some(AnyForm::Raw),
        "FieldsV1" => Some(AnyForm::FieldsV1),
        "SchemaOrBool" => Some(AnyForm::SchemaOrBool),
        "SchemaOrArray" => Some(AnyForm::SchemaOrArray),
        "SchemaOrStrings" => Some(AnyForm::SchemaOrStrings),
        _ => None,
    };
    if let Some(form) = form {
        *any = form;
        return Some(Shape::Any);
    }
    Some(Shape::Scalar(match word {
        "string" => Scalar::String,
        "bool" => Scalar::Bool,
        "int32" => Scalar::Int32,
        "int64" => Scalar::Int64,
        "double" => Scalar::Double,
        "bytes" => Scalar::Bytes,
        "Time" => Scalar::Time,
        "MicroTime" => Scalar::MicroTime,
        "Duration" => Scalar::Duration,
        "Quantity" => Scalar::Quantity,
        "IntOrString" => Scalar::IntOrString,
        _ => return None,
    }))
}

impl Field {
    fn set_topology(&mut self, wanted: ListTopology) -> Option<()> {
        let Shape::List { topology, .. } = &mut self.shape else { return None };
        *topology = wanted;
        Some(())
    }
}

/// Common prefix of all definition names. The table omits it.
const PREFIX: &str = "io.k8s.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_whole_table() {
        let set = parse(include_str!("../facts/builtin.txt")).unwrap();
        assert!(set.types().len() > 500);
        assert!(set.types().windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn parses_field_attributes() {
        let text = "type a.A atomic\n  f {[int32]} required always ptr @2/7* default={\"x\": [1]}\n  l [a.A] map=x,y patch=merge,retainKeys key=x @1";
        let set = parse(text).unwrap();
        let ty = set.get(set.find("io.k8s.a.A").unwrap());
        let f = ty.field("f").unwrap();
        assert!(ty.atomic && f.required && f.always && f.pointer && f.wire.wrapped);
        assert_eq!((f.wire.via, f.wire.number), (2, 7));
        assert_eq!(f.default, Some(Default(serde_json::json!({"x": [1]}))));
        let l = ty.field_by_number(0, 1).unwrap();
        assert_eq!(
            (l.patch.merge, l.patch.retain_keys, l.patch.merge_key.as_deref()),
            (true, true, Some("x"))
        );
        let topology = ListTopology::Map(vec!["x".into(), "y".into()]);
        assert_eq!(l.shape, Shape::List { items: Box::new(Shape::Struct(TypeId(0))), topology });
    }

    #[test]
    fn errors_have_line_numbers() {
        assert_eq!(parse("type a.A\n\n  f nothing").err().unwrap().line, 3);
        assert_eq!(parse("  f string").err().unwrap().line, 1);
        assert_eq!(parse("type a.A\n  f string map=x").err().unwrap().line, 2);
    }
}
