//! The OpenAPI documents: types and paths of the API, for `kubectl explain`, validation and client generators.
//!
//! ```text
//! nave_schema::builtin        structure    ─┬─→ definitions ─┐
//! documentation (k8s-openapi) descriptions ─┘                │
//! Registry ─→ operations ← parameters ───────────────────────┴─→ v3 (a document per version), v2 ─→ gnostic (protobuf)
//! ```
//!
//! Invariants: documents are generated on the first request and kept as bytes, one per group and version and two
//! encodings of version 2. The index generates no documents. A changed registry needs a new [`OpenApi`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use nave_codec::json as codec;
use nave_machinery::{GroupVersion, Map, Status, Value};
use nave_resources::{Registry, Verb};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::body::ResponseBody;
use crate::gzip;
use crate::raw_response;
use crate::request_info::RequestInfo;
use crate::version::KUBERNETES_VERSION;

use definitions::Kinds;
use documentation::Documentation;
use operations::{Operation, PathItem};
use parameters::Parameter;

mod definitions;
pub(crate) mod documentation;
mod gnostic;
mod operations;
mod parameters;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod v2;
mod v3;

/// The media types of version 2 in protobuf.
const GNOSTIC: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// Serves the OpenAPI documents of a registry.
pub struct OpenApi {
    registry: Arc<Registry>,
    /// The documents of version 3, by path below `/openapi/v3/`.
    v3: BTreeMap<String, Lazy>,
    v2_json: Lazy,
    v2_protobuf: Lazy,
}

/// A document that is generated on the first request.
struct Lazy {
    coverage: Coverage,
    /// The hash in the document's URL. It depends on the program and on the part of the registry that the document
    /// describes.
    hash: String,
    bytes: OnceLock<Bytes>,
}

/// The part of the API that a document describes.
#[derive(Clone, Debug)]
enum Coverage {
    /// A group and version.
    Version(GroupVersion),
    /// A group.
    Group(String),
    /// A server path outside of groups.
    Server(&'static str),
    /// Everything.
    Everything,
}

impl OpenApi {
    /// Creates the documents of a registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        let mut v3 = BTreeMap::new();
        let mut add =
            |path: &str, coverage: Coverage| v3.insert(path.to_owned(), Lazy::new(coverage, &registry));
        for path in operations::of_server().map(|(path, _)| path) {
            add(path, Coverage::Server(path));
        }
        for group in registry.groups() {
            let path = if group.name.is_empty() { "api".to_owned() } else { format!("apis/{}", group.name) };
            add(&path, Coverage::Group(group.name.clone()));
            for version in &group.versions {
                let version = GroupVersion::new(&*group.name, &**version);
                add(operations::root(&version).trim_start_matches('/'), Coverage::Version(version.clone()));
            }
        }
        let [v2_json, v2_protobuf] = [(); 2].map(|()| Lazy::new(Coverage::Everything, &registry));
        Self { registry, v3, v2_json, v2_protobuf }
    }

    /// Returns `usize::MAX` if the document at `/openapi/PATH` must be generated, because its size is unknown; 0 if it
    /// exists.
    pub(crate) fn size(&self, path: &str) -> usize {
        let is_made = |document: &Lazy| document.bytes.get().is_some();
        let is_there = match path.split_once('/') {
            None if path == "v2" => is_made(&self.v2_json) && is_made(&self.v2_protobuf),
            Some(("v3", path)) => self.v3.get(path).is_none_or(is_made),
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
                let index = codec::encode(&self.index());
                Ok(answer("application/json", &hash_of(&[&index]), seen, || index.into()))
            }
            ["v3", path @ ..] => {
                let path = path.join("/");
                Ok(self.v3.get(&path).map_or_else(raw_response::page_not_found, |document| {
                    self.answer_v3(&path, document, info.query.get("hash"), seen)
                }))
            }
            _ => Ok(raw_response::page_not_found()),
        }
    }

    /// Serves a document of version 3. With its current hash in the URL, clients may cache it forever; with another
    /// hash, the client is redirected to the current one.
    fn answer_v3(
        &self,
        path: &str,
        document: &Lazy,
        hash: Option<&str>,
        seen: Option<&HeaderValue>,
    ) -> Response<ResponseBody> {
        if hash.is_some_and(|hash| !hash.is_empty() && hash != document.hash) {
            let mut moved = raw_response::bytes(StatusCode::MOVED_PERMANENTLY, "", Bytes::new());
            raw_response::set_header(&mut moved, header::LOCATION, &url(path, document));
            return moved;
        }
        let mut answer =
            answer("application/json", &document.hash, seen, || self.bytes(document, codec::encode));
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
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let seen = headers.get(header::IF_NONE_MATCH);
        let [_, protobuf] = GNOSTIC;
        match v2_form(accept) {
            Some(Form::Json) => {
                let document = &self.v2_json;
                let plain =
                    answer("application/json", &document.hash, seen, || self.bytes(document, codec::encode));
                Ok(compressed(plain, headers))
            }
            Some(Form::Protobuf) => {
                let document = &self.v2_protobuf;
                let tag = hash_of(&[document.hash.as_bytes(), b"protobuf"]);
                let plain = answer(protobuf, &tag, seen, || self.bytes(document, gnostic::encode));
                Ok(compressed(plain, headers))
            }
            None => Err(Status::not_acceptable(&["application/json", GNOSTIC[0], GNOSTIC[1]])),
        }
    }

    fn index(&self) -> Value {
        let entry = |(path, document): (&String, &Lazy)| {
            (path.clone(), json!({"serverRelativeURL": url(path, document)}))
        };
        json!({"paths": self.v3.iter().map(entry).collect::<Map>()})
    }

    /// Returns the encoded document; the tree is dropped after encoding.
    fn bytes<B: Into<Bytes>>(&self, document: &Lazy, encode: impl Fn(&Value) -> B) -> Bytes {
        document.bytes.get_or_init(|| encode(&self.make(&document.coverage)).into()).clone()
    }

    fn make(&self, coverage: &Coverage) -> Value {
        let (documentation, schemas) = (Documentation::new(), nave_schema::builtin());
        match coverage {
            Coverage::Everything => {
                v2::document(&self.everything(), &self.kinds(coverage), schemas, &documentation)
            }
            _ => v3::document(&self.items(coverage), &self.kinds(coverage), schemas, &documentation),
        }
    }

    fn kinds(&self, coverage: &Coverage) -> Kinds {
        let versions: Vec<GroupVersion> = match coverage {
            Coverage::Version(version) => vec![version.clone()],
            Coverage::Group(_) | Coverage::Server(_) => Vec::new(),
            Coverage::Everything => {
                let of = |group: &nave_resources::Group| {
                    let version = |version: &String| GroupVersion::new(&*group.name, &**version);
                    group.versions.iter().map(version).collect::<Vec<_>>()
                };
                self.registry.groups().iter().flat_map(of).collect()
            }
        };
        operations::kinds(&self.registry, &versions)
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
            Coverage::Everything => self.everything(),
        }
    }

    fn everything(&self) -> Vec<PathItem> {
        self.v3.values().flat_map(|document| self.items(&document.coverage)).collect()
    }
}

