//! Content negotiation: the encodings and forms that a client accepts.

use http::{HeaderMap, HeaderValue, header};
use nave_codec::negotiate::{self, Accepted, Format, Transform};
use nave_machinery::status::StatusDetails;
use nave_machinery::{Reason, Status};

use crate::gzip;
use crate::request_info::{Query, ResourceRequest};

/// The part of an object to include in a table row (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// The encodings and forms that the client of a request accepts.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices")]
pub struct Negotiation {
    accept: Option<HeaderValue>,
    gzip: bool,
    pretty: bool,
    include: IncludeObject,
    /// True if `includeObject` has an unknown value.
    includes_unknown: bool,
    /// True to replace the accepted format by JSON.
    as_json: bool,
    /// True if the answer has no form as a table.
    no_table: bool,
}

/// Subresources whose objects have no form as a table: group, resource and subresource.
const WITHOUT_TABLES: [(&str, &str, &str); 4] = [
    ("", "pods", "ephemeralcontainers"),
    ("", "pods", "resize"),
    ("certificates.k8s.io", "certificatesigningrequests", "approval"),
    ("resource.k8s.io", "resourceclaims", "status"),
];

/// Checks that an `Accept` header, if any, lists the only media type that is served.
///
/// # Errors
/// 406.
pub(crate) fn check_only(headers: &HeaderMap, media_type: &str) -> Result<(), Status> {
    let accept = headers.get(header::ACCEPT).map(|accept| accept.to_str().unwrap_or_default().trim());
    if accept.is_none_or(|accept| accept.is_empty() || names(accept, media_type)) {
        return Ok(());
    }
    Err(no_representation(&[media_type]))
}

/// Returns whether an `Accept` header lists a media type, with any parameters. As for upstream's router,
/// `application/*` lists none.
pub(crate) fn names(accept: &str, media_type: &str) -> bool {
    let mut ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    ranges.any(|range| matches!(range, "*" | "*/*") || range.eq_ignore_ascii_case(media_type))
}

/// Returns 406: the client accepts none of the served media types.
pub(crate) fn no_representation(served: &[&str]) -> Status {
    let message = format!("406: Not Acceptable\n\nAvailable representations: {}", served.join(", "));
    Status::failure(406, Reason::NotAcceptable, message).with_details(StatusDetails::default())
}

/// The forms that an endpoint offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A document, without alternative forms.
    Plain,
    /// An object: in full, as a table, or only its metadata.
    Object,
    /// A list: in full, as a table, or with metadata only.
    List,
    /// The versions of a group or the resources of a version, or aggregated discovery.
    Discovery,
    /// As `Discovery`, outside upstream's router: the groups, one group, or a version of custom resources.
    Group,
}

impl Offer {
    fn has(self, transform: Option<Transform>) -> bool {
        match transform {
            None => true,
            Some(
                Transform::Table(_)
                | Transform::PartialObjectMetadata(_)
                | Transform::PartialObjectMetadataList(_),
            ) => matches!(self, Self::Object | Self::List),
            Some(Transform::Discovery { beta, .. }) => matches!(self, Self::Discovery | Self::Group) && !beta,
        }
    }

    /// Checks that a form fits one object or a list.
    fn check(self, transform: Option<Transform>) -> Result<(), Status> {
        let why = match (self, transform) {
            (Self::List, Some(Transform::PartialObjectMetadata(_))) => {
                "you requested PartialObjectMetadata, but the requested object is a list"
            }
            (Self::Object, Some(Transform::PartialObjectMetadataList(_))) => {
                "you requested PartialObjectMetadataList, but the requested object is not a list"
            }
            _ => return Ok(()),
        };
        Err(Status::failure(406, Reason::NotAcceptable, why))
    }

    /// Returns the media types that upstream's router lists for an endpoint.
    fn served(self) -> Vec<&'static str> {
        let mut served: Vec<&str> = Format::ALL.iter().map(|format| format.media_type()).collect();
        if self == Self::List {
            served.extend(STREAMS);
        }
        served
    }
}

/// The media types of watches.
const STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// The encodings of an endpoint's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encodings {
    /// JSON, YAML and protobuf.
    All,
    /// As `All`, but only metadata is available as protobuf: custom objects have no messages.
    MetadataAsProtobuf,
}

