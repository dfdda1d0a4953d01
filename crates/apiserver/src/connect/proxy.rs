//! `pods/proxy`, `services/proxy` and `nodes/proxy`: any request, passed on (upstream: `UpgradeAwareHandler`,
//! `proxy.Transport`).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use nave_machinery::Status;
use nave_webhook::{BackendError, ConnectError};

use super::location::{Location, encode_path};
use super::{ConnectRequest, exchange, headers, options, unreachable, upgrade};
use crate::body::{BodyError, ResponseBody};
use crate::raw_response;
use crate::request_info::ResourceRequest;

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Methods that are passed on.
pub(crate) const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Passes on a request.
pub(super) async fn serve<B>(
    connect: &ConnectRequest<'_>,
    request: &mut Request<B>,
) -> Result<Response<ResponseBody>, Status>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let info = &connect.context.info;
    if !METHODS.contains(&info.method) {
        return Err(Status::method_not_allowed_here());
    }
    let options = options::proxy_object(&connect.kind().kind, &connect.resource.rest, &info.path);
    let admitted = connect.admit(options).await?;
    let mut location = connect.proxied().await?;
    let rest = clean(admitted.str_at(&["path"]).unwrap_or_default());
    let paths = ProxyPaths::new(connect.resource, &info.path, rest);
    location.path = paths.backend.clone();
    location.query = request.uri().query().unwrap_or_default().to_owned();
    let mut passed = headers::for_backend(request.headers(), connect.context.client.address());
    set_host(request, &mut passed)?;
    if let Some(protocol) = upgrade::requested(request) {
        let place = connect.backends.stream_place(&location.host, connect.context.user())?;
        let connection = location.connect(&connect.backends.dialer, place).await;
        let connection = connection.map_err(|error| unreachable(&error))?;
        let idle = connect.backends.limits.stream_idle;
        return upgrade::pass_on(request, connection, (location.target()?, passed), protocol, idle).await;
    }
    if location.path.is_empty() && matches!(info.method, Method::GET | Method::HEAD) {
        return Ok(redirect_to_folder(&paths.prefix, request.uri().query()));
    }
    if let Ok(uri) = HeaderValue::try_from(paths.forwarded()) {
        passed.insert(FORWARDED_URI, uri);
    }
    let place = connect.backends.place(&location.host, connect.context.user())?;
    let connection = location.connect(&connect.backends.dialer, place).await;
    let connection = connection.map_err(|error| not_reached(&error))?;
    let sent = exchange::pass_on(request, connection, location.target()?, passed).await;
    let exchange =
        sent.map_err(|error| Status::service_unavailable(format!("error trying to reach service: {error}")))?;
    let status = exchange.response.status();
    let mut passed = headers::for_client(exchange.response.headers());
    for cookie in headers::cookies_below(&paths.prefix, exchange.response.headers()) {
        passed.append(header::SET_COOKIE, cookie);
    }
    if let Some(target) = passed.get(header::LOCATION).cloned() {
        let target = target.to_str().unwrap_or_default();
        let target = paths.rewrite(target, &location, request_host(request).unwrap_or_default());
        let target = target
            .map_err(|why| Status::internal(format!("error trying to parse Location header: {why}")))?;
        passed.insert(header::LOCATION, HeaderValue::try_from(target).map_err(Status::internal)?);
    }
    let mut response = Response::new(exchange.into_body());
    (*response.status_mut(), *response.headers_mut()) = (status, passed);
    Ok(response)
}

/// Passes on the `Host` that the client sent, as upstream.
fn set_host<B>(request: &Request<B>, headers: &mut http::HeaderMap) -> Result<(), Status> {
    let host = request_host(request).unwrap_or_default();
    headers.insert(header::HOST, HeaderValue::try_from(host).map_err(Status::internal)?);
    Ok(())
}

fn request_host<B>(request: &Request<B>) -> Option<&str> {
    let header = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(http::uri::Authority::as_str).or_else(header)
}

fn not_reached(error: &BackendError) -> Status {
    match error {
        BackendError::Connect(ConnectError::Refused(_)) => Status::bad_request("address not allowed"),
        error => Status::service_unavailable(format!("error trying to reach service: {error}")),
    }
}

/// Redirects to the root with a trailing slash, because relative links of the backend's page would not work otherwise.
fn redirect_to_folder(root: &str, query: Option<&str>) -> Response<ResponseBody> {
    let mut response = raw_response::bytes(StatusCode::MOVED_PERMANENTLY, "", Bytes::new());
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    raw_response::set_header(&mut response, header::LOCATION, &format!("{root}/{query}"));
    response
}

/// The paths of a request.
struct ProxyPaths {
    /// The path up to and including `/proxy`, as clients see it, encoded.
    prefix: String,
    /// The path at the backend.
    backend: String,
}

impl ProxyPaths {
    /// `path` is the request's; `rest` is the cleaned path after `/proxy`, empty or with a leading slash. The two need
    /// not match: a client's path may have `..` or `//`, and admission may change the rest.
    fn new(resource: &ResourceRequest, path: &str, rest: String) -> Self {
        let namespace =
            if resource.in_namespace { format!("/namespaces/{}", resource.namespace) } else { String::new() };
        let prefix = format!("/api/v1{namespace}/{}/{}/proxy", resource.gvr.resource, resource.name);
        let mut backend = rest;
        if path.ends_with('/') && !backend.ends_with('/') {
            backend.push('/');
        }
        Self { prefix: encode_path(&prefix), backend }
    }

    /// Returns the path as the client sees it, for `X-Forwarded-Uri`.
    fn forwarded(&self) -> String {
        format!("{}{}", self.prefix, encode_path(&self.backend))
    }

