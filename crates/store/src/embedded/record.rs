//! On-disk encoding of one revision.
//!
//! ```text
//! kind u8 | unused [u8; 16] | expires_at u64 | key_len u16 | key | value
//! ```
//! Numbers are little-endian. `expires_at` (Unix time in milliseconds) is 0 for a key without time to live. The unused
//! bytes held revisions in an older format. The revision itself is the key of the row. Records have no checksum because
//! the engine checksums its pages.

use std::sync::Arc;

use bytes::Bytes;

use crate::{EventKind, KeyValue, StoreError};

/// Length of a record before its key, in bytes.
const HEADER: usize = 27;
const UNUSED: usize = 16;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A decoded record, or one to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: EventKind,
    pub(super) expires_at: u64,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.key.len() + self.value.len());
        out.push(match self.kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        });
        out.extend_from_slice(&[0; UNUSED]);
        out.extend_from_slice(&self.expires_at.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value);
        out
    }

    pub(super) fn decode(revision: u64, bytes: &'a [u8]) -> Result<Self, StoreError> {
        Self::parse(bytes).ok_or_else(|| StoreError::Corrupt(format!("record of revision {revision}").into()))
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (_, rest) = rest.split_first_chunk::<UNUSED>()?;
        let (expires_at, rest) = take_u64(rest)?;
        let (key_len, rest) = rest.split_first_chunk::<2>()?;
        let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
        let kind = match kind {
            PUT => EventKind::Put,
            DELETE => EventKind::Delete,
            _ => return None,
        };
        let key = std::str::from_utf8(key).ok()?;
        Some(Self { kind, expires_at, key, value })
    }

    /// Returns the version this record wrote.
    pub(super) fn to_key_value(self, revision: u64, key: Arc<str>) -> KeyValue {
        KeyValue { key, value: Bytes::copy_from_slice(self.value), mod_revision: revision }
    }
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn encoding_round_trips(
            put: bool, expires_at: u64,
            key in "[a-z/é]{0,40}", value: Vec<u8>,
        ) {
            let kind = if put { EventKind::Put } else { EventKind::Delete };
            let record = Record { kind, expires_at, key: &key, value: &value };
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(7, &bytes).unwrap(), record);
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(mut bytes: Vec<u8>) {
            if let Ok(record) = Record::decode(7, &bytes) {
                let encoded = record.encode();
                bytes[1..=UNUSED].fill(0);
                prop_assert_eq!(encoded, bytes);
            }
        }
    }
}
