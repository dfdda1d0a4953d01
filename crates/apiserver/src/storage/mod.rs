//! One resource's objects between the pipeline and the store (upstream: the generic registry's `Store`).
//!
//! Reads come from the [`Cacher`]; writes go to the [`Store`] as compare-and-swap on the revision that was read, and
//! are tried again on the state that won ([`ResourceStorage::guaranteed_update`]). An object is held here in its
//! storage version.

mod codec;
mod consistency;
mod encoding_eviction;
mod follow;
mod reads;
mod reservation;
mod sizes;
mod storages;
mod writes;
mod written_versions;

use std::sync::Arc;
use std::time::Duration;

use nave_cacher::{CachedObject, Cacher, CacherConfig, Snapshot, WindowBounds};
use nave_machinery::{GroupResource, Reason, Status};
use nave_resources::ResourceDef;
use nave_store::{KeyValue, Range, RangeResult, Store, StoreError};

pub use codec::ObjectCodec;
pub(crate) use codec::undecodable;
pub use consistency::{ConsistencyChecks, check_consistency};
pub use encoding_eviction::evict_encodings;
pub use follow::{Follower, Following};
pub use reads::{ConsistentReads, ListStats, ReadStats};
pub use reservation::{NO_REVISION, Reservation, Settlement, send_until_known};
pub use sizes::WatchCacheSizes;
pub use storages::{SharedParts, Storages};
pub use writes::{Attempt, NextState, Stored, Update, WriteResult, WrittenVersion};

/// How long a read waits for the watch cache to reach the revision it needs.
const CACHE_WAIT: Duration = Duration::from_secs(3);

/// The objects of one resource.
pub struct ResourceStorage {
    def: Arc<ResourceDef>,
    store: Arc<dyn Store>,
    cacher: Arc<Cacher>,
    codec: Arc<ObjectCodec>,
    reads: ReadStats,
    consistency: ConsistencyChecks,
}

/// Where the present state of a resource can be read.
pub enum Latest {
    /// In memory.
    Memory(Snapshot),
    /// In the store, at this revision: memory did not reach it in time.
    Store(u64),
}

impl ResourceStorage {
    /// Opens a resource: starts its watch cache over the store. `None` for one that stores nothing.
    pub fn open(
        def: Arc<ResourceDef>,
        store: Arc<dyn Store>,
        window: WindowBounds,
        shared: &SharedParts,
    ) -> Option<Arc<Self>> {
        let prefix = format!("{}/", def.storage.as_ref()?.prefix);
        let codec = Arc::new(ObjectCodec::new(Arc::clone(&def))?);
        let mut config = CacherConfig::new(def.group_resource().to_string(), prefix, def.namespaced);
        config.window = window;
        config.encodings = Arc::clone(&shared.encodings);
        config.frames = Arc::clone(&shared.frames);
        config.supervisor = shared.supervisor.clone();
        let indexed = def.fields.iter().enumerate().filter(|(_, field)| field.indexed);
        config.indexed_fields = indexed.map(|(at, _)| at).collect();
        let cacher = Cacher::start(config, Arc::clone(&store), Arc::clone(&codec) as _);
        let reads = ReadStats::new(&cacher.config().indexed_fields);
        let consistency = ConsistencyChecks::default();
        Some(Arc::new(Self { def, store, cacher, codec, reads, consistency }))
    }

    /// The resource's watch cache.
    pub fn cacher(&self) -> &Arc<Cacher> {
        &self.cacher
    }

    /// What is stored.
    pub fn def(&self) -> &Arc<ResourceDef> {
        &self.def
    }

    /// How it was read so far.
    pub fn reads(&self) -> &ReadStats {
        &self.reads
    }

    /// How its watch cache compared with the store so far.
    pub fn consistency(&self) -> &ConsistencyChecks {
        &self.consistency
    }

    /// The resource's encoding.
    pub fn codec(&self) -> &ObjectCodec {
        &self.codec
    }

    /// The object of this name as the watch cache has it, which may lag behind the store.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        let namespace = self.def.namespaced.then_some(namespace);
        self.cacher.snapshot().get(&nave_resources::storage_key(&self.def, namespace, name).ok()?).cloned()
    }

    /// A selectable field of a cached object.
    pub fn field<'a>(&self, object: &'a CachedObject, path: &str) -> Option<&'a str> {
        let at = self.def.fields.iter().position(|field| field.path == path)?;
        Some(object.attributes().field(at))
    }

    /// The store's revision.
    ///
    /// # Errors
    /// The store's.
    pub async fn current_revision(&self) -> Result<u64, Status> {
        self.store.current_revision().await.map_err(|error| store_status(&error))
    }

    /// Waits for the watch cache to have seen `revision`; 0 for it to have seen anything at all.
    ///
    /// # Errors
    /// 504 where it does not within a few seconds, 429 where it has no state yet.
    pub async fn wait_until(&self, revision: u64) -> Result<(), Status> {
        self.cacher.wait_until(revision, CACHE_WAIT).await.map_err(|late| match late.current {
            0 => Status::too_many_requests("storage is (re)initializing", 1),
            current => too_large(revision, current),
        })
    }

    /// Where the state that the store is in now can be read: in memory, which catches up first, or, where that
    /// takes too long, in the store.
    ///
    /// # Errors
    /// The store's.
    pub async fn latest(&self) -> Result<Latest, Status> {
        let revision = self.current_revision().await?;
        Ok(match self.cacher.wait_until(revision, CACHE_WAIT).await {
            Ok(()) => Latest::Memory(self.cacher.snapshot()),
            Err(_) => Latest::Store(revision),
        })
    }

    /// The object at `key` in the state that the store is in now.
    ///
    /// # Errors
    /// The store's.
    pub async fn get_latest(&self, key: &str) -> Result<Option<Arc<CachedObject>>, Status> {
        match self.latest().await? {
            Latest::Memory(snapshot) => Ok(snapshot.get(key).cloned()),
            Latest::Store(_) => {
                let found = self.store.get(key, None).await.map_err(|error| store_status(&error))?;
                found.map(|kv| self.cached(&kv).map(Arc::new)).transpose()
            }
        }
    }

    /// Objects of the store itself, for states that memory does not reach.
    ///
    /// # Errors
    /// 410 where the state has been compacted.
    pub async fn range(&self, range: Range) -> Result<RangeResult, Status> {
        self.store.range(range).await.map_err(|error| store_status(&error))
    }

    /// A stored version as the watch cache would hold it.
    ///
    /// # Errors
    /// 500 where the stored bytes are not an object of the resource.
    pub fn cached(&self, kv: &KeyValue) -> Result<CachedObject, Status> {
        let decoded = self.codec.as_ref().decode_cached(kv).map_err(Status::internal)?;
        let config = self.cacher.config();
        CachedObject::new(kv, config.namespaced, decoded, &config.encodings).map_err(Status::internal)
    }

    fn resource(&self) -> GroupResource {
        self.def.group_resource()
    }
}

/// What is said of a revision that did not come in time.
fn too_large(requested: u64, current: u64) -> Status {
    Status::timeout(format_args!("Too large resource version: {requested}, current: {current}"), 1)
        .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
}

/// What a client is told when the store fails.
pub fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        StoreError::FutureRevision { requested, current } => too_large(*requested, *current),
        StoreError::TooLarge { .. } => Status::too_large(error.to_string()),
        StoreError::NoSpace(_) | StoreError::Closed => Status::service_unavailable(error.to_string()),
        _ => Status::failure(500, Reason::InternalError, error.to_string()),
    }
}
