//! A small gRPC client and server: calls with one request, and streams, over an HTTP/2 connection.
//!
//! The client distinguishes requests that were never sent from requests whose outcome is unknown, which tonic hides behind one
//! status. Only the first can be repeated if they write.
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

mod body;
#[cfg(feature = "etcd-server")]
pub(crate) mod server;
mod status;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioTimer;
use prost::Message;
use tokio::sync::{mpsc, watch};

use body::RequestBody;
pub use status::{Code, Status};
pub use trace::traced;

/// The reasons why a call fails.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection ended before the request was sent.
    #[error("the request was not sent: {0}")]
    NotSent(String),
    /// The connection ended after the request was sent, or the response is not gRPC.
    #[error("{0}")]
    Broken(String),
    /// The server's status.
    #[error(transparent)]
    Status(#[from] Status),
}

/// A connection to a server. Clones share it.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<RequestBody>,
    /// Scheme and authority of the server, for the requests' `:authority`.
    origin: String,
    /// Maximum length of a received message, in bytes.
    max_message: usize,
    is_abandoned: Arc<watch::Sender<bool>>,
}

impl Connection {
    /// Opens an HTTP/2 connection on a byte stream.
    ///
    /// # Errors
    /// The connection ends during the handshake.
    pub fn open<Io>(io: Io, origin: String) -> impl Future<Output = Result<Self, String>>
    where
        Io: Read + Write + Unpin + Send + 'static,
    {
        Self::open_with(io, origin, Some(KEEP_ALIVE_INTERVAL))
    }

    /// Opens a connection to a process of this machine, which does not vanish without closing it. Servers in Go end
    /// connections with pings in intervals below five minutes by default.
    ///
    /// # Errors
    /// The connection ends during the handshake.
    pub fn open_without_pings<Io>(io: Io, origin: String) -> impl Future<Output = Result<Self, String>>
    where
        Io: Read + Write + Unpin + Send + 'static,
    {
        Self::open_with(io, origin, None)
    }

    async fn open_with<Io>(io: Io, origin: String, keep_alive: Option<Duration>) -> Result<Self, String>
    where
        Io: Read + Write + Unpin + Send + 'static,
    {
        let is_abandoned = Arc::new(watch::Sender::new(false));
        let tasks = ConnectionTasks(is_abandoned.subscribe());
        let mut builder = http2::Builder::new(tasks.clone());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            // A stream whose reader is slow must not block the others.
            .initial_connection_window_size(CONNECTION_WINDOW);
        let opened = builder.handshake(io).await;
        let (requests, connection) = opened.map_err(|error| chain(&error))?;
        tasks.execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "gRPC connection ended");
            }
        });
        Ok(Self { requests, origin, max_message: MAX_MESSAGE, is_abandoned })
    }

    /// Sets the maximum length of a received message, in bytes.
    #[must_use]
    pub fn with_max_message(self, max_message: usize) -> Self {
        Self { max_message, ..self }
    }

    /// Returns whether requests can no longer be sent.
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed() || *self.is_abandoned.borrow()
    }

    /// Ends the connection at once and fails its calls and streams, for a server that no longer answers.
    pub fn abandon(&self) {
        self.is_abandoned.send_replace(true);
    }

    /// Sends one message and returns the one message of the response.
    pub async fn call<Out: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Out, CallError> {
        let mut stream = self.send(method, RequestBody::once(frame(request)), &[]).await?;
        let message = stream.next().await?;
        let message = message.ok_or_else(|| CallError::Broken("the response has no message".to_owned()))?;
        // Reads the status at the end.
        match stream.next::<Out>().await? {
            None => Ok(message),
            Some(_) => Err(CallError::Broken("the response has several messages".to_owned())),
        }
    }

    /// Sends one message and returns the stream of messages of the response.
    pub async fn call_for_stream(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<MessageStream, CallError> {
        self.send(method, RequestBody::once(frame(request)), &[]).await
    }

    /// Starts a call with a stream of messages in both directions.
    pub async fn open_stream(
        &self,
        method: &str,
        headers: &[(&'static str, &'static str)],
        first: &impl Message,
    ) -> Result<(MessageSender, MessageStream), CallError> {
        let (sender, receiver) = mpsc::channel(PENDING_MESSAGES);
        let sender = MessageSender(sender);
        sender.send(first).await;
        let stream = self.send(method, RequestBody::stream(receiver), headers).await?;
        Ok((sender, stream))
    }

    async fn send(
        &self,
        method: &str,
        body: RequestBody,
        headers: &[(&'static str, &'static str)],
    ) -> Result<MessageStream, CallError> {
        let mut request = Request::post(format!("{}{method}", self.origin))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, concat!("nave/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| CallError::NotSent(error.to_string()))?;
        if let Some(parent) = trace::parent() {
            request.headers_mut().insert(trace::HEADER, parent);
        }
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut requests = self.requests.clone();
        let sent = tokio::select! {
            sent = requests.try_send_request(request) => sent,
            () = abandoned(&self.is_abandoned) => return Err(CallError::Broken(NO_ANSWER.to_owned())),
        };
        let response = sent.map_err(|mut failed| {
            let never_sent = failed.take_message().is_some();
            let why = chain(&failed.into_error());
            if never_sent { CallError::NotSent(why) } else { CallError::Broken(why) }
        })?;
        MessageStream::new(response, self.max_message, Arc::clone(&self.is_abandoned))
    }
}

/// Runs the tasks of a connection until it is abandoned. A server that does not read would otherwise keep it open.
#[derive(Clone)]
struct ConnectionTasks(watch::Receiver<bool>);

impl<T> Executor<T> for ConnectionTasks
where
    T: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: T) {
        let mut end = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = task => {}
                // An error means that the connection is no longer used: it ends when it has sent what is left.
                Ok(_) = end.wait_for(|is_abandoned| *is_abandoned) => {}
            }
        });
    }
}

