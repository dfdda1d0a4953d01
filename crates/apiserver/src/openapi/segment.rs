//! Compressed pieces of a document, which are joined without compressing them again.

use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress};

/// Compressed bytes (RFC 1951) that end at a byte and not with a final block, so that other blocks can follow.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    deflated: Bytes,
    /// The checksum and the number of the original bytes.
    crc: Arc<Crc>,
}

impl Segment {
    /// Compresses the bytes.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut compress = Compress::new(Compression::fast(), false);
        let mut deflated = Vec::with_capacity(bytes.len() / 4 + ROOM);
        loop {
            let read = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
            let rest = bytes.get(read..).unwrap_or_default();
            // Compressing to memory cannot fail.
            let outcome = compress.compress_vec(rest, &mut deflated, FlushCompress::Sync);
            debug_assert!(outcome.is_ok(), "compressing to memory");
            // Unused room shows that all bytes are written.
            if outcome.is_err() || deflated.len() < deflated.capacity() {
                break;
            }
            deflated.reserve(deflated.len());
        }
        deflated.shrink_to_fit();
        let mut crc = Crc::new();
        crc.update(bytes);
        Self { deflated: deflated.into(), crc: Arc::new(crc) }
    }

    /// Returns the compressed bytes.
    #[cfg(test)]
    pub(super) fn deflated(&self) -> &Bytes {
        &self.deflated
    }

    /// Returns the original bytes.
    pub(super) fn unpack(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.crc.amount() as usize);
        // Only `new` creates the compressed bytes, so reading them cannot fail.
        let outcome =
            Decompress::new(false).decompress_vec(&self.deflated, &mut bytes, FlushDecompress::Sync);
        debug_assert!(outcome.is_ok(), "reading what was written");
        bytes.into()
    }
}

/// Returns a gzip stream (RFC 1952) of joined segments, in pieces. Nothing is copied or compressed.
pub(super) fn gzip(segments: &[Segment]) -> Vec<Bytes> {
    let mut crc = Crc::new();
    for segment in segments {
        crc.combine(&segment.crc);
    }
    let mut end = FINAL_BLOCK.to_vec();
    end.extend(crc.sum().to_le_bytes());
    // The number of bytes, modulo 2^32.
    end.extend(crc.amount().to_le_bytes());
    let content = segments.iter().map(|segment| segment.deflated.clone());
    std::iter::once(Bytes::from_static(&HEADER)).chain(content).chain([end.into()]).collect()
}

/// Initial room beyond a quarter of the bytes.
const ROOM: usize = 256;
/// The header of a gzip stream without a name or time.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A final block without content.
const FINAL_BLOCK: [u8; 2] = [3, 0];

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn joined(texts: &[Vec<u8>]) {
        let segments: Vec<Segment> = texts.iter().map(|text| Segment::new(text)).collect();
        for (segment, text) in segments.iter().zip(texts) {
            assert_eq!(segment.unpack(), text);
        }
        let mut read = Vec::new();
        GzDecoder::new(&gzip(&segments).concat()[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, texts.concat());
    }

    #[test]
    fn large_and_empty_segments_are_joined() {
        let noise: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        joined(&[Vec::new(), noise, b"{}".repeat(100_000), Vec::new()]);
        joined(&[]);
    }

    proptest! {
        #[test]
        fn segments_are_joined(texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5)) {
            joined(&texts);
        }
    }
}
