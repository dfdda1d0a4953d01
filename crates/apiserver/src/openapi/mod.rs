//! The OpenAPI documents: types and paths of the API for `kubectl explain`, validation and client generators.
//!
//! ```text
//! nave_schema::builtin        structure    ─┬─→ definitions ─┐
//! documentation (k8s-openapi) descriptions ─┘                │
//! Registry ─→ operations ← parameters ───────────────────────┴─→ v3 (a document per version)
//!                                                            └─→ v2 (in parts) ─→ joined_v2 ─→ merged_v2
//! remote: the documents of aggregated servers ───────────────────────────────────────┘
//! gnostic: both versions in protobuf
//! ```
//!
//! Invariants: documents are generated on the first request and kept as bytes: one per group and one per group version.
//! The document of version 2 is joined from parts, so that a change costs what changed. The index generates no documents.
//! A changed registry needs a new [`OpenApi`].

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use nave_codec::json as codec;
use nave_machinery::packed::Packed;
use nave_machinery::{GroupVersion, Map, Status, Value};
use nave_resources::custom::CustomSchema;
use nave_resources::{Group, Registry, ResourceDef};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::body::ResponseBody;
use crate::gzip;
use crate::raw_response;
use crate::request_info::RequestInfo;
use crate::version::KUBERNETES_VERSION;

use documentation::Documentation;
use joined_v2::Parts;
pub(crate) use merged_v2::MergedV2;
use operations::{Operation, PathItem};
use parameters::Parameter;
use remote::RemoteDocument;
use segment::Segment;

mod custom;
mod definitions;
pub(crate) mod documentation;
mod gnostic;
mod joined_v2;
mod merged_v2;
mod operations;
mod parameters;
#[cfg(test)]
mod reference;
pub(crate) mod remote;
pub(crate) mod remote_v3;
mod segment;
#[cfg(test)]
mod tests;
mod v2;
mod v3;

/// The media types of version 2 in protobuf. Responses have the second one.
const GNOSTIC: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// The media types of version 3 in protobuf. Responses have the second one.
const GNOSTIC_V3: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
];

/// Serves the OpenAPI documents of a registry.
pub struct OpenApi {
    registry: Arc<Registry>,
    /// The documents of version 3, by path below `/openapi/v3/`.
    v3: imbl::OrdMap<String, Arc<Lazy>>,
    v2: Parts,
    /// Identifies the content of version 2.
    v2_hash: OnceLock<String>,
    /// The list of the documents of version 3, and its hash.
    index: OnceLock<(Bytes, String)>,
}

/// A document that is generated on the first request.
struct Lazy {
    coverage: Coverage,
    /// Identifies the content: depends on the program's version and on the resources that the document describes.
    hash: OnceLock<String>,
    content: OnceLock<Content>,
    /// The document in protobuf.
    protobuf: OnceLock<Content>,
}

/// The bytes of a document. A cluster can have thousands of documents of custom resources, which are rarely read, so
/// these are kept compressed.
enum Content {
    Plain(Bytes),
    Packed(Packed),
}

/// The part of the API that a document describes.
#[derive(Clone, Debug)]
enum Coverage {
    /// A group and version.
    Version(GroupVersion),
    /// A group.
    Group(String),
    /// A server path that belongs to no group.
    Server(&'static str),
    /// All groups with built-in resources, and the server paths.
    BuiltIn,
    /// The whole API.
    Everything,
}

impl OpenApi {
    /// Creates the documents of a registry.
    pub fn new(registry: &Arc<Registry>) -> Self {
        let mut documents = Self {
            v3: imbl::OrdMap::new(),
            v2: Parts::new(registry),
            v2_hash: OnceLock::new(),
            index: OnceLock::new(),
            registry: Arc::clone(registry),
        };
        for path in operations::of_server().map(|(path, _)| path) {
            documents.add(path, Coverage::Server(path));
        }
        for group in registry.groups() {
            documents.add_group(group);
        }
        documents
    }

    /// Returns the documents of a registry in which only this group differs. All other documents are kept.
    #[must_use]
    pub fn with_group(&self, registry: &Arc<Registry>, group: &str) -> Self {
        let mut documents = Self {
            v3: self.v3.clone(),
            v2: self.v2.with_group(&self.registry, registry, group),
            v2_hash: OnceLock::new(),
            index: OnceLock::new(),
            registry: Arc::clone(registry),
        };
        if let Some(old) = self.registry.group(group) {
            for path in paths_of_group(old).map(|(path, _)| path) {
                documents.v3.remove(&path);
            }
        }
        if let Some(group) = registry.group(group) {
            documents.add_group(group);
        }
        documents
    }

