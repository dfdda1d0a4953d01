//! How often a resource is listed, and from where: what the metrics endpoint is told.

use nave_cacher::Counter;

/// How a resource was read since the server started.
#[derive(Debug)]
pub struct ReadStats {
    scans: ListStats,
    /// By the indexed field, as the index of its declaration.
    indexed: Box<[(usize, ListStats)]>,
    store: ListStats,
    consistent: ConsistentReads,
}

/// Lists that were answered in the same way.
#[derive(Debug, Default)]
pub struct ListStats {
    /// How many there were.
    pub lists: Counter,
    /// Objects that were looked at for them.
    pub fetched: Counter,
    /// Objects in the answers.
    pub returned: Counter,
}

/// Lists of the latest state, by how they went.
#[derive(Debug, Default)]
pub struct ConsistentReads {
    /// From memory, which held the state in time.
    pub in_memory: Counter,
    /// From the store.
    pub fallbacks: Counter,
    /// From the store, in vain.
    pub failures: Counter,
}

impl ReadStats {
    pub(super) fn new(indexed_fields: &[usize]) -> Self {
        Self {
            scans: ListStats::default(),
            indexed: indexed_fields.iter().map(|field| (*field, ListStats::default())).collect(),
            store: ListStats::default(),
            consistent: ConsistentReads::default(),
        }
    }

    /// Lists from memory: by the indexed field, or over all objects or a namespace's.
    pub fn cache(&self, field: Option<usize>) -> &ListStats {
        let indexed = self.indexed.iter().find(|(indexed, _)| Some(*indexed) == field);
        indexed.map_or(&self.scans, |(_, lists)| lists)
    }

    /// Lists from memory, by the indexed field.
    pub fn caches(&self) -> impl Iterator<Item = (Option<usize>, &ListStats)> {
        let indexed = self.indexed.iter().map(|(field, lists)| (Some(*field), lists));
        std::iter::once((None, &self.scans)).chain(indexed)
    }

    /// Lists of states that memory did not hold.
    pub fn store(&self) -> &ListStats {
        &self.store
    }

    /// Lists of the latest state.
    pub fn consistent(&self) -> &ConsistentReads {
        &self.consistent
    }
}

impl ListStats {
    /// Counts a list.
    pub fn count(&self, fetched: usize, returned: usize) {
        self.lists.add(1);
        self.fetched.add(fetched);
        self.returned.add(returned);
    }
}
