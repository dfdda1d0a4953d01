//! A client's socket, which counts as an open connection until it is dropped.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connections::Slot;

/// Interval of the kernel's keepalive probes. For a watch over HTTP/1.1, only they detect a dead client.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// The answer to plain HTTP, as Go's server gives it.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A client's socket.
pub(super) struct Socket {
    stream: TcpStream,
    _slot: Slot,
}

impl Socket {
    /// Sets the socket's options, so that small responses are sent immediately and dead clients are detected.
    pub(super) fn new(stream: TcpStream, slot: Slot) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self { stream, _slot: slot })
    }

    /// Answers a client that speaks plain HTTP. Returns false if the first byte does not begin an HTTP request.
    pub(super) async fn answer_plain_http(&self) -> io::Result<bool> {
        let mut first = [0];
        self.stream.peek(&mut first).await?;
        if !first[0].is_ascii_uppercase() {
            return Ok(false);
        }
        self.stream.writable().await?;
        // A client that does not read gets no answer.
        let _ = self.stream.try_write(PLAIN_HTTP);
        Ok(true)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