    /// Rewrites the target of a redirect within the backend, so that it leads through the proxy.
    fn rewrite(&self, target: &str, backend: &Location, requested_host: &str) -> Result<String, String> {
        // A target without a scheme may still name a host (RFC 3986, section 4.2).
        let names_host = target.starts_with("//");
        let absolute = if names_host { format!("http:{target}") } else { target.to_owned() };
        let uri = absolute.parse::<Uri>();
        let Ok(uri) = uri else {
            // A relative reference is relative to the request, so it needs no change.
            let is_relative = !target.starts_with('/') && !target.contains("://");
            return if is_relative { Ok(target.to_owned()) } else { Err(format!("{target:?} is not a URL")) };
        };
        let host = uri.authority().map(http::uri::Authority::as_str);
        let is_elsewhere = host.is_some_and(|host| {
            host != backend.authority() && host != backend.host && host != requested_host
        });
        if is_elsewhere || !target_path(&uri).starts_with('/') || host.is_none() && !target.starts_with('/') {
            return Ok(target.to_owned());
        }
        let path = self.through_proxy(target_path(&uri));
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        // The client's own host stays in the target; others are those of the backend.
        match (uri.scheme_str(), host) {
            (Some(_), Some(host)) if host == requested_host && names_host => {
                Ok(format!("//{host}{path}{query}"))
            }
            (Some(scheme), Some(host)) if host == requested_host => {
                Ok(format!("{scheme}://{host}{path}{query}"))
            }
            _ => Ok(format!("{path}{query}")),
        }
    }

    /// Returns the path by which a client reaches a path of the backend.
    fn through_proxy(&self, path: &str) -> String {
        match path.strip_prefix(&self.prefix) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => path.to_owned(),
            _ => format!("{}{}", self.prefix, clean(path)),
        }
    }
}

fn target_path(uri: &Uri) -> &str {
    if uri.path().is_empty() { "/" } else { uri.path() }
}

/// Resolves `.` and `..`, and removes empty segments (Go: `path.Join`). A path cannot leave the backend's root.
fn clean(rest: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in rest.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let ends_with_slash = rest.ends_with('/');
    let mut path = String::new();
    for segment in &segments {
        path.push('/');
        path.push_str(segment);
    }
    if ends_with_slash {
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_backends_root() {
        for (rest, expected) in [
            ("", ""),
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("a/b", "/a/b"),
            ("a//b/./c", "/a/b/c"),
            ("a/../../../etc", "/etc"),
            ("..", ""),
            ("a/", "/a/"),
        ] {
            assert_eq!(clean(rest), expected, "{rest}");
        }
    }

    fn service() -> ResourceRequest {
        let request = ResourceRequest::default();
        let gvr = nave_machinery::GroupVersionResource::new("", "v1", "services");
        let (namespace, name) = ("a".to_owned(), "s".to_owned());
        ResourceRequest { gvr, namespace, name, in_namespace: true, ..request }
    }

    #[test]
    fn the_prefix_does_not_depend_on_the_rest() {
        let prefix = "/api/v1/namespaces/a/services/s/proxy";
        for (rest, backend, forwarded) in [
            ("one", "/one", "/one"),
            ("one/", "/one/", "/one/"),
            ("a//b", "/a/b", "/a/b"),
            ("a/../../b/", "/b/", "/b/"),
            ("/", "/", "/"),
            ("..", "", ""),
            ("a b?", "/a b?", "/a%20b%3F"),
        ] {
            let paths = ProxyPaths::new(&service(), &format!("{prefix}/{rest}"), clean(rest));
            assert_eq!((&*paths.prefix, &*paths.backend), (prefix, backend), "{rest}");
            assert_eq!(paths.forwarded(), format!("{prefix}{forwarded}"), "{rest}");
        }
    }

    #[test]
    fn redirects_within_the_backend_lead_through_the_proxy() {
        let prefix = "/api/v1/namespaces/a/services/s/proxy";
        let paths = ProxyPaths::new(&service(), &format!("{prefix}/x/..//one/"), clean("x/..//one"));
        let backend = Location {
            host: "10.0.0.9".to_owned(),
            port: 80,
            tls: None,
            path: String::new(),
            query: String::new(),
        };
        for (target, expected) in [
            ("/two?x=1", "/api/v1/namespaces/a/services/s/proxy/two?x=1"),
            ("/two/", "/api/v1/namespaces/a/services/s/proxy/two/"),
            ("http://10.0.0.9:80/two", "/api/v1/namespaces/a/services/s/proxy/two"),
            ("https://api:6443/two", "https://api:6443/api/v1/namespaces/a/services/s/proxy/two"),
            ("https://elsewhere.example/two", "https://elsewhere.example/two"),
            ("two", "two"),
            ("../two", "../two"),
            ("/../../../../two", "/api/v1/namespaces/a/services/s/proxy/two"),
            ("/one//two/.", "/api/v1/namespaces/a/services/s/proxy/one/two"),
            ("//elsewhere.example/two", "//elsewhere.example/two"),
            ("//10.0.0.9:80/two", "/api/v1/namespaces/a/services/s/proxy/two"),
            ("//api:6443/two", "//api:6443/api/v1/namespaces/a/services/s/proxy/two"),
            (
                "/api/v1/namespaces/a/services/s/proxyfoo",
                "/api/v1/namespaces/a/services/s/proxy/api/v1/namespaces/a/services/s/proxyfoo",
            ),
            ("/api/v1/namespaces/a/services/s/proxy/two", "/api/v1/namespaces/a/services/s/proxy/two"),
        ] {
            assert_eq!(paths.rewrite(target, &backend, "api:6443").unwrap(), expected, "{target}");
        }
        assert!(paths.rewrite("http://[", &backend, "api:6443").is_err());
    }
}
