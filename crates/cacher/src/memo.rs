//! Encodings that are made on first use and kept with the encoded value, within a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// Identifies an encoding of an object or of an event's frame. The user of the cacher assigns the numbers; this crate
/// defines only [`Encoding::JSON`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encoding(pub u32);

impl Encoding {
    /// JSON in the resource's storage version, the form of objects in the cache.
    pub const JSON: Self = Self(0);
}

/// Budget in bytes for encodings made on demand. All memos that keep encodings share it.
///
/// Encodings over the budget are made again for each reader. The budget limits memory only; it never affects responses.
#[derive(Debug)]
pub struct EncodingBudget {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicUsize,
}

impl EncodingBudget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), refused: AtomicUsize::new(0) })
    }

    /// Returns the limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes that exceeded the budget, and resets it.
    pub fn take_refused(&self) -> usize {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Reserves `bytes` if the budget allows it.
    fn reserve(&self, bytes: usize) -> bool {
        let within = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        let kept = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok();
        if !kept {
            self.refused.fetch_add(bytes, Ordering::Relaxed);
        }
        kept
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The encodings of one value. An empty memo allocates no memory.
#[derive(Debug)]
pub(crate) struct Memo<K> {
    budget: Arc<EncodingBudget>,
    made: Mutex<Vec<(K, Bytes)>>,
}

impl<K: Copy + PartialEq> Memo<K> {
    pub(crate) fn new(budget: Arc<EncodingBudget>) -> Self {
        Self { budget, made: Mutex::new(Vec::new()) }
    }

    /// Returns the encoding `key`; `encode` makes it if it is not kept. No lock is held while encoding: concurrent
    /// readers may each make the encoding, and one is kept.
    pub(crate) fn get_or_make<E>(
        &self,
        key: K,
        encode: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        if let Some(bytes) = self.find(key) {
            return Ok(bytes);
        }
        let bytes = encode()?;
        let mut made = self.made.lock();
        let kept = made.iter().any(|(k, _)| *k == key);
        if !kept && self.budget.reserve(bytes.len()) {
            made.push((key, bytes.clone()));
        }
        Ok(bytes)
    }

    /// Drops all encodings.
    pub(crate) fn clear(&self) {
        let made = std::mem::take(&mut *self.made.lock());
        self.budget.release(total(&made));
    }

    /// Returns the budget of this memo.
    pub(crate) fn budget(&self) -> Arc<EncodingBudget> {
        Arc::clone(&self.budget)
    }

    fn find(&self, key: K) -> Option<Bytes> {
        self.made.lock().iter().find(|(k, _)| *k == key).map(|(_, bytes)| bytes.clone())
    }
}

impl<K> Drop for Memo<K> {
    fn drop(&mut self) {
        self.budget.release(total(self.made.get_mut()));
    }
}

fn total<K>(made: &[(K, Bytes)]) -> usize {
    made.iter().map(|(_, bytes)| bytes.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn encode(memo: &Memo<u8>, key: u8, bytes: &'static [u8]) -> (Bytes, bool) {
        let mut made = false;
        let result = memo.get_or_make(key, || {
            made = true;
            Ok::<_, Infallible>(Bytes::from_static(bytes))
        });
        (result.unwrap(), made)
    }

    #[test]
    fn makes_each_encoding_once() {
        let memo = Memo::new(EncodingBudget::new(100));
        assert_eq!(encode(&memo, 1, b"one"), (Bytes::from_static(b"one"), true));
        assert_eq!(encode(&memo, 2, b"two"), (Bytes::from_static(b"two"), true));
        assert_eq!(encode(&memo, 1, b"never"), (Bytes::from_static(b"one"), false));
    }

    #[test]
    fn stays_within_the_budget_and_releases_it() {
        let budget = EncodingBudget::new(5);
        let memo = Memo::new(Arc::clone(&budget));
        encode(&memo, 1, b"four");
        assert!(encode(&memo, 2, b"four").1);
        assert!(encode(&memo, 2, b"four").1, "over the budget: not kept");
        assert_eq!(budget.used(), 4);
        assert_eq!((budget.take_refused(), budget.take_refused()), (8, 0));
        memo.clear();
        assert_eq!(budget.used(), 0);
        encode(&memo, 2, b"four");
        assert_eq!(budget.used(), 4);
        drop(memo);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_failed_encoding_is_not_kept() {
        let memo = Memo::new(EncodingBudget::new(5));
        assert_eq!(memo.get_or_make(1_u8, || Err("no")), Err("no"));
        assert!(encode(&memo, 1, b"yes").1);
    }
}