impl Encodings {
    fn has(self, accepted: Accepted) -> bool {
        use Transform::{PartialObjectMetadata, PartialObjectMetadataList};
        let is_metadata =
            matches!(accepted.transform, Some(PartialObjectMetadata(_) | PartialObjectMetadataList(_)));
        // Cells have no protobuf form.
        let is_table = matches!(accepted.transform, Some(Transform::Table(_)));
        accepted.format != Format::Protobuf || is_metadata || (self == Self::All && !is_table)
    }
}

impl Negotiation {
    /// Parses the request's headers and query.
    pub fn new(headers: &HeaderMap, query: &Query) -> Self {
        let accept = headers.get(header::ACCEPT).cloned();
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // As upstream, command-line tools and browsers get indented output by default.
        let at_terminal = ["curl", "Wget", "Mozilla/5.0"].iter().any(|person| agent.starts_with(person));
        let requested = query.get("pretty").filter(|pretty| !pretty.is_empty());
        let pretty = requested
            .map_or(at_terminal, |pretty| matches!(pretty, "1" | "t" | "T" | "true" | "TRUE" | "True"));
        let part = query.get("includeObject").unwrap_or_default();
        let include = match part {
            "None" => IncludeObject::None,
            "Object" => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        };
        let includes_unknown = !matches!(part, "" | "None" | "Object" | "Metadata");
        Self {
            accept,
            gzip: gzip::is_accepted(headers),
            pretty,
            include,
            includes_unknown,
            as_json: false,
            no_table: false,
        }
    }

    /// Removes the forms that a resource does not have.
    #[must_use]
    pub fn for_resource(self, request: &ResourceRequest) -> Self {
        let (gvr, subresource) = (&request.gvr, request.subresource.as_str());
        let no_table = WITHOUT_TABLES.contains(&(gvr.group.as_str(), gvr.resource.as_str(), subresource));
        Self { no_table, ..self }
    }

    /// Returns a negotiation with the same forms, as compact JSON.
    pub(crate) fn as_json(&self) -> Self {
        Self { gzip: false, pretty: false, as_json: true, ..self.clone() }
    }

    /// Chooses the encoding and form of a response.
    ///
    /// # Errors
    /// 406 if the client accepts no available form.
    pub fn choose(&self, offer: Offer, encodings: Encodings) -> Result<Accepted, Status> {
        let accepted = self.choose_of(offer, encodings)?;
        offer.check(accepted.transform).map(|()| accepted)
    }

    /// As [`choose`](Self::choose), for a watch. YAML frames have no separator.
    ///
    /// # Errors
    /// See [`choose`](Self::choose).
    pub fn choose_frames(&self, encodings: Encodings) -> Result<Accepted, Status> {
        let accepted = self.choose_of(Offer::List, encodings)?;
        if accepted.format.has_streams() { Ok(accepted) } else { Err(Status::not_acceptable(&STREAMS)) }
    }

    fn choose_of(&self, offer: Offer, encodings: Encodings) -> Result<Accepted, Status> {
        let accept = self.accept.as_ref().and_then(|accept| accept.to_str().ok());
        // Upstream's router rejects media types that no handler serves, and ranges. It serves neither custom resources
        // nor the documents of groups.
        let is_routed = match offer {
            Offer::Plain | Offer::Group => false,
            Offer::Object | Offer::List => encodings == Encodings::All,
            Offer::Discovery => true,
        };
        if is_routed
            && accept.is_some_and(|accept| {
                !accept.trim().is_empty()
                    && !Format::ALL.iter().any(|format| names(accept, format.media_type()))
            })
        {
            return Err(no_representation(&offer.served()));
        }
        let is_available = |accepted: &Accepted| {
            let is_table = matches!(accepted.transform, Some(Transform::Table(_)));
            offer.has(accepted.transform) && encodings.has(*accepted) && !(is_table && self.no_table)
        };
        let accepted = negotiate::accept(accept, &Format::ALL, is_available).map(|accepted| {
            if self.as_json { Accepted { format: Format::Json, ..accepted } } else { accepted }
        });
        let is_table = accepted.is_some_and(|it| matches!(it.transform, Some(Transform::Table(_))));
        if is_table && self.includes_unknown {
            let why =
                "unable to convert to Table: includeObject must be 'Metadata', 'Object', 'None', or empty";
            return Err(Status::bad_request(why));
        }
        accepted.ok_or_else(|| Status::not_acceptable(&Format::ALL.map(Format::media_type)))
    }

