//! Reads single values of a message, for selectors, without decoding the rest.
//!
//! Skips other fields by their length, so the cost depends on the messages along the path, not on the size of the
//! object.

use std::borrow::Cow;

use nave_schema::{Field, Scalar, SchemaSet, Shape, TypeId};

use super::ProtobufError;
use super::wire::{Raw, Reader};

type Result<T> = std::result::Result<T, ProtobufError>;

/// Returns the scalar at a path of JSON field names, as text. Returns `None` if the scalar is absent, or if the path
/// contains a list or a map.
pub fn text_at<'a>(
    set: &SchemaSet,
    id: TypeId,
    message: &'a [u8],
    path: &[String],
) -> Result<Option<Cow<'a, str>>> {
    let Some((name, rest)) = path.split_first() else { return Ok(None) };
    let Some(field) = set.get(id).field(name) else { return Ok(None) };
    let Some(raw) = content(message, field)? else { return Ok(None) };
    match (&field.shape, raw) {
        (Shape::Struct(id), Raw::Bytes(message)) => text_at(set, *id, message, rest),
        (Shape::Scalar(scalar), raw) if rest.is_empty() => Ok(text(*scalar, raw, &field.name)?),
        _ => Ok(None),
    }
}

/// Several paths of a type, read in one pass over the messages along them.
#[derive(Default)]
pub struct Projection {
    root: Level,
    paths: usize,
}

/// The fields of a message that are on a path, by number.
#[derive(Default)]
struct Level(Vec<(u32, Step)>);

#[derive(Default)]
struct Step {
    /// The scalar at the end of paths: its type, its name and the indexes of the paths.
    scalar: Option<(Scalar, String, Vec<usize>)>,
    below: Level,
}

impl Projection {
    /// Prepares paths of JSON field names.
    pub fn new<'p>(set: &SchemaSet, id: TypeId, paths: impl IntoIterator<Item = &'p [String]>) -> Self {
        let mut projection = Self { root: Level::default(), paths: 0 };
        for path in paths {
            projection.root.add(set, id, path, projection.paths);
            projection.paths += 1;
        }
        projection
    }

    /// Returns the scalar at each path as text, as [`text_at`] does.
    ///
    /// # Errors
    /// The message is malformed.
    pub fn texts<'a>(&self, message: &'a [u8]) -> Result<Vec<Option<Cow<'a, str>>>> {
        let mut texts = vec![None; self.paths];
        self.root.read(message, &mut texts)?;
        Ok(texts)
    }
}

impl Level {
    fn add(&mut self, set: &SchemaSet, id: TypeId, path: &[String], index: usize) {
        let Some((name, rest)) = path.split_first() else { return };
        let Some(field) = set.get(id).field(name).filter(|field| field.wire.number != 0) else { return };
        let vias = [field.wire.via >> 16, field.wire.via & 0xffff].into_iter().filter(|via| *via != 0);
        let level = vias.fold(self, |level, via| &mut level.step(via).below);
        match &field.shape {
            Shape::Struct(id) => level.step(field.wire.number).below.add(set, *id, rest, index),
            Shape::Scalar(scalar) if rest.is_empty() => {
                let step = level.step(field.wire.number);
                let (_, _, indexes) =
                    step.scalar.get_or_insert_with(|| (*scalar, field.name.clone(), Vec::new()));
                indexes.push(index);
            }
            _ => {}
        }
    }

