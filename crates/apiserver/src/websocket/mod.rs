//! WebSocket (RFC 6455) over HTTP/1.1, for clients that can read a stream in no other way, such as browsers.
//!
//! | file | what |
//! | --- | --- |
//! | [`handshake`] | a request's headers and the response that accepts or refuses it |
//! | [`session`] | messages to a client that sends none, until either side ends |
//!
//! Nothing a client sends is kept: messages are small, compression is not negotiated, and a frame is read only after
//! the answer to the one before has been written.

pub(crate) mod handshake;
pub(crate) mod session;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The server's end of a connection.
pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// The largest message of a client, in bytes: none means anything.
const MAX_CLIENT_MESSAGE: usize = 4 << 10;
/// Bytes read from the client at once. Each connection has such a buffer.
const READ_BUFFER: usize = 4 << 10;
/// Bytes gathered before they are written, so that small messages share a TLS record.
const WRITE_BUFFER: usize = 16 << 10;

/// Takes over a connection whose handshake is done.
pub(crate) async fn open(connection: TokioIo<Upgraded>) -> WebSocket {
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config())).await
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_CLIENT_MESSAGE))
        .max_frame_size(Some(MAX_CLIENT_MESSAGE))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
}