/// Waits until the connection is abandoned.
async fn abandoned(is_abandoned: &watch::Sender<bool>) {
    // Fails only if the sender is dropped.
    let _ = is_abandoned.subscribe().wait_for(|is_abandoned| *is_abandoned).await;
}

/// The client's side of a stream of messages. Dropping it ends that side.
#[derive(Clone)]
pub struct MessageSender(mpsc::Sender<Bytes>);

impl MessageSender {
    /// Queues a message. Does nothing if the stream has ended: its reader gets the reason.
    pub async fn send(&self, message: &impl Message) {
        let _ = self.0.send(frame(message)).await;
    }

    /// Queues a message if there is room.
    pub fn try_send(&self, message: &impl Message) {
        let _ = self.0.try_send(frame(message));
    }
}

/// The messages of a response.
pub struct MessageStream {
    body: Incoming,
    buffer: BytesMut,
    max_message: usize,
    is_abandoned: Arc<watch::Sender<bool>>,
}

impl MessageStream {
    fn new(
        response: Response<Incoming>,
        max_message: usize,
        is_abandoned: Arc<watch::Sender<bool>>,
    ) -> Result<Self, CallError> {
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(Status::of_http(head.status).into());
        }
        // A response without messages has its status in the header.
        if let Some(status) = Status::from_headers(&head.headers) {
            status.into_result()?;
        }
        Ok(Self { body, buffer: BytesMut::new(), max_message, is_abandoned })
    }

    /// Returns the next message, or `None` after the last one if the status is OK.
    pub async fn next<In: Message + Default>(&mut self) -> Result<Option<In>, CallError> {
        loop {
            if let Some(message) = self.take_buffered()? {
                let decoded = In::decode(message);
                return decoded.map(Some).map_err(|error| CallError::Broken(error.to_string()));
            }
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                () = abandoned(&self.is_abandoned) => return Err(CallError::Broken(NO_ANSWER.to_owned())),
            };
            let Some(frame) = frame else {
                return Err(CallError::Broken("the response ended without a status".to_owned()));
            };
            let frame = frame.map_err(|error| CallError::Broken(chain(&error)))?;
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_else(|_| HeaderMap::new());
                    let status = Status::from_headers(&trailers);
                    let Some(status) = status else {
                        return Err(CallError::Broken("the response has no status".to_owned()));
                    };
                    status.into_result()?;
                    return Ok(None);
                }
            }
        }
    }

    fn take_buffered(&mut self) -> Result<Option<Bytes>, CallError> {
        match take_message(&mut self.buffer, self.max_message) {
            Ok(Received::Message(message)) => Ok(Some(message)),
            Ok(Received::Incomplete) => Ok(None),
            Err(status) => Err(CallError::Broken(status.message)),
        }
    }
}

/// A message in a buffer.
enum Received {
    Message(Bytes),
    Incomplete,
}

/// Takes a message of at most `limit` bytes off a buffer.
///
/// # Errors
/// The message is compressed or over the limit.
fn take_message(buffer: &mut BytesMut, limit: usize) -> Result<Received, Status> {
    let Some((&compressed, rest)) = buffer.split_first() else { return Ok(Received::Incomplete) };
    let Some((length, _)) = rest.split_first_chunk::<4>() else { return Ok(Received::Incomplete) };
    let length = u32::from_be_bytes(*length) as usize;
    if compressed != 0 {
        return Err(Status {
            code: Code::Unimplemented,
            message: "grpc: the message is compressed".to_owned(),
        });
    }
    if length > limit {
        let message = format!("grpc: received message larger than max ({length} vs. {limit})");
        return Err(Status { code: Code::ResourceExhausted, message });
    }
    if buffer.len() < PREFIX + length {
        return Ok(Received::Incomplete);
    }
    buffer.advance(PREFIX);
    Ok(Received::Message(buffer.split_to(length).freeze()))
}

/// Returns a message with its length prefix.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(length as u32);
    framed.put(message.encode_to_vec().as_slice());
    framed.freeze()
}

/// Returns an error's message with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Length of the flag and the length before each message.
const PREFIX: usize = 5;
/// Maximum length of a received message, in bytes, unless the connection has another.
const MAX_MESSAGE: usize = 1 << 30;
/// Maximum number of messages that wait to be sent in a stream.
const PENDING_MESSAGES: usize = 16;
/// etcd ends connections with pings in intervals below 5 s (`--grpc-keepalive-min-time`).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
const NO_ANSWER: &str = "the server does not answer";
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn an_abandoned_connection_ends_although_the_server_does_not_read() {
        let (near, mut far) = tokio::io::duplex(64);
        let connection = Connection::open_without_pings(TokioIo::new(near), "http://a".to_owned()).await;
        let connection = connection.unwrap();
        connection.abandon();
        // Fails when the other end is gone.
        while far.write_all(&[0]).await.is_ok() {}
        assert!(connection.is_closed());
    }
}
