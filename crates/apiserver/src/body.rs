//! Bodies: reads request bodies within a limit, and represents response bodies.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use nave_machinery::Status;
pub(crate) use nave_machinery::limits::MAX_BODY_BYTES as MAX_REQUEST_BODY;

use crate::upgrade::Upgrade;

/// An error of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Maximum number of bytes beyond the limit to read and drop. A client that writes its whole body before it reads then
/// gets the response instead of a broken connection.
const MAX_DROPPED: usize = 16 * 1024 * 1024;

/// Maximum size of the rest of a body to drain, and maximum time to drain it.
const MAX_DRAINED: usize = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_millis(250);

/// Reads and drops the rest of a small request body, for a limited time. Otherwise HTTP/2 would reset a stream whose
/// response is sent before the body is read. Some clients treat the reset as an error and miss the response (nghttp2
/// before 1.53, as in Debian 12).
pub(crate) async fn drain<B>(body: &mut B)
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() || body.size_hint().lower() > MAX_DRAINED as u64 {
        return;
    }
    let rest = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, Bytes::len);
            if size > MAX_DRAINED {
                break;
            }
        }
    };
    // After a timeout, the HTTP implementation handles the rest.
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}

/// Removes the content of a response and keeps its `Content-Length` (RFC 9110, section 9.3.2).
pub(crate) fn head_of(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    if let ResponseBody::Full(content) = &body {
        head.headers.insert(header::CONTENT_LENGTH, content.len().into());
    }
    Response::from_parts(head, ResponseBody::Full(Bytes::new()))
}

/// Reads a whole request body.
///
/// # Errors
/// 413 beyond [`MAX_REQUEST_BODY`], 400 if the client aborts.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes, Error: Into<BodyError>>,
{
    let mut body = pin!(body);
    let mut frames: Vec<Bytes> = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("the request's body could not be read: {}", error.into()))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > MAX_DROPPED {
            break;
        }
        if size > MAX_REQUEST_BODY {
            frames.clear();
        } else {
            frames.push(data);
        }
    }
    if size > MAX_REQUEST_BODY {
        return Err(Status::too_large(format!("Request entity too large: limit is {MAX_REQUEST_BODY}")));
    }
    Ok(match frames.len() {
        1 => frames.swap_remove(0),
        _ => frames.concat().into(),
    })
}

/// Bytes that are sent together, as shared pieces, so that a batch of events is sent to many watchers without copying.
#[derive(Debug, Default)]
pub struct Pieces {
    /// The first piece; empty only if there are no other pieces.
    front: Bytes,
    rest: VecDeque<Bytes>,
    remaining: usize,
}

impl IntoIterator for Pieces {
    type Item = Bytes;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<Bytes>, std::collections::vec_deque::IntoIter<Bytes>>;

    fn into_iter(self) -> Self::IntoIter {
        let front = Some(self.front).filter(|piece| !piece.is_empty());
        front.into_iter().chain(self.rest)
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self { remaining: bytes.len(), front: bytes, rest: VecDeque::new() }
    }
}

impl Extend<Bytes> for Pieces {
    fn extend<T: IntoIterator<Item = Bytes>>(&mut self, pieces: T) {
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            self.remaining += piece.len();
            if self.front.is_empty() {
                self.front = piece;
            } else {
                self.rest.push_back(piece);
            }
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        &self.front
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = std::iter::once(&self.front).chain(&self.rest).filter(|piece| !piece.is_empty());
        let filled = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining, "advanced past the end: {count} of {}", self.remaining);
        self.remaining -= count;
        let mut count = count;
        while count >= self.front.len() {
            count -= self.front.len();
            let Some(next) = self.rest.pop_front() else {
                self.front = Bytes::new();
                return;
            };
            self.front = next;
        }
        self.front.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        if length <= self.front.len() {
            let bytes = self.front.slice(..length);
            self.advance(length);
            return bytes;
        }
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let taken = self.front.len().min(length - bytes.len());
            bytes.extend_from_slice(&self.front[..taken]);
            self.advance(taken);
        }
        bytes.into()
    }
}

/// A response's body.
pub enum ResponseBody {
    /// A complete body; may be empty.
    Full(Bytes),
    /// A body produced while the client reads it; may fail midway.
    Stream(Pin<Box<dyn Stream<Item = Result<Pieces, BodyError>> + Send>>),
    /// No content: the connection switches to another protocol.
    Upgrade(Upgrade),
}