    fn add_group(&mut self, group: &Group) {
        for (path, coverage) in paths_of_group(group) {
            self.add(&path, coverage);
        }
    }

    fn add(&mut self, path: &str, coverage: Coverage) {
        self.v3.insert(path.to_owned(), Arc::new(Lazy::new(coverage)));
    }

    /// Returns `usize::MAX` if the document at `/openapi/PATH` must be generated in the encoding that the client prefers
    /// (its size is unknown); 0 if it exists.
    pub(crate) fn size(&self, path: &str, headers: &HeaderMap) -> usize {
        let is_made = |document: &Lazy| {
            let content = match form(headers, &GNOSTIC_V3) {
                Some(Form::Protobuf) => &document.protobuf,
                Some(Form::Json) | None => &document.content,
            };
            matches!(content.get(), Some(Content::Plain(_)))
        };
        let is_there = match path.split_once('/') {
            None if path == "v2" => form(headers, &GNOSTIC).is_none_or(|form| self.v2.are_joined(form)),
            Some(("v3", path)) => self.v3.get(path).is_none_or(|document| is_made(document)),
            _ => true,
        };
        if is_there { 0 } else { usize::MAX }
    }

    /// Serves `/openapi/…`.
    ///
    /// # Errors
    /// 406 if the client accepts no encoding of the version 2 document.
    pub fn answer(
        &self,
        path: &[&str],
        info: &RequestInfo,
        headers: &HeaderMap,
    ) -> Result<Response<ResponseBody>, Status> {
        let seen = headers.get(header::IF_NONE_MATCH);
        match path {
            ["v2"] => self.answer_v2(headers),
            ["v3"] => {
                let (index, hash) = self.index();
                Ok(answer("application/json", hash, seen, || index.clone()))
            }
            ["v3", path @ ..] => {
                let path = path.join("/");
                Ok(self.v3.get(&path).map_or_else(raw_response::page_not_found, |document| {
                    self.answer_v3(&path, document, info.query.get("hash"), headers)
                }))
            }
            _ => Ok(raw_response::page_not_found()),
        }
    }

    /// Serves `/openapi/v3` with documents of other servers: their paths below `/openapi/v3/` and hashes.
    pub(crate) fn answer_index(
        &self,
        others: &[(String, String)],
        headers: &HeaderMap,
    ) -> Response<ResponseBody> {
        let own = self.v3.iter().map(|(path, document)| (path.clone(), self.url(path, document)));
        let others = others.iter().map(|(path, hash)| (path.clone(), url(path, hash)));
        let (index, hash) = index_of(own.chain(others));
        answer("application/json", &hash, headers.get(header::IF_NONE_MATCH), || index)
    }

    /// Serves a document of version 3. If the URL has the current hash, clients may cache the document forever; with
    /// another hash, the client is redirected to the current one.
    fn answer_v3(
        &self,
        path: &str,
        document: &Lazy,
        hash: Option<&str>,
        headers: &HeaderMap,
    ) -> Response<ResponseBody> {
        let Some(form) = form(headers, &GNOSTIC_V3) else { return not_acceptable() };
        if hash.is_some_and(|hash| !hash.is_empty() && hash != self.hash(document)) {
            let mut moved = raw_response::bytes(StatusCode::MOVED_PERMANENTLY, "", Bytes::new());
            raw_response::set_header(&mut moved, header::LOCATION, &self.url(path, document));
            return moved;
        }
        let media_type = if form == Form::Json { "application/json" } else { GNOSTIC_V3[1] };
        let seen = headers.get(header::IF_NONE_MATCH);
        // As upstream, both forms have the same ETag.
        let mut answer = answer(media_type, self.hash(document), seen, || self.bytes(document, form));
        if hash.is_some() {
            // Upstream sends the same duration as an expiry date.
            raw_response::set_header(
                &mut answer,
                header::CACHE_CONTROL,
                "public, immutable, max-age=31536000",
            );
        }
        answer
    }

    fn answer_v2(&self, headers: &HeaderMap) -> Result<Response<ResponseBody>, Status> {
        answer_v2(headers, self.v2_hash(), |form| joined(self.v2.join(form, self), form, headers))
    }

