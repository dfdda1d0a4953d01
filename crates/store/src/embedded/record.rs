//! On-disk encoding of one revision.
//!
//! ```text
//! kind u8 | create_revision u64 | version u64 | expires_at or lease u64 | key_len u16 | key | value
//! ```
//! Numbers are little-endian. `expires_at` (Unix time in milliseconds) is 0 for a key without time to live. The revision
//! itself is the key of the row. Records have no checksum because the engine checksums its pages.
//!
//! | kind | meaning |
//! | --- | --- |
//! | 1 | a put of an older format, with other content in place of `create_revision` and `version`; counts as a creation |
//! | 2 | a delete |
//! | 3 | a put |
//! | 4 | a put with a lease, which stands in place of `expires_at` |

use std::sync::Arc;

use bytes::Bytes;

use crate::{EventKind, KeyValue, StoreError};

use super::entry::{Entry, Lineage};

/// Length of a record before its key, in bytes.
const HEADER: usize = 27;
const OLD_PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT: u8 = 3;
const PUT_WITH_LEASE: u8 = 4;

/// A decoded record, or one to encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) kind: EventKind,
    /// The default for a delete.
    pub(super) lineage: Lineage,
    pub(super) expires_at: u64,
    /// 0 without a lease. A record has a time of expiry or a lease.
    pub(super) lease: i64,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.key.len() + self.value.len());
        let (kind, end) = match (self.kind, self.lease) {
            (EventKind::Delete, _) => (DELETE, self.expires_at),
            (EventKind::Put, 0) => (PUT, self.expires_at),
            (EventKind::Put, lease) => (PUT_WITH_LEASE, lease.cast_unsigned()),
        };
        out.push(kind);
        out.extend_from_slice(&self.lineage.create_revision.to_le_bytes());
        out.extend_from_slice(&self.lineage.version.to_le_bytes());
        out.extend_from_slice(&end.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value);
        out
    }

    pub(super) fn decode(revision: u64, bytes: &'a [u8]) -> Result<Self, StoreError> {
        Self::parse(revision, bytes)
            .ok_or_else(|| StoreError::Corrupt(format!("record of revision {revision}").into()))
    }

    fn parse(revision: u64, bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (create_revision, rest) = take_u64(rest)?;
        let (version, rest) = take_u64(rest)?;
        let (end, rest) = take_u64(rest)?;
        let (key_len, rest) = rest.split_first_chunk::<2>()?;
        let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
        let stored = Lineage { create_revision, version };
        let (kind, lineage, expires_at, lease) = match kind {
            OLD_PUT => (EventKind::Put, Lineage::created_at(revision), end, 0),
            DELETE => (EventKind::Delete, Lineage::default(), end, 0),
            PUT => (EventKind::Put, stored, end, 0),
            PUT_WITH_LEASE if end != 0 => (EventKind::Put, stored, 0, end.cast_signed()),
            _ => return None,
        };
        let key = std::str::from_utf8(key).ok()?;
        Some(Self { kind, lineage, expires_at, lease, key, value })
    }

    /// Returns the version this record wrote.
    pub(super) fn to_key_value(self, revision: u64, key: Arc<str>) -> KeyValue {
        KeyValue { key, value: Bytes::copy_from_slice(self.value), mod_revision: revision }
    }

    /// Returns the version this record wrote, with all that is known about it.
    pub(super) fn to_entry(self, revision: u64, key: Arc<str>) -> Entry {
        Entry { kv: self.to_key_value(revision, key), lineage: self.lineage, lease: self.lease }
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
            put: bool, create_revision: u64, version: u64, end: u64, has_lease: bool,
            key in "[a-z/é]{0,40}", value: Vec<u8>,
        ) {
            let has_lease = has_lease && put && end != 0;
            let record = Record {
                kind: if put { EventKind::Put } else { EventKind::Delete },
                lineage: if put { Lineage { create_revision, version } } else { Lineage::default() },
                expires_at: if has_lease { 0 } else { end },
                lease: if has_lease { end.cast_signed() } else { 0 },
                key: &key,
                value: &value,
            };
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(7, &bytes).unwrap(), record);
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(kind in 0..6_u8, rest: Vec<u8>) {
            let bytes = [vec![kind], rest].concat();
            if let Ok(record) = Record::decode(7, &bytes) {
                let encoded = record.encode();
                prop_assert_eq!(Record::decode(7, &encoded).unwrap(), record);
            }
        }
    }

    #[test]
    fn reads_the_older_format() {
        let mut bytes = vec![OLD_PUT];
        bytes.extend_from_slice(&[9; 16]);
        bytes.extend_from_slice(&5_u64.to_le_bytes());
        bytes.extend_from_slice(&2_u16.to_le_bytes());
        bytes.extend_from_slice(b"/avalue");
        let record = Record::decode(7, &bytes).unwrap();
        let expected = Record {
            kind: EventKind::Put,
            lineage: Lineage { create_revision: 7, version: 1 },
            expires_at: 5,
            lease: 0,
            key: "/a",
            value: b"value",
        };
        assert_eq!(record, expected);
    }
}
