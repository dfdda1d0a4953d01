//! The members of the cluster that serve clients: connections, failover, and which requests are sent again.
//!
//! All requests go to one member until it fails; then the next one is preferred. A request that was not sent is sent to
//! the next member, because it had no effect. After it was sent, only a read is repeated. Watches have connections of
//! their own, so that neither their number nor their volume delays other requests.
//!
//! A member can stop without closing its connections (a stopped process, a lost network). While a request waits for its
//! answer, the member is asked for its status, which every working member answers at once. Without this answer, all
//! connections to the member are given up, so that its requests fail and its watches resume at another member.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{Instant, timeout, timeout_at};

use super::STATUS;
use super::address::Address;
use super::dial::Dialer;
use super::error::{CallFailure, Disposition, Refusal};
use super::tls::TlsFiles;
use crate::StoreError;
use crate::etcdserverpb as m;
use crate::grpc::{CallError, Connection};

/// The members of the cluster.
pub(super) struct Endpoints {
    endpoints: Vec<Endpoint>,
    /// Index of the member that requests are sent to.
    preferred: AtomicUsize,
}

/// The effect of a request, which decides whether it can be repeated after it was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The request changes nothing that a repetition would not.
    Read,
    /// A repetition could apply the request twice.
    Write,
}

/// One member.
pub(super) struct Endpoint {
    address: Address,
    tls: Arc<TlsFiles>,
    dialer: Dialer,
    requests: Slot,
    watches: Mutex<Vec<Arc<Slot>>>,
    /// Held while the member is asked for its status.
    probing: tokio::sync::Mutex<()>,
}

/// A connection that is opened when it is needed.
#[derive(Default)]
struct Slot {
    connection: Mutex<Option<Connection>>,
    opening: tokio::sync::Mutex<()>,
}

/// A place on a connection for watches. The number of clones counts the watches of the connection.
#[derive(Clone)]
pub(super) struct WatchSlot(Arc<Slot>);

impl Endpoints {
    pub(super) fn new(addresses: Vec<Address>, tls: &Arc<TlsFiles>, dialer: &Dialer) -> Self {
        let endpoint = |address| Endpoint {
            address,
            tls: Arc::clone(tls),
            dialer: dialer.clone(),
            requests: Slot::default(),
            watches: Mutex::default(),
            probing: tokio::sync::Mutex::default(),
        };
        Self { endpoints: addresses.into_iter().map(endpoint).collect(), preferred: AtomicUsize::new(0) }
    }

    pub(super) fn all(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Sends a request to the preferred member, or to the next ones if it fails.
    pub(super) async fn call<Out: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        effect: Effect,
    ) -> Result<Out, Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        let mut tried = 0;
        loop {
            let index = self.preferred.load(Ordering::Relaxed);
            let Some(endpoint) = self.endpoints.get(index) else { return Err(StoreError::Closed.into()) };
            let failure = match endpoint.call(method, request).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let disposition = failure.disposition();
            if disposition == Disposition::Answered {
                return Err(failure.into_refusal());
            }
            self.demote(index, &failure);
            if disposition == Disposition::Unknown && effect == Effect::Write {
                return Err(StoreError::OutcomeUnknown(failure.to_string().into()).into());
            }
            tried += 1;
            if Instant::now() >= deadline && tried >= self.endpoints.len() {
                return Err(StoreError::Unavailable(failure.to_string().into()).into());
            }
            // Waits only after all members have failed.
            if tried % self.endpoints.len() == 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }

    /// Returns a member that can be connected to for a watch, with the place on its connection.
    pub(super) async fn connect_for_watch(
        &self,
    ) -> Result<(usize, &Endpoint, WatchSlot, Connection), StoreError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed = None;
        for offset in 0..self.endpoints.len() {
            let index = (first + offset) % self.endpoints.len();
            let Some(endpoint) = self.endpoints.get(index) else { continue };
            let slot = endpoint.watch_slot();
            match endpoint.connect(&slot.0).await {
                Ok(connection) => return Ok((index, endpoint, slot, connection)),
                Err(failure) => {
                    self.demote(index, &failure);
                    failed = Some(failure);
                }
            }
        }
        let why = failed.map(|failure| StoreError::Unavailable(failure.to_string().into()));
        Err(why.unwrap_or(StoreError::Closed))
    }

    /// Prefers the member after a failed one.
    pub(super) fn demote(&self, failed: usize, why: &CallFailure) {
        let next = (failed + 1) % self.endpoints.len();
        let ordering = Ordering::Relaxed;
        let is_changed = self.preferred.compare_exchange(failed, next, ordering, ordering).is_ok();
        if let (true, Some(endpoint)) = (is_changed, self.endpoints.get(failed)) {
            tracing::debug!(endpoint = %endpoint.address, error = %why, "etcd request failed");
        }
    }
}

