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

mod result;

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::Peekable;
use nave_machinery::{Status, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, Messages};
use crate::spdy::session::{Ended, StreamReader, StreamWriter};
use crate::spdy::{Headers, Role, Session, Stream};

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

/// Maximum time until the kubelet has accepted the connection and all streams (client-go: the timeout of a stream's
/// creation).
const SETUP: Duration = Duration::from_secs(30);

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
    let (client, messages) = Client::new(socket);
    let mut messages = messages.peekable();
    let result = async {
        // Tells the client that the connection is established.
        let first = if channels.stdout {
            STDOUT
        } else if channels.stderr {
            STDERR
        } else {
            ERROR
        };
        send(&client, first, &Bytes::new()).await.map_err(|Ended| ended())?;
        let (streams, driver) = tokio::select! {
            prepared = timeout(SETUP, prepare(connect, channels)) => prepared.map_err(|_| timed_out())??,
            () = gone(&mut messages) => return Ok(None),
        };
        tokio::select! {
            result = command(&client, &mut messages, streams) => result,
            never = driver => match never {},
        }
    };
    let result = match result.await {
        Ok(Some(result)) => result,
        // The client has gone.
        Ok(None) => return,
        Err(status) => status.to_value(),
    };
    if send(&client, ERROR, &Bytes::from(result.to_string())).await.is_ok() {
        client.close().await;
    }
}

/// Sends a channel's content.
async fn send<C>(client: &Client<C>, channel: u8, bytes: &Bytes) -> Result<(), Ended>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.put_slice(bytes);
    client.send(Message::Binary(message.freeze())).await
}

/// Completes when the client goes. Never completes once the client has sent content, which stays in the stream.
async fn gone<C>(messages: &mut Peekable<Messages<C>>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match Pin::new(&mut *messages).peek().await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => drop(messages.next().await),
            None | Some(Err(_) | Ok(Message::Close(_))) => return,
            Some(Ok(_)) => pending().await,
        }
    }
}

/// The streams of a command.
struct Streams {
    result: StreamReader,
    stdin: Option<StreamWriter>,
    stdout: Option<StreamReader>,
    stderr: Option<StreamReader>,
    resize: Option<StreamWriter>,
    /// Keeps the connection open.
    session: Session,
}

impl Streams {
    async fn open(session: Session, channels: Channels) -> Result<Self, Ended> {
        // Kubelets wait for all streams, in any order; this order is client-go's.
        let result = open(&session, "error").await?.reader;
        let stdin = if channels.stdin { Some(open(&session, "stdin").await?.writer) } else { None };
        let stdout = if channels.stdout { Some(open(&session, "stdout").await?.reader) } else { None };
        let is_apart = channels.stderr && !channels.tty;
        let stderr = if is_apart { Some(open(&session, "stderr").await?.reader) } else { None };
        let resize = if channels.tty { Some(open(&session, "resize").await?.writer) } else { None };
        Ok(Self { result, stdin, stdout, stderr, resize, session })
    }
}

async fn open(session: &Session, kind: &str) -> Result<Stream, Ended> {
    session.open(Headers::new([("streamType", kind)])).await
}

/// Connects to the kubelet and opens the streams. Also returns the driver of the connection. It never completes: the
/// streams end with the connection, so the command's future ends after it.
async fn prepare<K>(
    connect: impl Future<Output = Result<K, Status>>,
    channels: Channels,
) -> Result<(Streams, Pin<Box<impl Future<Output = Infallible>>>), Status>
where
    K: AsyncRead + AsyncWrite,
{
    let (session, driver) = Session::start(connect.await?, Role::Client);
    let mut driver = Box::pin(async {
        let _ = driver.await;
        pending().await
    });
    let streams = tokio::select! {
        streams = Streams::open(session, channels) => streams.map_err(|Ended| ended())?,
        never = &mut driver => match never {},
    };
    Ok((streams, driver))
}

/// Copies the streams until the command ends. Returns its result; `None` if the client goes first.
async fn command<C>(
    client: &Client<C>,
    messages: &mut Peekable<Messages<C>>,
    streams: Streams,
) -> Result<Option<Value>, Status>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let Streams { result, stdin, stdout, stderr, resize, session: _session } = streams;
    let output = async {
        let stdout = copy(stdout, client, STDOUT);
        let stderr = copy(stderr, client, STDERR);
        // The output before a failure is copied too.
        let result = async { Ok(result::read(result).await) };
        match tokio::try_join!(stdout, stderr, result) {
            Ok(((), (), result)) => result.map(Some),
            Err(Ended) => Ok(None),
        }
    };
    tokio::select! {
        result = output => result,
        () = input(client, messages, stdin, resize) => Ok(None),
    }
}

/// Copies a stream to a channel.
///
/// # Errors
/// The client has gone.
async fn copy<C>(reader: Option<StreamReader>, client: &Client<C>, channel: u8) -> Result<(), Ended>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let Some(mut reader) = reader else { return Ok(()) };
    while let Ok(Some(piece)) = reader.next().await {
        send(client, channel, &piece).await?;
    }
    Ok(())
}

/// Passes the client's messages to the kubelet until the client goes or violates the protocol.
async fn input<C>(
    client: &Client<C>,
    messages: &mut Peekable<Messages<C>>,
    mut stdin: Option<StreamWriter>,
    mut resize: Option<StreamWriter>,
) where
    C: AsyncRead + AsyncWrite + Unpin,
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
        let write = async { if finishes { writer.finish().await } else { writer.write(content).await } };
        // A command may end its input early.
        if client.unless_gone(write).await.is_none() {
            return;
        }
    }
}

fn ended() -> Status {
    Status::internal("the connection to the kubelet ended before the command")
}

fn timed_out() -> Status {
    Status::internal(format!("the kubelet did not open the streams within {} s", SETUP.as_secs()))
}

#[cfg(test)]
mod tests;
