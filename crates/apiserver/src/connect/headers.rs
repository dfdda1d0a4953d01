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

/// Headers of a response that speak for this server or for its whole origin, which has the console: a backend must not
/// set them.
const OF_ORIGIN: [&str; 15] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "alt-svc",
    "audit-id",
    "clear-site-data",
    "nel",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "strict-transport-security",
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
            ("connection", "close"),
            ("content-type", "text/html"),
        ]));
        assert_eq!(passed, headers(&[("content-type", "text/html")]));
    }
}
