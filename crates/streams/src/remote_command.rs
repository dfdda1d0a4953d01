//! The channels of a client's WebSocket (`v5.channel.k8s.io`) as the SPDY streams of a kubelet (`v4.channel.k8s.io`),
//! for `exec` and `attach` (upstream: `StreamTranslatorHandler`, KEP-4006).
//!
//! | channel | content | SPDY stream |
//! | --- | --- | --- |
//! | 0 | standard input | `stdin` |
//! | 1 | standard output | `stdout` |
//! | 2 | standard error, without a terminal | `stderr` |
//! | 3 | the result, as a `Status` | `error` |
//! | 4 | sizes of the terminal, as JSON | `resize` |
//! | 255 | the channel that the client has finished | |
//!
//! The first byte of a message is its channel.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use nave_machinery::{Status, Value};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::spdy::session::{Ended, StreamReader, StreamWriter};
use crate::spdy::{Headers, Role, Session};

/// The WebSocket protocol of clients.
pub const CLIENT_PROTOCOL: &str = "v5.channel.k8s.io";
/// The protocol of kubelets' SPDY streams.
pub const KUBELET_PROTOCOL: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Announces the end of a channel.
const CLOSE: u8 = 255;

/// Maximum size of a result on the `error` stream, in bytes.
const MAX_RESULT: usize = 64 << 10;

/// The streams that a request selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the parameters of the request")]
pub struct Channels {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; not with a terminal.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// Runs a command for a client. `connect` connects to the kubelet; its error is the result of the command.
pub async fn run<C, K>(
    socket: WebSocketStream<C>,
    channels: Channels,
    connect: impl Future<Output = Result<K, Status>>,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    K: AsyncRead + AsyncWrite,
{
    let (sink, mut messages) = socket.split();
    let client = Client(Mutex::new(sink));
    let result = async {
        // Tells the client that the connection is established.
        let first = if channels.stdout {
            STDOUT
        } else if channels.stderr {
            STDERR
        } else {
            ERROR
        };
        client.send(first, &Bytes::new()).await.map_err(|Ended| ended())?;
        let (session, driver) = Session::start(connect.await?, Role::Client);
        // The streams end with the driver, so the command's future ends after it.
        let driver = async {
            let _ = driver.await;
            std::future::pending().await
        };
        tokio::select! {
            result = command(&client, &mut messages, session, channels) => result,
            never = driver => never,
        }
    };
    match result.await {
        Ok(Some(result)) => client.finish(&result).await,
        // The client has gone.
        Ok(None) => {}
        Err(status) => client.finish(&status.to_value()).await,
    }
}

/// The client's end of the WebSocket.
struct Client<C>(Mutex<SplitSink<WebSocketStream<C>, Message>>);

impl<C: AsyncRead + AsyncWrite + Unpin> Client<C> {
    async fn send(&self, channel: u8, bytes: &Bytes) -> Result<(), Ended> {
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.put_slice(bytes);
        self.0.lock().await.send(Message::Binary(message.freeze())).await.map_err(|_| Ended)
    }

    /// Sends the result and closes the connection.
    async fn finish(&self, result: &Value) {
        let sent = self.send(ERROR, &Bytes::from(result.to_string())).await;
        if sent.is_ok() {
            let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let mut sink = self.0.lock().await;
            let _ = sink.send(Message::Close(Some(close))).await;
            let _ = sink.close().await;
        }
    }
}

/// Opens the streams and copies them until the command ends. Returns its result; `None` if the client goes first.
async fn command<C, M>(
    client: &Client<C>,
    messages: &mut M,
    session: Session,
    channels: Channels,
) -> Result<Option<Value>, Status>
where
    C: AsyncRead + AsyncWrite + Unpin,
    M: futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    // Kubelets wait for all streams, in any order; this order is client-go's.
    let result = open(&session, "error").await?;
    let stdin = if channels.stdin { Some(open(&session, "stdin").await?) } else { None };
    let stdout = if channels.stdout { Some(open(&session, "stdout").await?) } else { None };
    let is_apart = channels.stderr && !channels.tty;
    let stderr = if is_apart { Some(open(&session, "stderr").await?) } else { None };
    let resize = if channels.tty { Some(open(&session, "resize").await?) } else { None };
    let stdin = stdin.map(|(_, writer)| writer);
    let resize = resize.map(|(_, writer)| writer);
    let output = async {
        let stdout = copy(stdout.map(|(reader, _)| reader), client, STDOUT);
        let stderr = copy(stderr.map(|(reader, _)| reader), client, STDERR);
        let ((), (), result) = tokio::join!(stdout, stderr, read_result(result.0));
        result
    };
    tokio::select! {
        result = output => result.map(Some),
        () = input(messages, stdin, resize) => Ok(None),
    }
}

async fn open(session: &Session, kind: &str) -> Result<(StreamReader, StreamWriter), Status> {
    let stream = session.open(Headers::new([("streamType", kind)])).await.map_err(|Ended| ended())?;
    Ok((stream.reader, stream.writer))
}

/// Copies a stream to a channel. If the client does not take it, drops it, so that the result can still arrive.
async fn copy<C: AsyncRead + AsyncWrite + Unpin>(
    reader: Option<StreamReader>,
    client: &Client<C>,
    channel: u8,
) {
    let Some(mut reader) = reader else { return };
    let mut takes = true;
    while let Ok(Some(piece)) = reader.next().await {
        takes = takes && client.send(channel, &piece).await.is_ok();
    }
}

/// Passes the client's messages to the kubelet until the client closes or violates the protocol.
async fn input<M>(messages: &mut M, mut stdin: Option<StreamWriter>, mut resize: Option<StreamWriter>)
where
    M: futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    while let Some(Ok(message)) = messages.next().await {
        let mut content = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        if content.is_empty() {
            continue;
        }
        let channel = content.split_to(1);
        let (writer, finishes) = match (channel.as_ref(), content.as_ref()) {
            ([CLOSE], [STDIN]) => (&mut stdin, true),
            ([CLOSE], [RESIZE]) => (&mut resize, true),
            ([CLOSE], [STDOUT..=ERROR]) => continue,
            ([CLOSE], _) => return,
            ([STDIN], _) => (&mut stdin, false),
            ([RESIZE], _) => (&mut resize, false),
            // Channels that the client may not write are ignored, as upstream.
            _ => continue,
        };
        let Some(writer) = writer else { continue };
        // A command may end its input early.
        let _ = if finishes { writer.finish().await } else { writer.write(content).await };
    }
}

