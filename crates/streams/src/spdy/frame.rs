//! Frames (section 2.2).
//!
//! ```text
//! control: 1 | version (15) | type (16) | flags (8) | length (24) | content
//! data:    0 | stream (31)               | flags (8) | length (24) | content
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::SpdyError;
use super::headers::{Compressor, Decompressor, Headers};
use crate::PIECE;

/// Maximum length of a control frame's content, in bytes. Data frames may have any length: they are read in pieces.
pub const MAX_CONTROL_BYTES: usize = 64 << 10;

/// A stream is reset because its protocol is violated.
pub const PROTOCOL_ERROR: u32 = 1;
/// A stream is refused before it is processed.
pub const REFUSED_STREAM: u32 = 3;

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
/// The last frame of a side of a stream.
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// A frame, or a piece of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Frame {
    /// Opens a stream; with `fin`, the sender sends no data on it.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// Accepts a stream.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// Ends both sides of a stream.
    Reset { id: u32, status: u32 },
    /// Must be answered with the same frame if the receiver did not send it.
    Ping(u32),
    /// The sender accepts no further streams.
    GoAway { last: u32, status: u32 },
    /// Additional headers of a stream.
    Headers { id: u32, fin: bool, headers: Headers },
    /// Data of a stream.
    Data { id: u32, fin: bool, bytes: Bytes },
}

/// Reads frames.
pub struct FrameReader<R> {
    connection: R,
    decompressor: Decompressor,
    /// The stream and the flags of a data frame that is not read to its end, and the length of the rest.
    data: Option<(u32, bool, usize)>,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Creates a reader of a connection's frames.
    pub fn new(connection: R) -> Self {
        Self { connection, decompressor: Decompressor::new(), data: None, buffer: BytesMut::new() }
    }

    /// Reads the next frame; `None` at the end of the connection. Skips frames that need no action: settings, windows,
    /// and types that the specification does not define.
    ///
    /// # Errors
    /// [`SpdyError`]. Nothing can be read afterwards.
    pub async fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some((id, fin, rest)) = self.data.take() {
                return self.read_data(id, fin, rest).await.map(Some);
            }
            if self.buffer.is_empty() && self.fill_some().await? == 0 {
                return Ok(None);
            }
            self.fill(8).await?;
            let (first, second, word) = (self.buffer.get_u16(), self.buffer.get_u16(), self.buffer.get_u32());
            let (flags, length) = ((word >> 24) as u8, (word & 0x00ff_ffff) as usize);
            if first & CONTROL == 0 {
                let id = u32::from(first) << 16 | u32::from(second);
                self.data = Some((id, flags & FIN != 0, length));
                continue;
            }
            if first & !CONTROL != VERSION {
                return Err(SpdyError::Version(first & !CONTROL));
            }
            if length > MAX_CONTROL_BYTES {
                return Err(SpdyError::FrameTooLarge(length));
            }
            self.fill(length).await?;
            let content = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.parse_control(second, flags, content)? {
                return Ok(Some(frame));
            }
        }
    }

    async fn read_data(&mut self, id: u32, fin: bool, rest: usize) -> Result<Frame, SpdyError> {
        if rest > 0 && self.buffer.is_empty() && self.fill_some().await? == 0 {
            return Err(truncated());
        }
        let bytes = self.buffer.split_to(self.buffer.len().min(rest)).freeze();
        let rest = rest - bytes.len();
        if rest > 0 {
            self.data = Some((id, fin, rest));
        }
        Ok(Frame::Data { id, fin: fin && rest == 0, bytes })
    }

    fn parse_control(
        &mut self,
        kind: u16,
        flags: u8,
        mut content: Bytes,
    ) -> Result<Option<Frame>, SpdyError> {
        let malformed = |_| SpdyError::Malformed(kind);
        let fin = flags & FIN != 0;
        let mut word = || content.try_get_u32().map_err(malformed);
        Ok(Some(match kind {
            SYN_STREAM => {
                let id = stream_id(kind, word()?)?;
                let _associated = word()?;
                let _priority = content.try_get_u16().map_err(malformed)?;
                Frame::SynStream { id, fin, headers: self.decompressor.decompress(&content)? }
            }
            SYN_REPLY => {
                let id = stream_id(kind, word()?)?;
                Frame::SynReply { id, fin, headers: self.decompressor.decompress(&content)? }
            }
            HEADERS => {
                let id = stream_id(kind, word()?)?;
                Frame::Headers { id, fin, headers: self.decompressor.decompress(&content)? }
            }
            RST_STREAM => Frame::Reset { id: stream_id(kind, word()?)?, status: word()? },
            PING => Frame::Ping(word()?),
            GOAWAY => Frame::GoAway { last: word()?, status: word()? },
            _ => return Ok(None),
        }))
    }

    /// Reads until the buffer has this many bytes.
    async fn fill(&mut self, length: usize) -> Result<(), SpdyError> {
        while self.buffer.len() < length {
            if self.fill_some().await? == 0 {
                return Err(truncated());
            }
        }
        Ok(())
    }

    async fn fill_some(&mut self) -> Result<usize, SpdyError> {
        self.buffer.reserve(PIECE);
        Ok(self.connection.read_buf(&mut self.buffer).await?)
    }
}

/// Encodes frames.
pub struct FrameWriter {
    compressor: Compressor,
}

impl FrameWriter {
    /// Creates a writer.
    ///
    /// # Errors
    /// The compressor cannot be set up.
    pub fn new() -> Result<Self, SpdyError> {
        Ok(Self { compressor: Compressor::new()? })
    }

