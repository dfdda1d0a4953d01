//! Content negotiation: `Content-Type` and `Accept` as enums.
//!
//! Tries the alternatives of a header by quality, then in order. The first alternative that the endpoint offers wins,
//! as in kube-apiserver. If no alternative matches, the response is 406 (or 415). Ignores unknown parameters.

/// Maximum length of a header. A longer header has no match.
pub const MAX_HEADER: usize = 4096;

/// Maximum number of alternatives evaluated in a header.
const MAX_ALTERNATIVES: usize = 64;

/// The encoding of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The conversion of an object before encoding (`as=…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// Converts to a `Table` of `meta.k8s.io`.
    Table(MetaVersion),
    /// Converts to a `PartialObjectMetadata` of `meta.k8s.io`.
    PartialObjectMetadata(MetaVersion),
    /// Converts to a `PartialObjectMetadataList` of `meta.k8s.io`.
    PartialObjectMetadataList(MetaVersion),
    /// Selects aggregated discovery of `apidiscovery.k8s.io`.
    Discovery {
        /// `v2beta1` instead of `v2`.
        beta: bool,
        /// `profile=nopeer` (or its older name): only the groups of this server.
        local: bool,
    },
}

/// A version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `v1`.
    V1,
    /// `v1beta1`: the same documents with another `apiVersion`.
    V1Beta1,
}

/// The response format that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// The encoding.
    pub format: Format,
    /// The conversion.
    pub transform: Option<Transform>,
    /// True if `stream=watch` was requested.
    pub stream: bool,
}

/// The type of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// An object.
    Object(Format),
    /// A patch.
    Patch(PatchType),
}

/// Patch types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`, server-side apply.
    Apply,
}

impl Format {
    /// All formats, in the order in which a wildcard selects them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// Returns the media type, as in a response's `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// Returns whether objects in this format can follow each other in a stream.
    pub fn has_streams(self) -> bool {
        self != Self::Yaml
    }

    /// Returns the media type of a watch stream.
    pub fn stream_media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

impl PatchType {
    /// Returns the media type, as in a request's `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

impl MetaVersion {
    /// Returns the `apiVersion` of the documents.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// Returns the first alternative of an `Accept` header whose format is in `formats` and that `allows` accepts. Without a header, or with a wildcard, chooses the first
/// format. As upstream, a quality of 0 is the lowest one, and not a refusal.
pub fn accept(
    header: Option<&str>,
    formats: &[Format],
    allows: impl Fn(&Accepted) -> bool,
) -> Option<Accepted> {
    let first = formats.first().map(|format| Accepted { format: *format, transform: None, stream: false });
    let Some(header) = header.map(str::trim).filter(|header| !header.is_empty()) else { return first };
    if header.len() > MAX_HEADER {
        return None;
    }
    let mut alternatives: Vec<Media<'_>> =
        header.split(',').take(MAX_ALTERNATIVES).filter_map(Media::parse).collect();
    sort(&mut alternatives);
    alternatives.into_iter().find_map(|media| {
        let matching = formats.iter().copied().filter(|format| media.is(format.media_type()));
        let transform = media.transform().ok()?;
        let stream = media.stream?;
        let mut accepted = matching.map(|format| Accepted { format, transform, stream });
        accepted.find(|accepted| (!stream || accepted.format.has_streams()) && allows(accepted))
    })
}

/// Parses a quality. As upstream, a text that is not a number is the lowest one.
fn quality(text: &str) -> f32 {
    text.parse().ok().filter(|quality: &f32| quality.is_finite()).unwrap_or(0.0)
}

/// Sorts the alternatives by quality, and wildcards last. Upstream's order has no consistent comparison of a wildcard
/// with a specific type of a lower quality; insertion sort makes the same of it.
fn sort(alternatives: &mut [Media<'_>]) {
    for end in 1..alternatives.len() {
        let mut position = end;
        while position > 0 && alternatives[position].precedes(&alternatives[position - 1]) {
            alternatives.swap(position, position - 1);
            position -= 1;
        }
    }
}

/// Parses a `Content-Type` header, without parameters such as the character set. Returns `None` for an unsupported
/// media type.
pub fn content_type(header: &str) -> Option<ContentType> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let name = header.split(';').next().unwrap_or_default().trim();
    let is = |media_type: &str| name.eq_ignore_ascii_case(media_type);
    let object = Format::ALL.into_iter().find(|format| is(format.media_type())).map(ContentType::Object);
    let patches = [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply];
    object.or_else(|| patches.into_iter().find(|patch| is(patch.media_type())).map(ContentType::Patch))
}

/// An alternative of an `Accept` header.
struct Media<'h> {
    name: &'h str,
    quality: f32,
    /// True if `stream=watch` is set; `None` for another stream.
    stream: Option<bool>,
    kind: Option<&'h str>,
    group: Option<&'h str>,
    version: Option<&'h str>,
    profile: Option<&'h str>,
}

impl<'h> Media<'h> {
    fn parse(text: &'h str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().filter(|name| name.contains('/') || *name == "*")?;
        let mut media = Self {
            name,
            quality: 1.0,
            stream: Some(false),
            kind: None,
            group: None,
            version: None,
            profile: None,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches('"');
            if value.is_empty() {
                continue;
            }
            match key.trim() {
                "q" => media.quality = quality(value),
                "stream" => {
                    media.stream = match value {
                        "watch" => Some(true),
                        _ => None,
                    }
                }
                "as" => media.kind = Some(value),
                "g" => media.group = Some(value),
                "v" => media.version = Some(value),
                "profile" => media.profile = Some(value),
                _ => {}
            }
        }
        Some(media)
    }

