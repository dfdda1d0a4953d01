//! `/statusz` and `/flagz` (upstream: `component-base/zpages`, KEP-4827 and KEP-4828): text for people, and objects of
//! `config.k8s.io` on request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

use http::{HeaderMap, Response, StatusCode, header};
use nave_machinery::time::{self, Timestamp};
use nave_machinery::{Reason, Status};
use serde_json::{Value, json};

use crate::body::ResponseBody;
use crate::raw_response;
use crate::version::KUBERNETES_VERSION;

const GROUP: &str = "config.k8s.io";
/// The versions of the objects, with whether they are deprecated.
const VERSIONS: [(&str, bool); 2] = [("v1beta1", false), ("v1alpha1", true)];
const MEDIA_TYPES: [&str; 3] = ["application/json", "application/yaml", "text/plain"];
const PATHS: [&str; 7] = ["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];

/// The pages of a server.
pub struct ZPages {
    started: (Timestamp, Instant),
    /// The flags with their values.
    flags: BTreeMap<String, String>,
}

/// A page in its representations.
struct Page {
    kind: &'static str,
    text: String,
    object: Value,
}

/// The requested representation.
#[derive(Debug, PartialEq, Eq)]
enum Representation {
    Text,
    Object { media_type: &'static str, version: &'static str, is_deprecated: bool },
}

impl ZPages {
    /// Creates the pages of a server that starts now. No value of a flag may be secret.
    pub fn new(flags: BTreeMap<String, String>) -> Self {
        Self { started: (time::now(), Instant::now()), flags }
    }

    /// Returns `/statusz`.
    ///
    /// # Errors
    /// 406 if the client accepts no representation.
    pub(crate) fn statusz(&self, headers: &HeaderMap) -> Result<Response<ResponseBody>, Status> {
        let (started, since) = &self.started;
        let (major, minor, patch) = KUBERNETES_VERSION;
        let up = since.elapsed().as_secs();
        let (version, emulated) = (format!("{major}.{minor}.{patch}"), format!("{major}.{minor}"));
        let text = format!(
            "Started: {}\nUp: {} hr {:02} min {:02} sec\nBinary version: {version}\nEmulation version: {emulated}\n\
             Paths: {}\n",
            started.rfc3339(),
            up / 3600,
            up / 60 % 60,
            up % 60,
            PATHS.join(" ")
        );
        let object = json!({
            "startTime": started.rfc3339(),
            "uptimeSeconds": up,
            "goVersion": "",
            "binaryVersion": version,
            "emulationVersion": emulated,
            "paths": PATHS,
        });
        Page { kind: "Statusz", text, object }.answer(headers)
    }

    /// Returns `/flagz`.
    ///
    /// # Errors
    /// 406 if the client accepts no representation.
    pub(crate) fn flagz(&self, headers: &HeaderMap) -> Result<Response<ResponseBody>, Status> {
        let mut text = String::new();
        for (name, value) in &self.flags {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}={value}");
        }
        Page { kind: "Flagz", text, object: json!({"flags": self.flags}) }.answer(headers)
    }
}

impl Page {
    fn answer(self, headers: &HeaderMap) -> Result<Response<ResponseBody>, Status> {
        let accept = headers.get(header::ACCEPT).map(|accept| accept.to_str().unwrap_or_default());
        let representation = Representation::choose(accept, self.kind);
        match representation.ok_or_else(not_acceptable)? {
            Representation::Text => {
                let page = self.kind.to_lowercase();
                let text = format!(
                    "\napiserver {page}\nWarning: for debugging by people; the format of this text can change.\n\n{}",
                    self.text
                );
                Ok(raw_response::text(StatusCode::OK, text))
            }
            Representation::Object { media_type, version, is_deprecated } => {
                let mut object = json!({
                    "kind": self.kind,
                    "apiVersion": format!("{GROUP}/{version}"),
                    "metadata": {"name": "apiserver"},
                });
                if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), self.object) {
                    object.extend(fields);
                }
                let encoded = match media_type {
                    "application/yaml" => nave_codec::yaml::encode(&object),
                    _ => serde_json::to_vec_pretty(&object).map_err(Status::internal)?,
                };
                let content_type = format!("{media_type};g={GROUP};v={version};as={}", self.kind);
                let mut response = raw_response::bytes(StatusCode::OK, content_type, encoded);
                if is_deprecated {
                    let warning =
                        format!("299 - \"{version} of {} is deprecated, use a newer version\"", self.kind);
                    raw_response::set_header(&mut response, header::WARNING, &warning);
                }
                Ok(response)
            }
        }
    }
}

