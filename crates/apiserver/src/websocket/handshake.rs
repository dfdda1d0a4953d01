//! The opening handshake (RFC 6455, section 4.2), compatible with Go's `x/net/websocket`, which kube-apiserver uses for
//! watches.

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body;

use super::{MAX_CLIENT_MESSAGE, WebSocket};
use crate::body::ResponseBody;
use crate::raw_response;
use crate::upgrade::Upgrade;

/// A valid handshake request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The value of `Sec-WebSocket-Accept`.
    accept: String,
    /// The chosen subprotocol; at first the first one that the client offers. Watches have the same format in all
    /// subprotocols.
    protocol: Option<HeaderValue>,
}

/// The reason for refusing a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The version is not 13.
    #[error("unsupported WebSocket version: only 13 is supported")]
    Version,
    /// The key is missing, repeated, or not 16 bytes long.
    #[error("bad Sec-WebSocket-Key: 16 bytes in base64 are required")]
    Key,
    /// The origin is opaque or not a URL.
    #[error("bad Origin: an absolute URL is required")]
    Origin,
    /// The request has a body, which would be parsed as frames.
    #[error("a WebSocket handshake has no body")]
    Body,
}

impl Handshake {
    /// Parses the headers of a request; `None` if it is not a WebSocket handshake or is sent over HTTP/2, where these
    /// headers have no meaning.
    ///
    /// A client without an `Origin` is not a browser and is accepted. All origins are accepted, because a page can
    /// access only what its credentials allow.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn read<B: Body>(request: &Request<B>) -> Result<Option<Self>, Refusal> {
        let headers = request.headers();
        let asks = has_token(headers, &header::UPGRADE, "websocket")
            && has_token(headers, &header::CONNECTION, "upgrade");
        if !asks || !Upgrade::is_possible(request) {
            return Ok(None);
        }
        if !request.body().is_end_stream() {
            return Err(Refusal::Body);
        }
        if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(Refusal::Version);
        }
        if headers.contains_key(header::ORIGIN) && !single(headers, &header::ORIGIN).is_some_and(is_origin) {
            return Err(Refusal::Origin);
        }
        let key = single(headers, &header::SEC_WEBSOCKET_KEY)
            .filter(|key| BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES));
        let accept = accept_key(key.ok_or(Refusal::Key)?);
        let protocol = offered_protocols(headers).next();
        let protocol = protocol.and_then(|protocol| HeaderValue::try_from(protocol).ok());
        Ok(Some(Self { accept, protocol }))
    }

    /// Chooses a subprotocol, which the client must have offered.
    pub(crate) fn with_protocol(self, protocol: &str) -> Self {
        Self { protocol: HeaderValue::try_from(protocol).ok(), ..self }
    }

    /// Chooses no subprotocol.
    pub(crate) fn without_protocol(self) -> Self {
        Self { protocol: None, ..self }
    }

    /// Returns the response that accepts the handshake, and the protocol to run afterwards. Messages of the client are
    /// ignored.
    pub(crate) fn accept<B, F>(
        self,
        request: &mut Request<B>,
        session: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Response<ResponseBody>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.accept_messages(request, MAX_CLIENT_MESSAGE, session)
    }

    /// As [`Self::accept`], for a client that sends messages of at most `max_message` bytes.
    pub(crate) fn accept_messages<B, F>(
        self,
        request: &mut Request<B>,
        max_message: usize,
        session: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Response<ResponseBody>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgrade = Upgrade::new(request, move |connection| async move {
            session(super::open(connection, max_message).await).await;
        });
        let mut response = Response::new(ResponseBody::Upgrade(upgrade));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(protocol) = self.protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        raw_response::set_header(&mut response, header::SEC_WEBSOCKET_ACCEPT, &self.accept);
        response
    }
}

impl Refusal {
    /// Returns the response: plain text, as upstream.
    pub(crate) fn response(self) -> Response<ResponseBody> {
        let code = match self {
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Version | Self::Key | Self::Body => StatusCode::BAD_REQUEST,
        };
        let mut response = raw_response::text(code, format!("{self}\n"));
        if self == Self::Version {
            raw_response::set_header(&mut response, header::SEC_WEBSOCKET_VERSION, "13");
        }
        response
    }
}

