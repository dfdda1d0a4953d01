//! Bytes in the binary messages of a WebSocket (KEP-4006, `SPDY/3.1+portforward.k8s.io`).

use std::io;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::{FINISH, PIECE};

/// Copies the content of a client's binary messages to a connection, and the connection's bytes into binary messages,
/// until one side ends. A message that is not binary ends the tunnel.
///
/// # Errors
/// Reading or writing the connection fails.
pub async fn tunnel<C, K>(socket: WebSocketStream<C>, connection: K) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite,
{
    let (client, mut messages) = Client::new(socket);
    let (mut reads, mut writes) = split(connection);
    let to_connection = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) => {
                    let write = async {
                        writes.write_all(&bytes).await?;
                        writes.flush().await
                    };
                    match client.unless_gone(write).await {
                        Some(written) => written?,
                        None => break,
                    }
                }
                Message::Ping(_) | Message::Pong(_) => {}
                _ => break,
            }
        }
        Ok(())
    };
    let to_client = async {
        let mut piece = vec![0; PIECE];
        loop {
            let count = reads.read(&mut piece).await?;
            let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            let message = Message::Binary(Bytes::copy_from_slice(bytes));
            client.send(message).await.map_err(io::Error::other)?;
        }
    };
    let copied = tokio::select! {
        copied = to_connection => copied,
        copied = to_client => copied,
    };
    let end_connection = async {
        let _ = timeout(FINISH, writes.shutdown()).await;
        drop((reads, writes));
    };
    tokio::join!(client.close(), end_connection);
    copied
}

#[cfg(test)]
mod tests {
    use futures_util::SinkExt;
    use tokio::io::duplex;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn carries_bytes_both_ways_until_the_connection_ends() {
        let (near, far) = duplex(1 << 10);
        let (mut kubelet, connection) = duplex(64);
        let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let tunnelled = tokio::spawn(tunnel(server, connection));
        client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
        let mut received = [0; 3];
        kubelet.read_exact(&mut received).await.unwrap();
        assert_eq!(received, [1, 2, 3]);
        tokio::spawn(async move { kubelet.write_all(&[9; 1000]).await.unwrap() });
        let mut answer = Vec::new();
        while let Some(Ok(Message::Binary(bytes))) = client.next().await {
            answer.extend_from_slice(&bytes);
        }
        assert_eq!(answer, [9; 1000]);
        tunnelled.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn text_ends_the_tunnel() {
        let (near, far) = duplex(1 << 10);
        let (mut kubelet, connection) = duplex(64);
        let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let tunnelled = tokio::spawn(tunnel(server, connection));
        client.send(Message::text("no bytes")).await.unwrap();
        let mut received = Vec::new();
        kubelet.read_to_end(&mut received).await.unwrap();
        assert!(received.is_empty());
        tunnelled.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_ends_the_tunnel_to_a_kubelet_that_hangs() {
        let (near, far) = duplex(1 << 20);
        let (_kubelet, connection) = duplex(64);
        let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let tunnelled = tokio::spawn(tunnel(server, connection));
        client.send(Message::binary(vec![1; 1 << 10])).await.unwrap();
        client.send(Message::binary(vec![2; 1 << 10])).await.unwrap();
        drop(client);
        tunnelled.await.unwrap().unwrap();
    }
}
