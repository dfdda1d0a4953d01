//! One-way sessions: the server sends messages, the client only answers pings and closes the session.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Interval of pings to a silent client.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Timeout of the reply to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of writing a batch to the client.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// Timeout of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends batches of messages until the stream ends, or until the client closes, violates the protocol, or disconnects.
/// As upstream, ignores data from the client.
pub(crate) async fn send_all<S, B>(mut socket: WebSocketStream<S>, batches: impl Stream<Item = B>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: IntoIterator<Item = Message>,
{
    let mut batches = pin!(batches);
    let mut heard = Instant::now();
    let mut pings = interval_at(heard + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        let written = tokio::select! {
            batch = batches.next() => match batch {
                Some(batch) => write(&mut socket, batch).await,
                None => break End::Closing(CloseCode::Normal),
            },
            received = socket.next() => match received {
                Some(Ok(Message::Close(_))) => break End::ClientClosed,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    // The reply to a ping is written before the next frame is read, so that replies do not pile up.
                    write(&mut socket, []).await
                }
                Some(Err(error)) => break End::from_error(&error),
                None => break End::Gone,
            },
            now = pings.tick() => match now.duration_since(heard) {
                silence if silence >= PING_INTERVAL + PING_TIMEOUT => break End::Gone,
                _ => write(&mut socket, [Message::Ping(Bytes::new())]).await,
            },
        };
        if written.is_none() {
            break End::Gone;
        }
    };
    // A client that does not complete the closing handshake in time is disconnected.
    let _ = timeout(CLOSE_TIMEOUT, end.close(&mut socket)).await;
}

/// The way a session ends.
enum End {
    /// The server closes, with this code.
    Closing(CloseCode),
    /// The client has closed.
    ClientClosed,
    /// The client has disconnected or does not read.
    Gone,
}

impl End {
    fn from_error(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::Closing(CloseCode::Size),
            Error::Protocol(_) => Self::Closing(CloseCode::Protocol),
            Error::Utf8(_) => Self::Closing(CloseCode::Invalid),
            _ => Self::Gone,
        }
    }

    async fn close<S: AsyncRead + AsyncWrite + Unpin>(self, socket: &mut WebSocketStream<S>) {
        match self {
            Self::Closing(code) => {
                let frame = CloseFrame { code, reason: "".into() };
                if socket.close(Some(frame)).await.is_ok() && code == CloseCode::Normal {
                    // Drops the frames that the client sent before it saw the close frame.
                    while let Some(Ok(_)) = socket.next().await {}
                }
            }
            // Sends the reply to the client's close frame.
            Self::ClientClosed => while let Some(Ok(_)) = socket.next().await {},
            Self::Gone => return,
        }
        let _ = socket.get_mut().shutdown().await;
    }
}

