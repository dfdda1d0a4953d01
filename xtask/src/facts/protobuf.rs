//! Reads the sources of the crate `k8s-pb`: a file a package, written by prost with the comments of the `.proto`
//! files, which carry the markers that the API's authors wrote (`+default=`, `+listType=`, …).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::model::{Field, Shape, Types};
use super::openapi::{camel, named};

/// The messages by definition name (without `io.k8s.`), in lower case: prost changes the case of names.
pub(crate) struct Messages(BTreeMap<String, Message>);

/// A message.
#[derive(Clone, Debug, Default)]
struct Message {
    /// Its comment has `+structType=atomic`.
    atomic: bool,
    members: Vec<Member>,
}

/// A message's field.
#[derive(Clone, Debug)]
struct Member {
    /// The Rust name.
    name: String,
    number: u32,
    shape: Shape,
    markers: Vec<String>,
}

impl Messages {
    /// Reads all files below `folder` (`src`).
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let mut found = Self(BTreeMap::new());
        let mut open: Vec<PathBuf> = vec![folder.to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                for entry in fs::read_dir(&path)? {
                    open.push(entry?.path());
                }
            } else if let Ok(package) = path.with_file_name("").strip_prefix(folder) {
                let package = package.to_string_lossy().trim_matches('/').replace('/', ".");
                found.file(&package, &fs::read_to_string(&path)?);
            }
        }
        Ok(found)
    }

    /// Adds numbers and markers to the fields of `types`.
    pub(crate) fn complete(&self, types: &mut Types) {
        for (name, ty) in types {
            ty.atomic = self.get(name).is_some_and(|message| message.atomic);
            self.fill(name, &mut Vec::new(), &mut ty.fields);
        }
    }

    /// The fields of a message that is known from here alone, with JSON names made from the Rust names.
    pub(crate) fn fields(&self, name: &str) -> Option<BTreeMap<String, Field>> {
        let message = self.get(name)?;
        Some(message.members.iter().map(|member| (camel(&member.name), member.field())).collect())
    }

    /// A version newer than the crate has the layout of the beta version it was promoted from.
    fn get(&self, name: &str) -> Option<&Message> {
        let beta = || self.0.get(&key(&name.replace(".v1.", ".v1beta1.")));
        self.0.get(&key(name)).or_else(beta)
    }

    /// Finds the members of message `name` among `fields`; a member that is none of them but a message is inlined.
    fn fill(&self, name: &str, via: &mut Vec<u32>, fields: &mut BTreeMap<String, Field>) {
        for member in self.get(name).into_iter().flat_map(|message| &message.members) {
            let found = fields.iter_mut().find(|(json, _)| plain(json) == plain(&member.name));
            match (found, &member.shape) {
                (Some((_, field)), _) if field.number == 0 => {
                    field.number = member.number;
                    field.via = via.iter().fold(0, |path, step| path << 16 | step);
                    field.wrapped = self.wraps(&field.shape, &member.shape);
                    field.mark(&member.markers);
                }
                (None, Shape::Struct(inner)) if via.len() < 2 => {
                    via.push(member.number);
                    self.fill(inner, via, fields);
                    via.pop();
                }
                _ => {}
            }
        }
    }

    /// Whether what JSON shows as a list is a message here.
    fn wraps(&self, json: &Shape, wire: &Shape) -> bool {
        match (json, wire) {
            (Shape::List(_), Shape::Struct(name)) => {
                matches!(self.get(name).map(|message| &message.members[..]), Some([one]) if one.name == "items")
            }
            (Shape::List(json), Shape::List(wire)) | (Shape::Map(json), Shape::Map(wire)) => {
                self.wraps(json, wire)
            }
            _ => false,
        }
    }

    fn file(&mut self, package: &str, text: &str) {
        let (mut message, mut markers, mut attribute) = (String::new(), Vec::new(), String::new());
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if let Some(comment) = line.strip_prefix("///") {
                markers.extend(comment.trim().strip_prefix('+').map(str::to_owned));
            } else if line.starts_with("#[prost(") {
                line.clone_into(&mut attribute);
            } else if let Some(name) = line.strip_prefix("pub struct ") {
                message = key(&format!("{package}.{}", name.trim_end_matches([' ', '{', '}'])));
                let atomic = markers.drain(..).any(|marker| marker == "structType=atomic");
                self.0.insert(message.clone(), Message { atomic, members: Vec::new() });
            } else if let Some(declaration) = line.strip_prefix("pub ").filter(|_| !attribute.is_empty()) {
                let mut declaration = declaration.to_owned();
                while !declaration.ends_with(',') {
                    let Some(more) = lines.next() else { return };
                    declaration.push_str(more);
                }
                let member = Member::parse(package, &attribute, &declaration, std::mem::take(&mut markers));
                self.0.entry(message.clone()).or_default().members.extend(member);
                attribute.clear();
            }
        }
    }
}

