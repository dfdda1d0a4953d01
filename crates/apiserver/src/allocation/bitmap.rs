//! The ports in use as a bitmap, in kube-apiserver's stored form.

use rand::Rng;

/// The ports in use, by offset in the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bitmap {
    bits: Vec<bool>,
}

impl Bitmap {
    /// Creates an empty bitmap.
    pub(super) fn new(size: usize) -> Self {
        Self { bits: vec![false; size] }
    }

    /// Parses a big-endian number: bit `n` is the port at offset `n`. Bits beyond `size` are dropped.
    pub(super) fn from_bytes(size: usize, bytes: &[u8]) -> Self {
        let mut bitmap = Self::new(size);
        for (offset, bit) in bitmap.bits.iter_mut().enumerate() {
            let byte = bytes.len().checked_sub(1 + offset / 8).and_then(|index| bytes.get(index));
            *bit = byte.is_some_and(|byte| byte >> (offset % 8) & 1 == 1);
        }
        bitmap
    }

    /// Returns the bitmap as a big-endian number without leading zeros.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.bits.chunks(8).map(|bits| {
            bits.iter().enumerate().fold(0_u8, |byte, (bit, is_set)| byte | u8::from(*is_set) << bit)
        });
        let mut bytes: Vec<u8> = bytes.collect();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes.reverse();
        bytes
    }

    /// Returns the number of set bits.
    pub(super) fn count(&self) -> usize {
        self.bits.iter().filter(|bit| **bit).count()
    }

    pub(super) fn is_set(&self, offset: usize) -> bool {
        self.bits.get(offset).copied().unwrap_or_default()
    }

    /// Sets a bit; returns false if the bit was already set or is out of range.
    pub(super) fn set(&mut self, offset: usize) -> bool {
        match self.bits.get_mut(offset) {
            Some(bit) => !std::mem::replace(bit, true),
            None => false,
        }
    }

    pub(super) fn clear(&mut self, offset: usize) {
        if let Some(bit) = self.bits.get_mut(offset) {
            *bit = false;
        }
    }

    /// Sets a free bit and returns its offset; `None` if all bits are set. Searches the upper band from a random
    /// offset, then the lower band, which is preferred for requested ports.
    pub(super) fn set_any(&mut self) -> Option<usize> {
        let (split, end) = (self.lower_band_size(), self.bits.len());
        let free = self.find_free(split, end).or_else(|| self.find_free(0, split))?;
        self.set(free).then_some(free)
    }

    /// Returns the offsets in use.
    pub(super) fn offsets(&self) -> impl Iterator<Item = usize> {
        self.bits.iter().enumerate().filter(|(_, is_set)| **is_set).map(|(offset, _)| offset)
    }

    fn find_free(&self, start: usize, end: usize) -> Option<usize> {
        if start >= end {
            return None;
        }
        let first = rand::rng().random_range(start..end);
        (first..end).chain(start..first).find(|offset| !self.is_set(*offset))
    }

    fn lower_band_size(&self) -> usize {
        if self.bits.len() <= 16 { 0 } else { (self.bits.len() / 32).clamp(16, 128) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_a_big_endian_number() {
        let mut bitmap = Bitmap::new(2768);
        assert_eq!(bitmap.to_bytes(), [] as [u8; 0]);
        for (offset, bytes) in [(0, &[1][..]), (7, &[0x81]), (8, &[1, 0x81]), (17, &[2, 1, 0x81])] {
            assert!(bitmap.set(offset) && !bitmap.set(offset));
            assert_eq!(bitmap.to_bytes(), bytes);
            assert_eq!(Bitmap::from_bytes(2768, bytes), bitmap);
        }
        assert_eq!(bitmap.offsets().collect::<Vec<_>>(), [0, 7, 8, 17]);
        bitmap.clear(17);
        assert_eq!(bitmap.to_bytes(), [1, 0x81]);
        assert!(!bitmap.set(2768));
        assert_eq!(Bitmap::from_bytes(4, &[0xff, 0xff]).to_bytes(), [0x0f]);
    }

    #[test]
    fn sets_every_bit_once_and_the_lower_band_last() {
        for (size, lower) in [(1, 0), (16, 0), (17, 16), (2768, 86), (65535, 128)] {
            let mut bitmap = Bitmap::new(size);
            assert_eq!(bitmap.lower_band_size(), lower, "{size}");
            let set: Vec<_> = std::iter::from_fn(|| bitmap.set_any()).take(3000).collect();
            assert_eq!(set.len(), size.min(3000));
            let upper = set.len().min(size - lower);
            assert!(set[..upper].iter().all(|offset| *offset >= lower), "{size}");
        }
    }
}
