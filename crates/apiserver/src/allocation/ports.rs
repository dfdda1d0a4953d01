//! Node ports, stored as a `RangeAllocation` as in kube-apiserver (upstream:
//! `pkg/registry/core/service/portallocator`).
//!
//! Each server queues its changes: changes that arrive during a transaction share the next transaction. The store
//! compares revisions, so servers that share a store never allocate the same port twice.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nave_codec::protobuf;
use nave_machinery::{Map, Status, Value};
use nave_store::{Expect, KeyValue, Store, StoreError, Txn, TxnOutcome};
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::bitmap::Bitmap;
use super::error::PortError;
use super::node_ports::Wanted;
use crate::storage::store_status;

/// Storage key of the `RangeAllocation`.
pub(super) const KEY: &str = "/registry/ranges/servicenodeports";
/// Maximum number of attempts of a change when other servers conflict.
const MAX_ATTEMPTS: usize = 32;
/// The first port in responses to dry runs, as upstream.
const DRY_RUN_PORT: u16 = 32_769;

/// Allocates node ports.
pub(super) struct Ports {
    store: Arc<dyn Store>,
    range: RangeInclusive<u16>,
    /// Runs tasks that must complete even if the request is dropped.
    runtime: Handle,
    state: Mutex<State>,
    /// The number of ports in use, as last read or written.
    used: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: Vec<Change>,
    is_served: bool,
    /// The object as last read or written, if known.
    known: Option<StoredPorts>,
}

/// A change of the ports in use.
enum Change {
    Claim { wanted: Vec<Wanted>, reply: oneshot::Sender<Result<PortClaim, ClaimError>> },
    Release { ports: Vec<u16>, done: Option<oneshot::Sender<()>> },
}

/// The index of the failed port, and the error.
pub(super) type ClaimError = (usize, PortError);

/// The ports claimed by a write attempt. Dropping the claim releases them.
pub(super) struct PortClaim {
    allocator: Arc<Ports>,
    claimed: Vec<u16>,
}

/// The stored object.
#[derive(Clone, Debug)]
pub(super) struct StoredPorts {
    /// The revision; 0 if the object does not exist.
    pub(super) revision: u64,
    /// The range as text, such as `30000-32767`.
    pub(super) range: String,
    pub(super) bitmap: Bitmap,
    /// The whole object, including fields that this server does not use.
    object: Value,
}

impl Ports {
    pub(super) fn new(store: Arc<dyn Store>, range: RangeInclusive<u16>, runtime: Handle) -> Self {
        Self { store, range, runtime, state: Mutex::default(), used: AtomicUsize::new(0) }
    }

