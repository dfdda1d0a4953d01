//! Connections through a konnectivity proxy: a gRPC stream of its own for each (upstream: konnectivity-client's
//! `CreateSingleUseGrpcTunnel`).
//!
//! A task carries the bytes between the stream of messages and a buffer of fixed size. It takes the next message when the
//! buffer has room, so that the flow control of HTTP/2 slows the proxy down.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use nave_store::grpc::{Connection, MessageSender, MessageStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::packets::{CloseRequest, Data, DialRequest, Packet, Payload};
use crate::backend::BackendConnection;
use crate::tcp::ConnectError;

const METHOD: &str = "/ProxyService/Proxy";
const ORIGIN: &str = "http://localhost";
/// Maximum size of a received message: gRPC's default.
const MAX_PACKET: usize = 4 << 20;
/// Bytes that wait in each direction.
const BUFFER: usize = 64 << 10;
/// Maximum bytes of a sent message.
const PIECE: usize = 16 << 10;
/// Maximum length of an error of the proxy.
const MAX_ERROR_CHARS: usize = 1024;
/// Maximum time that the proxy may take to confirm the end of a connection (konnectivity's `CloseTimeout`).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A konnectivity proxy at a Unix domain socket.
#[derive(Debug)]
pub struct GrpcProxy {
    socket: PathBuf,
}

impl GrpcProxy {
    /// Returns the proxy at a socket.
    pub(super) fn at_socket(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Opens a connection to a destination, `host:port`. Dropping the future ends the request.
    pub(super) async fn connect(
        &self,
        destination: &str,
    ) -> Result<Box<dyn BackendConnection>, ConnectError> {
        self.dial(destination).await.map_err(|why| self.failed(why))
    }

    /// Returns the error of a connection that took too long.
    pub(super) fn timed_out(&self) -> ConnectError {
        self.failed("i/o timeout".to_owned())
    }

    async fn dial(&self, destination: &str) -> Result<Box<dyn BackendConnection>, String> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| format!("dial unix: {error}"))?;
        let connection = Connection::open_without_pings(TokioIo::new(stream), ORIGIN.to_owned()).await?;
        let random = rand::random_range(1..i64::MAX);
        let request = DialRequest { protocol: "tcp".to_owned(), address: destination.to_owned(), random };
        let proxy = ProxyConnection(connection.with_max_message(MAX_PACKET));
        let opened = proxy.0.open_stream(METHOD, &[], &Packet::of(Payload::DialRequest(request))).await;
        let (sender, mut packets) = opened.map_err(|error| error.to_string())?;
        let id = connect_id(&mut packets, random).await?;
        let (near, far) = duplex(BUFFER);
        let (client, client_left) = oneshot::channel();
        tokio::spawn(Tunnel { id, sender, packets, client_left, _proxy: proxy }.carry(far));
        Ok(Box::new(ClientEnd { stream: near, _client: client }))
    }

    fn failed(&self, why: String) -> ConnectError {
        ConnectError::Proxy { proxy: self.to_string(), why }
    }
}

impl fmt::Display for GrpcProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket.display())
    }
}

/// Waits for the response to a request for a connection.
async fn connect_id(packets: &mut MessageStream, random: i64) -> Result<i64, String> {
    loop {
        let packet = packets.next::<Packet>().await.map_err(|error| error.to_string())?;
        match packet.ok_or("the proxy has closed the stream")?.payload {
            Some(Payload::DialResponse(response)) if response.random == random => {
                // It becomes part of responses and log lines.
                let error: String = response.error.chars().take(MAX_ERROR_CHARS).collect();
                return if error.is_empty() { Ok(response.connect_id) } else { Err(error) };
            }
            Some(Payload::CloseDial(closed)) if closed.random == random => {
                return Err("dial closed".to_owned());
            }
            _ => {}
        }
    }
}

/// The connection to the proxy, which has one stream. Dropping it ends the connection, also if the proxy does not read.
struct ProxyConnection(Connection);

impl Drop for ProxyConnection {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The client's end of a tunnel. Dropping it tells the task of the tunnel that the client has left.
struct ClientEnd {
    stream: DuplexStream,
    _client: oneshot::Sender<Infallible>,
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// An open connection.
struct Tunnel {
    id: i64,
    sender: MessageSender,
    packets: MessageStream,
    /// Completes when the client has left.
    client_left: oneshot::Receiver<Infallible>,
    _proxy: ProxyConnection,
}

impl Tunnel {
    /// Carries bytes until one side ends.
    async fn carry(self, far: DuplexStream) {
        let Self { id, sender, mut packets, client_left, _proxy } = self;
        let (mut reads, mut writes) = split(far);
        let outgoing = async {
            let mut piece = vec![0; PIECE];
            while let Ok(read @ 1..) = reads.read(&mut piece).await {
                let content = Bytes::copy_from_slice(piece.get(..read).unwrap_or_default());
                let data = Data { connect_id: id, content, ..Data::default() };
                sender.send(&Packet::of(Payload::Data(data))).await;
            }
            sender.send(&close(id)).await;
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        };
        let incoming = async {
            while let Ok(Some(packet)) = packets.next::<Packet>().await {
                match packet.payload {
                    // After an error nobody reads any more; the proxy still has to confirm the end.
                    Some(Payload::Data(data)) if data.connect_id == id => {
                        let _ = writes.write_all(&data.content).await;
                    }
                    // Waiting for room could stop both directions.
                    Some(Payload::Data(other)) => sender.try_send(&close(other.connect_id)),
                    Some(Payload::CloseResponse(closed)) if closed.connect_id == id => break,
                    _ => {}
                }
            }
        };
        // A proxy that no longer reads can keep the outgoing side from its end.
        let left = async {
            let _ = client_left.await;
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        };
        tokio::select! {
            () = outgoing => {}
            () = incoming => {}
            () = left => {}
        }
    }
}

fn close(connect_id: i64) -> Packet {
    Packet::of(Payload::CloseRequest(CloseRequest { connect_id }))
}