/// Writes messages and pending replies; `None` if the client does not read in time.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    messages: impl IntoIterator<Item = Message>,
) -> Option<()> {
    let written = async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    timeout(WRITE_TIMEOUT, written).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::websocket::{MAX_CLIENT_MESSAGE, config};

    /// Number of bytes in transit to the client.
    const PIPE: usize = 1 << 10;

    /// Runs a session that sends these messages, one per batch. Returns the client's end of the connection.
    async fn session(
        messages: impl Stream<Item = Message> + Send + 'static,
    ) -> (DuplexStream, JoinHandle<()>) {
        let (server, client) = duplex(PIPE);
        let socket =
            WebSocketStream::from_raw_socket(server, Role::Server, Some(config(MAX_CLIENT_MESSAGE))).await;
        let batches = messages.map(|message| [message]);
        (client, tokio::spawn(send_all(socket, batches)))
    }

    async fn client(connection: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(connection, Role::Client, None).await
    }

    /// Returns the code of the next close frame.
    async fn close_code(socket: &mut WebSocketStream<DuplexStream>) -> Option<CloseCode> {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => frame.map(|frame| frame.code),
            other => panic!("no close frame: {other:?}"),
        }
    }

    /// Builds a client's frame, masked with zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                frame.push(0x80 | 0x7e);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        frame
    }

    #[tokio::test]
    async fn sends_everything_and_then_closes() {
        let events = ["one", "two", "three"];
        let (connection, session) = session(stream::iter(events.map(Message::from))).await;
        let mut client = client(connection).await;
        for event in events {
            assert_eq!(client.next().await.unwrap().unwrap(), Message::from(event));
        }
        assert_eq!(close_code(&mut client).await, Some(CloseCode::Normal));
        assert!(client.next().await.is_none());
        session.await.unwrap();
    }

    #[tokio::test]
    async fn answers_pings_and_ignores_data() {
        let (connection, session) = session(stream::pending()).await;
        let mut client = client(connection).await;
        client.send(Message::from("data")).await.unwrap();
        client.send(Message::Ping("hello".into())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("hello".into()));
        client.close(None).await.unwrap();
        while let Some(Ok(_)) = client.next().await {}
        session.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn disconnects_a_client_that_does_not_answer_pings() {
        let (connection, session) = session(stream::pending()).await;
        let mut client = client(connection).await;
        let started = Instant::now();
        for _ in 0..5 {
            // Reading the ping queues the reply.
            assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
            client.flush().await.unwrap();
        }
        assert_eq!(started.elapsed(), 5 * PING_INTERVAL);
        session.await.unwrap();
        assert!(started.elapsed() <= 5 * PING_INTERVAL + 2 * PING_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn disconnects_a_client_that_does_not_read() {
        let large = Message::from("x".repeat(4 * PIPE));
        let (_connection, session) = session(stream::repeat(large)).await;
        let started = Instant::now();
        session.await.unwrap();
        assert_eq!(started.elapsed(), WRITE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn disconnects_a_client_that_sends_pings_and_does_not_read() {
        let (connection, session) = session(stream::pending()).await;
        let (_reads, mut writes) = tokio::io::split(connection);
        let flood = async {
            let ping = frame(0x89, &[b'x'; 125]);
            while writes.write_all(&ping).await.is_ok() {}
        };
        tokio::join!(flood, async { session.await.unwrap() });
    }

    #[tokio::test]
    async fn protocol_violations_end_the_session() {
        const TEXT: u8 = 0x81;
        let long = vec![b'x'; super::super::MAX_CLIENT_MESSAGE + 1];
        let mut fragments = frame(0x01, b"x");
        for _ in 0..5_000 {
            fragments.extend(frame(0x00, b"x"));
        }
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        for (what, sent, code) in [
            ("a long message", frame(TEXT, &long), CloseCode::Size),
            ("many fragments", fragments, CloseCode::Size),
            ("a frame of exabytes", huge.to_vec(), CloseCode::Size),
            ("compressed data", frame(TEXT | 0x40, b"x"), CloseCode::Protocol),
            ("an unknown frame", frame(0x83, b"x"), CloseCode::Protocol),
            ("a long ping", frame(0x89, &[b'x'; 126]), CloseCode::Protocol),
            ("a ping in pieces", frame(0x09, b"x"), CloseCode::Protocol),
            ("a continuation of nothing", frame(0x80, b"x"), CloseCode::Protocol),
            ("no mask", vec![TEXT, 1, b'x'], CloseCode::Protocol),
            ("text that is none", frame(TEXT, b"\xff"), CloseCode::Invalid),
        ] {
            let (mut connection, session) = session(stream::pending()).await;
            let (mut reads, mut writes) = tokio::io::split(&mut connection);
            let mut answer = Vec::new();
            // The session may end before everything is written.
            let (_, read) = tokio::join!(writes.write_all(&sent), reads.read_to_end(&mut answer));
            read.unwrap();
            session.await.unwrap();
            let code: u16 = code.into();
            assert_eq!(answer, [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{what}");
        }
    }

    #[tokio::test]
    async fn a_broken_connection_ends_the_session() {
        for sent in [&b""[..], &[0x81], &[0x81, 0x85, 0, 0, 0, 0, b'x']] {
            let (mut connection, session) = session(stream::pending()).await;
            connection.write_all(sent).await.unwrap();
            drop(connection);
            session.await.unwrap();
        }
    }
}
