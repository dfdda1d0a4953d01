//! The storage of one resource, between the endpoints and the store (upstream: the generic registry's `Store`).
//!
//! Reads come from the [`Cacher`]. Writes are a compare-and-swap on the revision that was read; after a conflict, they
//! are retried with the newer state ([`ResourceStorage::compare_and_swap`]). Objects are in their storage version.

mod codec;
mod compaction;
mod consistency;
mod encoding_eviction;
mod follow;
mod reads;
mod reservation;
mod sizes;
mod storages;
mod store_metrics;
mod stores;
mod writes;
mod written_versions;

use std::sync::Arc;
use std::time::Duration;

use nave_cacher::{CachedObject, Cacher, CacherConfig, Snapshot, WindowBounds};
use nave_machinery::{GroupResource, Reason, Status};
use nave_resources::ResourceDef;
use nave_store::{KeyValue, Range, RangeResult, Store, StoreError};

use crate::conversion::Converter;

pub(crate) use codec::undecodable;
pub use codec::{ObjectCodec, StorageMediaType};
pub use compaction::forget_compacted_states;
pub use consistency::{ConsistencyChecks, check_consistency};
pub use encoding_eviction::evict_encodings;
pub use follow::{Follower, Following};
pub use reads::{ConsistentReads, ListStats, ReadStats};
pub use reservation::{NO_REVISION, Reservation, ReservationOutcome, send_until_known};
pub use sizes::WatchCacheSizes;
pub use storages::{SharedParts, Storages};
pub use stores::{StoreTimeouts, Stores};
pub use writes::{Attempt, NextState, Stored, Update, WriteResult, WrittenVersion};

/// Maximum time that a read waits for the watch cache to reach a revision.
const CACHE_WAIT: Duration = Duration::from_secs(3);

/// Maximum size of the replaced objects of a resource that is kept packed, in bytes: two hundred large definitions.
const PACKED_HISTORY: usize = 1 << 20;

/// Number of objects of such a resource that are read from the store at once. They are large until they are packed.
const PACKED_PAGE: usize = 200;

/// The storage of one resource.
pub struct ResourceStorage {
    def: Arc<ResourceDef>,
    store: Arc<dyn Store>,
    cacher: Arc<Cacher>,
    codec: Arc<ObjectCodec>,
    /// Converts the objects between versions; `None` if no webhook is needed.
    converter: Option<Arc<Converter>>,
    reads: ReadStats,
    consistency: ConsistencyChecks,
}

/// The source of a read of the latest state.
pub enum Latest {
    /// A snapshot of the cache.
    Memory(Snapshot),
    /// The store at this revision, because the cache did not reach it in time.
    Store(u64),
}

impl ResourceStorage {
    /// Opens the storage of a resource and starts its watch cache; `None` if the resource stores nothing.
    pub fn open(
        def: Arc<ResourceDef>,
        store: Arc<dyn Store>,
        window: WindowBounds,
        media_type: StorageMediaType,
        shared: &SharedParts,
        converter: Option<Arc<Converter>>,
    ) -> Option<Arc<Self>> {
        let prefix = format!("{}/", def.storage.as_ref()?.prefix);
        let codec = Arc::new(ObjectCodec::new(Arc::clone(&def), media_type)?);
        let mut config = CacherConfig::new(def.group_resource().to_string(), prefix, def.namespaced);
        config.window = window;
        config.packed = def.rules.packed;
        if config.packed {
            config.window.max_bytes = PACKED_HISTORY;
            config.page_size = PACKED_PAGE;
        }
        config.encodings = Arc::clone(&shared.encodings);
        config.frames = Arc::clone(&shared.frames);
        config.supervisor = shared.supervisor.clone();
        let indexed = def.fields.iter().enumerate().filter(|(_, field)| field.indexed);
        config.indexed_fields = indexed.map(|(at, _)| at).collect();
        let cacher = Cacher::start(config, Arc::clone(&store), Arc::clone(&codec) as _);
        let reads = ReadStats::new(&cacher.config().indexed_fields);
        let consistency = ConsistencyChecks::default();
        Some(Arc::new(Self { def, store, cacher, codec, converter, reads, consistency }))
    }

    /// Returns the resource's key prefix, without a trailing slash.
    pub(crate) fn prefix(&self) -> &str {
        self.def.storage.as_ref().map_or("", |storage| &storage.prefix)
    }

    /// Returns the resource's watch cache.
    pub fn cacher(&self) -> &Arc<Cacher> {
        &self.cacher
    }

    /// Returns the resource.
    pub fn def(&self) -> &Arc<ResourceDef> {
        &self.def
    }

    /// Returns the statistics of reads.
    pub fn reads(&self) -> &ReadStats {
        &self.reads
    }

