//! Bodies: reading a request's within a limit, and the forms a response's can take.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use nave_machinery::Status;

/// The largest request body, in bytes (upstream's `MaxRequestBodyBytes`).
pub(crate) const MAX_REQUEST_BODY: usize = 3 * 1024 * 1024;

/// How much of a body that is too large is read all the same and dropped, so that a client that writes all of it
/// before it reads sees the answer, not a broken connection.
const MAX_DROPPED: usize = 16 * 1024 * 1024;

/// Reads a whole request body.
///
/// # Errors
/// 413 beyond [`MAX_REQUEST_BODY`], 400 when the client breaks off.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
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

/// A response's body.
pub enum ResponseBody {
    /// Bytes known in full; empty for none.
    Full(Bytes),
    /// Bytes made as the client takes them.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl ResponseBody {
    /// A body that is made as the client takes it.
    pub fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
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
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let within = vec![b'x'; MAX_REQUEST_BODY];
        assert_eq!(read(Full::new(Bytes::from(within))).await.unwrap().len(), MAX_REQUEST_BODY);
        let beyond = vec![b'x'; MAX_REQUEST_BODY + 1];
        assert_eq!(read(Full::new(Bytes::from(beyond))).await.unwrap_err().code, 413);
    }
}
