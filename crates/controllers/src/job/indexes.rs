//! Sets of completion indexes, in the API's format `1,3-5,7`.

use std::fmt;

/// A set of indexes, stored as ascending intervals that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Parses the API's format. Ignores invalid indexes, and indexes that are not below `completions`.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut indexes = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                indexes.insert_range(first.max(0), last.min(completions - 1));
            }
        }
        indexes
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.insert_range(index, index);
    }

    fn insert_range(&mut self, first: i32, last: i32) {
        if first > last {
            return;
        }
        // Merges all intervals that the new interval overlaps or touches.
        let from = self.0.partition_point(|(_, end)| *end < first.saturating_sub(1));
        let to = self.0.partition_point(|(start, _)| *start <= last.saturating_add(1));
        let merged =
            self.0[from..to].iter().fold((first, last), |(a, b), (start, end)| (a.min(*start), b.max(*end)));
        self.0.splice(from..to, [merged]);
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let place = self.0.partition_point(|(_, end)| *end < index);
        self.0.get(place).is_some_and(|(start, _)| *start <= index)
    }

    /// The number of indexes.
    pub(super) fn len(&self) -> i32 {
        self.0.iter().map(|(start, end)| end - start + 1).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = i32> {
        self.0.iter().flat_map(|(start, end)| *start..=*end)
    }

    /// The API's format; `None` for the empty set.
    pub(super) fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.to_string())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (start, end)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            match end - start {
                0 => write!(f, "{comma}{start}")?,
                1 => write!(f, "{comma}{start},{end}")?,
                _ => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn format_is_compact() {
        for (text, normal) in
            [("", ""), ("1,2,3,5", "1-3,5"), ("0,1", "0,1"), ("4,2,9-12,x", "2,4,9"), ("3-1", "")]
        {
            assert_eq!(Indexes::parse(text, 10).to_string(), normal, "{text}");
        }
        assert_eq!(Indexes::default().text(), None);
    }

    proptest::proptest! {
        #[test]
        fn behaves_like_a_set(numbers in proptest::collection::vec(0..40_i32, 0..60)) {
            let model: BTreeSet<i32> = numbers.iter().copied().collect();
            let mut indexes = Indexes::default();
            for number in numbers {
                indexes.insert(number);
            }
            proptest::prop_assert_eq!(indexes.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            proptest::prop_assert_eq!(indexes.len() as usize, model.len());
            proptest::prop_assert!((0..40).all(|n| indexes.contains(n) == model.contains(&n)));
            proptest::prop_assert_eq!(&Indexes::parse(&indexes.to_string(), 40), &indexes);
        }
    }
}
