//! Response headers for browsers: CORS, for pages of other origins that may read responses, and HSTS, to enforce HTTPS
//! (upstream: `filters/cors.go`, `filters/hsts.go`).
//!
//! These headers grant no access: all requests are authenticated and authorized. Browsers do not apply CORS to
//! WebSockets.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use regex::{Regex, RegexBuilder};

use crate::body::ResponseBody;

/// The CORS and HSTS settings of one server.
#[derive(Clone, Debug, Default)]
pub struct Browsers {
    allowed_origins: Vec<Regex>,
    strict_transport_security: Option<HeaderValue>,
}

/// An invalid expression or directive.
#[derive(Debug, thiserror::Error)]
pub enum BrowsersError {
    /// The expression is empty.
    #[error("an expression is empty")]
    Empty,
    /// The expression is not a valid regular expression, or needs too much memory.
    #[error("{0}")]
    Expression(#[from] Box<regex::Error>),
    /// The expression is not anchored and would match part of a host name: `good.com` also matches `good.com.evil.org`
    /// (CVE-2022-1996).
    #[error("{0:?} must hold the start of the host by ^ or //, and its end by $ or :")]
    NotPinned(String),
    /// The directive does not exist (RFC 6797, section 6.1).
    #[error("{0:?} is not max-age=SECONDS, includeSubDomains or preload")]
    Directive(String),
}

impl Browsers {
    /// Parses the regular expressions of allowed origins (`--cors-allowed-origins`) and the HSTS directives
    /// (`--strict-transport-security-directives`).
    ///
    /// # Errors
    /// [`BrowsersError`].
    pub fn new(origins: &[String], directives: &[String]) -> Result<Self, BrowsersError> {
        let allowed_origins = origins.iter().map(|origin| origin_expression(origin));
        let allowed_origins = allowed_origins.collect::<Result<_, _>>()?;
        if let Some(wrong) = directives.iter().find(|directive| !is_directive(directive)) {
            return Err(BrowsersError::Directive(wrong.clone()));
        }
        let directives = directives.join("; ");
        let strict_transport_security = HeaderValue::try_from(&directives).ok().filter(|it| !it.is_empty());
        Ok(Self { allowed_origins, strict_transport_security })
    }

    /// Returns the request's `Origin` if pages of this origin may read responses.
    pub(crate) fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.allowed_origins.is_empty() {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok().filter(|text| text.len() <= MAX_ORIGIN)?;
        self.allowed_origins.iter().any(|allowed| allowed.is_match(text)).then(|| origin.clone())
    }

    /// Returns the response to a CORS preflight request, which needs no credentials; `None` for other requests.
    pub(crate) fn preflight<B>(request: &Request<B>) -> Option<Response<ResponseBody>> {
        (request.method() == Method::OPTIONS).then(|| {
            let mut response = Response::new(ResponseBody::Full(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        })
    }

    /// Adds the headers to a response. `origin` is the origin of the page if it may read the response.
    pub(crate) fn add(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        if let Some(directives) = &self.strict_transport_security {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, directives.clone());
        }
        let Some(origin) = origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS),
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // The response depends on the origin, so caches must distinguish origins.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

const ALLOWED_METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE, PATCH";
const ALLOWED_HEADERS: &str = "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since";
const EXPOSED_HEADERS: &str = "Date";
/// Maximum length of an origin that is matched, in bytes: scheme, host name and port.
const MAX_ORIGIN: usize = 512;
/// Maximum memory of a compiled expression, in bytes.
const MAX_EXPRESSION: usize = 1 << 20;

fn origin_expression(text: &str) -> Result<Regex, BrowsersError> {
    if text.is_empty() {
        return Err(BrowsersError::Empty);
    }
    let built = RegexBuilder::new(text).size_limit(MAX_EXPRESSION).dfa_size_limit(MAX_EXPRESSION).build();
    let expression = built.map_err(Box::new)?;
    let is_pinned = (text.contains('^') || text.contains("//")) && (text.contains('$') || text.contains(':'));
    if is_pinned { Ok(expression) } else { Err(BrowsersError::NotPinned(text.to_owned())) }
}

fn is_directive(text: &str) -> bool {
    match text.split_once('=') {
        Some(("max-age", seconds)) => {
            !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit())
        }
        Some(_) => false,
        None => matches!(text, "includeSubDomains" | "preload"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browsers(origins: &[&str], directives: &[&str]) -> Result<Browsers, BrowsersError> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Browsers::new(&owned(origins), &owned(directives))
    }

    fn allows(browsers: &Browsers, origin: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::try_from(origin).unwrap())]);
        browsers.allowed_origin(&headers).is_some()
    }

    #[test]
    fn only_pages_of_allowed_origins_read_answers() {
        let some = browsers(&["//good\\.com(:|$)", "^https://a\\.example$"], &[]).unwrap();
        for (origin, allowed) in [
            ("https://good.com", true),
            ("http://good.com:8080", true),
            ("https://a.example", true),
            ("http://a.example", false),
            ("https://good.com.evil.org", false),
            ("https://notgood.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(allows(&some, origin), allowed, "{origin}");
        }
        assert!(!allows(&browsers(&["//.*$"], &[]).unwrap(), &format!("https://{}", "a".repeat(MAX_ORIGIN))));
        assert!(!allows(&Browsers::default(), "https://good.com"));
        assert_eq!(some.allowed_origin(&HeaderMap::new()), None);
    }

    #[test]
    fn rejects_invalid_expressions_and_directives() {
        let huge = "^(a{1000}){1000}$";
        for origin in ["", "good\\.com", "^good", "good$", "^($", huge] {
            assert!(browsers(&[origin], &[]).is_err(), "{origin}");
        }
        for directive in ["", "max-age", "max-age=", "max-age=1d", "max-age=1;preload", "includesubdomains"] {
            assert!(browsers(&[], &[directive]).is_err(), "{directive}");
        }
    }

    #[test]
    fn headers_are_added_for_allowed_pages_only() {
        let it = browsers(&["^https://a$"], &["max-age=31536000", "includeSubDomains"]).unwrap();
        let mut headers = HeaderMap::new();
        it.add(&mut headers, None);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000; includeSubDomains");
        it.add(&mut headers, Some(HeaderValue::from_static("https://a")));
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(headers[header::VARY], "Origin");
    }

    #[test]
    fn only_options_requests_are_preflights() {
        let is_preflight = |method: Method| {
            Browsers::preflight(&Request::builder().method(method).uri("/").body(()).unwrap()).is_some()
        };
        assert!(is_preflight(Method::OPTIONS) && !is_preflight(Method::GET));
    }
}
