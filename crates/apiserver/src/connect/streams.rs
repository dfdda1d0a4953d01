//! `pods/exec`, `pods/attach` and `pods/portforward` (upstream: `ExecREST`, `AttachREST`, `PortForwardREST`).
//!
//! | client | kubelet with `ExtendWebSocketsToKubelet` | other kubelets |
//! | --- | --- | --- |
//! | WebSocket, `v5.channel.k8s.io` | passed on | translated to SPDY streams |
//! | WebSocket, `SPDY/3.1+….k8s.io` | passed on | tunnelled to SPDY |
//! | SPDY/3.1, other WebSockets | passed on | passed on |

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nave_machinery::{Object, Status, meta};
use nave_streams::idle::Activity;
use nave_streams::remote_command::{self, CLIENT_PROTOCOL, KUBELET_PROTOCOL};
use nave_streams::tunnel::tunnel;
use nave_webhook::BackendDialer;
use serde_json::Value;

use super::exchange::Exchange;
use super::location::{Kubelet, Location, container, encode_query};
use super::options::{self, CommandOptions};
use super::places::Place;
use super::{ConnectRequest, failed, headers, unreachable, upgrade};
use crate::body::{BodyError, ResponseBody};
use crate::websocket::handshake::{Handshake, offered_protocols};

const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
/// The protocols of streams, offered by the client and chosen by the kubelet.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// The prefix and suffix of WebSocket protocols that carry SPDY.
const TUNNEL_PREFIX: &str = "SPDY/3.1+";
const TUNNEL_SUFFIX: &str = ".k8s.io";
/// Maximum size of a client's message, in bytes. kubectl sends at most 32 KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// Maximum size of a kubelet's error text, in bytes.
const MAX_ERROR: usize = 16 << 10;

/// Connects a client to a container or pod.
pub(super) async fn serve<B>(
    connect: &ConnectRequest<'_>,
    request: &mut Request<B>,
) -> Result<Response<ResponseBody>, Status>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    connect.authorize_create().await?;
    let admitted = connect.admit(options(connect)?).await?;
    let pod = connect.read("pods", &connect.resource.namespace, &connect.resource.name).await?;
    let Target { kubelet, command } = target(connect, &pod, &admitted).await?;
    let protocol = upgrade::requested(request);
    let protocol = protocol.ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let place = connect.backends.stream_place(&kubelet.location.host, connect.context.user())?;
    let dialer = connect.backends.dialer.clone();
    let idle = connect.backends.limits.stream_idle;
    let (location, is_web_socket) =
        (kubelet.location, protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if is_web_socket && !kubelet.speaks_web_socket {
        let offered: Vec<String> = offered_protocols(request.headers()).map(str::to_owned).collect();
        match command {
            Some(command) if offered.iter().any(|offer| offer == CLIENT_PROTOCOL) => {
                let handshake = match handshake(request) {
                    Ok(handshake) => handshake.with_protocol(CLIENT_PROTOCOL),
                    Err(response) => return Ok(*response),
                };
                let activity = Activity::default();
                let counted = activity.clone();
                let kubelet = async move {
                    connect_spdy(&dialer, &location, place).await.map(|kubelet| counted.count(kubelet))
                };
                return Ok(handshake.accept_messages(request, MAX_MESSAGE, move |socket| async move {
                    tokio::select! {
                        () = remote_command::run(socket, command.channels, kubelet) => {}
                        () = activity.idle(idle) => tracing::debug!("idle stream ended"),
                    }
                }));
            }
            None if offered.iter().any(|offer| is_tunnel(offer)) => {
                let tunnelled = Tunnelled { dialer, location, offered, place, idle };
                return tunnelled.serve(request).await;
            }
            _ => {}
        }
    }
    let connection = location.connect(&dialer, place).await.map_err(|error| unreachable(&error))?;
    let head =
        (location.target()?, headers::for_backend(request.headers(), connect.context.client.address()));
    upgrade::pass_on(request, connection, head, protocol, idle).await
}

/// The kubelet and the request to it.
struct Target {
    kubelet: Kubelet,
    /// `None` for `portforward`.
    command: Option<CommandOptions>,
}

/// Returns the options of a request as an object.
fn options(connect: &ConnectRequest<'_>) -> Result<Value, Status> {
    let query = &connect.context.info.query;
    match connect.resource.subresource.as_str() {
        "portforward" => options::port_forward_object(query),
        _ => Ok(CommandOptions::object(&connect.kind().kind, query)),
    }
}