impl ResponseBody {
    /// Creates a body that is produced while the client reads it.
    pub fn stream<T: Into<Pieces> + 'static>(stream: impl Stream<Item = T> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream.map(|pieces| Ok(pieces.into()))))
    }

    /// Like [`Self::stream`], for a stream that can fail. After an error, the client sees an aborted response.
    pub(crate) fn try_stream<T: Into<Pieces> + 'static>(
        stream: impl Stream<Item = Result<T, BodyError>> + Send + 'static,
    ) -> Self {
        Self::Stream(Box::pin(stream.map_ok(Into::into)))
    }

    /// Attaches a value to the body. The value is dropped when the body has been sent or is abandoned; for a complete
    /// body, it is dropped immediately.
    pub(crate) fn keeping(self, kept: impl Send + 'static) -> Self {
        match self {
            Self::Stream(stream) => Self::Stream(Box::pin(stream.inspect(move |_| {
                let _kept = &kept;
            }))),
            Self::Upgrade(upgrade) => Self::Upgrade(upgrade.keeping(kept)),
            whole @ Self::Full(_) => whole,
        }
    }

    /// Takes the future that runs on the connection after the response if the connection is upgraded.
    pub(crate) fn take_upgrade(&mut self) -> Option<Upgrade> {
        match std::mem::replace(self, Self::Full(Bytes::new())) {
            Self::Upgrade(upgrade) => Some(upgrade),
            content => {
                *self = content;
                None
            }
        }
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Full(bytes.into())
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl Body for ResponseBody {
    type Data = Pieces;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes).into())))),
            Self::Stream(stream) => stream.as_mut().poll_next(cx).map_ok(Frame::data),
            Self::Upgrade(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
            Self::Upgrade(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
            Self::Upgrade(_) => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn rejects_a_body_over_the_limit() {
        let within = vec![b'x'; MAX_REQUEST_BODY];
        assert_eq!(read(Full::new(Bytes::from(within))).await.unwrap().len(), MAX_REQUEST_BODY);
        let beyond = vec![b'x'; MAX_REQUEST_BODY + 1];
        assert_eq!(read(Full::new(Bytes::from(beyond))).await.unwrap_err().code, 413);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_small_rest_is_drained_and_not_for_long() {
        let mut small = Full::new(Bytes::from_static(b"x"));
        drain(&mut small).await;
        assert!(small.is_end_stream());
        let mut large = Full::new(Bytes::from(vec![b'x'; MAX_DRAINED + 1]));
        drain(&mut large).await;
        assert!(!large.is_end_stream());
        let started = tokio::time::Instant::now();
        let silent = futures_util::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
        drain(&mut http_body_util::StreamBody::new(silent)).await;
        assert_eq!(started.elapsed(), DRAIN_TIME);
        let chunks =
            (0..1000).map(|_| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![0; 1024]))));
        let mut endless = http_body_util::StreamBody::new(futures_util::stream::iter(chunks));
        drain(&mut endless).await;
        assert!(endless.frame().await.is_some());
    }

    #[test]
    fn the_head_of_a_response_has_the_length_of_its_content() {
        let response = Response::new(ResponseBody::Full(Bytes::from_static(b"content")));
        let head = head_of(response);
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "7");
        assert!(head.body().is_end_stream());
    }

    #[test]
    fn pieces_are_read_as_one() {
        let whole = b"onetwothree";
        for step in 1..=whole.len() {
            let mut pieces = Pieces::default();
            pieces.extend([&b""[..], b"one", b"", b"two", b"three"].map(Bytes::from_static));
            let mut read = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = pieces.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
                assert_eq!(seen, whole[read.len()..][..seen.len()]);
                assert!(seen.starts_with(pieces.chunk()) && !pieces.chunk().is_empty());
                let step = step.min(pieces.remaining());
                read.extend_from_slice(&pieces.copy_to_bytes(step));
                assert_eq!(pieces.remaining(), whole.len() - read.len());
            }
            assert_eq!((&read[..], pieces.chunk()), (&whole[..], &b""[..]), "in steps of {step}");
        }
    }
}
