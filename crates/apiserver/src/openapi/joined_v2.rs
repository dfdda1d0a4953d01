//! The document of version 2, joined from parts: one of the built-in groups, and one of each version of a custom group.
//!
//! A part is made at the first request after its group has changed, and kept compressed. Joining copies no part: JSON
//! consists of sections of parts, and in protobuf, messages in a row are one message with the fields of all of them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use nave_codec::json as codec;
use nave_machinery::{GroupVersion, Map, Value};
use nave_resources::{Group, Registry};
use serde_json::json;

use super::definitions::META;
use super::documentation::Documentation;
use super::segment::Segment;
use super::{Coverage, Form, OpenApi, gnostic, operations, v2};

/// The parts of the document.
pub(super) struct Parts {
    builtin: Arc<Builtin>,
    custom: imbl::OrdMap<GroupVersion, Arc<Part>>,
    json: OnceLock<Sections>,
    protobuf: OnceLock<Vec<Segment>>,
}

/// The document in JSON.
struct Sections {
    segments: Vec<Segment>,
    /// The positions of the fields of each section.
    fields: [Range<usize>; SECTIONS.len()],
}

/// The part of the built-in groups.
#[derive(Default)]
struct Builtin {
    part: Part,
    content: OnceLock<Content>,
}

/// The content of the built-in part that other parts depend on.
struct Content {
    /// The names in each section. Custom parts leave them out.
    names: [BTreeSet<String>; SECTIONS.len()],
    /// The types that list all versions of the document. They are no part.
    shared: Map,
}

/// The encodings of a part.
#[derive(Default)]
struct Part {
    json: OnceLock<[Segment; SECTIONS.len()]>,
    protobuf: OnceLock<Segment>,
}

