//! Port forwards to ports of this machine.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nave_streams::spdy::{Session, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connects each pair of streams (`error` and `data` of a request) to its port, until the client goes.
pub(super) async fn forward(mut session: Session) {
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    let mut connections = FuturesUnordered::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(()) = connections.next() => continue,
        };
        let Some(stream) = stream else { return };
        let request = stream.headers.get("requestID").unwrap_or_default().to_owned();
        match waiting.remove(&request) {
            None => drop(waiting.insert(request, stream)),
            Some(first) => {
                let is_data = stream.headers.get("streamType") == Some("data");
                let (data, error) = if is_data { (stream, first) } else { (first, stream) };
                connections.push(connect(data, error));
            }
        }
    }
}

async fn connect(mut data: Stream, mut error: Stream) {
    let port = data.headers.get("port").and_then(|port| port.parse::<u16>().ok()).unwrap_or_default();
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut socket) => {
            let (mut reads, mut writes) = socket.split();
            let to_socket = async {
                while let Ok(Some(piece)) = data.reader.next().await {
                    if writes.write_all(&piece).await.is_err() {
                        return;
                    }
                }
                let _ = writes.shutdown().await;
            };
            let from_socket = async {
                let mut piece = vec![0; 32 << 10];
                while let Ok(count @ 1..) = reads.read(&mut piece).await {
                    if data.writer.write(Bytes::copy_from_slice(&piece[..count])).await.is_err() {
                        return;
                    }
                }
                let _ = data.writer.finish().await;
            };
            tokio::join!(to_socket, from_socket);
        }
        Err(why) => {
            let why = format!("error forwarding port {port}: {why}");
            let _ = error.writer.write(Bytes::from(why)).await;
            let _ = data.writer.finish().await;
        }
    }
    let _ = error.writer.finish().await;
}