async fn target(connect: &ConnectRequest<'_>, pod: &Value, admitted: &Object) -> Result<Target, Status> {
    let (namespace, name) = (meta::namespace(pod), meta::name(pod));
    let subresource = connect.resource.subresource.as_str();
    if subresource == "portforward" {
        let mut kubelet = connect.kubelet_of_pod(pod).await?;
        let ports = admitted.list_at(&["ports"]).iter().map(ToString::to_string).collect::<Vec<_>>();
        kubelet.location.path = format!("/portForward/{namespace}/{name}");
        if !ports.is_empty() {
            kubelet.location.query = encode_query(&[("port", ports.join(","))]);
        }
        return Ok(Target { kubelet, command: None });
    }
    let command = CommandOptions::from_object(admitted);
    let container = container(pod, &command.container)?;
    let mut kubelet = connect.kubelet_of_pod(pod).await?;
    kubelet.location.path = format!("/{subresource}/{namespace}/{name}/{container}");
    kubelet.location.query = encode_query(&command.parameters());
    Ok(Target { kubelet, command: Some(command) })
}

/// Reads the handshake of a request that asks for a WebSocket, or returns the response that refuses it.
fn handshake<B: Body>(request: &Request<B>) -> Result<Handshake, Box<Response<ResponseBody>>> {
    if request.method() != Method::GET {
        let why = "a WebSocket is opened with GET\n";
        return Err(Box::new(crate::raw_response::text(StatusCode::METHOD_NOT_ALLOWED, why)));
    }
    match Handshake::read(request) {
        Ok(Some(handshake)) => Ok(handshake),
        Ok(None) => {
            let why = "a WebSocket handshake is required\n";
            Err(Box::new(crate::raw_response::text(StatusCode::BAD_REQUEST, why)))
        }
        Err(refusal) => Err(Box::new(refusal.response())),
    }
}

/// A client whose WebSocket carries SPDY to the kubelet.
struct Tunnelled {
    dialer: BackendDialer,
    location: Location,
    offered: Vec<String>,
    place: Place,
    /// Time without any byte after which the tunnel ends.
    idle: Duration,
}

impl Tunnelled {
    async fn serve<B: Body>(self, request: &mut Request<B>) -> Result<Response<ResponseBody>, Status> {
        let Self { dialer, location, offered, place, idle } = self;
        let handshake = match handshake(request) {
            Ok(handshake) => handshake,
            Err(response) => return Ok(*response),
        };
        let protocols: Vec<&str> = offered
            .iter()
            .filter(|offer| is_tunnel(offer))
            .filter_map(|offer| offer.strip_prefix(TUNNEL_PREFIX))
            .collect();
        let exchange = request_spdy(&dialer, &location, place, &protocols).await?;
        if exchange.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return upgrade::refused(exchange);
        }
        upgrade::check_protocol(&exchange, &SPDY)?;
        let chosen = exchange.response.headers().get(STREAM_PROTOCOL).and_then(|it| it.to_str().ok());
        // A protocol that the client did not offer would end its handshake.
        let chosen = chosen.filter(|chosen| protocols.contains(chosen));
        let chosen = chosen.map(|chosen| format!("{TUNNEL_PREFIX}{chosen}"));
        let handshake = match &chosen {
            Some(chosen) => handshake.with_protocol(chosen),
            None => handshake.without_protocol(),
        };
        let backend = exchange.into_upgrade();
        Ok(handshake.accept_messages(request, MAX_MESSAGE, move |socket| async move {
            let activity = Activity::default();
            let tunnelled = match backend.complete().await {
                Ok(backend) => tokio::select! {
                    ended = tunnel(socket, activity.count(backend)) => ended.map_err(|error| error.to_string()),
                    () = activity.idle(idle) => Err("idle".to_owned()),
                },
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = tunnelled {
                tracing::debug!(%error, "tunnel ended");
            }
        }))
    }
}

fn is_tunnel(protocol: &str) -> bool {
    protocol.starts_with(TUNNEL_PREFIX) && protocol.ends_with(TUNNEL_SUFFIX)
}

/// Asks a kubelet for SPDY streams.
async fn request_spdy(
    dialer: &BackendDialer,
    location: &Location,
    place: Place,
    protocols: &[&str],
) -> Result<Exchange, Status> {
    let mut headers = HeaderMap::new();
    let host = HeaderValue::try_from(location.authority()).map_err(Status::internal)?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    for protocol in protocols {
        headers.append(STREAM_PROTOCOL, HeaderValue::try_from(*protocol).map_err(Status::internal)?);
    }
    let connection = location.connect(dialer, place).await.map_err(|error| unreachable(&error))?;
    upgrade::send(connection, upgrade::head(Method::POST, location.target()?, headers, SPDY)).await
}

/// Opens a connection with the SPDY streams of a command to a kubelet.
async fn connect_spdy(
    dialer: &BackendDialer,
    location: &Location,
    place: Place,
) -> Result<TokioIo<Upgraded>, Status> {
    let exchange = request_spdy(dialer, location, place, &[KUBELET_PROTOCOL])
        .await
        .map_err(|status| if status.code == 500 { Status::internal(status.message) } else { status })?;
    if exchange.response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let text = exchange.read(MAX_ERROR).await;
        let text = String::from_utf8_lossy(&text);
        return Err(Status::internal(format!("unable to upgrade connection: {}", text.trim())));
    }
    upgrade::check_protocol(&exchange, &SPDY)?;
    exchange.into_upgrade().complete().await.map_err(|error| failed(error.to_string()))
}