impl Endpoint {
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request to this member.
    pub(super) async fn call<Out: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Out, CallFailure> {
        let connection = self.connection().await?;
        let answer = tokio::select! {
            answer = timeout(ANSWER_TIMEOUT, connection.call(method, request)) => answer.ok(),
            () = self.stops(&connection) => None,
        };
        let answer = answer.unwrap_or_else(|| Err(CallError::Broken(NO_ANSWER.into())));
        answer.map_err(|error| CallFailure::new(&self.address, error))
    }

    /// Waits until the member no longer answers. Then its connections are given up.
    async fn stops(&self, connection: &Connection) {
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            // One of the waiting requests asks; its result ends the others.
            let Ok(_probing) = self.probing.try_lock() else { continue };
            let status = connection.call::<m::StatusResponse>(STATUS, &m::StatusRequest {});
            if timeout(PROBE_TIMEOUT, status).await.is_err() {
                self.abandon();
                return;
            }
        }
    }

    fn abandon(&self) {
        let watches = self.watches.lock().clone();
        for slot in watches.iter().map(|slot| &**slot).chain([&self.requests]) {
            if let Some(connection) = slot.current() {
                connection.abandon();
            }
        }
    }

    /// Returns the connection for requests.
    pub(super) async fn connection(&self) -> Result<Connection, CallFailure> {
        self.connect(&self.requests).await
    }

    /// Returns a connection's place with fewer watches than a server accepts by default.
    fn watch_slot(&self) -> WatchSlot {
        let mut slots = self.watches.lock();
        // Without watches, only the vector has a reference.
        let free = slots.iter().find(|slot| Arc::strong_count(slot) <= WATCHES_PER_CONNECTION);
        if let Some(slot) = free {
            return WatchSlot(Arc::clone(slot));
        }
        let slot = Arc::new(Slot::default());
        slots.push(Arc::clone(&slot));
        WatchSlot(slot)
    }

    async fn connect(&self, slot: &Slot) -> Result<Connection, CallFailure> {
        if let Some(connection) = slot.current() {
            return Ok(connection);
        }
        let failed = |why: String| CallFailure::new(&self.address, CallError::NotSent(why));
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let opening = async {
            // Only one caller opens the connection; the others wait for it.
            let _opening = slot.opening.lock().await;
            if let Some(connection) = slot.current() {
                return Ok(connection);
            }
            let connection = self.open().await?;
            *slot.connection.lock() = Some(connection.clone());
            Ok(connection)
        };
        match timeout_at(deadline, opening).await {
            Ok(opened) => opened.map_err(failed),
            Err(_) => Err(failed("no connection within the time limit".to_owned())),
        }
    }

    async fn open(&self) -> Result<Connection, String> {
        let Address { host, port, .. } = &self.address;
        let stream = self.dialer.connect(host, *port).await?;
        let origin = self.address.to_string();
        if !self.address.is_tls {
            return Connection::open(TokioIo::new(stream), origin).await;
        }
        let stream = self.tls.connect(host, stream).await?;
        Connection::open(TokioIo::new(stream), origin).await
    }
}

impl Slot {
    fn current(&self) -> Option<Connection> {
        self.connection.lock().clone().filter(|connection| !connection.is_closed())
    }
}

const NO_ANSWER: &str = "no answer within the time limit";
/// Time after which a request that no member accepts fails. Bridges the restart of a single member.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than etcd waits for its cluster to agree: 5 s and two elections of 1 s by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval at which a member that has not answered a request is asked for its status.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// etcd before 3.5.9 accepts 250 streams per connection with TLS.
const WATCHES_PER_CONNECTION: usize = 100;