    fn step(&mut self, number: u32) -> &mut Step {
        let at = self.0.iter().position(|(other, _)| *other == number).unwrap_or_else(|| {
            self.0.push((number, Step::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn read<'a>(&self, message: &'a [u8], texts: &mut [Option<Cow<'a, str>>]) -> Result<()> {
        let mut found: Vec<Option<Raw<'a>>> = vec![None; self.0.len()];
        let mut reader = Reader::new(message);
        while let Some((number, raw)) = reader.next()? {
            if let Some(at) = self.0.iter().position(|(wanted, _)| *wanted == number) {
                found[at] = Some(raw);
            }
        }
        for ((_, step), raw) in self.0.iter().zip(found) {
            match (raw, &step.scalar) {
                (Some(raw), Some((scalar, name, indexes))) => {
                    let found = text(*scalar, raw, name)?;
                    for index in indexes {
                        texts[*index].clone_from(&found);
                    }
                }
                (Some(Raw::Bytes(message)), None) => step.below.read(message, texts)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Calls `entry` with each entry of the map of strings at `path`.
pub fn strings_at<'a>(
    set: &SchemaSet,
    id: TypeId,
    message: &'a [u8],
    path: &[&str],
    entry: &mut dyn FnMut(&'a str, &'a str),
) -> Result<()> {
    let Some((name, rest)) = path.split_first() else { return Ok(()) };
    let Some(field) = set.get(id).field(name) else { return Ok(()) };
    match &field.shape {
        Shape::Struct(id) => match content(message, field)? {
            Some(Raw::Bytes(message)) => strings_at(set, *id, message, rest, entry),
            _ => Ok(()),
        },
        Shape::Map { .. } if rest.is_empty() => {
            let mut reader = Reader::new(message);
            while let Some((number, raw)) = reader.next()? {
                if let (true, Raw::Bytes(pair)) = (number == field.wire.number, raw) {
                    let (mut key, mut value) = ("", "");
                    let mut reader = Reader::new(pair);
                    while let Some((number, raw)) = reader.next()? {
                        match (number, raw) {
                            (1, Raw::Bytes(bytes)) => key = utf8(bytes, &field.name)?,
                            (2, Raw::Bytes(bytes)) => value = utf8(bytes, &field.name)?,
                            _ => {}
                        }
                    }
                    entry(key, value);
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Returns the content of a field of a message; of a repeated field, the last.
fn content<'a>(message: &'a [u8], field: &Field) -> Result<Option<Raw<'a>>> {
    let mut message = message;
    for via in [field.wire.via >> 16, field.wire.via & 0xffff].into_iter().filter(|via| *via != 0) {
        match last(message, via)? {
            Some(Raw::Bytes(inner)) => message = inner,
            _ => return Ok(None),
        }
    }
    if field.wire.number == 0 { Ok(None) } else { last(message, field.wire.number) }
}

fn last(message: &[u8], wanted: u32) -> Result<Option<Raw<'_>>> {
    let mut found = None;
    let mut reader = Reader::new(message);
    while let Some((number, raw)) = reader.next()? {
        if number == wanted {
            found = Some(raw);
        }
    }
    Ok(found)
}

fn text<'a>(scalar: Scalar, raw: Raw<'a>, field: &str) -> Result<Option<Cow<'a, str>>> {
    Ok(match (scalar, raw) {
        (Scalar::String, Raw::Bytes(bytes)) => Some(Cow::Borrowed(utf8(bytes, field)?)),
        (Scalar::Bool, Raw::Varint(value)) => Some(Cow::Borrowed(if value == 0 { "false" } else { "true" })),
        (Scalar::Int32 | Scalar::Int64, Raw::Varint(value)) => Some(Cow::Owned((value as i64).to_string())),
        _ => None,
    })
}

fn utf8<'a>(bytes: &'a [u8], field: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::NotUtf8(field.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protobuf::encode;

    #[test]
    fn reads_the_value_at_a_path() {
        let set = nave_schema::builtin();
        let id = set.find("io.k8s.api.core.v1.Pod").unwrap();
        let pod = json!({
            "metadata": {"name": "p", "labels": {"a": "1", "b": ""}},
            "spec": {"nodeName": "n", "hostNetwork": true, "terminationGracePeriodSeconds": 30, "containers": [{"name": "c"}]},
            "status": {"phase": "Running"},
        });
        let mut message = Vec::new();
        encode(set, id, &pod, &mut message).unwrap();
        let at = |path: &str| {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            let found = text_at(set, id, &message, &path).unwrap();
            let projection = Projection::new(set, id, [&path[..], &path[..1], &path[..]]);
            let texts = projection.texts(&message).unwrap();
            assert_eq!(texts, [found.clone(), None, found.clone()], "{path:?}");
            found.map(Cow::into_owned)
        };
        assert_eq!(at("spec.nodeName").as_deref(), Some("n"));
        assert_eq!(at("spec.hostNetwork").as_deref(), Some("true"));
        assert_eq!(at("spec.terminationGracePeriodSeconds").as_deref(), Some("30"));
        assert_eq!(at("status.phase").as_deref(), Some("Running"));
        for nothing in [
            "spec.schedulerName",
            "spec.containers",
            "spec.containers.name",
            "spec",
            "nope.nope",
            "status.phase.x",
        ] {
            assert_eq!(at(nothing), None, "{nothing}");
        }
        let mut labels = Vec::new();
        strings_at(set, id, &message, &["metadata", "labels"], &mut |key, value| labels.push((key, value)))
            .unwrap();
        assert_eq!(labels, [("a", "1"), ("b", "")]);
    }

    #[test]
    fn reads_values_of_inlined_messages() {
        let set = nave_schema::builtin();
        let id = set.find("io.k8s.api.core.v1.PersistentVolumeSpec").unwrap();
        let mut message = Vec::new();
        encode(set, id, &json!({"hostPath": {"path": "/x"}}), &mut message).unwrap();
        let path = ["hostPath".to_owned(), "path".to_owned()];
        let found = text_at(set, id, &message, &path).unwrap();
        assert_eq!(found.as_deref(), Some("/x"));
        assert_eq!(Projection::new(set, id, [&path[..]]).texts(&message).unwrap(), [found]);
    }
}
