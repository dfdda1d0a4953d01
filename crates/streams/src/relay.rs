//! Bytes between two connections.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, WriteHalf, copy_buf, split};
use tokio::time::{sleep, timeout};

use crate::idle::Activity;
use crate::{FINISH, PIECE};

/// Copies bytes in both directions until one side ends, and then ends the other (upstream: `UpgradeAwareHandler`).
/// Bytes that the side sent before its end are delivered. The backend's connection does not wait for a client that
/// reads slowly, nor for long for a backend that does not take its end.
///
/// `client_left` completes when the client has closed its side, even if bytes before its end are not read yet: while the
/// backend takes nothing, the client is not read. The backend then has 30 s for the rest. Connections on which no byte
/// moves for the time `idle` are ended.
///
/// # Errors
/// Reading or writing fails.
pub async fn relay<A, B>(
    client: A,
    backend: B,
    client_left: impl Future<Output = ()>,
    idle: Duration,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_reads, mut client_writes) = split(client);
    let (backend_reads, mut backend_writes) = split(backend);
    let reads = Activity::default();
    let abandoned = async {
        client_left.await;
        sleep(FINISH).await;
    };
    let copied = tokio::select! {
        copied = copy(client_reads, &mut backend_writes, &reads) => copied,
        copied = copy(backend_reads, &mut client_writes, &reads) => copied,
        () = abandoned => Ok(()),
        () = reads.idle(idle) => Ok(()),
    };
    // Both sides learn of the end; a side that has gone cannot.
    let end_backend = async {
        let _ = timeout(FINISH, backend_writes.shutdown()).await;
        drop(backend_writes);
    };
    let _ = tokio::join!(timeout(FINISH, client_writes.shutdown()), end_backend);
    copied
}

async fn copy<R, B>(reads: R, writes: &mut WriteHalf<B>, activity: &Activity) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    B: AsyncWrite,
{
    copy_buf(&mut BufReader::with_capacity(PIECE, activity.count(reads)), writes).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::idle::IDLE;

    #[tokio::test]
    async fn delivers_everything_before_the_end_of_a_side() {
        let (mut client, inner) = duplex(64);
        let (mut kubelet, outer) = duplex(64);
        let relayed = tokio::spawn(relay(inner, outer, pending(), IDLE));
        client.write_all(b"question").await.unwrap();
        let mut question = [0; 8];
        kubelet.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        let answer = vec![7; 100_000];
        let sent = answer.clone();
        tokio::spawn(async move {
            kubelet.write_all(&sent).await.unwrap();
            kubelet.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, answer);
        relayed.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_takes_nothing_does_not_keep_a_client_that_has_gone() {
        let (client, inner) = duplex(64);
        let (_backend, outer) = duplex(64);
        let relayed = tokio::spawn(relay(inner, Unclosable(outer), pending(), IDLE));
        drop(client);
        relayed.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_while_the_backend_is_blocked_ends_both() {
        let (mut client, inner) = duplex(1 << 20);
        let (mut backend, outer) = duplex(64);
        client.write_all(&vec![1; 1 << 18]).await.unwrap();
        let started = Instant::now();
        // The client is still open, as a peer whose end waits behind bytes that nobody reads.
        relay(inner, outer, ready(()), IDLE).await.unwrap();
        assert!(started.elapsed() >= FINISH);
        let mut received = Vec::new();
        backend.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [1; 64]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_before_the_end_of_a_client_that_has_left_are_delivered() {
        let (mut client, inner) = duplex(1 << 20);
        let (mut backend, outer) = duplex(64);
        client.write_all(&vec![1; 1 << 18]).await.unwrap();
        drop(client);
        let relayed = tokio::spawn(relay(inner, outer, ready(()), IDLE));
        let mut received = Vec::new();
        backend.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), 1 << 18);
        relayed.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn connections_without_any_byte_are_ended() {
        let (mut client, inner) = duplex(64);
        let (_backend, outer) = duplex(64);
        let started = Instant::now();
        let relayed = tokio::spawn(relay(inner, outer, pending(), IDLE));
        sleep(IDLE / 2).await;
        client.write_all(&[1]).await.unwrap();
        relayed.await.unwrap().unwrap();
        assert_eq!(started.elapsed().as_secs(), 2 * IDLE.as_secs());
    }

    /// A connection whose end is never sent, as with TLS to a peer that does not read.
    struct Unclosable(DuplexStream);

    impl AsyncRead for Unclosable {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Unclosable {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}
