//! Writes: compare-and-swap on the revision that was read. After a conflict, retried with the newer state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nave_machinery::managed_fields;
use nave_machinery::{GroupResource, Object, Status, Value, meta};
use nave_store::{Expect, KeyValue, Op, PendingWrites, StoreError, Txn, TxnOutcome};

use super::reservation::{Reservation, ReservedTxn};
use super::written_versions::WriteGuard;
use super::{ObjectCodec, ResourceStorage, store_status};

/// Maximum number of attempts of an update before it fails with a conflict. Each failed attempt means that another
/// writer succeeded, so this must be at least the number of concurrent writers.
const MAX_UPDATE_ATTEMPTS: usize = 1000;

/// An object as read or written.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object in its storage version, with `metadata.resourceVersion`.
    pub object: Object,
    /// The revision of the object.
    pub revision: u64,
}

/// The next state of an object, as decided by a write.
pub enum Update {
    /// Put this object; nothing is written if it equals the current state.
    Put(Value),
    /// Delete the object; the response is the given object.
    Delete(Value),
    /// Write nothing; the response is the given object.
    NoWrite(Value),
}

/// A write: computes the next state for each observed state.
pub trait NextState: Send {
    /// Returns the next attempt; `current` is `None` if nothing is stored.
    fn next(&mut self, current: Option<&Stored>) -> impl Future<Output = Result<Attempt, Status>> + Send;

    /// Returns the error for a stored object that cannot be decoded.
    fn refuse_undecodable(&self, error: Status) -> Status {
        error
    }

    /// Is called after each transaction, with its start.
    fn sent(&self, started: Instant) {
        let _ = started;
    }

    /// Returns whether an object that is too large for the store is stored without its managed fields.
    fn may_drop_managed_fields(&self) -> bool {
        false
    }
}

/// An update and the reservation that it needs.
pub struct Attempt {
    /// The operation.
    pub update: Update,
    /// Completed once the update is committed; released if it is not.
    pub reservation: Option<Box<dyn Reservation>>,
}

impl From<Update> for Attempt {
    fn from(update: Update) -> Self {
        Self { update, reservation: None }
    }
}

impl Attempt {
    /// Converts the attempt to a dry run, which has the same response but writes nothing.
    pub fn dry(self) -> Self {
        let (Update::Put(object) | Update::Delete(object) | Update::NoWrite(object)) = self.update;
        Update::NoWrite(object).into()
    }
}

/// The result of a write.
pub struct WriteResult {
    /// The object after the write; its last state if it was deleted.
    pub stored: Stored,
    /// True if the object was deleted.
    pub deleted: bool,
    /// The stored version, if the object was written.
    pub version: Option<WrittenVersion>,
}

/// A version stored by a write, from which the response is built.
pub struct WrittenVersion {
    kv: KeyValue,
    codec: Arc<ObjectCodec>,
    _write: WriteGuard,
}

impl WrittenVersion {
    /// Returns the length of the stored form, in bytes.
    pub fn size(&self) -> usize {
        self.kv.value.len()
    }

    /// Returns the object's JSON as in the watch cache; `None` if the stored form cannot be decoded.
    pub fn json(&self) -> Option<Bytes> {
        self.codec.decode_written(&self.kv).ok().map(|decoded| decoded.json)
    }
}

