//! WebSocket (RFC 6455) over HTTP/1.1, for clients that cannot read streams otherwise, such as browsers.
//!
//! | file | contents |
//! | --- | --- |
//! | [`handshake`] | parses the request's headers and builds the response |
//! | [`session`] | sends messages until either side closes |
//!
//! Input from clients is never queued: messages have a maximum size, compression is not negotiated, and a frame of a
//! watch's client is read only after the reply to the previous one is written.

pub(crate) mod handshake;
pub(crate) mod session;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The server's end of a connection.
pub(crate) type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Maximum size of a message of a watch's client, in bytes. Its content is ignored.
const MAX_CLIENT_MESSAGE: usize = 4 << 10;
/// Size of the read buffer of each connection.
const READ_BUFFER: usize = 4 << 10;
/// Bytes buffered before they are written, so that small messages share a TLS record.
const WRITE_BUFFER: usize = 16 << 10;

/// Creates the server's end of a connection after its handshake. A longer message of the client ends the connection.
pub(crate) async fn open(connection: TokioIo<Upgraded>, max_message: usize) -> WebSocket {
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config(max_message))).await
}

fn config(max_message: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
}
