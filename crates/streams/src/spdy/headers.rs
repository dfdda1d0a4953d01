//! The name-value block of a frame, compressed with zlib and a dictionary that both sides know (section 2.6.10).
//!
//! All blocks of a direction are one zlib stream, flushed after each block.

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;

/// Names and values, in order. Names are lower-case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Creates headers from names and values.
    pub fn new<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// Returns the first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns the names and values.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// The dictionary of SPDY/3 (section 2.6.10.1).
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Maximum size of an uncompressed block, in bytes. Kubernetes sends a few short headers.
const MAX_BLOCK_BYTES: usize = 64 << 10;
/// Maximum number of headers in a block.
const MAX_HEADERS: usize = 256;
/// Size of the output buffer of one step.
const STEP: usize = 4 << 10;

/// Compresses the blocks of the sending direction.
pub(super) struct Compressor(Compress);

impl Compressor {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(DICTIONARY).map_err(|_| SpdyError::Headers("the dictionary cannot be set"))?;
        Ok(Self(zlib))
    }

    /// Appends the compressed block of these headers.
    pub(super) fn compress(&mut self, headers: &Headers, out: &mut BytesMut) -> Result<(), SpdyError> {
        let mut block = BytesMut::new();
        block.put_u32(headers.0.len() as u32);
        for (name, value) in &headers.0 {
            for text in [name, value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
        }
        let failed = |_| SpdyError::Headers("cannot be compressed");
        let mut step = [0; STEP];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            self.0.compress(&block, &mut step, FlushCompress::Sync).map_err(failed)?;
            block.advance((self.0.total_in() - read) as usize);
            let count = (self.0.total_out() - written) as usize;
            out.put_slice(step.get(..count).unwrap_or_default());
            // A step that does not fill the buffer has flushed everything.
            if block.is_empty() && count < STEP {
                return Ok(());
            }
        }
    }
}

/// Decompresses the blocks of the receiving direction.
pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Reads the headers of a compressed block.
    pub(super) fn decompress(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, mut compressed: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let invalid = SpdyError::Headers("not zlib with the dictionary of SPDY/3");
        let mut block = Vec::new();
        let mut step = [0; STEP];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let outcome = self.0.decompress(compressed, &mut step, FlushDecompress::Sync);
            compressed = compressed.get((self.0.total_in() - read) as usize..).unwrap_or_default();
            let count = (self.0.total_out() - written) as usize;
            block.extend_from_slice(step.get(..count).unwrap_or_default());
            if block.len() > MAX_BLOCK_BYTES {
                return Err(SpdyError::Headers("too large"));
            }
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0
                        .set_dictionary(DICTIONARY)
                        .map_err(|_| SpdyError::Headers("another dictionary"))?;
                }
                // The stream must not end: further blocks would not be readable.
                Err(_) | Ok(Status::StreamEnd) => return Err(invalid),
                Ok(Status::Ok | Status::BufError) => {
                    let progressed = self.0.total_in() != read || count > 0;
                    if count < STEP && (compressed.is_empty() || !progressed) {
                        return if compressed.is_empty() { Ok(block) } else { Err(invalid) };
                    }
                }
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<Headers, SpdyError> {
    let truncated = || SpdyError::Headers("truncated");
    let count = block.try_get_u32().map_err(|_| truncated())? as usize;
    if count > MAX_HEADERS {
        return Err(SpdyError::Headers("too many"));
    }
    let mut text = || {
        let length = block.try_get_u32().map_err(|_| truncated())? as usize;
        let bytes = block.get(..length).ok_or_else(truncated)?;
        let text = std::str::from_utf8(bytes).map_err(|_| SpdyError::Headers("not UTF-8"))?.to_owned();
        block.advance(length);
        Ok::<_, SpdyError>(text)
    };
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, value) = (text()?, text()?);
        pairs.push((name.to_ascii_lowercase(), value));
    }
    if block.is_empty() { Ok(Headers(pairs)) } else { Err(SpdyError::Headers("followed by other bytes")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(compressor: &mut Compressor, headers: &Headers) -> BytesMut {
        let mut out = BytesMut::new();
        compressor.compress(headers, &mut out).unwrap();
        out
    }

    #[test]
    fn blocks_of_a_direction_share_one_stream() {
        let (mut compressor, mut decompressor) = (Compressor::new().unwrap(), Decompressor::new());
        let long = "x".repeat(20_000);
        for headers in [
            Headers::new([("streamType", "error")]),
            Headers::new([("streamType", "data"), ("port", "80"), ("requestID", "0")]),
            Headers::default(),
            Headers::new([("long", &long)]),
            Headers::new([("streamType", "error")]),
        ] {
            let block = compressed(&mut compressor, &headers);
            assert_eq!(decompressor.decompress(&block).unwrap(), headers);
        }
        assert_eq!(Headers::new([("streamType", "error")]).get("streamType"), Some("error"));
    }

    /// The first header block that Go's `moby/spdystream` writes for `streamType: error`.
    #[test]
    fn starts_with_the_identifier_of_the_dictionary() {
        let block = compressed(&mut Compressor::new().unwrap(), &Headers::new([("streamtype", "error")]));
        assert_eq!(block.get(2..6), Some(&[0xe3, 0xc6, 0xa7, 0xc2][..]));
    }

    #[test]
    fn rejects_invalid_blocks() {
        let mut without = Compress::new(Compression::fast(), true);
        let mut plain = vec![0; 100];
        without.compress(&[0; 4], &mut plain, FlushCompress::Sync).unwrap();
        let bomb = {
            let mut compressor = Compressor::new().unwrap();
            let huge = "x".repeat(MAX_BLOCK_BYTES);
            compressed(&mut compressor, &Headers::new([("a", &huge)]))
        };
        assert!(bomb.len() < 1000, "a small block with a large content: {}", bomb.len());
        for block in [&b"not zlib"[..], &[0x78], &bomb[..], &[0xff; 40]] {
            assert!(Decompressor::new().decompress(block).is_err());
        }
        for block in [
            &b"\0\0"[..],
            b"\0\0\0\x01",
            b"\0\0\0\x01\0\0\0\x05ab",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x01\xff\xff\xff\xff",
            b"\0\0\0\x01\0\0\0\x01\xff\0\0\0\0",
            b"\0\0\0\0more",
        ] {
            assert!(parse(block).is_err(), "{block:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(0u8.., 0..600)) {
            let _ = parse(&bytes);
            let _ = Decompressor::new().decompress(&bytes);
        }
    }
}
