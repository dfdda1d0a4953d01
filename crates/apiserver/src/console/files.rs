//! The files of the page. Anybody may read them, because they are constant; the data is elsewhere.

use std::io::Write as _;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};

use crate::body::ResponseBody;
use crate::request_info::RequestInfo;
use crate::{gzip, raw_response};

/// The files, prepared at the first request.
#[derive(Default)]
pub(super) struct PublicFiles(OnceLock<Vec<File>>);

/// A file.
struct File {
    path: &'static str,
    media_type: &'static str,
    content: &'static [u8],
    gzipped: Bytes,
    /// Weak, because it is the same for both encodings.
    etag: String,
}

impl PublicFiles {
    /// Returns the file at the path of a GET or HEAD; `None` for all other requests.
    pub(super) fn answer(&self, info: &RequestInfo, headers: &HeaderMap) -> Option<Response<ResponseBody>> {
        if !matches!(info.method, Method::GET | Method::HEAD) {
            return None;
        }
        let path = info.path.strip_prefix("/console")?;
        if path.is_empty() {
            let mut response = raw_response::text(StatusCode::PERMANENT_REDIRECT, "");
            raw_response::set_header(&mut response, header::LOCATION, "/console/");
            return Some(response);
        }
        let files = self.0.get_or_init(|| FILES.map(File::new).into());
        let file = files.iter().find(|file| path.strip_prefix('/') == Some(file.path))?;
        Some(file.response(headers))
    }
}

impl File {
    fn new((path, media_type, content): (&'static str, &'static str, &'static [u8])) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory cannot fail.
        let _ = encoder.write_all(content);
        let gzipped = encoder.finish().unwrap_or_default().into();
        let hash = raw_response::etag(content);
        let etag = format!("W/{}", hash.to_str().unwrap_or_default());
        Self { path, media_type, content, gzipped, etag }
    }

    fn response(&self, headers: &HeaderMap) -> Response<ResponseBody> {
        let seen = headers.get(header::IF_NONE_MATCH).and_then(|seen| seen.to_str().ok());
        let is_gzipped = gzip::is_accepted(headers);
        let mut response = if seen == Some(&self.etag) {
            raw_response::bytes(StatusCode::NOT_MODIFIED, "", Bytes::new())
        } else if is_gzipped {
            raw_response::bytes(StatusCode::OK, self.media_type, self.gzipped.clone())
        } else {
            raw_response::bytes(StatusCode::OK, self.media_type, self.content)
        };
        if is_gzipped && response.status() == StatusCode::OK {
            raw_response::set_header(&mut response, header::CONTENT_ENCODING, "gzip");
        }
        raw_response::set_header(&mut response, header::ETAG, &self.etag);
        for (name, value) in HEADERS {
            raw_response::set_header(&mut response, name, value);
        }
        response
    }
}

/// The headers of every file. The page may run its own scripts and connect to its own server, and nothing else; no other
/// page may embed it. Browsers ask at each use whether a file has changed.
const HEADERS: [(HeaderName, &str); 8] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CACHE_CONTROL, "no-cache"),
    (header::VARY, "Accept-Encoding"),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Each file's path below `/console/`, media type and content.
const FILES: [(&str, &str, &[u8]); 10] = [
    ("", HTML, include_bytes!("page/index.html")),
    ("style.css", CSS, include_bytes!("page/style.css")),
    ("icon.svg", SVG, include_bytes!("page/icon.svg")),
    ("main.js", SCRIPT, include_bytes!("page/main.js")),
    ("stream.js", SCRIPT, include_bytes!("page/stream.js")),
    ("panels.js", SCRIPT, include_bytes!("page/panels.js")),
    ("table.js", SCRIPT, include_bytes!("page/table.js")),
    ("chart.js", SCRIPT, include_bytes!("page/chart.js")),
    ("format.js", SCRIPT, include_bytes!("page/format.js")),
    ("dom.js", SCRIPT, include_bytes!("page/dom.js")),
];

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http::HeaderValue;

    use super::*;

    fn get(method: &Method, path: &str, headers: &[(HeaderName, &str)]) -> Option<Response<ResponseBody>> {
        let info = RequestInfo::new(method, &path.parse().unwrap());
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        PublicFiles::default().answer(&info, &headers.collect())
    }

    fn content(response: Response<ResponseBody>) -> Bytes {
        let ResponseBody::Full(bytes) = response.into_body() else { panic!("a file is complete") };
        bytes
    }

    #[test]
    fn each_file_has_the_policy_and_an_etag() {
        for (path, media_type, bytes) in FILES {
            let response = get(&Method::GET, &format!("/console/{path}"), &[]).unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], media_type);
            for (name, value) in HEADERS {
                assert_eq!(response.headers()[name], value, "{path}");
            }
            let etag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
            assert_eq!(content(response), bytes);
            let again =
                get(&Method::GET, &format!("/console/{path}"), &[(header::IF_NONE_MATCH, &etag)]).unwrap();
            assert_eq!((again.status().as_u16(), content(again).len()), (304, 0), "{path}");
        }
    }

    #[test]
    fn files_are_compressed_for_clients_that_accept_it() {
        for (path, _, bytes) in FILES {
            let headers = [(header::ACCEPT_ENCODING, "gzip, br")];
            let response = get(&Method::GET, &format!("/console/{path}"), &headers).unwrap();
            assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip", "{path}");
            let mut plain = Vec::new();
            GzDecoder::new(&content(response)[..]).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, bytes, "{path}");
        }
    }

    #[test]
    fn only_reads_of_known_paths_are_public() {
        let location = get(&Method::GET, "/console", &[]).unwrap().headers()[header::LOCATION].clone();
        assert_eq!(location, "/console/");
        assert!(get(&Method::HEAD, "/console/", &[]).is_some());
        for (method, path) in [
            (Method::GET, "/console/stream"),
            (Method::GET, "/console/style.css/"),
            (Method::GET, "/console//style.css"),
            (Method::GET, "/console/../api"),
            (Method::GET, "/consoles"),
            (Method::GET, "/"),
            (Method::POST, "/console/"),
            (Method::OPTIONS, "/console/style.css"),
        ] {
            assert!(get(&method, path, &[]).is_none(), "{method} {path}");
        }
    }

    #[test]
    fn files_load_nothing_from_elsewhere_and_contain_no_inline_code() {
        for (path, media_type, bytes) in FILES {
            let text = std::str::from_utf8(bytes).unwrap();
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http:",
                "https:",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
                "document.cookie",
                "localStorage",
                "sessionStorage",
                "style=\"",
                "onclick=",
                "@import",
            ] {
                assert!(!text.contains(forbidden), "{path} contains {forbidden}");
            }
            if media_type == HTML {
                assert!(!text.contains("<script>") && !text.contains("<style"), "{path}");
            }
        }
    }
}
