//! The client's end of a WebSocket.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::spdy::session::Ended;

/// Interval of pings to a client that is not read.
const PING: Duration = Duration::from_secs(5);

/// Sends messages to a client.
pub(crate) struct Client<C>(Mutex<SplitSink<WebSocketStream<C>, Message>>);

/// The messages of a client.
pub(crate) type Messages<C> = SplitStream<WebSocketStream<C>>;

impl<C: AsyncRead + AsyncWrite + Unpin> Client<C> {
    pub(crate) fn new(socket: WebSocketStream<C>) -> (Self, Messages<C>) {
        let (sink, messages) = socket.split();
        (Self(Mutex::new(sink)), messages)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The client has gone.
    pub(crate) async fn send(&self, message: Message) -> Result<(), Ended> {
        self.0.lock().await.send(message).await.map_err(|_| Ended)
    }

    /// Closes the connection.
    pub(crate) async fn close(&self) {
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let mut sink = self.0.lock().await;
        let _ = sink.send(Message::Close(Some(close))).await;
        let _ = sink.close().await;
    }

    /// Waits until the kubelet has taken the client's bytes; `None` if the client goes before. The client is not read
    /// meanwhile, so only a write to it notices its end.
    pub(crate) async fn unless_gone<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let pings = async {
            loop {
                tokio::time::sleep(PING).await;
                if self.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            written = write => Some(written),
            () = pings => None,
        }
    }
}