    /// Returns the parts that the documents of other servers add to the document of version 2.
    pub(crate) fn merged_v2(&self, others: &[Arc<RemoteDocument>]) -> MergedV2 {
        MergedV2::new(self, others)
    }

    fn url(&self, path: &str, document: &Lazy) -> String {
        url(path, self.hash(document))
    }

    /// Returns the hash of the document of version 2, computed from those of all documents of version 3.
    fn v2_hash(&self) -> &str {
        self.v2_hash.get_or_init(|| {
            let hashes: Vec<&[u8]> =
                self.v3.values().map(|document| self.hash(document).as_bytes()).collect();
            hash_of(&hashes)
        })
    }

    /// Returns the hash of a document.
    fn hash<'d>(&self, document: &'d Lazy) -> &'d str {
        document.hash.get_or_init(|| {
            let Lazy { coverage, .. } = document;
            let mut parts =
                vec![env!("CARGO_PKG_VERSION").to_owned(), format!("{KUBERNETES_VERSION:?}{coverage:?}")];
            match coverage {
                Coverage::Version(GroupVersion { group, .. }) | Coverage::Group(group) => {
                    let group = self.registry.group(group).into_iter();
                    parts.extend(group.flat_map(|group| &group.resources).map(|def| describe(def)));
                }
                Coverage::Server(_) | Coverage::BuiltIn | Coverage::Everything => {}
            }
            hash_of(&parts.iter().map(String::as_bytes).collect::<Vec<_>>())
        })
    }

    fn index(&self) -> &(Bytes, String) {
        let entry = |(path, document): (&String, &Arc<Lazy>)| (path.clone(), self.url(path, document));
        self.index.get_or_init(|| index_of(self.v3.iter().map(entry)))
    }

    /// Returns the encoded document. The tree is dropped after encoding.
    fn bytes(&self, document: &Lazy, form: Form) -> Bytes {
        let keep = |bytes: Vec<u8>| {
            if self.is_packed(&document.coverage) {
                Content::Packed(Packed::new(&bytes))
            } else {
                Content::Plain(bytes.into())
            }
        };
        let json = || keep(codec::encode(&self.make(&document.coverage)));
        let protobuf = || keep(gnostic::v3::encode(&self.make(&document.coverage)));
        let content = match form {
            Form::Json => document.content.get_or_init(json),
            Form::Protobuf => document.protobuf.get_or_init(protobuf),
        };
        match content {
            Content::Plain(bytes) => bytes.clone(),
            Content::Packed(bytes) => bytes.unpack().into(),
        }
    }

    fn is_packed(&self, coverage: &Coverage) -> bool {
        match coverage {
            Coverage::Version(version) => self.registry.group(&version.group).is_some_and(Group::is_custom),
            _ => false,
        }
    }

    /// Returns the resources that the document describes.
    fn resources(&self, coverage: &Coverage) -> Box<dyn Iterator<Item = &Arc<ResourceDef>> + '_> {
        match coverage {
            Coverage::Version(version) => {
                Box::new(self.registry.group(&version.group).into_iter().flat_map(|group| &group.resources))
            }
            Coverage::Group(_) | Coverage::Server(_) => Box::new(std::iter::empty()),
            Coverage::BuiltIn | Coverage::Everything => {
                Box::new(self.groups(coverage).flat_map(|group| &group.resources))
            }
        }
    }

    /// Makes a document of version 3.
    fn make(&self, coverage: &Coverage) -> Value {
        v3::document(
            &self.items(coverage),
            &operations::kinds(&self.registry, &self.versions(coverage)),
            custom::types(self.resources(coverage)),
            nave_schema::builtin(),
            &Documentation::new(),
        )
    }

    /// Makes a document of version 2.
    fn make_v2(&self, coverage: &Coverage, documentation: &Documentation) -> Value {
        v2::document(
            &self.items(coverage),
            &operations::kinds(&self.registry, &self.versions(coverage)),
            custom::types(self.resources(coverage)),
            nave_schema::builtin(),
            documentation,
        )
    }

    /// Returns the groups of a coverage of several groups.
    fn groups<'s>(&'s self, coverage: &Coverage) -> impl Iterator<Item = &'s Group> + use<'s> {
        let is_limited = matches!(coverage, Coverage::BuiltIn);
        let groups = self.registry.groups().iter().map(AsRef::as_ref);
        groups.filter(move |group: &&Group| !(is_limited && group.is_custom()))
    }

    fn versions(&self, coverage: &Coverage) -> Vec<GroupVersion> {
        match coverage {
            Coverage::Version(version) => vec![version.clone()],
            Coverage::Group(_) | Coverage::Server(_) => Vec::new(),
            Coverage::BuiltIn | Coverage::Everything => {
                let version = |group: &Group| {
                    let version = |version: &String| GroupVersion::new(&*group.name, &**version);
                    group.versions.iter().map(version).collect::<Vec<_>>()
                };
                self.groups(coverage).flat_map(version).collect()
            }
        }
    }

    fn items(&self, coverage: &Coverage) -> Vec<PathItem> {
        match coverage {
            Coverage::Version(version) => operations::of_version(&self.registry, version),
            Coverage::Group(group) => vec![operations::of_group(group)],
            Coverage::Server(path) => operations::of_server()
                .into_iter()
                .filter(|(of, _)| of == path)
                .map(|(_, item)| item)
                .collect(),
            Coverage::BuiltIn => {
                let is_custom = |group: &str| self.registry.group(group).is_some_and(Group::is_custom);
                let documents = self.v3.values().map(|document| &document.coverage);
                let builtin = documents.filter(
                    |coverage| !matches!(coverage, Coverage::Version(version) if is_custom(&version.group)),
                );
                builtin.flat_map(|coverage| self.items(coverage)).collect()
            }
            Coverage::Everything => {
                self.v3.values().flat_map(|document| self.items(&document.coverage)).collect()
            }
        }
    }
}

