//! Shuffle sharding: deals each flow a few of the queues (upstream: `apiserver/pkg/util/shufflesharding`).
//!
//! Two flows rarely get the same hand, so a flow that fills its queues leaves other flows a queue that it does not use.

use sha2::{Digest, Sha256};

/// The largest hand. A larger one from a deck that is not smaller needs more than the 60 bits of entropy that the
/// validation of the API allows.
const MAX_HAND: usize = 15;

/// Returns the hash of a flow: the first eight bytes, little endian, of SHA-256 of schema, NUL and distinguisher.
pub fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(schema.as_bytes());
    hash.update([0]);
    hash.update(distinguisher.as_bytes());
    let digest = hash.finalize();
    digest.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The queues that one flow may use.
#[derive(Clone, Copy, Debug)]
pub struct Hand {
    cards: [u32; MAX_HAND],
    size: usize,
}

impl Hand {
    /// Deals `size` different cards from a deck with the numbers below `deck`. Each card uses `log2` of the number of
    /// cards that are left in the deck as bits of the hash.
    pub fn deal(hash: u64, deck: u32, size: u32) -> Self {
        let size = (size.min(deck) as usize).min(MAX_HAND);
        let (mut places, mut hash) = ([0_u32; MAX_HAND], hash);
        for (at, place) in places.iter_mut().take(size).enumerate() {
            let left = u64::from(deck) - at as u64;
            *place = (hash % left) as u32;
            hash /= left;
        }
        let mut cards = places;
        for (at, card) in cards.iter_mut().take(size).enumerate() {
            // A place counts only the cards that are left, so each earlier place that is not above it moves it up.
            for earlier in places.iter().take(at).rev() {
                *card += u32::from(*card >= *earlier);
            }
        }
        Self { cards, size }
    }

    /// Returns the dealt cards.
    pub fn cards(&self) -> &[u32] {
        self.cards.get(..self.size).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn deals_the_cards_of_upstream() {
        for (hash, deck, size, cards) in [
            // The remainders are 6, 5, 4.
            (6 + 128 * (5 + 127 * 4), 128, 3, vec![6, 5, 4]),
            (3 + 128 * (3 + 127 * 3), 128, 3, vec![3, 4, 5]),
            (0, 6, 6, vec![0, 1, 2, 3, 4, 5]),
            (5 + 6 * (4 + 5 * (3 + 4 * (2 + 3))), 6, 6, vec![5, 4, 3, 2, 1, 0]),
            (u64::MAX, 1, 1, vec![0]),
        ] {
            assert_eq!(Hand::deal(hash, deck, size).cards(), cards, "{hash} {deck} {size}");
        }
    }

    #[test]
    fn a_hand_has_different_cards_and_all_cards_are_dealt() {
        let mut seen = BTreeSet::new();
        for flow in 0..2_000 {
            let hand = Hand::deal(flow_hash("schema", &flow.to_string()), 64, 6);
            let cards: BTreeSet<_> = hand.cards().iter().copied().collect();
            assert_eq!(cards.len(), 6);
            seen.extend(cards);
        }
        assert!(seen.into_iter().eq(0..64));
    }

    #[test]
    fn the_hash_is_the_start_of_sha256() {
        // printf 'a\0b' | sha256sum
        assert_eq!(flow_hash("a", "b").to_le_bytes(), [0x59, 0xb2, 0x71, 0xae, 0x1b, 0xbc, 0xb1, 0xd3]);
    }
}
