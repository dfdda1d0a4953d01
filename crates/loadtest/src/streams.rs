//! An HTTP/2 connection that carries only watches and is read frame by frame. Events are counted in the buffer that TLS
//! has decrypted, because a client library would add much to the measured cost.

use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::LoadError;
use crate::http::{Origin, Stream, Target};
use crate::watchers::Seen;

/// A connection on which the server has accepted all watches.
pub(crate) struct Streams {
    stream: Stream,
    frames: Frames,
}

impl Streams {
    /// Opens a watch for each path. Returns when the server has accepted all of them.
    pub(crate) async fn open(target: &Target, paths: &[String]) -> Result<Self, LoadError> {
        let mut stream = target.connect("h2").await?;
        let mut hello = PREFACE.to_vec();
        put_frame(&mut hello, SETTINGS, 0, 0, &settings());
        put_frame(&mut hello, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
        for (number, path) in paths.iter().enumerate() {
            let end = END_STREAM | END_HEADERS;
            put_frame(&mut hello, HEADERS, end, stream_id(number), &request(target.origin(), path));
        }
        stream.write_all(&hello).await.map_err(LoadError::Broken)?;
        stream.flush().await.map_err(LoadError::Broken)?;
        let seen = std::iter::repeat_with(Seen::default).take(paths.len()).collect();
        let mut streams = Self { stream, frames: Frames { seen, ..Frames::default() } };
        while streams.frames.answered < paths.len() {
            streams.read().await?;
        }
        Ok(streams)
    }

    /// Reads until every watch has `expected` events or the server ends a watch.
    pub(crate) async fn read_until(&mut self, expected: usize) -> Result<(), LoadError> {
        while !self.frames.ended && self.frames.seen.iter().any(|seen| seen.arrivals.len() < expected) {
            self.read().await?;
        }
        Ok(())
    }

    /// Returns the results of the watches.
    pub(crate) fn into_seen(self) -> Vec<Seen> {
        self.frames.seen
    }

    async fn read(&mut self) -> Result<(), LoadError> {
        let bytes = self.stream.fill_buf().await.map_err(LoadError::Broken)?;
        let length = bytes.len();
        if length == 0 {
            self.frames.ended = true;
        }
        self.frames.take(bytes, Instant::now())?;
        self.stream.consume(length);
        if !self.frames.replies.is_empty() {
            let replies = std::mem::take(&mut self.frames.replies);
            self.stream.write_all(&replies).await.map_err(LoadError::Broken)?;
            self.stream.flush().await.map_err(LoadError::Broken)?;
        }
        Ok(())
    }
}

/// Parser of the frames of a connection. Accepts input in pieces of any size.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// Remaining payload bytes of the current frame. The payload of data frames is not kept.
    left: usize,
    payload: Vec<u8>,
    replies: Vec<u8>,
    /// Bytes received since the last window update of the connection.
    taken: u32,
    seen: Vec<Seen>,
    answered: usize,
    ended: bool,
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), LoadError> {
        while !bytes.is_empty() {
            if self.head.len() < HEAD {
                let (head, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
                self.head.extend_from_slice(head);
                bytes = rest;
                if self.head.len() == HEAD {
                    self.left = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
                }
            }
            if self.head.len() == HEAD {
                let (piece, rest) = bytes.split_at(bytes.len().min(self.left));
                self.left -= piece.len();
                bytes = rest;
                self.piece(piece, now)?;
                if self.left == 0 {
                    self.end_of_frame()?;
                    self.head.clear();
                }
            }
        }
        Ok(())
    }

    fn piece(&mut self, piece: &[u8], now: Instant) -> Result<(), LoadError> {
        if self.head[3] != DATA {
            self.payload.extend_from_slice(piece);
            return Ok(());
        }
        self.taken += piece.len() as u32;
        let seen = self.current_seen()?;
        seen.bytes += piece.len() as u64;
        seen.arrivals.extend(std::iter::repeat_n(now, memchr::memchr_iter(b'\n', piece).count()));
        Ok(())
    }

    fn end_of_frame(&mut self) -> Result<(), LoadError> {
        let (kind, flags) = (self.head[3], self.head[4]);
        let payload = std::mem::take(&mut self.payload);
        match kind {
            HEADERS if payload.first() == Some(&STATUS_200) => self.answered += 1,
            // Watches have no trailers.
            HEADERS => return Err(LoadError::Unexpected("a watch was rejected".into())),
            SETTINGS if flags & ACK == 0 => put_frame(&mut self.replies, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => put_frame(&mut self.replies, PING, ACK, 0, &payload),
            RST_STREAM | GOAWAY => self.ended = true,
            _ => {}
        }
        if kind == DATA && flags & END_STREAM != 0 {
            self.ended = true;
        }
        if self.taken > WINDOW / 2 {
            put_frame(&mut self.replies, WINDOW_UPDATE, 0, 0, &std::mem::take(&mut self.taken).to_be_bytes());
        }
        Ok(())
    }

    fn current_seen(&mut self) -> Result<&mut Seen, LoadError> {
        let id = u32::from_be_bytes([self.head[5], self.head[6], self.head[7], self.head[8]]) as usize;
        let unknown = || LoadError::Unexpected(format!("data on stream {id}"));
        self.seen.get_mut(id / 2).filter(|_| id % 2 == 1).ok_or_else(unknown)
    }
}

fn stream_id(number: usize) -> u32 {
    number as u32 * 2 + 1
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Returns the settings: no pushes, windows so large that flow control never delays the server, large frames.
fn settings() -> Vec<u8> {
    let settings: [(u16, u32); 3] = [(2, 0), (4, WINDOW), (5, MAX_FRAME)];
    settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect()
}

/// Returns the headers of a GET request (RFC 7541): entries of the static table and literals without indexing.
fn request(origin: &Origin, path: &str) -> Vec<u8> {
    let mut block = vec![METHOD_GET, SCHEME_HTTPS];
    let mut put = |name: Result<u8, &str>, value: &[u8]| {
        match name {
            Ok(index) => block.push(index),
            Err(name) => {
                block.push(0);
                put_text(&mut block, name.as_bytes());
            }
        }
        put_text(&mut block, value);
    };
    put(Ok(AUTHORITY), origin.authority.as_str().as_bytes());
    put(Ok(PATH), path.as_bytes());
    put(Err("accept"), crate::http::JSON.as_bytes());
    if let Some(bearer) = &origin.bearer {
        put(Err("authorization"), bearer.as_bytes());
    }
    block
}

/// Writes a length with a 7-bit prefix (continued in further bytes if needed), followed by the uncompressed text.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        out.push(text.len() as u8);
    } else {
        out.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            out.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame header: length, type, flags, stream.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Entries of HPACK's static table.
const METHOD_GET: u8 = 0x82;
const SCHEME_HTTPS: u8 = 0x87;
const STATUS_200: u8 = 0x88;
const AUTHORITY: u8 = 1;
const PATH: u8 = 4;
const WINDOW: u32 = i32::MAX as u32;
const MAX_FRAME: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_events_in_pieces_of_any_size() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        put_frame(&mut bytes, HEADERS, END_HEADERS, stream_id(1), &[STATUS_200]);
        put_frame(&mut bytes, DATA, 0, stream_id(1), b"one\ntwo\n");
        put_frame(&mut bytes, PING, 0, 0, b"12345678");
        put_frame(&mut bytes, DATA, 0, stream_id(0), b"");
        put_frame(&mut bytes, DATA, 0, stream_id(0), b"thr");
        put_frame(&mut bytes, DATA, END_STREAM, stream_id(0), b"ee\n");
        let mut replies = Vec::new();
        put_frame(&mut replies, SETTINGS, ACK, 0, &[]);
        put_frame(&mut replies, PING, ACK, 0, b"12345678");
        for size in 1..=bytes.len() {
            let mut frames = Frames { seen: vec![Seen::default(), Seen::default()], ..Frames::default() };
            for piece in bytes.chunks(size) {
                frames.take(piece, Instant::now()).unwrap();
            }
            let seen: Vec<_> = frames.seen.iter().map(|seen| (seen.arrivals.len(), seen.bytes)).collect();
            assert_eq!(seen, [(1, 6), (2, 8)], "in pieces of {size}");
            assert_eq!((frames.answered, frames.ended), (1, true));
            assert_eq!(frames.replies, replies);
        }
    }

    #[test]
    fn error_status_and_unknown_stream_are_errors() {
        let mut refusal = Vec::new();
        put_frame(&mut refusal, HEADERS, END_HEADERS, stream_id(0), &[0x8d]);
        let mut unknown = Vec::new();
        put_frame(&mut unknown, DATA, 0, 9, b"x");
        for bytes in [refusal, unknown] {
            assert!(Frames::default().take(&bytes, Instant::now()).is_err());
        }
    }

    #[test]
    fn encodes_long_lengths() {
        let encoded = |length| {
            let mut out = Vec::new();
            put_text(&mut out, &vec![b'x'; length]);
            out.truncate(out.len() - length);
            out
        };
        assert_eq!([126, 127, 1337 + 96].map(encoded), [vec![126], vec![127, 0], vec![127, 0x9a, 10]]);
    }
}