    /// Claims all ports of `wanted`, or none of them. The claim has the order of `wanted`.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub(super) async fn claim(self: &Arc<Self>, wanted: Vec<Wanted>) -> Result<PortClaim, ClaimError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Change::Claim { wanted, reply });
        answer.await.unwrap_or_else(|_| Err((0, store_status(&StoreError::Closed).into())))
    }

    /// Returns the ports for the response to a dry run, without claiming them.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub(super) fn check_claim(&self, wanted: &[Wanted]) -> Result<Vec<u16>, ClaimError> {
        let mut bitmap = match &self.state.lock().known {
            Some(known) => known.bitmap.clone(),
            None => self.empty(),
        };
        let mut claimed: Vec<u16> = Vec::with_capacity(wanted.len());
        for (index, wanted) in wanted.iter().enumerate() {
            claimed.push(match wanted {
                Wanted::Number(_) => self.take(&mut bitmap, *wanted).map_err(|error| (index, error))?,
                Wanted::Any => claimed.iter().max().map_or(DRY_RUN_PORT, |last| last.saturating_add(1)),
            });
        }
        Ok(claimed)
    }

    /// Releases ports and waits until they are released.
    pub(super) async fn release(self: &Arc<Self>, ports: Vec<u16>) {
        if ports.is_empty() {
            return;
        }
        let (done, freed) = oneshot::channel();
        self.enqueue(Change::Release { ports, done: Some(done) });
        // An error means that the server is shutting down; the repair releases the ports after the next start.
        let _ = freed.await;
    }

    /// Reads the stored allocation.
    ///
    /// # Errors
    /// The error of the store.
    pub(super) async fn read(&self) -> Result<StoredPorts, Status> {
        let found = self.store.get(KEY, None).await.map_err(|error| store_status(&error))?;
        self.parse(found.as_ref())
    }

    /// Replaces the allocation in `read` with a bitmap of this server's range. Returns false if another writer was
    /// faster.
    ///
    /// # Errors
    /// The error of the store.
    pub(super) async fn replace(&self, read: &StoredPorts, bitmap: &Bitmap) -> Result<bool, Status> {
        match self.write(read, bitmap).await {
            Ok(TxnOutcome::Committed { revision, .. }) => {
                let written = StoredPorts {
                    revision,
                    bitmap: bitmap.clone(),
                    range: self.range_text(),
                    ..read.clone()
                };
                self.state.lock().known = Some(written);
                Ok(true)
            }
            Ok(TxnOutcome::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the number of ports in use, as last read or written, and that of all ports.
    pub(super) fn used(&self) -> (i64, i64) {
        let number = |ports: usize| i64::try_from(ports).unwrap_or(i64::MAX);
        (number(self.used.load(Ordering::Relaxed)), number(self.size()))
    }

    /// Returns an empty bitmap of this server's range.
    pub(super) fn empty(&self) -> Bitmap {
        Bitmap::new(self.size())
    }

    /// Returns the range as text.
    pub(super) fn range_text(&self) -> String {
        format!("{}-{}", self.range.start(), self.range.end())
    }

    /// Returns the offset of a port in the bitmap; `None` if it is out of range.
    pub(super) fn offset(&self, port: u16) -> Option<usize> {
        self.range.contains(&port).then(|| usize::from(port - self.range.start()))
    }

    /// Returns the port at an offset of the bitmap.
    pub(super) fn port(&self, offset: usize) -> u16 {
        u16::try_from(offset).map_or(u16::MAX, |offset| self.range.start().saturating_add(offset))
    }

    fn enqueue(self: &Arc<Self>, change: Change) {
        let mut state = self.state.lock();
        state.queue.push(change);
        if !std::mem::replace(&mut state.is_served, true) {
            self.runtime.spawn(Arc::clone(self).serve());
        }
    }

    /// Applies queued changes until the queue is empty.
    async fn serve(self: Arc<Self>) {
        loop {
            let (changes, known) = {
                let mut state = self.state.lock();
                if state.queue.is_empty() {
                    state.is_served = false;
                    return;
                }
                (std::mem::take(&mut state.queue), state.known.clone())
            };
            let known = self.apply(changes, known).await;
            self.state.lock().known = known;
        }
    }

    /// Applies changes in one transaction. Returns the new state of the object, if it is known.
    async fn apply(
        self: &Arc<Self>,
        changes: Vec<Change>,
        known: Option<StoredPorts>,
    ) -> Option<StoredPorts> {
        let mut known = known;
        // True if the state comes from the store in this call. A cached state may be outdated if other servers allocate
        // too.
        let mut is_fresh = false;
        for _ in 0..MAX_ATTEMPTS {
            let current = match known.take() {
                Some(current) => current,
                None => match self.read().await {
                    Ok(current) => {
                        is_fresh = true;
                        current
                    }
                    Err(status) => return give_up(changes, &status),
                },
            };
            if let Some(error) = self.unusable(&current) {
                if !is_fresh {
                    continue;
                }
                refuse(changes, &error);
                return None;
            }
            let mut bitmap = current.bitmap.clone();
            let outcomes: Vec<_> = changes.iter().map(|change| self.change(&mut bitmap, change)).collect();
            if !is_fresh && outcomes.iter().any(Result::is_err) {
                continue;
            }
            if bitmap == current.bitmap {
                // Another server may have claimed a port that is released here.
                if !is_fresh {
                    continue;
                }
                self.answer(changes, outcomes);
                return Some(current);
            }
            match self.write(&current, &bitmap).await {
                Ok(TxnOutcome::Committed { revision, .. }) => {
                    self.answer(changes, outcomes);
                    return Some(StoredPorts { revision, bitmap, ..current });
                }
                Ok(TxnOutcome::Failed { current, .. }) => {
                    is_fresh = true;
                    known = self.parse(current.as_ref()).ok();
                }
                // The outcome is unknown. The changes must not be reverted, because other services may use the ports by
                // then; the repair finds leaked ports.
                Err(status) => return give_up(changes, &status),
            }
        }
        let status = Status::service_unavailable("other servers changed the node ports at each attempt");
        give_up(changes, &status)
    }

    /// Applies one change. A failed claim leaves the bitmap unchanged.
    fn change(&self, bitmap: &mut Bitmap, change: &Change) -> Result<Vec<u16>, ClaimError> {
        let wanted = match change {
            Change::Release { ports, .. } => {
                ports.iter().filter_map(|port| self.offset(*port)).for_each(|offset| bitmap.clear(offset));
                return Ok(Vec::new());
            }
            Change::Claim { wanted, .. } => wanted,
        };
        let mut claimed = Vec::with_capacity(wanted.len());
        for (index, wanted) in wanted.iter().enumerate() {
            match self.take(bitmap, *wanted) {
                Ok(port) => claimed.push(port),
                Err(error) => {
                    let offsets = claimed.iter().filter_map(|port| self.offset(*port));
                    offsets.for_each(|offset| bitmap.clear(offset));
                    return Err((index, error));
                }
            }
        }
        Ok(claimed)
    }

    fn take(&self, bitmap: &mut Bitmap, wanted: Wanted) -> Result<u16, PortError> {
        let Wanted::Number(number) = wanted else {
            return bitmap.set_any().map(|offset| self.port(offset)).ok_or(PortError::Full);
        };
        let out_of_range = || PortError::OutOfRange(self.range_text());
        let port = u16::try_from(number).map_err(|_| out_of_range())?;
        let offset = self.offset(port).ok_or_else(out_of_range)?;
        if bitmap.set(offset) { Ok(port) } else { Err(PortError::Allocated) }
    }

    fn answer(self: &Arc<Self>, changes: Vec<Change>, outcomes: Vec<Result<Vec<u16>, ClaimError>>) {
        for (change, outcome) in changes.into_iter().zip(outcomes) {
            match change {
                Change::Claim { reply, .. } => {
                    let claim = outcome.map(|claimed| PortClaim { allocator: Arc::clone(self), claimed });
                    // If the caller was dropped, dropping the claim releases its ports.
                    let _ = reply.send(claim);
                }
                Change::Release { done, .. } => notify(done),
            }
        }
    }

    /// Returns the error if no ports can be allocated from the stored object. Only the repair changes the stored range.
    fn unusable(&self, stored: &StoredPorts) -> Option<PortError> {
        match stored.revision {
            0 => Some(PortError::NotReady),
            _ if stored.range != self.range_text() => Some(PortError::MismatchedRange),
            _ => None,
        }
    }

    async fn write(&self, read: &StoredPorts, bitmap: &Bitmap) -> Result<TxnOutcome, Status> {
        let mut object = read.object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.insert("range".to_owned(), self.range_text().into());
            fields.insert("data".to_owned(), BASE64.encode(bitmap.to_bytes()).into());
        }
        let expect = if read.revision == 0 { Expect::Absent } else { Expect::Revision(read.revision) };
        let txn = Txn::put(KEY, encode(&object)?).expecting(expect);
        let outcome = self.store.txn(txn).await.map_err(|error| store_status(&error))?;
        if matches!(outcome, TxnOutcome::Committed { .. }) {
            self.used.store(bitmap.count(), Ordering::Relaxed);
        }
        Ok(outcome)
    }

    fn parse(&self, kv: Option<&KeyValue>) -> Result<StoredPorts, Status> {
        let Some(kv) = kv else {
            let (range, object) = (String::new(), json!({"metadata": {}}));
            return Ok(StoredPorts { revision: 0, range, bitmap: self.empty(), object });
        };
        let object = decode(kv)?;
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let bytes = BASE64.decode(text("data")).map_err(Status::internal)?;
        let range = text("range").to_owned();
        let size = if range == self.range_text() { self.size() } else { bytes.len() * 8 };
        let bitmap = Bitmap::from_bytes(size, &bytes);
        self.used.store(bitmap.count(), Ordering::Relaxed);
        Ok(StoredPorts { revision: kv.mod_revision, range, bitmap, object })
    }

    fn size(&self) -> usize {
        usize::from(*self.range.end()) + 1 - usize::from(*self.range.start())
    }
}

impl PortClaim {
    /// Returns the claimed ports, in the order of the request.
    pub(super) fn ports(&self) -> &[u16] {
        &self.claimed
    }

    /// Makes the claim of the ports in `kept` permanent. Returns the other ports, which the caller must release.
    pub(super) fn keep(mut self, kept: &[u16]) -> Vec<u16> {
        let mut claimed = std::mem::take(&mut self.claimed);
        claimed.retain(|port| !kept.contains(port));
        claimed
    }
}

impl Drop for PortClaim {
    fn drop(&mut self) {
        let ports = std::mem::take(&mut self.claimed);
        if !ports.is_empty() {
            self.allocator.enqueue(Change::Release { ports, done: None });
        }
    }
}

/// Fails changes whose outcome is unknown. Returns `None`, because the state of the object is unknown too.
fn give_up(changes: Vec<Change>, status: &Status) -> Option<StoredPorts> {
    tracing::warn!(%status, "node ports cannot be changed; the repair will free leaked ports");
    refuse(changes, &PortError::Store(status.clone()));
    None
}

fn refuse(changes: Vec<Change>, error: &PortError) {
    for change in changes {
        match change {
            // The caller may have been dropped.
            Change::Claim { reply, .. } => drop(reply.send(Err((0, error.clone())))),
            Change::Release { done, .. } => notify(done),
        }
    }
}

fn notify(done: Option<oneshot::Sender<()>>) {
    if let Some(done) = done {
        // The caller may have been dropped.
        let _ = done.send(());
    }
}

fn encode(object: &Value) -> Result<Vec<u8>, Status> {
    let set = nave_schema::builtin();
    let type_id = set.find(TYPE).ok_or_else(|| Status::internal("unknown type"))?;
    let mut message = Vec::new();
    protobuf::encode(set, type_id, object, &mut message).map_err(Status::internal)?;
    Ok(protobuf::envelope::wrap("v1", "RangeAllocation", &message))
}

fn decode(kv: &KeyValue) -> Result<Value, Status> {
    let set = nave_schema::builtin();
    let type_id = set.find(TYPE).ok_or_else(|| Status::internal("unknown type"))?;
    let message = protobuf::envelope::unwrap(&kv.value).map_err(Status::internal)?.raw;
    let object = protobuf::decode_stored(set, type_id, message).map_err(Status::internal)?;
    Ok(if object.is_object() { object } else { Value::Object(Map::new()) })
}

/// The type of the object.
const TYPE: &str = "io.k8s.api.core.v1.RangeAllocation";
