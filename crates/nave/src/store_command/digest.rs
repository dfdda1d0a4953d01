//! A digest of all objects of a store.

use std::fmt;
use std::sync::Arc;

use nave_store::{KeyValue, Range, Store, StoreError};
use sha2::{Digest as _, Sha256};

use super::PREFIX;

/// The number of objects and a hash of their keys and values, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    keys: u64,
    hash: String,
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys, digest sha256:{}", self.keys, self.hash)
    }
}

/// Returns the digest at a revision; at the latest one if it is `None`.
pub(super) async fn of(store: &dyn Store, revision: Option<u64>) -> Result<Digest, StoreError> {
    let (mut keys, mut hash) = (0, Sha256::new());
    let mut pages = Pages::new(revision);
    while let Some(page) = pages.next(store).await? {
        for kv in page.iter().filter(|kv| !is_transient(&kv.key)) {
            keys += 1;
            for part in [kv.key.as_bytes(), &kv.value] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
    }
    let digits: Vec<String> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Digest { keys, hash: digits.concat() })
}

/// Returns whether a key expires while nobody renews it: the address of a running server.
pub(super) fn is_transient(key: &str) -> bool {
    key.starts_with("/registry/masterleases/")
}

/// The objects of a store in pages, at one revision.
pub(super) struct Pages(Option<Range>);

impl Pages {
    /// Starts at the first key.
    pub(super) fn new(revision: Option<u64>) -> Self {
        Self(Some(Range { revision, limit: PAGE, ..Range::all(PREFIX) }))
    }

    /// Returns the next page; `None` after the last one.
    pub(super) async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<KeyValue>>, StoreError> {
        let Some(range) = self.0.take() else { return Ok(None) };
        let found = store.range(range.clone()).await?;
        if found.more {
            let start_after = found.items.last().map(|last| Arc::clone(&last.key));
            self.0 = Some(Range { start_after, revision: Some(found.revision), ..range });
        }
        Ok(Some(found.items))
    }
}

const PAGE: usize = 500;
