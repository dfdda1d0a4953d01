//! One connection, after its handshake.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Context,
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{
    ConnectionInfo, Handler, Limits, Protocol, Running,
    cork::Cork,
    limit::{Streams, limited},
};

/// The headers of one request, in bytes.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// A client that lets a ping go unanswered is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the kernel looks after a silent client; the only one to notice a watch's dead client on HTTP/1.1.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
/// Response bytes queued for one stream whose client does not read. Enough to keep a bulk list flowing.
const SEND_BUFFER: usize = 1 << 20;
/// Request bytes a client may send ahead, for a stream and for the connection. Nearly all objects fit in the first.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Streams that a client opened and reset before they were served (rapid reset).
const MAX_RESET_STREAMS: usize = 64;
/// Streams that the server resets on one connection. A request that is refused before its body was read ends so too,
/// and a client may earn many refusals over the life of a connection.
const MAX_REFUSED_STREAMS: usize = 1 << 20;

/// The two protocols, set up once for all connections.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
}

impl Protocols {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read)
            .max_header_size(MAX_HEADER_BYTES)
            .max_buf_size(MAX_HEADER_BYTES);
        let mut http2 = http2::Builder::new(Streams);
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(MAX_HEADER_BYTES as u32)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
            .max_local_error_reset_streams(MAX_REFUSED_STREAMS);
        Self { http1, http2 }
    }

    /// Serves a connection to its end: the client closes it, it breaks, or the server shuts down.
    pub(super) async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        info: Arc<ConnectionInfo>,
        handler: impl Handler,
        running: &Running,
    ) -> hyper::Result<()> {
        let protocol = info.protocol;
        let service = service_fn(move |request| {
            let response = handler.handle(request, info.clone());
            async move { Ok::<_, Infallible>(response.await) }
        });
        match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
                let served =
                    drive(connection, |_| (), http1::UpgradeableConnection::graceful_shutdown, running);
                limited(served).await.unwrap_or(Ok(()))
            }
            Protocol::Http2 => {
                let cork = Cork::new(stream);
                let connection = self.http2.serve_connection(TokioIo::new(cork.clone()), service);
                let end_turn = |cx: &mut Context<'_>| cork.end_turn(cx);
                drive(connection, end_turn, http2::Connection::graceful_shutdown, running).await
            }
        }
    }
}

/// Runs a connection until it ends; when the server is closing, the client is told to go, and given until the cut.
/// `end_turn` is called each time the connection was polled.
async fn drive<C>(
    connection: C,
    end_turn: impl Fn(&mut Context<'_>),
    tell_to_go: fn(Pin<&mut C>),
    running: &Running,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let turn = |connection: &mut Pin<&mut C>, cx: &mut Context<'_>| {
        let ended = connection.as_mut().poll(cx);
        end_turn(cx);
        ended
    };
    tokio::select! {
        ended = poll_fn(|cx| turn(&mut connection, cx)) => return ended,
        () = running.closing.cancelled() => {}
    }
    tell_to_go(connection.as_mut());
    let rest = poll_fn(|cx| turn(&mut connection, cx));
    running.cut.run_until_cancelled(rest).await.unwrap_or(Ok(()))
}

/// Small answers leave at once, and dead clients are noticed.
pub(super) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
