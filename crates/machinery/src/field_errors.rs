//! A bounded list of validation errors.

use std::ops::{Deref, DerefMut};

use crate::FieldError;

/// The number of errors that are kept. A response shows fewer of them; some rules remove errors again.
const MAX_KEPT: usize = 1000;

/// The errors of an object: the first thousand, and the number of the others.
///
/// A megabyte of empty list items has 300,000 errors or more, each of hundreds of bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors {
    kept: Vec<FieldError>,
    omitted: usize,
}

impl FieldErrors {
    /// Returns an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an error, or counts it if the list is full.
    pub fn push(&mut self, error: FieldError) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(error);
        } else {
            self.omitted += 1;
        }
    }

    /// Appends the errors of another list.
    pub fn append(&mut self, other: Self) {
        self.omitted += other.omitted;
        self.extend(other.kept);
    }

    /// Returns the number of errors that were counted but not kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

/// The errors that are kept. Empty only if there are no errors at all, unless errors were removed.
impl Deref for FieldErrors {
    type Target = [FieldError];

    fn deref(&self) -> &[FieldError] {
        &self.kept
    }
}

impl DerefMut for FieldErrors {
    fn deref_mut(&mut self) -> &mut [FieldError] {
        &mut self.kept
    }
}

impl Extend<FieldError> for FieldErrors {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, errors: T) {
        errors.into_iter().for_each(|error| self.push(error));
    }
}

impl FromIterator<FieldError> for FieldErrors {
    fn from_iter<T: IntoIterator<Item = FieldError>>(errors: T) -> Self {
        let mut all = Self::new();
        all.extend(errors);
        all
    }
}

impl From<Vec<FieldError>> for FieldErrors {
    fn from(errors: Vec<FieldError>) -> Self {
        errors.into_iter().collect()
    }
}

impl<const N: usize> From<[FieldError; N]> for FieldErrors {
    fn from(errors: [FieldError; N]) -> Self {
        errors.into_iter().collect()
    }
}

impl<const N: usize> PartialEq<[FieldError; N]> for FieldErrors {
    fn eq(&self, other: &[FieldError; N]) -> bool {
        self.omitted == 0 && self.kept == *other
    }
}

/// The errors that are kept.
impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldErrors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldPath;

    #[test]
    fn keeps_the_first_errors_and_counts_the_others() {
        let at = FieldPath::new("a");
        let mut errors: FieldErrors =
            (0..=MAX_KEPT).map(|n| FieldError::required(&at.index(n), "")).collect();
        assert_eq!((errors.len(), errors.omitted()), (MAX_KEPT, 1));
        errors.extend([FieldError::required(&at, "")]);
        assert_eq!((errors.len(), errors.omitted()), (MAX_KEPT, 2));
        let mut all = FieldErrors::from([FieldError::required(&at, "")]);
        all.append(errors.clone());
        assert_eq!((all.len(), all.omitted()), (MAX_KEPT, 3));
        assert_eq!(errors[MAX_KEPT - 1].field, at.index(MAX_KEPT - 1));
    }
}