    /// Returns whether to indent documents.
    pub fn pretty(&self) -> bool {
        self.pretty
    }

    /// Returns the part of an object to include in a table row.
    pub fn include(&self) -> IncludeObject {
        self.include
    }

    /// Returns whether the client accepts gzip.
    pub(crate) fn gzip(&self) -> bool {
        self.gzip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_info::RequestInfo;

    #[test]
    fn rejects_unknown_media_types_and_unavailable_forms_differently() {
        for (accept, start) in [
            ("text/html", "406: Not Acceptable\n\nAvailable representations: application/json, "),
            ("application/json;as=Chair", "only the following media types are accepted: application/json, "),
            ("text/html, application/yaml;as=Chair", "only the following media types are accepted: "),
            ("application/*", "406: Not Acceptable\n\nAvailable representations: application/json, "),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
                "only the following media types are accepted: application/json, application/yaml, application/vnd",
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                "you requested PartialObjectMetadataList, but the requested object is not a list",
            ),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            let refusal = Negotiation::new(&headers, &Query::default()).choose(Offer::Object, Encodings::All);
            assert!(refusal.is_err_and(|status| status.message.starts_with(start)), "{accept}");
        }
    }

    #[test]
    fn watches_have_no_yaml() {
        for (accept, start) in [
            (
                "application/yaml",
                "only the following media types are accepted: application/json;stream=watch, ",
            ),
            (
                "application/yaml;stream=watch",
                "only the following media types are accepted: application/json, ",
            ),
            (
                "text/html",
                "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, ",
            ),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            let refusal = Negotiation::new(&headers, &Query::default()).choose_frames(Encodings::All);
            assert!(refusal.is_err_and(|status| status.message.starts_with(start)), "{accept}");
        }
    }

    #[test]
    fn some_subresources_have_no_tables() {
        for (path, is_refused) in [
            ("/api/v1/namespaces/a/pods/b", false),
            ("/api/v1/namespaces/a/pods/b/status", false),
            ("/api/v1/namespaces/a/pods/b/resize", true),
            ("/api/v1/namespaces/a/pods/b/ephemeralcontainers", true),
            ("/apis/certificates.k8s.io/v1/certificatesigningrequests/a/approval", true),
            ("/apis/resource.k8s.io/v1/namespaces/a/resourceclaims/b/status", true),
        ] {
            let info = RequestInfo::new(&http::Method::GET, &path.parse().unwrap());
            let table = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
            let headers = [(header::ACCEPT, table)].into_iter().collect();
            let negotiation =
                Negotiation::new(&headers, &info.query).for_resource(info.resource.as_ref().unwrap());
            let chosen = negotiation.choose(Offer::Object, Encodings::All);
            assert_eq!(chosen.is_err_and(|status| status.code == 406), is_refused, "{path}");
        }
    }

    #[test]
    fn rejects_tables_with_unknown_parts_of_objects() {
        let uri = "/api/v1/pods?includeObject=Half".parse().unwrap();
        let info = RequestInfo::new(&http::Method::GET, &uri);
        for (accept, is_refused) in
            [("application/json", false), ("application/json;as=Table;v=v1;g=meta.k8s.io", true)]
        {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            let chosen = Negotiation::new(&headers, &info.query).choose(Offer::List, Encodings::All);
            assert_eq!(chosen.is_err_and(|status| status.code == 400), is_refused, "{accept}");
        }
    }

    #[test]
    fn command_line_tools_get_indented_output_by_default() {
        for (agent, query, pretty) in [
            ("curl/8", "", true),
            ("curl/8", "pretty=false", false),
            ("curl/8", "pretty=", true),
            ("curl/8", "pretty=x", false),
            ("Mozilla/5.0 (X11)", "", true),
            ("Mozilla/4.0", "", false),
            ("kubectl/v1", "", false),
            ("kubectl/v1", "pretty=true", true),
        ] {
            let headers = [(header::USER_AGENT, HeaderValue::from_static(agent))].into_iter().collect();
            let uri = format!("/version?{query}").parse().unwrap();
            let info = RequestInfo::new(&http::Method::GET, &uri);
            assert_eq!(Negotiation::new(&headers, &info.query).pretty(), pretty, "{agent} {query}");
        }
    }
}