/// Computes the accept value for a client's key. The value proves knowledge of the protocol; no secret depends on the
/// hash.
fn accept_key(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(KEY_SUFFIX);
    BASE64_STANDARD.encode(context.finish())
}

/// The suffix appended to a client's key (RFC 6455, section 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Length of a decoded client key, in bytes.
const KEY_BYTES: usize = 16;

/// Returns the subprotocols that a client offers, in order of preference.
pub(crate) fn offered_protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL)
}

/// Returns the value of a header that occurs exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

/// Returns the elements of a list header.
fn tokens<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

/// Returns whether the origin is an absolute URL. Browsers send `null` for an opaque origin.
fn is_origin(origin: &str) -> bool {
    origin.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// Builds a request as the HTTP library passes it to the handler; with an upgrade if `is_upgradable`.
    fn request(headers: &[(&str, &str)], is_upgradable: bool) -> Request<Empty<Bytes>> {
        let mut request = Request::get("/api/v1/pods?watch=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Empty::new()).unwrap();
        if is_upgradable {
            let upgrade = hyper::upgrade::on(Request::new(()));
            request.extensions_mut().insert(upgrade);
        }
        request
    }

    fn read(headers: &[(&str, &str)]) -> Result<Option<Handshake>, Refusal> {
        Handshake::read(&request(headers, true))
    }

    fn with(name: &'static str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
        let others = GOOD.into_iter().filter(|(known, _)| *known != name);
        others.chain(value.map(|value| (name, value))).collect()
    }

    #[test]
    fn computes_the_accept_value_of_the_rfc_example() {
        let handshake = read(&GOOD).unwrap().unwrap();
        assert_eq!(handshake, Handshake { accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into(), protocol: None });
    }

    #[test]
    fn takes_the_first_subprotocol() {
        for (offered, taken) in [
            ("base64.binary.k8s.io", Some("base64.binary.k8s.io")),
            (" , binary.k8s.io, v4.channel.k8s.io", Some("binary.k8s.io")),
            ("", None),
        ] {
            let handshake = read(&with("sec-websocket-protocol", Some(offered))).unwrap().unwrap();
            assert_eq!(handshake.protocol.as_ref().map(|it| it.to_str().unwrap()), taken, "{offered:?}");
        }
    }

    #[test]
    fn other_requests_are_not_handshakes() {
        for (name, value) in
            [("upgrade", None), ("upgrade", Some("h2c")), ("connection", None), ("connection", Some("close"))]
        {
            assert_eq!(read(&with(name, value)), Ok(None), "{name}: {value:?}");
        }
        assert_eq!(Handshake::read(&request(&GOOD, false)), Ok(None));
    }

    #[test]
    fn refuses_invalid_handshakes() {
        for (name, value, refusal) in [
            ("sec-websocket-version", None, Refusal::Version),
            ("sec-websocket-version", Some("8"), Refusal::Version),
            ("sec-websocket-version", Some("13, 8"), Refusal::Version),
            ("sec-websocket-key", None, Refusal::Key),
            ("sec-websocket-key", Some("c2hvcnQ="), Refusal::Key),
            ("sec-websocket-key", Some("no base64"), Refusal::Key),
            ("origin", Some("null"), Refusal::Origin),
            ("origin", Some("example.com"), Refusal::Origin),
            ("origin", Some("https://"), Refusal::Origin),
        ] {
            assert_eq!(read(&with(name, value)), Err(refusal), "{name}: {value:?}");
        }
        let twice: Vec<_> = GOOD.into_iter().chain([GOOD[3]]).collect();
        assert_eq!(read(&twice), Err(Refusal::Key));
        for origin in ["https://dashboard.example.com", "http://localhost:3000", "https://[::1]:8443"] {
            assert!(read(&with("origin", Some(origin))).unwrap().is_some(), "{origin}");
        }
    }

    #[test]
    fn refuses_a_body() {
        let request = request(&GOOD, true).map(|_| Full::new(Bytes::from_static(b"frames")));
        assert_eq!(Handshake::read(&request), Err(Refusal::Body));
    }

    #[test]
    fn refusals_say_what_is_supported() {
        let response = Refusal::Version.response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["sec-websocket-version"], "13");
        assert_eq!(Refusal::Origin.response().status(), 403);
        assert!(!Refusal::Key.response().headers().contains_key("sec-websocket-version"));
    }
}
