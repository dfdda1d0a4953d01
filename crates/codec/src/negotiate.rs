//! What a client may send and wants back: `Content-Type` and `Accept` as small enums.
//!
//! A header's alternatives are tried by their quality, then in their order, and the first that the endpoint offers
//! wins, as in kube-apiserver; none is 406 (or 415). Parameters that nobody knows are ignored.

/// The longest header that is read; a longer one matches nothing.
pub const MAX_HEADER: usize = 4096;

/// How many alternatives of a header are looked at.
const MAX_ALTERNATIVES: usize = 64;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What an object is turned into before it is written (`as=…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// Rows and columns, of `meta.k8s.io`.
    Table(MetaVersion),
    /// The metadata alone, of `meta.k8s.io`.
    PartialObjectMetadata(MetaVersion),
    /// A list of metadata, of `meta.k8s.io`.
    PartialObjectMetadataList(MetaVersion),
    /// Aggregated discovery, of `apidiscovery.k8s.io`.
    Discovery {
        /// `v2beta1` instead of `v2`.
        beta: bool,
        /// `profile=nopeer` (or its older name): this server's own groups only.
        local: bool,
    },
}

/// A version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `v1`.
    V1,
    /// `v1beta1`, whose documents are the same but for their `apiVersion`.
    V1Beta1,
}

/// What a client wants back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// How the answer is written.
    pub format: Format,
    /// What is written.
    pub transform: Option<Transform>,
    /// Whether `stream=watch` was asked for.
    pub stream: bool,
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// An object.
    Object(Format),
    /// A patch.
    Patch(PatchType),
}

/// The kinds of patches.
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
    /// Every format, in the order in which a wildcard finds them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// The media type, as in a response's `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch's stream.
    pub fn stream_media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

impl PatchType {
    /// The media type, as in a request's `Content-Type`.
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
    /// The `apiVersion` of the documents.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The first thing an `Accept` header wants that is among `formats` and that `allows` takes (which sees transforms
/// and streams); no header is the first format. A wildcard stands for the first format.
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
    let mut alternatives: Vec<Media<'_>> = header
        .split(',')
        .take(MAX_ALTERNATIVES)
        .filter_map(Media::parse)
        .filter(|media| media.quality > 0.0)
        .collect();
    alternatives.sort_by(|one, other| other.quality.total_cmp(&one.quality));
    alternatives.into_iter().find_map(|media| {
        let format = formats.iter().copied().find(|format| media.is(format.media_type()))?;
        let accepted = Accepted { format, transform: media.transform().ok()?, stream: media.stream? };
        (accepted.transform.is_none() && !accepted.stream || allows(&accepted)).then_some(accepted)
    })
}

/// What a `Content-Type` header says the body is; parameters such as the character set are ignored. `None` if it
/// is none of what the API takes.
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

/// One alternative of an `Accept` header.
struct Media<'h> {
    name: &'h str,
    quality: f32,
    /// `None` for a stream that does not exist.
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
            match key.trim() {
                "q" => media.quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?,
                "stream" => {
                    media.stream = match value {
                        "" => Some(false),
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

    fn is(&self, media_type: &str) -> bool {
        match self.name {
            "*" | "*/*" | "application/*" => true,
            name => name.eq_ignore_ascii_case(media_type),
        }
    }

    /// The transform, if one is asked for; an error if it does not exist.
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
    fn the_best_alternative_on_offer_wins() {
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
        assert_eq!(all("text/html, application/json; charset=utf-8"), Some(plain(Format::Json)));
        assert_eq!(
            accept(Some("application/vnd.kubernetes.protobuf,*/*"), &[Format::Json], |_| true),
            Some(plain(Format::Json))
        );
        for none in
            ["text/html", "application/cbor", "nonsense", "application/json;q=2", &"*/*,".repeat(2000)]
        {
            assert_eq!(all(none), None, "{none:.40}");
        }
    }

    #[test]
    fn kubectl_asks_for_tables_and_falls_back() {
        let header = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(transformed(header), Some(Transform::Table(MetaVersion::V1)));
        let beta = accept(Some(header), &Format::ALL, |wanted| {
            wanted.transform == Some(Transform::Table(MetaVersion::V1Beta1))
        });
        assert_eq!(beta.unwrap().transform, Some(Transform::Table(MetaVersion::V1Beta1)));
        assert_eq!(accept(Some(header), &Format::ALL, |_| false), Some(plain(Format::Json)));
        assert_eq!(all("application/json;as=Table;v=v2;g=meta.k8s.io"), None);
        assert_eq!(all("application/json;as=Chair;v=v1;g=meta.k8s.io"), None);
    }

    #[test]
    fn metadata_discovery_and_streams() {
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
    }

    #[test]
    fn content_types() {
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
        fn no_header_panics(header in "[a-z*/;,=q0-9.\" +]{0,80}") {
            let _ = (all(&header), content_type(&header));
        }
    }
}