    /// Returns the statistics of comparisons of the watch cache with the store.
    pub fn consistency(&self) -> &ConsistencyChecks {
        &self.consistency
    }

    /// Returns the converter of the resource; `None` if its versions are converted without a webhook.
    pub fn converter(&self) -> Option<&Arc<Converter>> {
        self.converter.as_ref()
    }

    /// Returns the codec.
    pub fn codec(&self) -> &ObjectCodec {
        &self.codec
    }

    /// Returns an object from the watch cache, which may lag behind the store.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        let namespace = self.def.namespaced.then_some(namespace);
        self.cacher.snapshot().get(&nave_resources::storage_key(&self.def, namespace, name).ok()?).cloned()
    }

    /// Returns a selectable field of a cached object.
    pub fn field<'a>(&self, object: &'a CachedObject, path: &str) -> Option<&'a str> {
        let at = self.def.fields.iter().position(|field| field.path == path)?;
        Some(object.attributes().field(at))
    }

    /// Returns the store's revision.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn current_revision(&self) -> Result<u64, Status> {
        self.store.current_revision().await.map_err(|error| store_status(&error))
    }

    /// Waits until the watch cache has reached `revision`; for 0, waits until the cache is filled.
    ///
    /// # Errors
    /// 504 if the cache does not reach the revision within a few seconds, 429 if it is not filled by then.
    pub async fn wait_until(&self, revision: u64) -> Result<(), Status> {
        self.cacher.wait_until(revision, CACHE_WAIT).await.map_err(|late| match late.current {
            0 => Status::too_many_requests("storage is (re)initializing", 1),
            current => too_large(revision, current),
        })
    }

    /// Returns the source for the latest state: the cache after it has caught up, or the store if catching up takes too
    /// long.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn latest(&self) -> Result<Latest, Status> {
        let revision = self.current_revision().await?;
        Ok(match self.cacher.wait_until(revision, CACHE_WAIT).await {
            Ok(()) => Latest::Memory(self.cacher.snapshot()),
            Err(_) => Latest::Store(revision),
        })
    }

    /// Returns the latest state of an object. Asks the store for the key's revision, because waiting for the store's
    /// revision would require progress of the watch.
    ///
    /// # Errors
    /// The error of the store, or `StorageReadError` if the stored object cannot be decoded.
    pub async fn get_latest(&self, key: &str) -> Result<Option<Arc<CachedObject>>, Status> {
        let revision = self.store.revision(key).await.map_err(|error| store_status(&error))?;
        let Some(revision) = revision else { return Ok(None) };
        if self.cacher.wait_until(revision, CACHE_WAIT).await.is_ok() {
            let found = self.cacher.snapshot().get(key).cloned();
            return if found.is_none() && self.cacher.is_undecodable(key) {
                Err(undecodable(key))
            } else {
                Ok(found)
            };
        }
        let found = self.store.get(key, None).await.map_err(|error| store_status(&error))?;
        found.map(|kv| self.cached(&kv).map(Arc::new)).transpose()
    }

    /// Returns the store of the resource.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads objects from the store, for states that the cache lacks.
    ///
    /// # Errors
    /// 410 if the state is compacted.
    pub async fn range(&self, range: Range) -> Result<RangeResult, Status> {
        self.store.range(range).await.map_err(|error| store_status(&error))
    }

    /// Decodes a stored version into an object of the watch cache.
    ///
    /// # Errors
    /// 500 if the stored bytes are not an object of the resource.
    pub fn cached(&self, kv: &KeyValue) -> Result<CachedObject, Status> {
        let decoded = self.codec.as_ref().decode_cached(kv).map_err(Status::internal)?;
        let config = self.cacher.config();
        CachedObject::new(kv, config.namespaced, decoded, &config.encodings).map_err(Status::internal)
    }

    fn resource(&self) -> GroupResource {
        self.def.group_resource()
    }
}

/// Returns 504: the cache has not reached the revision in time.
fn too_large(requested: u64, current: u64) -> Status {
    Status::timeout(format_args!("Too large resource version: {requested}, current: {current}"), 1)
        .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
}

/// Returns the status for an error of the store.
pub fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::FutureRevision { requested, current } => too_large(*requested, *current),
        StoreError::TooLarge { .. } => Status::too_large(error.to_string()),
        StoreError::NoSpace(_) | StoreError::Closed | StoreError::Unavailable(_) => {
            Status::service_unavailable(error.to_string())
        }
        StoreError::Transform(why) => Status::internal(why),
        StoreError::OutcomeUnknown(_) => Status::failure(504, Reason::Timeout, error.to_string()),
        _ => Status::failure(500, Reason::InternalError, error.to_string()),
    }
}