/// Serves a document of version 2, given by its hash and the response with the document.
fn answer_v2(
    headers: &HeaderMap,
    hash: &str,
    document: impl Fn(Form) -> Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Status> {
    let seen = headers.get(header::IF_NONE_MATCH);
    let Some(form) = form(headers, &GNOSTIC) else {
        return Err(Status::not_acceptable(&["application/json", GNOSTIC[0], GNOSTIC[1]]));
    };
    let mut response = match form {
        Form::Json => unless_seen(hash, seen, || document(form)),
        Form::Protobuf => unless_seen(&hash_of(&[hash.as_bytes(), b"protobuf"]), seen, || document(form)),
    };
    raw_response::set_header(&mut response, header::VARY, "Accept, Accept-Encoding");
    Ok(response)
}

/// Returns the response with a document that is joined from segments: as they are for clients that accept gzip.
fn joined(segments: &[Segment], form: Form, headers: &HeaderMap) -> Response<ResponseBody> {
    if !gzip::is_accepted(headers) {
        let segments = segments.to_vec();
        let unpacked = stream::iter(segments).map(|segment| segment.unpack());
        return raw_response::stream(form.media_type(), unpacked);
    }
    let mut response = raw_response::stream(form.media_type(), stream::iter(segment::gzip(segments)));
    raw_response::set_header(&mut response, header::CONTENT_ENCODING, "gzip");
    response
}

fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

/// Returns the list of documents, given by their paths and URLs, and its hash.
fn index_of(documents: impl Iterator<Item = (String, String)>) -> (Bytes, String) {
    let entry = |(path, url): (String, String)| (path, json!({"serverRelativeURL": url}));
    let index = codec::encode(&json!({"paths": documents.map(entry).collect::<Map>()}));
    let hash = hash_of(&[&index]);
    (index.into(), hash)
}

impl Lazy {
    fn new(coverage: Coverage) -> Self {
        Self { coverage, hash: OnceLock::new(), content: OnceLock::new(), protobuf: OnceLock::new() }
    }
}

/// Returns the documents of a group and its versions: path below `/openapi/v3/`, and coverage.
fn paths_of_group(group: &Group) -> impl Iterator<Item = (String, Coverage)> {
    // As upstream, a group of custom resources has no document of its own.
    let is_documented = !group.is_custom();
    let path = if group.name.is_empty() { "api".to_owned() } else { format!("apis/{}", group.name) };
    let versions = group.versions.iter().map(|version| {
        let version = GroupVersion::new(&*group.name, &**version);
        (operations::root(&version).trim_start_matches('/').to_owned(), Coverage::Version(version))
    });
    let own = is_documented.then(|| (path, Coverage::Group(group.name.clone())));
    own.into_iter().chain(versions)
}

/// Lists the properties of a resource that affect its documents, to detect changes.
fn describe(def: &ResourceDef) -> String {
    let mut text = format!("{} {}", def.resource, def.kind);
    for version in &def.versions {
        let subresources =
            version.subresources.iter().map(|sub| (&sub.name, &sub.response)).collect::<Vec<_>>();
        let digest = version.custom().map(CustomSchema::digest);
        let _ = write!(text, " {} {} {digest:?} {subresources:?}", version.name, version.type_name);
    }
    for verb in def.verbs {
        let _ = write!(text, " {verb}");
    }
    text
}

/// An encoding of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => GNOSTIC[1],
        }
    }
}

