//! SPDY/3.1 (draft-mbelshe-httpbis-spdy-00 with the changes of 3.1), as `moby/spdystream` speaks it in kubelets and
//! client-go.
//!
//! | file | contents |
//! | --- | --- |
//! | [`frame`] | frames, read and written |
//! | [`headers`] | the compressed name-value block of a frame |
//! | [`session`] | the streams of a connection |
//!
//! spdystream has no flow control: it ignores the windows of streams and sends no updates. A sender is slowed down by
//! the connection itself, so one stream that is not read stops the others. This implementation does the same.

pub mod frame;
pub mod headers;
pub mod session;

pub use self::headers::Headers;
pub use self::session::{Role, Session, Stream};

/// The reasons why a connection is not valid SPDY.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// Reading or writing the connection fails, or it ends within a frame.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A control frame has another version than 3.
    #[error("unsupported SPDY version {0}")]
    Version(u16),
    /// The control frame is too large.
    #[error("a control frame of {0} bytes exceeds the limit")]
    FrameTooLarge(usize),
    /// The frame's content does not match its type.
    #[error("a frame of type {0} is malformed")]
    Malformed(u16),
    /// The headers of a frame cannot be decompressed, or are too large.
    #[error("invalid headers: {0}")]
    Headers(&'static str),
    /// The peer sends more control frames than it lets this side answer.
    #[error("too many control frames")]
    Flood,
}
