//! Requests for resources of peers, passed on (upstream: `peerproxy_handler.go`).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use nave_machinery::Status;
use tokio::sync::OwnedSemaphorePermit;

use super::directory::Peer;
use super::{PEER_PROXIED, PeerRoute, Peers};
use crate::aggregator::identity;
use crate::aggregator::proxy::{target, text};
use crate::audit::AUDIT_ID;
use crate::body::{BodyError, ResponseBody};
use crate::connect::exchange::{self, Exchange, ExchangeError, Link};
use crate::connect::places::PlacedConnection;
use crate::connect::pool::PoolError;
use crate::connect::proxy::METHODS;
use crate::connect::{headers, upgrade};
use crate::context::RequestContext;

/// Passes on a request to one of the peers that serve its resource. Failures are plain text, as upstream.
///
/// # Errors
/// The failures that this server causes: a method that is not passed on, too many requests, a failed upgrade.
pub(super) async fn serve<B>(
    peers: &Peers,
    route: &PeerRoute,
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
    let Some((peer, address)) = choose(&route.peers, peers.turn()) else {
        peers.metrics.error("endpoint_resolution", &route.resource);
        let why = "Error getting ip and port info of the remote server while proxying";
        return Err(Status::service_unavailable(why));
    };
    if peer.circuit.is_open() {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "the peer does not answer"));
    }
    let passed = match headers_for_peer(request.headers(), address, context) {
        Ok(passed) => passed,
        Err(error) => {
            peers.metrics.error("proxy_transport", &route.resource);
            return Ok(text(StatusCode::SERVICE_UNAVAILABLE, &error));
        }
    };
    let target = target(request.uri().path(), info.query.pairs())?;
    tracing::debug!(path = info.path, peer = peer.id, "request passed on to a peer");
    let transport = peers.transport();
    let asked = upgrade::requested(request);
    // Streams would keep connections that others wait for, and HTTP/2 has no upgrades.
    if asked.is_some() || info.is_long_running() {
        let host = address.ip().to_string();
        let place = peers.backends.place(&host, context.user())?;
        let connection = match peers.dialer.connect(&host, address.port(), Some(&transport.tls)).await {
            Ok(connection) => PlacedConnection::new(connection, place),
            Err(error) => return Ok(unreachable(peer, &error.to_string())),
        };
        if let Some(protocol) = asked {
            let idle = peers.backends.limits.stream_idle;
            return upgrade::pass_on(request, connection, (target, passed), protocol, idle).await;
        }
        let sent = exchange::pass_on(request, connection, target, passed).await;
        return respond(peer, sent, None);
    }
    let turn = peer.places.clone().try_acquire_owned();
    let turn =
        turn.map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))?;
    let sent = exchange::pass_on(request, Link::Pooled(&transport.pool), target, passed).await;
    respond(peer, sent, Some(turn))
}

/// Returns the peer whose turn it is among those that have an address and answer; otherwise one that does not answer.
fn choose(peers: &[Arc<Peer>], turn: usize) -> Option<(&Peer, SocketAddr)> {
    let reachable = || peers.iter().filter_map(|peer| Some((peer.as_ref(), peer.address?)));
    let answering: Vec<_> = reachable().filter(|(peer, _)| !peer.circuit.is_open()).collect();
    match answering.len() {
        0 => reachable().next(),
        count => answering.get(turn % count).copied(),
    }
}

/// Returns the headers of a client's request for a peer.
fn headers_for_peer(
    headers: &HeaderMap,
    address: SocketAddr,
    context: &RequestContext,
) -> Result<HeaderMap, String> {
    let mut passed = headers::for_backend(headers, context.client.address());
    identity::set_user(&mut passed, context.user()).map_err(|error| error.to_string())?;
    // Replaces all values of the client: a peer that finds another one first would pass the request on again.
    passed.insert(PEER_PROXIED, HeaderValue::from_static("true"));
    // Both servers record the request under the same ID.
    passed.insert(HeaderName::from_static(AUDIT_ID), context.audit_id.clone());
    let host = HeaderValue::try_from(address.to_string()).map_err(|error| error.to_string())?;
    passed.insert(header::HOST, host);
    Ok(passed)
}

/// Returns the peer's response, or the failure, for the client.
fn respond(
    peer: &Peer,
    sent: Result<Exchange, ExchangeError>,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Response<ResponseBody>, Status> {
    let exchange = match sent {
        Ok(exchange) => exchange,
        Err(ExchangeError::Pool(PoolError::Busy(status))) => return Err(*status),
        Err(error) => return Ok(unreachable(peer, &error.to_string())),
    };
    peer.circuit.close();
    let status = exchange.response.status();
    let passed = headers::for_client(exchange.response.headers());
    let mut response = Response::new(exchange.into_body().keeping(turn));
    (*response.status_mut(), *response.headers_mut()) = (status, passed);
    Ok(response)
}

fn unreachable(peer: &Peer, error: &str) -> Response<ResponseBody> {
    peer.circuit.count_failure();
    tracing::warn!(peer = peer.id, error, "peer not reached");
    text(StatusCode::SERVICE_UNAVAILABLE, error)
}
