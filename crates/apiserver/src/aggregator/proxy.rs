//! Requests for versions of aggregated servers, passed on (upstream: `handler_proxy.go`).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use nave_machinery::Status;
use percent_encoding::percent_decode_str;
use tokio::sync::OwnedSemaphorePermit;

use super::api_service::{ApiService, Remote};
use super::identity;
use super::servers::{ServerError, Servers};
use crate::body::{BodyError, ResponseBody};
use crate::connect::exchange::{Exchange, ExchangeError, Link};
use crate::connect::location::encode_query;
use crate::connect::pool::PoolError;
use crate::connect::proxy::METHODS;
use crate::connect::{exchange, headers, upgrade};
use crate::context::RequestContext;
use crate::raw_response;

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Passes on a request to the aggregated server of an APIService. Failures are plain text, as upstream.
///
/// # Errors
/// The failures that this server causes: a method or path that is not passed on, too many requests, a failed upgrade.
pub(super) async fn serve<B>(
    servers: &Servers,
    service: &ApiService,
    remote: &Remote,
    request: &mut Request<B>,
    context: &RequestContext,
) -> Result<Response<ResponseBody>, Status>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    let info = &context.info;
    if !METHODS.contains(&info.method) {
        return Err(Status::method_not_allowed_here());
    }
    if !is_plain(request.uri().path()) {
        return Ok(raw_response::page_not_found());
    }
    if !service.is_available() || remote.circuit.is_open() {
        return Ok(unavailable());
    }
    let destination = match servers.resolve(remote) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::warn!(api_service = service.name, %error, "service of the aggregated server not resolved");
            return Ok(unavailable());
        }
    };
    let mut passed = headers::for_backend(request.headers(), context.client.address());
    if let Err(error) = identity::set_user(&mut passed, context.user()) {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()));
    }
    passed.insert(header::HOST, HeaderValue::try_from(destination.to_string()).map_err(Status::internal)?);
    if let Ok(path) = HeaderValue::try_from(request.uri().path()) {
        passed.insert(FORWARDED_URI, path);
    }
    let target = target(request.uri().path(), info.query.pairs())?;
    let asked = upgrade::requested(request);
    // Streams would keep connections that others wait for, and HTTP/2 has no upgrades.
    if asked.is_some() || info.is_long_running() {
        let place = servers.backends.place(&destination.host, context.user())?;
        let connection = match servers.connect(remote, &destination, place).await {
            Ok(connection) => connection,
            Err(error) => return Ok(not_connected(service, remote, &error)),
        };
        remote.circuit.close();
        if let Some(protocol) = asked {
            let idle = servers.backends.limits.stream_idle;
            return upgrade::pass_on(request, connection, (target, passed), protocol, idle).await;
        }
        let sent = exchange::pass_on(request, connection, target, passed).await;
        return respond(servers, service, remote, sent, None);
    }
    let turn = remote.places.clone().try_acquire_owned();
    let turn =
        turn.map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))?;
    let transport = match servers.transport(remote) {
        Ok(transport) => transport,
        Err(error) => return Ok(not_connected(service, remote, &error)),
    };
    let sent = exchange::pass_on(request, Link::Pooled(&transport.pool), target, passed).await;
    respond(servers, service, remote, sent, Some(turn))
}

/// Returns the backend's response, or the failure, for the client.
fn respond(
    servers: &Servers,
    service: &ApiService,
    remote: &Remote,
    sent: Result<Exchange, ExchangeError>,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Response<ResponseBody>, Status> {
    let exchange = match sent {
        Ok(exchange) => exchange,
        Err(ExchangeError::Pool(PoolError::Busy(status))) => return Err(*status),
        Err(error) => return Ok(unreachable(service, remote, &error.to_string())),
    };
    remote.circuit.close();
    let status = exchange.response.status();
    let redirects = status.is_redirection() && exchange.response.headers().contains_key(header::LOCATION);
    if redirects && !servers.forwards_redirects {
        let why = "the backend attempted to redirect this request, which is not permitted";
        return Ok(raw_response::text(StatusCode::BAD_GATEWAY, why));
    }
    let passed = headers::for_client(exchange.response.headers());
    let mut response = Response::new(exchange.into_body().keeping(turn));
    (*response.status_mut(), *response.headers_mut()) = (status, passed);
    Ok(response)
}

/// Returns whether every server splits a path in the same way: no segment is empty (except the last), `.` or `..`, or
/// contains an encoded slash. Otherwise the aggregated server could see another request than the authorized one.
fn is_plain(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').all(|segment| {
        let decoded: Vec<u8> = percent_decode_str(segment).collect();
        !matches!(decoded.as_slice(), b"" | b"." | b"..") && !decoded.iter().any(|byte| b"/\\".contains(byte))
    })
}

/// Returns the path and the query, which is encoded again, so that all servers read the same parameters.
pub(crate) fn target(path: &str, query: &[(String, String)]) -> Result<Uri, Status> {
    let pairs: Vec<_> = query.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let separator = if pairs.is_empty() { "" } else { "?" };
    let target = format!("{path}{separator}{}", encode_query(&pairs));
    Uri::try_from(target).map_err(|error| Status::bad_request(format!("invalid path: {error}")))
}

fn unavailable() -> Response<ResponseBody> {
    text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable")
}

fn not_connected(service: &ApiService, remote: &Remote, error: &ServerError) -> Response<ResponseBody> {
    match error {
        ServerError::Tls(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
        error => unreachable(service, remote, &error.to_string()),
    }
}

fn unreachable(service: &ApiService, remote: &Remote, error: &str) -> Response<ResponseBody> {
    remote.circuit.count_failure();
    tracing::debug!(api_service = service.name, error, "aggregated server not reached");
    text(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {error}"))
}

/// Returns a failure as a line of text (Go: `http.Error`).
pub(crate) fn text(code: StatusCode, why: &str) -> Response<ResponseBody> {
    raw_response::text(code, format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unambiguous_paths_are_passed_on() {
        for (path, expected) in [
            ("/apis/a.example/v1", true),
            ("/apis/a.example/v1/", true),
            ("/apis/a.example/v1/namespaces/n/things/a%20b", true),
            ("/apis/a.example/v1/namespaces/n%2fsecrets/things", false),
            ("/apis/a.example/v1/namespaces/n/../things", false),
            ("/apis/a.example/v1/namespaces/n/%2E%2e/things", false),
            ("/apis/a.example/v1/./things", false),
            ("/apis/a.example/v1//things", false),
            ("/apis/a.example/v1/things//", false),
            ("/apis/a.example/v1/n%5C..%5Cthings", false),
        ] {
            assert_eq!(is_plain(path), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_encoded_again() {
        let query = [("labelSelector", "a=b"), ("x", "1;y=2"), ("e", "")];
        let query: Vec<_> = query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(
            target("/apis/a/v1/b%20c", &query).unwrap(),
            "/apis/a/v1/b%20c?labelSelector=a%3Db&x=1%3By%3D2&e="
        );
        assert_eq!(target("/apis/a/v1", &[]).unwrap(), "/apis/a/v1");
    }
}
