//! A client's socket, which counts as an open connection until it is dropped.

use std::future::pending;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

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

/// The end of a client of an upgraded connection. Only reads notice the end otherwise, and only after all bytes before it.
pub(crate) struct ClientEnd(Option<TcpStream>);

/// Returns the stream of an upgraded connection and the end of its client.
pub(crate) fn with_client_end(upgraded: TokioIo<Upgraded>) -> (UpgradedStream, ClientEnd) {
    match upgraded.into_inner().downcast::<TokioIo<TlsStream<Socket>>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner();
            let end = ClientEnd::of(&stream.get_ref().0.stream);
            (UpgradedStream(Io::Tls { first: parts.read_buf, stream: Box::new(stream) }), end)
        }
        Err(upgraded) => (UpgradedStream(Io::Other(TokioIo::new(upgraded))), ClientEnd(None)),
    }
}

impl ClientEnd {
    /// Opens a second descriptor of the socket, because the first belongs to whoever reads and writes.
    fn of(stream: &TcpStream) -> Self {
        let second = stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
        Self(second.and_then(TcpStream::from_std).ok())
    }

    /// Waits until the client has closed its side.
    pub(crate) async fn reached(self) {
        // Readiness without `READABLE` has only the end of the peer: bytes are not reported.
        if let Some(stream) = &self.0
            && let Ok(_) = stream.ready(Interest::PRIORITY).await
        {
            return;
        }
        pending::<()>().await;
    }
}

/// The stream of an upgraded connection.
pub(crate) struct UpgradedStream(Io);

enum Io {
    /// A connection of this server.
    Tls {
        /// The bytes that were read together with the request.
        first: Bytes,
        stream: Box<TlsStream<Socket>>,
    },
    /// Any other connection.
    Other(TokioIo<Upgraded>),
}

impl AsyncRead for UpgradedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Io::Tls { first, stream } if first.is_empty() => Pin::new(stream).poll_read(cx, buf),
            Io::Tls { first, .. } => {
                let piece = first.split_to(first.len().min(buf.remaining()));
                buf.put_slice(piece.chunk());
                Poll::Ready(Ok(()))
            }
            Io::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for UpgradedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Io::Tls { stream, .. } => Pin::new(stream).poll_write(cx, buf),
            Io::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Io::Tls { stream, .. } => Pin::new(stream).poll_flush(cx),
            Io::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Io::Tls { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Io::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_client_is_noticed_before_its_bytes_are_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut end = Box::pin(ClientEnd::of(&server).reached());
        client.write_all(b"unread").await.unwrap();
        server.readable().await.unwrap();
        // Bytes alone are no end.
        assert!(futures_util::poll!(&mut end).is_pending());
        tokio::task::yield_now().await;
        assert!(futures_util::poll!(&mut end).is_pending());
        drop(client);
        tokio::time::timeout(Duration::from_mins(1), end).await.unwrap();
        let mut unread = [0; 10];
        assert_eq!(server.try_read(&mut unread).unwrap(), 6);
    }
}