impl ResourceStorage {
    /// Creates an object and sets the resourceVersion in `object`.
    ///
    /// # Errors
    /// 409 if the key exists.
    pub async fn create(&self, key: &str, name: &str, object: &mut Value) -> Result<u64, Status> {
        struct New<'a>(&'a Value, GroupResource, &'a str);
        impl NextState for New<'_> {
            async fn next(&mut self, current: Option<&Stored>) -> Result<Attempt, Status> {
                match current {
                    None => Ok(Update::Put(self.0.clone()).into()),
                    Some(_) => Err(Status::already_exists(&self.1, self.2)),
                }
            }
        }
        let written = self.compare_and_swap(key, name, &mut New(object, self.resource(), name)).await?;
        *object = written.stored.object.into_value();
        Ok(written.stored.revision)
    }

    /// Updates an existing object with a function of its state; see [`compare_and_swap`](Self::compare_and_swap).
    ///
    /// # Errors
    /// 404 if the key does not exist, the error of `change`, or 409 if every attempt loses to another writer.
    pub async fn guaranteed_update<F>(&self, key: &str, name: &str, change: F) -> Result<WriteResult, Status>
    where
        F: FnMut(&Stored) -> Result<Update, Status> + Send,
    {
        struct Changed<'a, F>(F, GroupResource, &'a str);
        impl<F: FnMut(&Stored) -> Result<Update, Status> + Send> NextState for Changed<'_, F> {
            async fn next(&mut self, current: Option<&Stored>) -> Result<Attempt, Status> {
                let current = current.ok_or_else(|| Status::not_found(&self.1, self.2))?;
                self.0(current).map(Attempt::from)
            }
        }
        self.compare_and_swap(key, name, &mut Changed(change, self.resource(), name)).await
    }

    /// Reads the state, lets `next_state` compute the next one, and writes it. If another writer was faster, starts
    /// again with the newer state.
    ///
    /// # Errors
    /// The error of `next_state`, or 409 if every attempt loses to another writer.
    pub async fn compare_and_swap(
        &self,
        key: &str,
        name: &str,
        next_state: &mut impl NextState,
    ) -> Result<WriteResult, Status> {
        // The cache may lag behind, so its state is valid only once the store confirms it.
        let mut from_cache = true;
        let mut current = match self.cacher.snapshot().get(key) {
            Some(cached) => Some(Stored {
                object: as_object(self.codec.parse_cached(cached)?)?,
                revision: cached.resource_version(),
            }),
            None => None,
        };
        for _ in 0..MAX_UPDATE_ATTEMPTS {
            let outcome = next_state.next(current.as_ref()).await;
            // If nothing is written, no transaction compares the revision, so compare it with the store here.
            let writes_nothing = match &outcome {
                Err(_) | Ok(Attempt { update: Update::NoWrite(_), .. }) => true,
                Ok(Attempt { update: Update::Put(object), .. }) => {
                    current.as_ref().is_some_and(|current| unchanged(object, current.object.as_value()))
                }
                Ok(Attempt { update: Update::Delete(_), .. }) => false,
            };
            if writes_nothing && std::mem::take(&mut from_cache) {
                let latest = self.store.revision(key).await.map_err(|error| store_status(&error))?;
                if latest != current.as_ref().map(|current| current.revision) {
                    let found = self.store.get(key, None).await.map_err(|error| store_status(&error))?;
                    current = self.decode_stored(found, next_state)?;
                    continue;
                }
            }
            let Attempt { update, reservation } = outcome?;
            let (mut object, op) = match (update, &current) {
                (Update::NoWrite(object), _) => {
                    let revision = current.map_or(0, |current| current.revision);
                    let stored = Stored { object: as_object(object)?, revision };
                    return Ok(WriteResult { stored, deleted: false, version: None });
                }
                (Update::Put(_), Some(_)) if writes_nothing && !self.is_stale(key).await? => {
                    let Some(stored) = current else { return Err(Status::internal("no state")) };
                    return Ok(WriteResult { stored, deleted: false, version: None });
                }
                (Update::Put(mut object), _) => {
                    meta::remove(&mut object, "resourceVersion");
                    if !self.codec.takes_field_texts() {
                        managed_fields::expand(&mut object);
                    }
                    let value = self.codec.encode(&object)?;
                    (object, Op::Put { value, ttl: self.ttl() })
                }
                (Update::Delete(object), _) => (object, Op::Delete),
            };
            let key: Arc<str> = Arc::from(key);
            let mut written = self.begin_write(&key, &op, &object);
            let expect = current.map_or(Expect::Absent, |current| Expect::Revision(current.revision));
            let txn = Txn { key: Arc::clone(&key), expect, op };
            let drops_fields = reservation.is_none() && next_state.may_drop_managed_fields();
            let started = Instant::now();
            let mut outcome = self.send(txn, &object, reservation).await;
            next_state.sent(started);
            if drops_fields
                && matches!(outcome, Err(StoreError::TooLarge { .. }))
                && meta::remove(&mut object, "managedFields").is_some()
            {
                let op = Op::Put { value: self.codec.encode(&object)?, ttl: self.ttl() };
                drop(written);
                written = self.begin_write(&key, &op, &object);
                outcome = self.send(Txn { key: Arc::clone(&key), expect, op }, &object, None).await;
            }
            match outcome.map_err(|error| store_status(&error))? {
                TxnOutcome::Committed { revision } => {
                    meta::set(&mut object, "resourceVersion", Value::String(revision.to_string()));
                    let stored = Stored { object: as_object(object)?, revision };
                    let deleted = written.is_none();
                    let version = written.map(|(value, guard)| WrittenVersion {
                        kv: KeyValue { key, value, mod_revision: revision },
                        codec: Arc::clone(&self.codec),
                        _write: guard,
                    });
                    return Ok(WriteResult { stored, deleted, version });
                }
                TxnOutcome::Failed { current: found, .. } => {
                    from_cache = false;
                    current = self.decode_stored(found, next_state)?;
                }
            }
        }
        Err(Status::conflict(
            &self.resource(),
            name,
            "the object was changed by other writers at each attempt; please try again",
        ))
    }

    /// Announces a version to the codec, which then need not decode it. Returns its stored form; `None` for a deletion.
    fn begin_write(&self, key: &Arc<str>, op: &Op, object: &Value) -> Option<(Bytes, WriteGuard)> {
        match op {
            Op::Put { value, .. } => Some((value.clone(), self.codec.begin_write(key, value, object))),
            Op::Delete => None,
        }
    }

    /// Deletes an object that cannot be decoded, if `may_delete` returns true for its revision and, if readable, its
    /// UID. Finalizers are ignored: they cannot be read from such an object, so no controller could remove them.
    ///
    /// # Errors
    /// 404 if the key does not exist, 409 if the object can be decoded, or the error of `may_delete`.
    pub async fn delete_undecodable(
        &self,
        key: &str,
        name: &str,
        may_delete: impl Fn(u64, Option<&str>) -> Result<bool, Status>,
    ) -> Result<(), Status> {
        for _ in 0..MAX_UPDATE_ATTEMPTS {
            let found = self.store.get(key, None).await.map_err(|error| store_status(&error))?;
            let kv = found.ok_or_else(|| Status::not_found(&self.resource(), name))?;
            let Err(error) = self.codec.decode(&kv) else { break };
            if !may_delete(kv.mod_revision, self.codec.uid_of_undecodable(&kv).as_deref())? {
                return Ok(());
            }
            let txn = Txn { key: Arc::from(key), expect: Expect::Revision(kv.mod_revision), op: Op::Delete };
            if let TxnOutcome::Committed { .. } =
                self.store.txn(txn).await.map_err(|error| store_status(&error))?
            {
                tracing::warn!(resource = %self.resource(), key, %error, "undecodable object deleted");
                return Ok(());
            }
        }
        Err(Status::conflict(
            &self.resource(),
            name,
            "the object was changed by another writer; please try again",
        ))
    }

    /// Sends a transaction. A transaction with a reservation runs in a separate task, so that the reservation completes
    /// even if the caller is dropped.
    async fn send(
        &self,
        txn: Txn,
        object: &Value,
        reservation: Option<Box<dyn Reservation>>,
    ) -> Result<TxnOutcome, StoreError> {
        PendingWrites::sent();
        match reservation {
            None => self.store.txn(txn).await,
            Some(reservation) => {
                let object = matches!(txn.op, Op::Put { .. }).then(|| object.clone());
                let (store, codec) = (Arc::clone(&self.store), Arc::clone(&self.codec));
                ReservedTxn { store, codec, txn, object, reservation }.send().await
            }
        }
    }

    /// Decodes an object read from the store.
    fn decode_stored(&self, kv: Option<KeyValue>, write: &impl NextState) -> Result<Option<Stored>, Status> {
        let Some(kv) = kv else { return Ok(None) };
        let object = self.codec.decode(&kv).and_then(as_object);
        let object = object.map_err(|error| write.refuse_undecodable(error))?;
        Ok(Some(Stored { revision: kv.mod_revision, object }))
    }

    async fn is_stale(&self, key: &str) -> Result<bool, Status> {
        self.store.is_stale(key).await.map_err(|error| store_status(&error))
    }

    fn ttl(&self) -> Option<Duration> {
        self.def.storage.as_ref().and_then(|storage| storage.ttl)
    }
}

fn as_object(value: Value) -> Result<Object, Status> {
    Object::try_from(value).map_err(Status::internal)
}

/// Returns whether two states of an object differ only in their resourceVersion.
fn unchanged(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    new.len() == old.len()
        && new.iter().all(|(name, value)| match (name.as_str(), old.get(name)) {
            ("metadata", Some(other)) => same_metadata(value, other),
            (_, other) => other == Some(value),
        })
}

fn same_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let is_compared = |(name, _): &(&String, &Value)| *name != "resourceVersion";
    let (mut new, mut old) = (new.iter().filter(is_compared), old.iter().filter(is_compared));
    let mut pairs = new.by_ref().zip(old.by_ref());
    pairs.all(|((name, new), (other, old))| {
        name == other
            && match name.as_str() {
                "managedFields" => managed_fields::is_same_list(new, old),
                _ => new == old,
            }
    }) && new.next().is_none()
        && old.next().is_none()
}
