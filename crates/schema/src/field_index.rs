//! Index of the fields of a struct by name.

/// An empty slot of a [`FieldIndex`].
const EMPTY: u16 = u16::MAX;

/// A hash table from field names to positions. Every field of every object read or written is looked up, so lookups
/// must be cheap: usually one comparison of names. The table is at most half full. Clients choose the names to look up,
/// but not the names in the table, so the longest run of occupied slots bounds the cost of any lookup.
#[derive(Debug, Default)]
pub(crate) struct FieldIndex {
    slots: Box<[u16]>,
}

impl FieldIndex {
    /// Indexes the names of a struct's fields by position.
    pub(crate) fn new<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let mut slots = vec![EMPTY; (names.len() * 2).next_power_of_two()].into_boxed_slice();
        for (position, name) in (0..EMPTY).zip(names) {
            let mut slot = hash(name) as usize & (slots.len() - 1);
            while slots[slot] != EMPTY {
                slot = (slot + 1) & (slots.len() - 1);
            }
            slots[slot] = position;
        }
        Self { slots }
    }

    /// Returns the position of the field `name`; `is_named` confirms the name of a candidate.
    pub(crate) fn find(&self, name: &str, is_named: impl Fn(usize) -> bool) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(name) as usize & mask;
        while self.slots[slot] != EMPTY {
            let position = usize::from(self.slots[slot]);
            if is_named(position) {
                return Some(position);
            }
            slot = (slot + 1) & mask;
        }
        None
    }
}

/// Hashes the length and the first and last eight bytes, which differ between the fields of one struct.
fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let (first, last) = if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
    {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*first)), u64::from(u32::from_le_bytes(*last)))
    } else {
        (bytes.iter().fold(0, |packed, byte| packed << 8 | u64::from(*byte)), 0)
    };
    let mixed = (first ^ last.rotate_left(23) ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_only_the_indexed_names() {
        let names: Vec<String> =
            (0..300).map(|number| format!("{}{number}", "a".repeat(number % 20))).collect();
        let index = FieldIndex::new(names.iter().map(String::as_str));
        for (position, name) in names.iter().enumerate() {
            assert_eq!(index.find(name, |at| names[at] == *name), Some(position));
        }
        for absent in ["", "a", "aaaaaaaaaaaaaaaaaaaaaaaa0", "b1"] {
            assert_eq!(index.find(absent, |at| names[at] == absent), None, "{absent}");
        }
    }

    #[test]
    fn an_empty_struct_has_no_fields() {
        assert_eq!(FieldIndex::new([].into_iter()).find("a", |_| true), None);
        assert_eq!(FieldIndex::default().find("a", |_| true), None);
    }
}