impl Parts {
    /// Creates the parts of a registry.
    pub(super) fn new(registry: &Registry) -> Self {
        let custom = registry.groups().iter().flat_map(|group| custom_versions(group));
        let custom = custom.map(|version| (version, Arc::default())).collect();
        Self { builtin: Arc::default(), custom, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// Returns the parts of a registry in which only this group differs from `old`. Other parts are kept.
    pub(super) fn with_group(&self, old: &Registry, registry: &Registry, group: &str) -> Self {
        let (old, group) = (old.group(group), registry.group(group));
        let is_custom = [old, group].iter().flatten().all(|group| group.is_custom());
        if !is_custom {
            return Self::new(registry);
        }
        let mut custom = self.custom.clone();
        for version in old.into_iter().flat_map(custom_versions) {
            custom.remove(&version);
        }
        custom.extend(
            group.into_iter().flat_map(custom_versions).map(|version| (version, Arc::<Part>::default())),
        );
        let builtin = Arc::clone(&self.builtin);
        Self { builtin, custom, json: OnceLock::new(), protobuf: OnceLock::new() }
    }

    /// Returns whether the document exists in this encoding.
    pub(super) fn are_joined(&self, form: Form) -> bool {
        match form {
            Form::Json => self.json.get().is_some(),
            Form::Protobuf => self.protobuf.get().is_some(),
        }
    }

    /// Returns the segments of the document.
    pub(super) fn join(&self, form: Form, documents: &OpenApi) -> &[Segment] {
        match form {
            Form::Json => &self.sections(documents).segments,
            Form::Protobuf => self.protobuf.get_or_init(|| self.join_protobuf(documents)),
        }
    }

    /// Returns the fields of each section in JSON. The fields of a segment may follow a comma.
    pub(super) fn fields(&self, documents: &OpenApi) -> [&[Segment]; SECTIONS.len()] {
        let Sections { segments, fields } = self.sections(documents);
        fields.each_ref().map(|fields| segments.get(fields.clone()).unwrap_or_default())
    }

    /// Returns the segments of the document in JSON with further fields of each section.
    pub(super) fn join_with(&self, documents: &OpenApi, further: &[Segment; SECTIONS.len()]) -> Vec<Segment> {
        let Sections { segments, fields } = self.sections(documents);
        let mut joined = segments.clone();
        for (fields, further) in fields.iter().zip(further).rev() {
            joined.insert(fields.end, further.clone());
        }
        joined
    }

    fn sections(&self, documents: &OpenApi) -> &Sections {
        self.json.get_or_init(|| self.join_json(documents))
    }

    fn join_json(&self, documents: &OpenApi) -> Sections {
        let documentation = Documentation::new();
        let make = |part: &Part, tree: &dyn Fn() -> Value, separator| {
            part.json.get_or_init(|| sections(&tree(), separator)).clone()
        };
        let builtin = make(&self.builtin.part, &|| self.builtin.tree(documents, &documentation), "");
        let content = self.builtin.content(documents, &documentation);
        let parts = self
            .custom
            .iter()
            .map(|(version, part)| make(part, &|| content.custom(documents, version, &documentation), ","));
        let parts: Vec<_> = std::iter::once(builtin).chain(parts).collect();
        let shared = text(&Value::Object(content.shared_types(documents)), ",");
        let head = codec::encode(&v2::head());
        let mut segments = vec![Segment::new(head.strip_suffix(b"}").unwrap_or_default())];
        let mut fields = SECTIONS.map(|_| 0..0);
        for ((at, name), fields) in SECTIONS.into_iter().enumerate().zip(&mut fields) {
            segments.push(Segment::new(format!(",\"{name}\":{{").as_bytes()));
            fields.start = segments.len();
            segments.extend(parts.iter().filter_map(|sections| sections.get(at)).cloned());
            if name == DEFINITIONS {
                segments.push(Segment::new(&shared));
            }
            fields.end = segments.len();
            segments.push(Segment::new(b"}"));
        }
        segments.push(Segment::new(b"}"));
        Sections { segments, fields }
    }

    fn join_protobuf(&self, documents: &OpenApi) -> Vec<Segment> {
        let documentation = Documentation::new();
        let encode = |part: &Part, tree: &dyn Fn() -> Value| {
            part.protobuf.get_or_init(|| Segment::new(&gnostic::v2::encode(&tree()))).clone()
        };
        let builtin = encode(&self.builtin.part, &|| self.builtin.tree(documents, &documentation));
        let content = self.builtin.content(documents, &documentation);
        let custom = self
            .custom
            .iter()
            .map(|(version, part)| encode(part, &|| content.custom(documents, version, &documentation)));
        let mut head = v2::head();
        head[DEFINITIONS] = Value::Object(content.shared_types(documents));
        let head = Segment::new(&gnostic::v2::encode(&head));
        [head, builtin].into_iter().chain(custom).collect()
    }
}

impl Builtin {
    /// Makes the part, and keeps the content that other parts need.
    fn tree(&self, documents: &OpenApi, documentation: &Documentation) -> Value {
        let mut tree = documents.make_v2(&Coverage::BuiltIn, documentation);
        let mut shared = Map::new();
        for name in SHARED_TYPES.map(|kind| format!("{META}{kind}")) {
            let types = tree[DEFINITIONS].as_object_mut();
            shared.extend(types.and_then(|types| types.remove_entry(&name)));
        }
        self.content.get_or_init(|| {
            let names_in = |section: &str| tree[section].as_object().into_iter().flatten();
            let names = SECTIONS.map(|section| names_in(section).map(|(name, _)| name.clone()).collect());
            Content { names, shared }
        });
        tree
    }

    fn content(&self, documents: &OpenApi, documentation: &Documentation) -> &Content {
        if self.content.get().is_none() {
            self.tree(documents, documentation);
        }
        // `tree` has set it.
        self.content.get_or_init(|| Content { names: Default::default(), shared: Map::new() })
    }
}

impl Content {
    /// Makes the part of a version of a custom group.
    fn custom(&self, documents: &OpenApi, version: &GroupVersion, documentation: &Documentation) -> Value {
        let mut tree = documents.make_v2(&Coverage::Version(version.clone()), documentation);
        for (section, names) in SECTIONS.iter().zip(&self.names) {
            if let Some(fields) = tree[*section].as_object_mut() {
                fields.retain(|name, _| !names.contains(name) && !self.shared.contains_key(name));
            }
        }
        tree
    }

    /// Returns the types that list all versions of the document.
    fn shared_types(&self, documents: &OpenApi) -> Map {
        let versions = documents.versions(&Coverage::Everything);
        let mut shared = self.shared.clone();
        for kind in SHARED_TYPES {
            if let Some(definition) = shared.get_mut(&format!("{META}{kind}")) {
                definition["x-kubernetes-group-version-kind"] =
                    json!(operations::kinds_of_all(&versions, kind));
            }
        }
        shared
    }
}

/// Encodes the sections of a part, without braces. The separator precedes a section that is not empty.
fn sections(tree: &Value, separator: &str) -> [Segment; SECTIONS.len()] {
    SECTIONS.map(|section| Segment::new(&text(&tree[section], separator)))
}

fn text(section: &Value, separator: &str) -> Vec<u8> {
    if section.as_object().is_none_or(Map::is_empty) {
        return Vec::new();
    }
    let json = codec::encode(section);
    let fields = json.strip_prefix(b"{").and_then(|json| json.strip_suffix(b"}")).unwrap_or_default();
    [separator.as_bytes(), fields].concat()
}

/// Returns the versions of a custom group; none of a built-in group.
fn custom_versions(group: &Group) -> impl Iterator<Item = GroupVersion> {
    let versions = if group.is_custom() { &group.versions[..] } else { &[] };
    versions.iter().map(|version| GroupVersion::new(&*group.name, &**version))
}

pub(super) const PATHS: &str = "paths";
const DEFINITIONS: &str = "definitions";
/// The sections that are joined.
pub(super) const SECTIONS: [&str; 3] = [PATHS, DEFINITIONS, "parameters"];
/// The types of all groups.
const SHARED_TYPES: [&str; 2] = ["DeleteOptions", "WatchEvent"];
