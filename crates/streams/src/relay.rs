//! Bytes between two connections.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, copy_buf, split};

use crate::PIECE;

/// Copies bytes in both directions until one side ends, and then ends the other (upstream: `UpgradeAwareHandler`).
/// Bytes that the side sent before its end are delivered.
///
/// # Errors
/// Reading or writing fails.
pub async fn relay<A, B>(one: A, other: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (one_reads, mut one_writes) = split(one);
    let (other_reads, mut other_writes) = split(other);
    let copied = tokio::select! {
        copied = copy(one_reads, &mut other_writes) => copied,
        copied = copy(other_reads, &mut one_writes) => copied,
    };
    // Both sides learn of the end; a side that has gone cannot.
    let _ = other_writes.shutdown().await;
    let _ = one_writes.shutdown().await;
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
    use tokio::io::{AsyncReadExt, duplex};

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
}