fn not_acceptable() -> Status {
    let message = format!("only the following media types are accepted: {}", MEDIA_TYPES.join(", "));
    Status::failure(406, Reason::NotAcceptable, message)
}

impl Representation {
    /// Selects the first representation in the `Accept` header that exists; objects must be named with their kind,
    /// group and version.
    fn choose(accept: Option<&str>, kind: &str) -> Option<Self> {
        let accept = accept.filter(|accept| !accept.trim().is_empty()).unwrap_or("*/*");
        accept.split(',').find_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media_type = parts.next()?;
            if matches!(media_type, "*/*" | "text/*" | "text/plain") {
                return Some(Self::Text);
            }
            let media_type = *MEDIA_TYPES.iter().find(|known| **known == media_type)?;
            let parameters: BTreeMap<&str, &str> =
                parts.filter_map(|parameter| parameter.split_once('=')).collect();
            if parameters.get("as") != Some(&kind) || parameters.get("g") != Some(&GROUP) {
                return None;
            }
            let (version, is_deprecated) =
                *VERSIONS.iter().find(|(version, _)| parameters.get("v") == Some(version))?;
            Some(Self::Object { media_type, version, is_deprecated })
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn accepting(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn chooses_text_or_an_object() {
        let object = |media_type, version, is_deprecated| {
            Some(Representation::Object { media_type, version, is_deprecated })
        };
        for (accept, expected) in [
            ("", Some(Representation::Text)),
            ("*/*", Some(Representation::Text)),
            ("text/plain;charset=utf-8", Some(Representation::Text)),
            (
                "application/json;as=Statusz;v=v1beta1;g=config.k8s.io",
                object("application/json", "v1beta1", false),
            ),
            (
                "application/yaml; g=config.k8s.io; v=v1alpha1; as=Statusz",
                object("application/yaml", "v1alpha1", true),
            ),
            ("application/json, text/plain", Some(Representation::Text)),
            ("application/json", None),
            ("application/json;as=Flagz;v=v1beta1;g=config.k8s.io", None),
            ("application/json;as=Statusz;v=v2;g=config.k8s.io", None),
            ("text/html", None),
        ] {
            assert_eq!(Representation::choose(Some(accept), "Statusz"), expected, "{accept}");
        }
        assert_eq!(Representation::choose(None, "Statusz"), Some(Representation::Text));
    }

    #[test]
    fn pages_have_the_content_type_of_their_representation() {
        let pages = ZPages::new(BTreeMap::from([("secure-port".to_owned(), "6443".to_owned())]));
        let text = pages.flagz(&HeaderMap::new()).unwrap();
        assert_eq!(text.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        let accept = "application/json;as=Flagz;v=v1alpha1;g=config.k8s.io";
        let object = pages.flagz(&accepting(accept)).unwrap();
        assert_eq!(
            object.headers()[header::CONTENT_TYPE],
            "application/json;g=config.k8s.io;v=v1alpha1;as=Flagz"
        );
        assert!(object.headers().contains_key(header::WARNING));
        let refused = pages.statusz(&accepting("text/html")).err().unwrap();
        assert_eq!(refused.code, 406);
    }
}
