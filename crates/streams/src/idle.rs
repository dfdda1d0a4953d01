//! Detects connections on which no byte moves.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

/// The default time without any byte after which a stream is ended (kubelet: `streamingConnectionIdleTimeout`).
pub const IDLE: Duration = Duration::from_hours(4);

/// Counts the reads and writes of connections.
#[derive(Clone, Debug, Default)]
pub struct Activity(Arc<AtomicU64>);

impl Activity {
    /// Counts the reads and writes of a connection.
    pub fn count<T>(&self, connection: T) -> Counted<T> {
        Counted { connection, activity: self.clone() }
    }

    /// Waits until nothing was read or written between two checks. Each check comes `interval` after the one before.
    pub async fn idle(&self, interval: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            sleep(interval).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    fn note<T>(&self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_ready() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// A connection whose reads and writes are counted.
#[derive(Debug)]
pub struct Counted<T> {
    connection: T,
    activity: Activity,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.connection).poll_read(cx, buffer);
        self.activity.note(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.activity.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write_vectored(cx, slices);
        self.activity.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reads_and_writes_postpone_the_end() {
        let (mut peer, connection) = duplex(64);
        let activity = Activity::default();
        let mut connection = activity.count(connection);
        let started = Instant::now();
        let uses = async {
            sleep(IDLE / 2).await;
            connection.write_all(&[1]).await.unwrap();
            peer.write_all(&[2]).await.unwrap();
            sleep(IDLE).await;
            connection.read_u8().await.unwrap();
        };
        tokio::join!(uses, activity.idle(IDLE));
        assert_eq!(started.elapsed().as_secs(), 3 * IDLE.as_secs());
    }
}
