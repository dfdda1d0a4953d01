//! Bytes that are kept compressed because they are rarely read.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Compressed bytes (RFC 1951). JSON shrinks to a fifth or less; definitions of custom resources shrink to a tenth.
/// Compressing 50 KB takes a few hundred microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    deflated: Box<[u8]>,
    length: usize,
}

/// The lowest level that finds repetitions well: a definition is a quarter smaller than at level 1.
const LEVEL: Compression = Compression::new(3);

impl Packed {
    /// Compresses the bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(bytes.len() / 4), LEVEL);
        // Writing to memory cannot fail.
        let written = encoder.write_all(bytes);
        debug_assert!(written.is_ok(), "writing to memory");
        let deflated = encoder.finish().unwrap_or_default();
        Self { deflated: deflated.into(), length: bytes.len() }
    }

    /// Returns the original bytes.
    pub fn unpack(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        // Only `new` creates the compressed bytes, so reading them cannot fail.
        let read = DeflateDecoder::new(&*self.deflated).read_to_end(&mut bytes);
        debug_assert!(read.is_ok(), "reading what was written");
        bytes
    }

    /// Returns the number of original bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the number of compressed bytes.
    pub fn packed_len(&self) -> usize {
        self.deflated.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_shrinks() {
        let json = r#"{"description":"a field of the object","type":"string"}"#.repeat(100);
        let packed = Packed::new(json.as_bytes());
        assert!(packed.packed_len() * 5 < packed.len(), "{}", packed.packed_len());
        assert!(Packed::new(b"").is_empty());
    }

    proptest! {
        #[test]
        fn bytes_survive_packing(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let packed = Packed::new(&bytes);
            prop_assert_eq!(packed.len(), bytes.len());
            prop_assert_eq!(packed.unpack(), bytes);
        }
    }
}
