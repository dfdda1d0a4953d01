//! The headers that are passed on between a client and a backend.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers that concern one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers with credentials for this server, which a backend must not see. Authentication and impersonation remove
/// them too.
const CREDENTIALS: [&str; 4] = ["authorization", "impersonate-user", "impersonate-group", "impersonate-uid"];

/// Headers of a response that a backend must not set, because they steer clients beyond this response: the origin is
/// this server's, has the console, and is shared by all backends.
///
/// Headers that concern one document or response are passed on: `Content-Security-Policy`, `Link`,
/// `Cross-Origin-*-Policy`, `Permissions-Policy`, `X-Frame-Options`, `WWW-Authenticate`. A page can do to itself by its
/// content whatever they do. `Location` is rewritten or refused where redirects are, and `Set-Cookie` is confined to the
/// path of its backend ([`cookies_below`]).
const OF_ORIGIN: [&str; 28] = [
    // Let pages of other origins read responses.
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "timing-allow-origin",
    // Make the browser connect to another server, or by other rules, for the whole origin.
    "alt-svc",
    "expect-ct",
    "public-key-pins",
    "public-key-pins-report-only",
    "strict-transport-security",
    // Erase what other pages of the origin have stored, or their sessions.
    "clear-site-data",
    "secure-session-registration",
    "set-login",
    // Send reports about requests of the whole origin to another server.
    "nel",
    "report-to",
    "reporting-endpoints",
    // Let scripts or dictionaries of the backend serve other paths.
    "service-worker-allowed",
    "use-as-dictionary",
    // Ask for more data about the browser in all requests for the origin.
    "accept-ch",
    // A redirect that the checks of `Location` do not see.
    "refresh",
    // Valid for all paths, if the backend says so.
    "set-cookie",
    "set-cookie2",
    // This server's own statements about the request.
    "audit-id",
    "x-kubernetes-pf-flowschema-uid",
    "x-kubernetes-pf-prioritylevel-uid",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the headers of a client's request for the backend. `peer` is appended to `X-Forwarded-For`.
pub(crate) fn for_backend(headers: &HeaderMap, peer: Option<std::net::IpAddr>) -> HeaderMap {
    let mut passed = without_hop_by_hop(headers);
    for name in CREDENTIALS {
        passed.remove(name);
    }
    if let Some(peer) = peer {
        let earlier = passed.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<String> = earlier.map(str::to_owned).chain([peer.to_string()]).collect();
        if let Ok(value) = HeaderValue::try_from(all.join(", ")) {
            passed.insert(FORWARDED_FOR, value);
        }
    }
    passed
}

/// Returns the headers of a backend's response for the client.
pub(crate) fn for_client(headers: &HeaderMap) -> HeaderMap {
    let mut passed = without_hop_by_hop(headers);
    for name in OF_ORIGIN {
        passed.remove(name);
    }
    passed
}

/// Returns the cookies that a backend sets, valid only below its own path: other backends have the same origin.
pub(super) fn cookies_below(path: &str, headers: &HeaderMap) -> Vec<HeaderValue> {
    let confined = headers.get_all(header::SET_COOKIE).iter().filter_map(|cookie| {
        let mut parts = cookie.to_str().ok()?.split(';');
        let pair = parts.next()?.trim();
        let kept = parts.map(str::trim).filter(|attribute| {
            let name = attribute.split('=').next().unwrap_or_default().trim();
            !name.eq_ignore_ascii_case("path") && !name.eq_ignore_ascii_case("domain")
        });
        let kept: Vec<&str> = std::iter::once(pair).chain(kept).collect();
        HeaderValue::try_from(format!("{}; Path={path}", kept.join("; "))).ok()
    });
    confined.collect()
}

fn without_hop_by_hop(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|names| names.split(',')).map(str::trim) {
        passed.remove(name);
    }
    for name in HOP_BY_HOP {
        passed.remove(name);
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn credentials_and_connection_headers_stay_here() {
        let passed = for_backend(
            &headers(&[
                ("authorization", "Bearer secret"),
                ("impersonate-user", "admin"),
                ("connection", "keep-alive, X-Secret"),
                ("x-secret", "1"),
                ("transfer-encoding", "chunked"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("cookie", "a=b"),
                ("x-forwarded-for", "192.0.2.9"),
            ]),
            "192.0.2.1".parse().ok(),
        );
        assert_eq!(passed, headers(&[("cookie", "a=b"), ("x-forwarded-for", "192.0.2.9, 192.0.2.1")]));
    }

    #[test]
    fn a_backend_cannot_speak_for_the_origin() {
        let passed = for_client(&headers(&[
            ("service-worker-allowed", "/"),
            ("clear-site-data", "\"*\""),
            ("audit-id", "evil"),
            ("x-kubernetes-pf-flowschema-uid", "evil"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=0"),
            ("alt-svc", "h3=\":1\""),
            ("refresh", "0; url=https://elsewhere.example"),
            ("set-cookie", "a=b; Path=/"),
            ("connection", "close"),
            ("content-type", "text/html"),
            ("content-security-policy", "default-src 'self'"),
            ("link", "<style.css>; rel=preload"),
        ]));
        let expected = [
            ("content-type", "text/html"),
            ("content-security-policy", "default-src 'self'"),
            ("link", "<style.css>; rel=preload"),
        ];
        assert_eq!(passed, headers(&expected));
    }

    #[test]
    fn cookies_are_valid_for_their_backend_only() {
        let path = "/api/v1/namespaces/a/services/s/proxy";
        for (cookie, kept) in [
            ("a=b", "a=b"),
            ("a=b; Path=/; HttpOnly", "a=b; HttpOnly"),
            ("a=b;path = /api;DOMAIN=example.com; Secure;SameSite=Lax", "a=b; Secure; SameSite=Lax"),
            ("a=b; Path=/x; Path=/", "a=b"),
        ] {
            let found = cookies_below(path, &headers(&[("set-cookie", cookie)]));
            assert_eq!(found, [format!("{kept}; Path={path}")], "{cookie}");
        }
    }
}
