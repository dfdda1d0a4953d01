//! A connection after its handshake.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
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
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionInfo, Handler, Limits, Protocol, Running,
    cork::Cork,
    limit::{Streams, limited},
    socket::Socket,
    watchdog::{Overdue, Watchdog},
};

/// Maximum size of request headers, in bytes. The HTTP library derives the limit on CONTINUATION frames from it.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Interval of pings. A client that does not answer a ping is disconnected.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of response bytes queued for a stream whose client does not read. Large enough to keep a large list
/// flowing.
const SEND_BUFFER: usize = 1 << 20;
/// Flow-control window for request bytes, per stream and per connection. Nearly all objects fit into one window.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Maximum number of streams that the client has reset before the server accepted them (rapid reset). Beyond this
/// number, the connection is closed.
const MAX_PENDING_RESETS: usize = 64;
/// Maximum number of streams per connection that end with a protocol error of the client. Beyond this number, the
/// connection is closed. Requests that are refused before their body is read do not count.
const MAX_ERROR_RESETS: usize = 1024;
/// Time for an idle client to acknowledge a GOAWAY.
const GOAWAY_GRACE: Duration = Duration::from_secs(5);

/// The HTTP protocols, configured once and used for all connections.
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
}

impl Protocols {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            // The watchdog's timeout covers both the wait for a request head and its transmission.
            .header_read_timeout(None)
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
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS);
        Self { http1, http2 }
    }

    /// Serves a connection until the client closes it, it fails, or the server shuts down.
    pub(super) async fn serve(
        &self,
        stream: TlsStream<Socket>,
        info: Arc<ConnectionInfo>,
        handler: impl Handler,
        watchdog: &Arc<Watchdog>,
        running: &Running,
    ) -> hyper::Result<()> {
        let (protocol, leaving) = (info.protocol, info.leaving.clone());
        let service = service_fn(move |request| {
            let under_way = watchdog.begin();
            // Boxed because such a large future would be copied several times on its way into the task.
            let response = Box::pin(handler.handle(request, info.clone()));
            let running = running.clone();
            async move {
                let mut served = response.await;
                if let Some(upgrade) = served.upgrade.take() {
                    running.spawn_upgrade(upgrade);
                }
                Ok::<_, Infallible>(under_way.answered(served))
            }
        });
        match protocol {
            Protocol::Http1 => {
                let connection = self.http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
                let tell_to_go = http1::UpgradeableConnection::graceful_shutdown;
                let served = drive(connection, |_| (), tell_to_go, &leaving, watchdog, running);
                limited(served).await.unwrap_or(Ok(()))
            }
            Protocol::Http2 => {
                let cork = Cork::new(stream);
                let connection = self.http2.serve_connection(TokioIo::new(cork.clone()), service);
                let end_turn = |cx: &mut Context<'_>| cork.end_turn(cx);
                let tell_to_go = http2::Connection::graceful_shutdown;
                drive(connection, end_turn, tell_to_go, &leaving, watchdog, running).await
            }
        }
    }
}

/// Polls a connection until it ends. On shutdown, when the client must leave, and after an idle timeout, sends the client a GOAWAY. Closes a
/// connection immediately if the first request does not arrive in time. Calls `end_turn` after each poll.
async fn drive<C>(
    connection: C,
    end_turn: impl Fn(&mut Context<'_>),
    tell_to_go: fn(Pin<&mut C>),
    leaving: &CancellationToken,
    watchdog: &Watchdog,
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
    let idle = tokio::select! {
        ended = poll_fn(|cx| turn(&mut connection, cx)) => return ended,
        () = running.closing.cancelled() => false,
        () = leaving.cancelled() => false,
        overdue = watchdog.overdue() => match overdue {
            Overdue::FirstRequest => return Ok(()),
            Overdue::NextRequest => true,
        }
    };
    tell_to_go(connection.as_mut());
    let ignored = async {
        if !idle {
            pending::<()>().await;
        }
        // A request that the client sent before it received the GOAWAY is still served.
        loop {
            tokio::time::sleep(GOAWAY_GRACE).await;
            if watchdog.is_idle() {
                break;
            }
        }
    };
    tokio::select! {
        ended = poll_fn(|cx| turn(&mut connection, cx)) => ended,
        () = running.cut.cancelled() => Ok(()),
        () = ignored => Ok(()),
    }
}
