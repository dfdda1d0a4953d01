//! Positions of records in the log.

use crate::StoreError;

/// The position of a record: its revision, and its number among the records of that revision. One word, in the order of
/// the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(u64);

impl Position {
    /// Returns the position of the first record of a revision.
    pub(super) const fn first(revision: u64) -> Self {
        Self(revision << PART_BITS)
    }

    /// Returns the position of a record of a revision; `part` must be below [`MAX_PARTS`].
    pub(super) const fn new(revision: u64, part: usize) -> Self {
        Self(revision << PART_BITS | part as u64)
    }

    /// Returns the position at which the first record of a revision was stored.
    pub(super) fn stored(revision: u64) -> Result<Self, StoreError> {
        if revision <= MAX_REVISION {
            Ok(Self::first(revision))
        } else {
            Err(StoreError::Corrupt(format!("revision {revision} is too large").into()))
        }
    }

    /// Returns the position whose packed form was stored.
    pub(super) const fn unpack(packed: u64) -> Self {
        Self(packed)
    }

    pub(super) const fn packed(self) -> u64 {
        self.0
    }

    pub(super) const fn revision(self) -> u64 {
        self.0 >> PART_BITS
    }

    pub(super) const fn is_first(self) -> bool {
        self.0.is_multiple_of(MAX_PARTS as u64)
    }

    /// Returns the packed form of the last position that the revision can have.
    pub(super) const fn last_of_revision(self) -> u64 {
        self.0 | (MAX_PARTS as u64 - 1)
    }

    /// Returns the position of the record that follows this one and has a revision.
    pub(super) fn next(self, revision: u64) -> Self {
        if self.revision() == revision { Self(self.0 + 1) } else { Self::first(revision) }
    }
}

const PART_BITS: u32 = 16;
/// Maximum number of records of one revision.
pub(super) const MAX_PARTS: usize = 1 << PART_BITS;
/// Leaves one bit for users of the packed form. A million writes per second would take four years to get there.
const MAX_REVISION: u64 = (1 << (63 - PART_BITS)) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_the_order_of_the_log() {
        let positions = [
            Position::first(0),
            Position::first(7),
            Position::new(7, 1),
            Position::new(7, MAX_PARTS - 1),
            Position::first(8),
            Position::first(MAX_REVISION),
            Position::new(MAX_REVISION, MAX_PARTS - 1),
        ];
        assert!(positions.is_sorted_by(|one, other| one < other));
        for position in positions {
            assert_eq!(Position::unpack(position.packed()), position);
        }
        assert!(positions.iter().all(|position| position.packed() >> 63 == 0));
        assert_eq!(positions.map(Position::is_first), [true, true, false, false, true, true, false]);
        assert_eq!(Position::first(7).next(7), Position::new(7, 1));
        assert_eq!(Position::new(7, 1).next(9), Position::first(9));
        assert!(Position::stored(MAX_REVISION).is_ok() && Position::stored(MAX_REVISION + 1).is_err());
    }
}