/// Reads the result of the command from the `error` stream, which the kubelet finishes with or without content.
async fn read_result(mut reader: StreamReader) -> Result<Value, Status> {
    let mut text = Vec::new();
    while let Some(piece) = reader.next().await.map_err(|Ended| ended())? {
        if text.len() + piece.len() > MAX_RESULT {
            return Err(Status::internal("error stream protocol error: the result is too large"));
        }
        text.extend_from_slice(&piece);
    }
    if text.is_empty() {
        return Ok(success());
    }
    let Ok(result) = serde_json::from_slice::<Value>(&text) else {
        let text = String::from_utf8_lossy(&text);
        return Err(Status::internal(format!("error stream protocol error: {text:?} is not a Status")));
    };
    let field = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default();
    match (field("status"), field("reason")) {
        ("Success", _) => Ok(success()),
        ("Failure", NON_ZERO_EXIT_CODE) => exit_status(&result),
        ("Failure", _) => Err(Status::internal(field("message"))),
        _ => Err(Status::internal("error stream protocol error: unknown error")),
    }
}

/// The reason and the type of cause of an exit code (upstream: `remotecommand`).
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

/// Returns the result for a command with an exit code.
fn exit_status(result: &Value) -> Result<Value, Status> {
    let causes = result.get("details").and_then(|details| details.get("causes")).and_then(Value::as_array);
    let cause = causes.into_iter().flatten().find(|cause| cause.get("reason") == Some(&json!(EXIT_CODE)));
    let code = cause.and_then(|cause| cause.get("message")).and_then(Value::as_str);
    let Some(code) = code.and_then(|code| code.parse::<u8>().ok()) else {
        return Err(Status::internal(format!("error stream protocol error: no {EXIT_CODE} cause given")));
    };
    let text = format!("command terminated with exit code {code}");
    Ok(json!({
        "metadata": {}, "status": "Failure", "reason": NON_ZERO_EXIT_CODE,
        "message": format!("command terminated with non-zero exit code: {text}"),
        "details": {"causes": [{"reason": EXIT_CODE, "message": code.to_string()}]},
    }))
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn ended() -> Status {
    Status::internal("the connection to the kubelet ended before the command")
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio_tungstenite::tungstenite::protocol::Role as Side;

    use super::*;
    use crate::spdy::Stream;

    const ALL: Channels = Channels { stdin: true, stdout: true, stderr: true, tty: false };

    struct Fixture {
        client: WebSocketStream<DuplexStream>,
        kubelet: Session,
        driver: JoinHandle<()>,
    }

    async fn start(channels: Channels) -> Fixture {
        let (near, far) = duplex(1 << 16);
        let (kubelet, connection) = duplex(1 << 16);
        let socket = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
        tokio::spawn(run(socket, channels, async { Ok(connection) }));
        let (kubelet, driver) = Session::start(kubelet, Role::Server);
        let driver = tokio::spawn(async { drop(driver.await) });
        let client = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
        Fixture { client, kubelet, driver }
    }

    impl Fixture {
        async fn stream(&mut self, kind: &str) -> Stream {
            let stream = self.kubelet.accept().await.unwrap();
            assert_eq!(stream.headers.get("streamType"), Some(kind));
            stream
        }

        async fn send(&mut self, message: &[u8]) {
            self.client.send(Message::binary(message.to_vec())).await.unwrap();
        }

        async fn receive(&mut self) -> Vec<u8> {
            match self.client.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => bytes.to_vec(),
                other => panic!("{other:?}"),
            }
        }

        async fn result(&mut self) -> Value {
            let message = self.receive().await;
            assert_eq!(message[0], ERROR);
            serde_json::from_slice(&message[1..]).unwrap()
        }
    }

    async fn write(stream: &mut Stream, bytes: &'static [u8]) {
        stream.writer.write(Bytes::from_static(bytes)).await.unwrap();
        stream.writer.finish().await.unwrap();
    }

    #[tokio::test]
    async fn translates_channels_to_streams() {
        let mut fixture = start(ALL).await;
        assert_eq!(fixture.receive().await, [STDOUT]);
        let mut error = fixture.stream("error").await;
        let mut stdin = fixture.stream("stdin").await;
        let mut stdout = fixture.stream("stdout").await;
        let mut stderr = fixture.stream("stderr").await;
        fixture.send(b"\0input").await;
        fixture.send(b"\x01not writable").await;
        fixture.send(b"").await;
        fixture.send(b"\xff\0").await;
        assert_eq!(stdin.reader.next().await.unwrap().unwrap(), "input");
        assert_eq!(stdin.reader.next().await.unwrap(), None);
        write(&mut stdout, b"output").await;
        assert_eq!(fixture.receive().await, b"\x01output");
        write(&mut stderr, b"problem").await;
        assert_eq!(fixture.receive().await, b"\x02problem");
        write(&mut error, b"{\"status\":\"Success\"}").await;
        assert_eq!(fixture.result().await, success());
        assert!(matches!(fixture.client.next().await, Some(Ok(Message::Close(Some(_))))));
    }

    #[tokio::test]
    async fn a_terminal_has_sizes_and_no_stderr() {
        let mut fixture = start(Channels { tty: true, ..ALL }).await;
        let _error = fixture.stream("error").await;
        let _stdin = fixture.stream("stdin").await;
        let _stdout = fixture.stream("stdout").await;
        let mut resize = fixture.stream("resize").await;
        fixture.send(b"\x04{\"Width\":80,\"Height\":24}\n").await;
        assert_eq!(resize.reader.next().await.unwrap().unwrap(), "{\"Width\":80,\"Height\":24}\n");
        // Ends the command: the close of an unknown channel violates the protocol.
        fixture.send(b"\xff\x09").await;
        assert_eq!(resize.reader.next().await, Err(Ended));
        fixture.driver.await.unwrap();
    }

    #[tokio::test]
    async fn the_result_is_the_exit_code_or_an_error() {
        let exit = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"x","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        for (sent, reason, message) in [
            (
                &exit[..],
                "NonZeroExitCode",
                "command terminated with non-zero exit code: command terminated with exit code 3",
            ),
            (
                br#"{"status":"Failure","message":"no such container"}"#,
                "InternalError",
                "Internal error occurred: no such container",
            ),
            (
                br#"{"status":"Failure","reason":"NonZeroExitCode"}"#,
                "InternalError",
                "Internal error occurred: error stream protocol error: no ExitCode cause given",
            ),
            (
                b"[",
                "InternalError",
                "Internal error occurred: error stream protocol error: \"[\" is not a Status",
            ),
        ] {
            let mut fixture = start(Channels { stdout: true, ..Channels::default() }).await;
            assert_eq!(fixture.receive().await, [STDOUT]);
            let mut error = fixture.stream("error").await;
            let mut stdout = fixture.stream("stdout").await;
            stdout.writer.finish().await.unwrap();
            error.writer.write(Bytes::copy_from_slice(sent)).await.unwrap();
            error.writer.finish().await.unwrap();
            let result = fixture.result().await;
            assert_eq!((&result["reason"], &result["message"]), (&json!(reason), &json!(message)));
        }
    }

    #[tokio::test]
    async fn a_kubelet_that_goes_away_is_an_error() {
        let mut fixture = start(ALL).await;
        assert_eq!(fixture.receive().await, [STDOUT]);
        let streams = [fixture.stream("error").await, fixture.stream("stdin").await];
        fixture.driver.abort();
        drop(streams);
        let result = fixture.result().await;
        assert_eq!(result["message"], ended().message);
    }

    #[tokio::test]
    async fn a_failed_connection_is_the_result() {
        let (near, far) = duplex(1 << 10);
        let socket = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
        let refused = async { Err::<DuplexStream, _>(Status::internal("refused")) };
        tokio::spawn(run(socket, Channels { stderr: true, ..Channels::default() }, refused));
        let mut client = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
        assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(vec![STDERR]));
        let Message::Binary(result) = client.next().await.unwrap().unwrap() else { panic!("no result") };
        assert_eq!(serde_json::from_slice::<Value>(&result[1..]).unwrap()["code"], 500);
    }
}
