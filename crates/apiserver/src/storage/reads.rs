//! Statistics of lists by source, for the metrics endpoint.

use nave_cacher::Counter;

/// Counts reads of a resource since the server started.
#[derive(Debug)]
pub struct ReadStats {
    scans: ListStats,
    /// Lists by indexed field. Fields are identified by their position among the declared fields.
    indexed: Box<[(usize, ListStats)]>,
    store: ListStats,
    consistent: ConsistentReads,
}

/// Counts lists from one source.
#[derive(Debug, Default)]
pub struct ListStats {
    /// Number of lists.
    pub lists: Counter,
    /// Number of objects examined.
    pub fetched: Counter,
    /// Number of objects returned.
    pub returned: Counter,
}

/// Counts lists of the latest state, by outcome.
#[derive(Debug, Default)]
pub struct ConsistentReads {
    /// Served from memory, which reached the state in time.
    pub in_memory: Counter,
    /// Served from the store, because memory did not reach the state in time.
    pub fallbacks: Counter,
    /// Failed reads from the store.
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

    /// Returns the counters of lists from memory by an indexed field; `None` selects lists of all objects or a
    /// namespace.
    pub fn cache(&self, field: Option<usize>) -> &ListStats {
        let indexed = self.indexed.iter().find(|(indexed, _)| Some(*indexed) == field);
        indexed.map_or(&self.scans, |(_, lists)| lists)
    }

    /// Returns the counters of lists from memory, by indexed field.
    pub fn caches(&self) -> impl Iterator<Item = (Option<usize>, &ListStats)> {
        let indexed = self.indexed.iter().map(|(field, lists)| (Some(*field), lists));
        std::iter::once((None, &self.scans)).chain(indexed)
    }

    /// Returns the counters of lists from the store.
    pub fn store(&self) -> &ListStats {
        &self.store
    }

    /// Returns the counters of lists of the latest state.
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
