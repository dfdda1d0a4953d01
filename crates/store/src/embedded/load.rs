//! The content of the log when a store is opened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::StoreError;

use super::engine::Engine;
use super::index::Index;
use super::leases::Leases;
use super::position::Position;

/// Expiry time (Unix milliseconds), the revision that set it, and the key. Sorted by time.
pub(super) type Expiries = BTreeSet<(u64, u64, Arc<str>)>;

/// Content of the log at start.
pub(super) struct Loaded {
    pub(super) index: Index,
    pub(super) leases: Leases,
    pub(super) expiries: Expiries,
    pub(super) obsolete: Vec<Position>,
    pub(super) bytes: u64,
}

/// Loads the whole log.
pub(super) fn load(engine: &Engine) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded {
        index: Index::new(),
        leases: Leases::default(),
        expiries: Expiries::new(),
        obsolete: Vec::new(),
        bytes: 0,
    };
    let (view, now) = (engine.view()?, Instant::now());
    for (id, seconds) in view.leases()? {
        loaded.leases.grant(id, Duration::from_secs(seconds), now);
    }
    view.scan(0..=u64::MAX, |position, record, size| {
        let key = Arc::from(record.key);
        loaded.index.apply(&key, record.kind, position, record.lineage);
        loaded.leases.attach(&key, record.lease);
        loaded.bytes += size as u64;
        if record.expires_at > 0 {
            loaded.expiries.insert((record.expires_at, position.revision(), key));
        }
        Ok(true)
    })?;
    let compacted = engine.compacted()?;
    if compacted > 0 {
        loaded.obsolete = loaded.index.compact(compacted);
    }
    Ok(loaded)
}
