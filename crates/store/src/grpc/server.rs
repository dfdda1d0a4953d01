//! The server's side of gRPC: messages of a request and the body of a response.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use tokio::sync::mpsc;

use super::{Code, Received, Status, frame, take_message};

/// The messages of a request.
pub(crate) struct RequestStream {
    body: Incoming,
    buffer: BytesMut,
    limit: usize,
}

/// The body of a response: messages, then the status.
pub(crate) enum ResponseBody {
    /// A message, and the status OK.
    Message(Bytes),
    /// Messages until all senders are dropped or an error is sent.
    Stream(mpsc::Receiver<Result<Bytes, Status>>),
    /// The status in the trailer.
    Status(Status),
    /// Bytes that are not gRPC.
    Plain(Bytes),
    End,
}

/// The sender of a stream of messages.
pub(crate) type Messages = mpsc::Sender<Result<Bytes, Status>>;

impl RequestStream {
    /// `limit` is the maximum size of a message, in bytes.
    pub(crate) fn new(body: Incoming, limit: usize) -> Self {
        Self { body, buffer: BytesMut::new(), limit }
    }

    /// Returns the next message; `None` after the last one. Dropping the future loses nothing.
    pub(crate) async fn next<In: Message + Default>(&mut self) -> Result<Option<In>, Status> {
        loop {
            match take_message(&mut self.buffer, self.limit) {
                Ok(Received::Message(message)) => {
                    let decoded = In::decode(message);
                    return decoded.map(Some).map_err(|error| internal(&error.to_string()));
                }
                Ok(Received::Incomplete) => {}
                Err(error) => return Err(error),
            }
            let Some(part) = self.body.frame().await else { return Ok(None) };
            let part = part.map_err(|error| Status { code: Code::Cancelled, message: error.to_string() })?;
            if let Ok(data) = part.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Returns the only message of the request.
    pub(crate) async fn only<In: Message + Default>(&mut self) -> Result<In, Status> {
        self.next().await?.ok_or_else(|| internal("the request has no message"))
    }
}

/// Answers a call that has one message with one message.
pub(crate) async fn unary<In, Out, Answer>(
    mut request: RequestStream,
    answer: impl FnOnce(In) -> Answer,
) -> Response<ResponseBody>
where
    In: Message + Default,
    Out: Message,
    Answer: Future<Output = Result<Out, Status>>,
{
    let answered = match request.only().await {
        Ok(message) => answer(message).await,
        Err(status) => Err(status),
    };
    match answered {
        Ok(message) => grpc_response(ResponseBody::Message(frame(&message))),
        Err(status) => refusal(&status),
    }
}

/// Returns a response with a stream of messages, at most `capacity` of them unsent.
pub(crate) fn streaming(capacity: usize) -> (Messages, Response<ResponseBody>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (sender, grpc_response(ResponseBody::Stream(receiver)))
}

/// Returns a response without a message.
pub(crate) fn refusal(status: &Status) -> Response<ResponseBody> {
    let mut response = grpc_response(ResponseBody::End);
    response.headers_mut().extend(status.to_headers());
    response
}

fn grpc_response(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn internal(message: &str) -> Status {
    Status { code: Code::Internal, message: message.to_owned() }
}

impl Status {
    fn ok() -> Self {
        Self { code: Code::Ok, message: String::new() }
    }

    fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(self.code.number()));
        let message = utf8_percent_encode(&self.message, ESCAPED).to_string();
        if let Ok(message) = HeaderValue::from_str(&message)
            && !self.message.is_empty()
        {
            headers.insert(HeaderName::from_static("grpc-message"), message);
        }
        headers
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, rest) = match &mut *self {
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Status(Status::ok())),
            Self::Plain(bytes) => (Frame::data(std::mem::take(bytes)), Self::End),
            Self::Status(status) => (Frame::trailers(status.to_headers()), Self::End),
            Self::Stream(messages) => match std::task::ready!(messages.poll_recv(context)) {
                Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Some(Err(status)) => (Frame::trailers(status.to_headers()), Self::End),
                None => (Frame::trailers(Status::ok().to_headers()), Self::End),
            },
            Self::End => return Poll::Ready(None),
        };
        *self = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::End)
    }
}

/// The characters of a message that are escaped, as gRPC requires.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