    /// Appends a frame. Data must fit into a frame (16 MiB).
    ///
    /// # Errors
    /// The headers cannot be compressed.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), SpdyError> {
        let mut content = BytesMut::new();
        let (kind, fin) = match frame {
            Frame::Data { id, fin, bytes } => {
                out.put_u32(*id);
                put_flags_and_length(out, *fin, bytes.len());
                out.put_slice(bytes);
                return Ok(());
            }
            Frame::SynStream { id, fin, headers } => {
                content.put_u32(*id);
                // No associated stream, the highest priority, no credential slot.
                content.put_u32(0);
                content.put_u16(0);
                self.compressor.compress(headers, &mut content)?;
                (SYN_STREAM, *fin)
            }
            Frame::SynReply { id, fin, headers } => {
                content.put_u32(*id);
                self.compressor.compress(headers, &mut content)?;
                (SYN_REPLY, *fin)
            }
            Frame::Headers { id, fin, headers } => {
                content.put_u32(*id);
                self.compressor.compress(headers, &mut content)?;
                (HEADERS, *fin)
            }
            Frame::Reset { id, status } => {
                content.put_u32(*id);
                content.put_u32(*status);
                (RST_STREAM, false)
            }
            Frame::Ping(id) => {
                content.put_u32(*id);
                (PING, false)
            }
            Frame::GoAway { last, status } => {
                content.put_u32(*last);
                content.put_u32(*status);
                (GOAWAY, false)
            }
        };
        out.put_u16(CONTROL | VERSION);
        out.put_u16(kind);
        put_flags_and_length(out, fin, content.len());
        out.put_slice(&content);
        Ok(())
    }
}

fn put_flags_and_length(out: &mut BytesMut, fin: bool, length: usize) {
    out.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | (length as u32 & 0x00ff_ffff));
}

/// Returns the number of a stream, without the reserved bit.
fn stream_id(kind: u16, word: u32) -> Result<u32, SpdyError> {
    match word & 0x7fff_ffff {
        0 => Err(SpdyError::Malformed(kind)),
        id => Ok(id),
    }
}

fn truncated() -> SpdyError {
    SpdyError::Io(std::io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8]) -> Result<Vec<Frame>, SpdyError> {
        let mut reader = FrameReader::new(&mut bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn frames() -> Vec<Frame> {
        let headers = Headers::new([("streamtype", "stdin")]);
        vec![
            Frame::SynStream { id: 1, fin: false, headers: headers.clone() },
            Frame::SynReply { id: 1, fin: true, headers: Headers::default() },
            Frame::Headers { id: 3, fin: false, headers },
            Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"input") },
            Frame::Data { id: 1, fin: true, bytes: Bytes::new() },
            Frame::Ping(7),
            Frame::Reset { id: 5, status: REFUSED_STREAM },
            Frame::GoAway { last: 9, status: 0 },
        ]
    }

    #[tokio::test]
    async fn reads_what_it_writes() {
        let (mut writer, mut out) = (FrameWriter::new().unwrap(), BytesMut::new());
        for frame in frames() {
            writer.encode(&frame, &mut out).unwrap();
        }
        assert_eq!(read_all(&out).await.unwrap(), frames());
        // A connection that ends within a frame is an error, at every position.
        let mut ends = 0;
        for end in 0..out.len() {
            ends += usize::from(read_all(&out[..end]).await.is_ok());
        }
        assert_eq!(ends, frames().len(), "only between frames");
    }

    #[tokio::test]
    async fn a_large_data_frame_is_read_in_pieces() {
        let (mut writer, mut out) = (FrameWriter::new().unwrap(), BytesMut::new());
        let large = Bytes::from(vec![b'x'; 1 << 20]);
        writer.encode(&Frame::Data { id: 1, fin: true, bytes: large.clone() }, &mut out).unwrap();
        let pieces = read_all(&out).await.unwrap();
        let mut read = 0;
        for (index, piece) in pieces.iter().enumerate() {
            let Frame::Data { id: 1, fin, bytes } = piece else { panic!("{piece:?}") };
            read += bytes.len();
            assert!(bytes.len() <= 2 * PIECE && *fin == (index + 1 == pieces.len()));
        }
        assert_eq!(read, large.len());
    }

    #[tokio::test]
    async fn skips_frames_that_need_no_action() {
        let settings = b"\x80\x03\0\x04\0\0\0\x04\0\0\0\0";
        let window = b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x01\0\0\x10\0";
        let ping = b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x02";
        let all = [&settings[..], window, ping].concat();
        assert_eq!(read_all(&all).await.unwrap(), [Frame::Ping(2)]);
    }

    #[tokio::test]
    async fn rejects_malformed_frames() {
        for (frame, why) in [
            (&b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x02"[..], "version"),
            (b"\x80\x03\0\x06\0\0\0\x02\0\0", "malformed"),
            (b"\x80\x03\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x01", "malformed"),
            (b"\x80\x03\0\x01\0\0\0\x04\0\0\0\x01", "malformed"),
            (b"\x80\x03\0\x01\0\xff\xff\xff", "exceeds the limit"),
            (b"\x80\x03\0\x02\0\0\0\x08\0\0\0\x01abcd", "invalid headers"),
        ] {
            let error = read_all(frame).await.unwrap_err().to_string();
            assert!(error.contains(why), "{frame:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(0u8.., 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read_all(&bytes));
            let control = [&b"\x80\x03\0"[..], &bytes].concat();
            let _ = runtime.block_on(read_all(&control));
        }
    }
}
