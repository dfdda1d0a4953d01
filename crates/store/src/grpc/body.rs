//! The body of a request: one message or a stream of messages.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// The body of a request.
pub(crate) enum RequestBody {
    /// One message, until it is sent.
    Once(Option<Bytes>),
    /// Messages until all senders are dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl RequestBody {
    pub(crate) fn once(message: Bytes) -> Self {
        Self::Once(Some(message))
    }

    pub(crate) fn stream(messages: mpsc::Receiver<Bytes>) -> Self {
        Self::Stream(messages)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Once(message) => Poll::Ready(message.take().map(|message| Ok(Frame::data(message)))),
            Self::Stream(messages) => {
                messages.poll_recv(context).map(|message| message.map(|message| Ok(Frame::data(message))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Once(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(message) => SizeHint::with_exact(message.as_ref().map_or(0, |m| m.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
