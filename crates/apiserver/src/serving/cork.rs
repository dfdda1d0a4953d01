//! Combines the writes of an HTTP/2 connection into a few large TLS records and system calls.
//!
//! The HTTP/2 library writes and flushes each frame separately. An event for many watchers, or the responses to many
//! requests, produce many frames. A [`Cork`] buffers them for two polls of the connection's task: by then, all streams
//! that were woken together with the first one have added their frames.
//!
//! ```text
//! streams' tasks ─→ connection's task ─→ Cork ─→ TLS ─→ socket
//!                   frame, flush,        64 KiB  records
//!                   frame, flush, …              of 16 KiB
//! ```
//!
//! Only [`Cork::end_turn`] flushes, so it must be called after each poll of the connection.
//!
//! A poll writes at most [`TURN`] bytes. A client that reads fast would otherwise keep a thread of the executor for as
//! long as its lists are, while heartbeats and health checks wait.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum number of bytes to combine: four TLS records.
const FULL: usize = 64 << 10;
/// Larger buffers are freed once they are empty, because most connections are idle.
const KEPT: usize = 4 << 10;

/// Maximum number of bytes to accept in one poll of the connection's task, about 0.2 ms of work. Rounded up to a write.
const TURN: usize = 256 << 10;

/// A handle to a connection's stream; clones share the stream.
pub(super) struct Cork<S>(Arc<Mutex<Corked<S>>>);

struct Corked<S> {
    stream: S,
    buffer: Vec<u8>,
    /// The number of bytes of the buffer that are already written to the stream.
    taken: usize,
    /// True if the stream may have unflushed bytes.
    unflushed: bool,
    /// True if other tasks have run since the first byte was buffered.
    waited: bool,
    /// The number of bytes that this poll may still accept.
    turn: usize,
}

impl<S> Clone for Cork<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(super) fn new(stream: S) -> Self {
        let corked =
            Corked { stream, buffer: Vec::new(), taken: 0, unflushed: false, waited: false, turn: TURN };
        Self(Arc::new(Mutex::new(corked)))
    }

    /// Must be called after each poll of the connection's task. Flushes bytes at the end of the poll after the one that
    /// wrote them. Ignores errors, which the connection itself detects.
    pub(super) fn end_turn(&self, cx: &mut Context<'_>) {
        let mut corked = self.0.lock();
        corked.turn = TURN;
        if corked.is_flushed() {
            return;
        }
        corked.waited = !corked.waited;
        if corked.waited {
            cx.waker().wake_by_ref();
        } else {
            // If the socket is full, the connection is polled again once it is writable.
            let _ = corked.poll_uncork(cx);
        }
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    fn is_flushed(&self) -> bool {
        self.buffer.is_empty() && !self.unflushed
    }

    /// Accepts bytes. Once the poll has accepted its share, the connection is polled again
    /// after the tasks that are ready now.
    fn poll_turn(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.turn == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let accepted = ready!(self.poll_take(cx, bufs))?;
        self.turn = self.turn.saturating_sub(accepted);
        Poll::Ready(Ok(accepted))
    }

    /// Copies as many bytes as fit into the buffer.
    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.buffer.len() >= FULL {
            ready!(self.poll_empty(cx))?;
        }
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.buffer.is_empty() && length >= FULL {
            // Large writes are not combined.
            self.unflushed = true;
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let start = self.buffer.len();
        if self.buffer.capacity() - start < length {
            self.buffer.reserve_exact(if start + length > KEPT { FULL - start } else { KEPT - start });
        }
        for buf in bufs {
            let room = FULL - self.buffer.len();
            self.buffer.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        Poll::Ready(Ok(self.buffer.len() - start))
    }

    /// Writes the buffer to the stream.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.buffer.len() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.buffer[self.taken..]);
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.taken += written;
        }
        self.taken = 0;
        self.buffer.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_uncork(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_turn(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_turn(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: [`Cork::end_turn`] flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = self.0.lock();
        ready!(corked.poll_uncork(cx))?;
        Pin::new(&mut corked.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Records the bytes and the number of writes.
    #[derive(Default)]
    struct Socket {
        room: usize,
        writes: Vec<Vec<u8>>,
        flushes: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn socket(room: usize) -> Cork<Socket> {
        Cork::new(Socket { room, ..Socket::default() })
    }

    fn lengths(cork: &Cork<Socket>) -> Vec<usize> {
        cork.0.lock().stream.writes.iter().map(Vec::len).collect()
    }

    fn end_turn(cork: &Cork<Socket>) {
        cork.end_turn(&mut Context::from_waker(Waker::noop()));
    }

    #[tokio::test]
    async fn writes_of_two_polls_are_combined() {
        let mut cork = socket(usize::MAX);
        for frame in [&b"one"[..], b"two"] {
            cork.write_all(frame).await.unwrap();
            cork.flush().await.unwrap();
        }
        end_turn(&cork);
        assert_eq!(lengths(&cork), [0; 0], "others may have something to add");
        cork.write_all(b"three").await.unwrap();
        end_turn(&cork);
        assert_eq!(cork.0.lock().stream.writes, [b"onetwothree"]);
        end_turn(&cork);
        assert_eq!(cork.0.lock().stream.flushes, 1, "there is nothing new");
    }

    #[tokio::test]
    async fn large_writes_pass_through_in_order() {
        let mut cork = socket(usize::MAX);
        cork.write_all(&[1; 10]).await.unwrap();
        cork.write_all(&vec![2; FULL]).await.unwrap();
        cork.write_all(&[3; 10]).await.unwrap();
        cork.shutdown().await.unwrap();
        assert_eq!(lengths(&cork), [FULL, 20]);
        cork.write_all(&vec![4; 2 * FULL]).await.unwrap();
        assert_eq!(lengths(&cork), [FULL, 20, 2 * FULL], "nothing to be put together");
        let all = cork.0.lock().stream.writes.concat();
        assert!(all.is_sorted() && all.len() == 3 * FULL + 20);
    }

    #[tokio::test]
    async fn a_poll_writes_its_share_and_goes_on_in_the_next() {
        let mut cork = socket(usize::MAX);
        let chunk = vec![1; FULL];
        for _ in 0..TURN / FULL {
            cork.write_all(&chunk).await.unwrap();
        }
        let write = |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut cork).poll_write(cx, &chunk));
        assert!(poll_fn(write).await.is_pending());
        end_turn(&cork);
        cork.write_all(&chunk).await.unwrap();
        assert_eq!(lengths(&cork).iter().sum::<usize>(), TURN + FULL);
    }

    #[tokio::test]
    async fn a_full_socket_blocks_the_writer_and_loses_nothing() {
        let mut cork = socket(7);
        cork.write_all(&[1]).await.unwrap();
        cork.write_all(&vec![1; FULL - 1]).await.unwrap();
        let more = |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut cork).poll_write(cx, &[2]));
        assert!(poll_fn(more).await.is_pending());
        cork.0.lock().stream.room = usize::MAX;
        cork.write_all(&[2]).await.unwrap();
        cork.shutdown().await.unwrap();
        assert_eq!(lengths(&cork), [7, FULL - 7, 1]);
        assert_eq!(cork.0.lock().buffer.capacity(), 0, "memory is given back");
    }
}