impl Lazy {
    fn new(coverage: Coverage, registry: &Registry) -> Self {
        let mut parts =
            vec![env!("CARGO_PKG_VERSION").to_owned(), format!("{KUBERNETES_VERSION:?}{coverage:?}")];
        for def in registry.all().filter(|def| coverage.covers(&def.group)) {
            let versions =
                def.versions.iter().map(|version| (&version.name, &version.type_name)).collect::<Vec<_>>();
            let verbs = def.verbs.iter().map(|verb: &Verb| verb.as_str()).collect::<Vec<_>>();
            let subresources =
                def.subresources.iter().map(|sub| (&sub.name, &sub.response)).collect::<Vec<_>>();
            parts.push(format!("{} {} {versions:?} {verbs:?} {subresources:?}", def.resource, def.kind));
        }
        let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
        Self { coverage, hash: hash_of(&parts), bytes: OnceLock::new() }
    }
}

impl Coverage {
    fn covers(&self, group: &str) -> bool {
        match self {
            Self::Version(version) => version.group == group,
            Self::Group(of) => of == group,
            Self::Server(_) => false,
            Self::Everything => true,
        }
    }
}

/// An encoding of the version 2 document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

/// Returns the first accepted encoding that exists; JSON if the client lists none.
fn v2_form(accept: &str) -> Option<Form> {
    let clause = |clause: &str| {
        let media_type = clause.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "" | "*/*" | "application/*" | "application/json" => Some(Form::Json),
            other => GNOSTIC.contains(&other).then_some(Form::Protobuf),
        }
    };
    accept.split(',').find_map(clause)
}

fn url(path: &str, document: &Lazy) -> String {
    format!("/openapi/v3/{path}?hash={}", document.hash)
}

/// Returns a document, or 304 for a client that has it.
fn answer(
    media_type: &'static str,
    hash: &str,
    seen: Option<&HeaderValue>,
    document: impl FnOnce() -> Bytes,
) -> Response<ResponseBody> {
    let tag = format!("\"{hash}\"");
    let known = seen.and_then(|seen| seen.to_str().ok()).is_some_and(|seen| {
        seen.split(',')
            .map(|seen| seen.trim().trim_start_matches("W/"))
            .any(|seen| seen == tag || seen == "*")
    });
    let mut response = if known {
        raw_response::bytes(StatusCode::NOT_MODIFIED, "", Bytes::new())
    } else {
        raw_response::bytes(StatusCode::OK, media_type, document())
    };
    raw_response::set_header(&mut response, header::ETAG, &tag);
    raw_response::set_header(&mut response, header::VARY, "Accept");
    response
}

/// Compresses the response for clients that accept it. Upstream does so for OpenAPI 2 only.
fn compressed(mut response: Response<ResponseBody>, headers: &HeaderMap) -> Response<ResponseBody> {
    raw_response::set_header(&mut response, header::VARY, "Accept, Accept-Encoding");
    if !gzip::is_accepted(headers) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let body = match gzip::compressed(body) {
        Ok(body) => {
            head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            body
        }
        Err(body) => body,
    };
    Response::from_parts(head, body)
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

/// The reason phrase of an HTTP status code.
fn reason(code: u16) -> &'static str {
    http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default()
}

/// Adds the action and the kind of an operation.
fn add_action(to: &mut Map, of: &Operation) {
    if let Some((action, kind)) = &of.action {
        to.insert("x-kubernetes-action".to_owned(), json!(action));
        to.insert("x-kubernetes-group-version-kind".to_owned(), json!(kind));
    }
}
