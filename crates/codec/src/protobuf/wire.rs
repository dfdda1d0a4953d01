//! Primitives of the protobuf encoding: varints, tags, lengths.

use super::ProtobufError;

type Result<T> = std::result::Result<T, ProtobufError>;

/// The content of a field before its type is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Reads a message field by field.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Returns the next field's number and content; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number > MAX_NUMBER {
            return Err(ProtobufError::BadTag(tag));
        }
        let raw = match tag & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                Raw::Bytes(self.take(usize::try_from(len).map_err(|_| ProtobufError::Truncated)?)?)
            }
            5 => Raw::Fixed32(u32::from_le_bytes(self.array()?)),
            // Kubernetes' messages have no groups.
            _ => return Err(ProtobufError::BadTag(tag)),
        };
        Ok(Some((number, raw)))
    }

    /// Returns the next varint of a packed list; `None` at the end.
    pub(super) fn next_packed(&mut self) -> Result<Option<u64>> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    /// Returns the next eight bytes of a packed list of doubles; `None` at the end.
    pub(super) fn next_fixed64(&mut self) -> Result<Option<u64>> {
        if self.rest.is_empty() { Ok(None) } else { Ok(Some(u64::from_le_bytes(self.array()?))) }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64> {
        // Nearly all tags and lengths have one byte.
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return Err(ProtobufError::BadVarint);
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { ProtobufError::Truncated } else { ProtobufError::BadVarint })
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// Maximum field number of protobuf.
const MAX_NUMBER: u32 = (1 << 29) - 1;

/// Appends a varint.
#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field.
pub(super) fn put_int(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a 64-bit field.
pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a length-delimited field: a string, or an encoded message.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field with the message that `write` appends.
pub(super) fn put_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = open_message(out);
    write(out)?;
    close_message(out, start);
    Ok(())
}

/// Reserves one byte for the length of a message; [`close_message`] sets it.
pub(super) fn open_message(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Sets the length of the bytes appended since `start`, which [`open_message`] returned.
pub(super) fn close_message(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if len < 0x80 {
        out[start - 1] = len as u8;
        return;
    }
    // The length needs more than the reserved byte: move the message.
    let mut bytes = [0u8; 10];
    let mut used = 0;
    let mut rest = len;
    while rest >= 0x80 {
        bytes[used] = rest as u8 | 0x80;
        rest >>= 7;
        used += 1;
    }
    bytes[used] = rest as u8;
    used += 1;
    let end = out.len();
    out.resize(end + used - 1, 0);
    out.copy_within(start..end, start + used - 1);
    out[start - 1..start - 1 + used].copy_from_slice(&bytes[..used]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_int(&mut out, 7, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.next().unwrap(), Some((7, Raw::Varint(value))));
            prop_assert_eq!(reader.next().unwrap(), None);
        }

        #[test]
        fn messages_of_any_length_round_trip(len in 0usize..40_000) {
            let body = vec![7u8; len];
            let mut out = Vec::new();
            put_message(&mut out, 300, |out| { out.extend_from_slice(&body); Ok::<_, ()>(()) }).unwrap();
            let mut same = Vec::new();
            put_bytes(&mut same, 300, &body);
            prop_assert_eq!(&out, &same);
            prop_assert_eq!(Reader::new(&out).next().unwrap(), Some((300, Raw::Bytes(&body))));
        }
    }

    #[test]
    fn rejects_damaged_fields() {
        let next = |bytes: &[u8]| Reader::new(bytes).next().unwrap_err();
        assert_eq!(next(&[0x80]), ProtobufError::Truncated);
        assert_eq!(next(&[0xff; 11]), ProtobufError::BadVarint);
        assert_eq!(next(&[0x0a, 5, 1]), ProtobufError::Truncated);
        assert_eq!(
            next(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            ProtobufError::Truncated
        );
        assert_eq!(next(&[0x0b]), ProtobufError::BadTag(0x0b));
        assert_eq!(next(&[0x00, 0]), ProtobufError::BadTag(0));
        assert_eq!(next(&[0x09, 1, 2]), ProtobufError::Truncated);
    }
}
