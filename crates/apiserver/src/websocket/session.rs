//! One-way sessions: the server sends, the client only answers pings and closes.

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

/// A client that sends nothing is asked so often whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// A client that leaves a ping unanswered for so long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest time in which a client has to take what is sent to it at once.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest time for the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends batches of messages until there are no more, the client closes, breaks the protocol, or is gone. Data that the
/// client sends is ignored, as upstream does.
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
                Some(Ok(Message::Close(_))) => break End::Answered,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    // The answer to a ping leaves before the next frame is read, so answers do not pile up.
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
    // A client that takes no part in the closing handshake is left to it.
    let _ = timeout(CLOSE_TIMEOUT, end.close(&mut socket)).await;
}

/// How a session ends.
enum End {
    /// The server closes.
    Closing(CloseCode),
    /// The client has closed.
    Answered,
    /// The client is gone, or takes nothing.
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
                    // What the client sent before it saw the end is dropped.
                    while let Some(Ok(_)) = socket.next().await {}
                }
            }
            // The answer to the client's close frame.
            Self::Answered => while let Some(Ok(_)) = socket.next().await {},
            Self::Gone => return,
        }
        let _ = socket.get_mut().shutdown().await;
    }
}

/// Writes messages, and whatever answers are due; `None` where the client does not take them.
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
    use crate::websocket::config;

    /// Bytes on their way to the client.
    const PIPE: usize = 1 << 10;

    /// A session that sends these messages, one a batch, and what its client sees.
    async fn session(
        messages: impl Stream<Item = Message> + Send + 'static,
    ) -> (DuplexStream, JoinHandle<()>) {
        let (server, client) = duplex(PIPE);
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, Some(config())).await;
        let batches = messages.map(|message| [message]);
        (client, tokio::spawn(send_all(socket, batches)))
    }

    async fn client(connection: DuplexStream) -> WebSocketStream<DuplexStream> {
        WebSocketStream::from_raw_socket(connection, Role::Client, None).await
    }

    /// The code of the close frame that comes next.
    async fn close_code(socket: &mut WebSocketStream<DuplexStream>) -> Option<CloseCode> {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => frame.map(|frame| frame.code),
            other => panic!("no close frame: {other:?}"),
        }
    }

    /// A client's frame, masked with zeros.
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
    async fn a_client_that_answers_pings_stays_and_a_silent_one_does_not() {
        let (connection, session) = session(stream::pending()).await;
        let mut client = client(connection).await;
        let started = Instant::now();
        for _ in 0..5 {
            // Reading answers it.
            assert!(matches!(client.next().await, Some(Ok(Message::Ping(_)))));
            client.flush().await.unwrap();
        }
        assert_eq!(started.elapsed(), 5 * PING_INTERVAL);
        session.await.unwrap();
        assert!(started.elapsed() <= 5 * PING_INTERVAL + 2 * PING_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up() {
        let large = Message::from("x".repeat(4 * PIPE));
        let (_connection, session) = session(stream::repeat(large)).await;
        let started = Instant::now();
        session.await.unwrap();
        assert_eq!(started.elapsed(), WRITE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_pings_and_reads_nothing_is_given_up() {
        let (connection, session) = session(stream::pending()).await;
        let (_reads, mut writes) = tokio::io::split(connection);
        let flood = async {
            let ping = frame(0x89, &[b'x'; 125]);
            while writes.write_all(&ping).await.is_ok() {}
        };
        tokio::join!(flood, async { session.await.unwrap() });
    }

    #[tokio::test]
    async fn what_breaks_the_protocol_ends_the_session() {
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
            // The session may end before all is written.
            let (_, read) = tokio::join!(writes.write_all(&sent), reads.read_to_end(&mut answer));
            read.unwrap();
            session.await.unwrap();
            let code: u16 = code.into();
            assert_eq!(answer, [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{what}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_ends_the_session() {
        for sent in [&b""[..], &[0x81], &[0x81, 0x85, 0, 0, 0, 0, b'x']] {
            let (mut connection, session) = session(stream::pending()).await;
            connection.write_all(sent).await.unwrap();
            drop(connection);
            session.await.unwrap();
        }
    }
}