    fn precedes(&self, other: &Self) -> bool {
        let is_specific = |part: fn(&str) -> bool| !part(self.name) && part(other.name);
        self.quality > other.quality
            || is_specific(|name| name.starts_with('*'))
            || is_specific(|name| name.ends_with('*'))
    }

    fn is(&self, media_type: &str) -> bool {
        match self.name {
            "*" | "*/*" | "application/*" => true,
            name => name.eq_ignore_ascii_case(media_type),
        }
    }

    /// Returns the requested conversion; an error if it is unknown.
    fn transform(&self) -> Result<Option<Transform>, ()> {
        let (kind, group, version) = match (self.kind, self.group, self.version) {
            (None, None, None) => return Ok(None),
            (kind, group, version) => {
                (kind.unwrap_or_default(), group.unwrap_or_default(), version.unwrap_or_default())
            }
        };
        let meta = || match (group, version) {
            ("meta.k8s.io", "v1") => Ok(MetaVersion::V1),
            ("meta.k8s.io", "v1beta1") => Ok(MetaVersion::V1Beta1),
            _ => Err(()),
        };
        Ok(Some(match kind {
            "Table" => Transform::Table(meta()?),
            "PartialObjectMetadata" => Transform::PartialObjectMetadata(meta()?),
            "PartialObjectMetadataList" => Transform::PartialObjectMetadataList(meta()?),
            "APIGroupDiscoveryList" if group == "apidiscovery.k8s.io" => Transform::Discovery {
                beta: match version {
                    "v2" => false,
                    "v2beta1" => true,
                    _ => return Err(()),
                },
                local: matches!(self.profile, Some("nopeer" | "local")),
            },
            _ => return Err(()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(header: &str) -> Option<Accepted> {
        accept(Some(header), &Format::ALL, |_| true)
    }

    fn plain(format: Format) -> Accepted {
        Accepted { format, transform: None, stream: false }
    }

    fn transformed(header: &str) -> Option<Transform> {
        all(header).and_then(|accepted| accepted.transform)
    }

    #[test]
    fn selects_the_best_offered_alternative() {
        assert_eq!(accept(None, &Format::ALL, |_| true), Some(plain(Format::Json)));
        assert_eq!(all(""), Some(plain(Format::Json)));
        assert_eq!(all("*/*"), Some(plain(Format::Json)));
        assert_eq!(all("application/*"), Some(plain(Format::Json)));
        assert_eq!(all("application/yaml"), Some(plain(Format::Yaml)));
        assert_eq!(
            all("application/vnd.kubernetes.protobuf, application/json"),
            Some(plain(Format::Protobuf))
        );
        assert_eq!(all("application/json;q=0.5, application/yaml;q=0.9"), Some(plain(Format::Yaml)));
        assert_eq!(all("application/yaml;q=0, */*;q=0.1"), Some(plain(Format::Json)));
        assert_eq!(all("application/yaml;q=0"), Some(plain(Format::Yaml)));
        assert_eq!(all("application/yaml;q=x, application/json;q=2"), Some(plain(Format::Json)));
        assert_eq!(all("*/*, application/yaml"), Some(plain(Format::Yaml)));
        assert_eq!(all("application/*;q=0.9, application/yaml;q=0.1"), Some(plain(Format::Yaml)));
        assert_eq!(all("application/yaml;q=0.1, */*;q=0.9"), Some(plain(Format::Json)));
        assert_eq!(all("text/html, application/json; charset=utf-8"), Some(plain(Format::Json)));
        assert_eq!(
            accept(Some("application/vnd.kubernetes.protobuf,*/*"), &[Format::Json], |_| true),
            Some(plain(Format::Json))
        );
        for none in ["text/html", "application/cbor", "nonsense", &"*/*,".repeat(2000)] {
            assert_eq!(all(none), None, "{none:.40}");
        }
    }

    #[test]
    fn selects_tables_for_kubectl_with_fallback() {
        let header = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(transformed(header), Some(Transform::Table(MetaVersion::V1)));
        let beta = accept(Some(header), &Format::ALL, |wanted| {
            wanted.transform == Some(Transform::Table(MetaVersion::V1Beta1))
        });
        assert_eq!(beta.unwrap().transform, Some(Transform::Table(MetaVersion::V1Beta1)));
        assert_eq!(
            accept(Some(header), &Format::ALL, |wanted| wanted.transform.is_none()),
            Some(plain(Format::Json))
        );
        assert_eq!(all("application/json;as=Table;v=v2;g=meta.k8s.io"), None);
        assert_eq!(all("application/json;as=Chair;v=v1;g=meta.k8s.io"), None);
    }

    #[test]
    fn parses_metadata_discovery_and_streams() {
        assert_eq!(
            all("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Some(Accepted {
                format: Format::Protobuf,
                transform: Some(Transform::PartialObjectMetadataList(MetaVersion::V1)),
                stream: false,
            })
        );
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(transformed(discovery), Some(Transform::Discovery { beta: false, local: false }));
        let local = format!("{discovery};profile=nopeer");
        assert_eq!(transformed(&local), Some(Transform::Discovery { beta: false, local: true }));
        assert!(all("application/json;stream=watch").unwrap().stream);
        assert_eq!(all("application/json;stream=other"), None);
        assert_eq!(all("application/yaml;stream=watch"), None);
    }

    #[test]
    fn parses_content_types() {
        assert_eq!(content_type("application/json; charset=utf-8"), Some(ContentType::Object(Format::Json)));
        assert_eq!(content_type("Application/YAML"), Some(ContentType::Object(Format::Yaml)));
        assert_eq!(
            content_type("application/strategic-merge-patch+json"),
            Some(ContentType::Patch(PatchType::Strategic))
        );
        assert_eq!(content_type("application/apply-patch+yaml"), Some(ContentType::Patch(PatchType::Apply)));
        assert_eq!(content_type("text/plain"), None);
        assert_eq!(content_type(""), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(header in "[a-z*/;,=q0-9.\" +]{0,80}") {
            let _ = (all(&header), content_type(&header));
        }
    }
}
