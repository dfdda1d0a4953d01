//! Bytes between two connections.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, copy_buf, split};
use tokio::time::timeout;

use crate::{FINISH, PIECE};

/// Copies bytes in both directions until one side ends, and then ends the other (upstream: `UpgradeAwareHandler`).
/// Bytes that the side sent before its end are delivered. The backend's connection does not wait for a client that
/// reads slowly, nor for long for a backend that does not take its end.
///
/// # Errors
/// Reading or writing fails.
pub async fn relay<A, B>(client: A, backend: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (client_reads, mut client_writes) = split(client);
    let (backend_reads, mut backend_writes) = split(backend);
    let copied = tokio::select! {
        copied = copy(client_reads, &mut backend_writes) => copied,
        copied = copy(backend_reads, &mut client_writes) => copied,
    };
    // Both sides learn of the end; a side that has gone cannot.
    let end_backend = async {
        let _ = timeout(FINISH, backend_writes.shutdown()).await;
        drop(backend_writes);
    };
    let _ = tokio::join!(client_writes.shutdown(), end_backend);
    copied
}

async fn copy<A, B>(reads: ReadHalf<A>, writes: &mut WriteHalf<B>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    copy_buf(&mut BufReader::with_capacity(PIECE, reads), writes).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};

    use super::*;

    #[tokio::test]
    async fn delivers_everything_before_the_end_of_a_side() {
        let (mut client, inner) = duplex(64);
        let (mut kubelet, outer) = duplex(64);
        let relayed = tokio::spawn(relay(inner, outer));
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
        let relayed = tokio::spawn(relay(inner, Unclosable(outer)));
        drop(client);
        relayed.await.unwrap().unwrap();
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
