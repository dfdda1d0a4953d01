//! Connections that switch to another protocol, passed on as bytes (upstream: `UpgradeAwareHandler`).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use nave_machinery::Status;
use nave_streams::relay::relay;
use tokio::time::timeout;

use super::exchange::{self, Exchange, ExchangeError};
use super::places::PlacedConnection;
use super::{failed, headers};
use crate::body::ResponseBody;
use crate::serving::with_client_end;
use crate::upgrade::Upgrade;

/// Maximum time until a backend answers a request for an upgrade.
const ANSWER: Duration = Duration::from_secs(30);

/// Returns the protocol that a client asks for; `None` if it does not ask or its connection cannot be upgraded.
pub(crate) fn requested<B>(request: &Request<B>) -> Option<HeaderValue> {
    let connection = request.headers().get_all(header::CONNECTION).iter();
    let asks = connection
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")));
    let protocol = request.headers().get(header::UPGRADE)?;
    (asks && Upgrade::is_possible(request)).then(|| protocol.clone())
}

/// Passes on a request for an upgrade. If the backend accepts it, bytes are copied until one side ends; otherwise its
/// error is the response. A stream on which no byte moves for the time `idle` is ended.
///
/// # Errors
/// 400 for a request with a body, which would be taken for bytes of the protocol. 500 if the backend does not answer
/// with an upgrade or an error.
pub(crate) async fn pass_on<B>(
    request: &mut Request<B>,
    connection: PlacedConnection,
    (target, headers): (Uri, HeaderMap),
    protocol: HeaderValue,
    idle: Duration,
) -> Result<Response<ResponseBody>, Status>
where
    B: Body,
{
    if !request.body().is_end_stream() {
        return Err(Status::bad_request("a request for an upgrade has no body"));
    }
    let head = head(request.method().clone(), target, headers, protocol.clone());
    let exchange = send(connection, head).await?;
    let status = exchange.response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return refused(exchange);
    }
    check_protocol(&exchange, &protocol)?;
    let mut passed = headers::for_client(exchange.response.headers());
    passed.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    passed.insert(header::UPGRADE, protocol);
    let backend = exchange.into_upgrade();
    let upgrade = Upgrade::new(request, move |client| async move {
        let relayed = match backend.complete().await {
            Ok(backend) => {
                let (client, end) = with_client_end(client);
                relay(client, backend, end.reached(), idle).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = relayed {
            tracing::debug!(%error, "stream ended");
        }
    });
    let mut response = Response::new(ResponseBody::Upgrade(upgrade));
    *response.status_mut() = status;
    *response.headers_mut() = passed;
    Ok(response)
}

/// Returns the head of a request for an upgrade.
pub(super) fn head(method: Method, target: Uri, headers: HeaderMap, protocol: HeaderValue) -> Request<()> {
    let mut head = exchange::head(method, target, headers);
    head.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers_mut().insert(header::UPGRADE, protocol);
    head
}

/// Sends a request for an upgrade.
///
/// # Errors
/// 500 if the connection fails, or the backend does not answer in time.
pub(super) async fn send(connection: PlacedConnection, head: Request<()>) -> Result<Exchange, Status> {
    let body: Option<&mut http_body_util::Empty<bytes::Bytes>> = None;
    let sent = timeout(ANSWER, exchange::send(connection, head, body)).await;
    sent.unwrap_or(Err(ExchangeError::TimedOut))
        .map_err(|error| failed(format!("error sending request: {error}")))
}

/// Returns the backend's error as the response.
///
/// # Errors
/// 500 if the backend reports no error, such as a redirect.
pub(super) fn refused(exchange: Exchange) -> Result<Response<ResponseBody>, Status> {
    let status = exchange.response.status();
    if status.as_u16() < 400 {
        return Err(failed(format!("invalid upgrade response: status code {}", status.as_u16())));
    }
    let headers = headers::for_client(exchange.response.headers());
    let mut response = Response::new(exchange.into_body());
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    Ok(response)
}

/// Checks that the backend switches to the requested protocol.
///
/// # Errors
/// 500 otherwise.
pub(super) fn check_protocol(exchange: &Exchange, requested: &HeaderValue) -> Result<(), Status> {
    let chosen = exchange.response.headers().get(header::UPGRADE);
    if chosen.is_some_and(|chosen| chosen.as_bytes().eq_ignore_ascii_case(requested.as_bytes())) {
        return Ok(());
    }
    Err(failed("unable to upgrade: missing upgrade headers in response"))
}

#[cfg(test)]
mod tests {
    use super::super::exchange::tests::connection;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_does_not_answer_is_given_up() {
        let (connection, _backend) = connection();
        let protocol = HeaderValue::from_static("SPDY/3.1");
        let head = head(Method::POST, Uri::from_static("/exec"), HeaderMap::new(), protocol);
        let status = send(connection, head).await.err().unwrap();
        assert_eq!(
            (status.code, &*status.message),
            (500, "error sending request: timeout awaiting response headers")
        );
    }
}