/// Returns the encoding of a document that the client prefers, as upstream: by quality, then by order, then wildcards.
/// JSON if the client lists none. `protobuf` has the media types of the encoding in protobuf.
fn form(headers: &HeaderMap, protobuf: &[&str]) -> Option<Form> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut clauses: Vec<(f32, String)> = accept.split(',').map(clause).collect();
    // Wildcards of the type are last among those of a quality, and those of the subtype are before them.
    let wildcards = |media_type: &str| (media_type.starts_with('*'), media_type.ends_with('*'));
    clauses.sort_by(|(one, first), (other, second)| {
        other.total_cmp(one).then_with(|| wildcards(first).cmp(&wildcards(second)))
    });
    clauses.iter().find_map(|(_, media_type)| match media_type.as_str() {
        "" | "*" | "*/*" | "*/json" | "application/*" | "application/json" => Some(Form::Json),
        other => protobuf.contains(&other).then_some(Form::Protobuf),
    })
}

/// Returns the quality and the media type of a clause of `Accept`.
fn clause(clause: &str) -> (f32, String) {
    let mut parts = clause.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
    (quality.unwrap_or(1.0), media_type)
}

/// Returns the response to a client that accepts no encoding of a document of version 3: as upstream, an empty one.
fn not_acceptable() -> Response<ResponseBody> {
    let mut response = raw_response::bytes(StatusCode::NOT_ACCEPTABLE, "", Bytes::new());
    raw_response::set_header(&mut response, header::VARY, "Accept");
    response
}

/// Returns the document, or 304 if the client already has it.
fn answer(
    media_type: &'static str,
    hash: &str,
    seen: Option<&HeaderValue>,
    document: impl FnOnce() -> Bytes,
) -> Response<ResponseBody> {
    unless_seen(hash, seen, || raw_response::bytes(StatusCode::OK, media_type, document()))
}

/// Returns the response with the hash as its ETag, or 304 if the client already has it.
fn unless_seen(
    hash: &str,
    seen: Option<&HeaderValue>,
    document: impl FnOnce() -> Response<ResponseBody>,
) -> Response<ResponseBody> {
    let tag = format!("\"{hash}\"");
    let known = seen.and_then(|seen| seen.to_str().ok()).is_some_and(|seen| {
        seen.split(',')
            .map(|seen| seen.trim().trim_start_matches("W/"))
            .any(|seen| seen == tag || seen == "*")
    });
    let mut response =
        if known { raw_response::bytes(StatusCode::NOT_MODIFIED, "", Bytes::new()) } else { document() };
    raw_response::set_header(&mut response, header::ETAG, &tag);
    raw_response::set_header(&mut response, header::VARY, "Accept");
    response
}

fn hash_of(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// Returns the `info` object of a document.
fn info() -> Value {
    let (major, minor, _) = KUBERNETES_VERSION;
    json!({"title": "Kubernetes", "version": format!("{major}.{minor}")})
}

fn security_scheme() -> Value {
    json!({"type": "apiKey", "name": "authorization", "in": "header", "description": "A bearer token."})
}

/// Returns the location of a parameter.
fn place(parameter: &Parameter) -> &'static str {
    if parameter.in_path { "path" } else { "query" }
}

/// Returns the reason phrase of an HTTP status code.
fn reason(code: u16) -> &'static str {
    http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default()
}

/// Adds the action and the kind of an operation to its JSON.
fn add_action(to: &mut Map, of: &Operation) {
    if let Some((action, kind)) = &of.action {
        to.insert("x-kubernetes-action".to_owned(), json!(action));
        to.insert("x-kubernetes-group-version-kind".to_owned(), json!(kind));
    }
}