impl Member {
    /// Reads `#[prost(string, optional, tag = "2")]` and `protocol: ::core::option::Option<…>,`.
    fn parse(package: &str, attribute: &str, declaration: &str, markers: Vec<String>) -> Option<Self> {
        let number = attribute.split_once("tag = \"")?.1.split_once('"')?.0.parse().ok()?;
        let (name, ty) = declaration.split_once(':')?;
        let scalar = attribute.strip_prefix("#[prost(")?.split_once([',', ' '])?.0;
        let shape = match scalar {
            "message" => message(package, ty)?,
            "btree_map" if attribute.contains(", message\"") => Shape::Map(Box::new(message(package, ty)?)),
            "btree_map" if attribute.contains(", bytes\"") => Shape::Map(Box::new(Shape::Word("bytes"))),
            "btree_map" => Shape::Map(Box::new(Shape::Word("string"))),
            _ => Shape::Word(SCALARS.into_iter().find(|word| *word == scalar)?),
        };
        let shape = if attribute.contains("repeated") { Shape::List(Box::new(shape)) } else { shape };
        Some(Self { name: name.trim_start_matches("r#").to_owned(), number, shape, markers })
    }

    fn field(&self) -> Field {
        let mut field = Field { shape: self.shape.clone(), number: self.number, ..Field::default() };
        field.mark(&self.markers);
        field
    }
}

impl Field {
    fn mark(&mut self, markers: &[String]) {
        let is_list = matches!(self.shape, Shape::List(_));
        let stated = markers.iter().any(|marker| marker.starts_with("listType="));
        if stated || !self.keys.is_empty() {
            self.keys.clear();
        }
        for marker in markers {
            let (name, value) = marker.split_once('=').unwrap_or((marker, ""));
            match (name, value) {
                ("listType", "set") => self.set = true,
                ("listType" | "mapType" | "structType", "atomic") => self.atomic = true,
                ("listMapKey", key) if is_list => self.keys.push(key.to_owned()),
                ("patchStrategy", strategy) => self.patch = Some(strategy.to_owned()),
                ("patchMergeKey", key) => self.merge_key = Some(key.to_owned()),
                ("default", value) if !value.starts_with("ref(") => self.default = Some(value.to_owned()),
                _ => {}
            }
        }
    }
}

/// The last path in a Rust type, as a definition: `::core::option::Option<super::super::super::a::b::C>`.
fn message(package: &str, ty: &str) -> Option<Shape> {
    let path = ty.trim_end_matches([',', '>']).rsplit(['<', ' ']).next()?;
    let mut folder: Vec<&str> = package.split('.').collect();
    let mut rest = path;
    while let Some(up) = rest.strip_prefix("super::") {
        folder.pop()?;
        rest = up;
    }
    folder.extend(rest.split("::"));
    Some(named(&folder.join(".").replace('_', "-")))
}

/// What a message is found by: names differ in case between the crates (`AwsElastic…`, `AWSElastic…`).
fn key(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// What a field is found by.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

const SCALARS: [&str; 6] = ["string", "bool", "int32", "int64", "double", "bytes"];
