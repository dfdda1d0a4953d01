//! The open connections: limits on their number, and the choice of a connection to close in favor of a new one.
//!
//! A connection takes a file descriptor and memory before the server knows its client. Three limits keep one client
//! from using up either: on all connections, on connections without an authenticated request, and on connections from
//! one address. At a limit, the oldest connection without an authenticated request is closed and the new one is
//! accepted. Connections with an authenticated request are never closed in favor of others; if all others have one, the
//! new connection is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Maximum numbers of open connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All connections.
    pub total: usize,
    /// Connections without an authenticated request, including those in the TLS handshake.
    pub unauthenticated: usize,
    /// Connections from one client address. An IPv6 client owns a /64, which counts as one address.
    pub per_address: usize,
}

impl ConnectionLimits {
    /// Returns the limits for a process that may open this many file descriptors. Some descriptors are reserved for the
    /// store, files and calls of webhooks; a third of the others is for [`Self::backends`]. One address may use half of
    /// the connections, which leaves enough for clients behind a proxy or on this machine.
    pub fn for_descriptors(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let reserve = RESERVED_DESCRIPTORS.min(descriptors / 2);
        let free = descriptors - reserve;
        let total = (free - free.div_ceil(3)).clamp(1, MAX_CONNECTIONS);
        Self { total, unauthenticated: total.min(MAX_UNAUTHENTICATED), per_address: total.div_ceil(2) }
    }

    /// Returns the maximum number of connections to kubelets, pods and services: half of the clients' connections,
    /// because requests that share an HTTP/2 connection have one each.
    pub fn backends(&self) -> usize {
        (self.total / 2).max(1)
    }
}

/// The open connections.
pub(super) struct Connections {
    limits: ConnectionLimits,
    table: Mutex<Table>,
    /// Notified when a connection is closed.
    closed: Notify,
}

/// An open connection, counted until the slot is dropped together with the socket.
pub(super) struct Slot {
    pub(super) id: u64,
    /// Cancelled to close the connection immediately.
    pub(super) close: CancellationToken,
    connections: Arc<Connections>,
}

#[derive(Default)]
struct Table {
    next_id: u64,
    connections: BTreeMap<u64, (IpAddr, CancellationToken)>,
    all: Group,
    addresses: HashMap<IpAddr, Group>,
}

/// Counts of a set of connections: all of them, or those from one address.
#[derive(Default)]
struct Group {
    open: usize,
    /// Connections without an authenticated request, oldest first.
    unauthenticated: BTreeSet<u64>,
    /// Connections that are being closed but are still open.
    closing: BTreeSet<u64>,
}

/// The result of a request for a new connection.
enum Capacity<T = ()> {
    Available(T),
    /// A connection is being closed, which will free capacity.
    AfterClose,
    /// All connections have an authenticated request, so none may be closed.
    Full,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, table: Mutex::default(), closed: Notify::new() })
    }

    /// Counts a connection from `peer`. At a limit, closes another connection first. Returns `None` if the new
    /// connection must be refused.
    pub(super) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let address = client_address(peer);
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            match self.try_admit(address) {
                Capacity::Available((id, close)) => {
                    return Some(Slot { id, close, connections: Arc::clone(self) });
                }
                Capacity::AfterClose => closed.await,
                Capacity::Full => return None,
            }
        }
    }

    fn try_admit(&self, address: IpAddr) -> Capacity<(u64, CancellationToken)> {
        let mut table = self.table.lock();
        match table.admit_one(address, self.limits) {
            Capacity::Available(()) => Capacity::Available(table.open(address)),
            Capacity::AfterClose => Capacity::AfterClose,
            Capacity::Full => Capacity::Full,
        }
    }

    /// Closes the oldest connection without an authenticated request, because the process is out of file descriptors.
    pub(super) fn close_oldest(&self) {
        let mut table = self.table.lock();
        if let Some(&oldest) = table.all.unauthenticated.first() {
            table.start_closing(oldest);
        }
    }

    /// Protects a connection from being closed in favor of others.
    pub(super) fn authenticated(&self, id: u64) {
        self.table.lock().in_groups(id, |group| {
            group.unauthenticated.remove(&id);
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.table.lock().closed(self.id);
        self.connections.closed.notify_waiters();
    }
}

impl Table {
    /// Checks for capacity. At a limit, starts to close a connection.
    fn admit_one(&mut self, address: IpAddr, limits: ConnectionLimits) -> Capacity {
        let of_address = self.addresses.get(&address);
        let full = if let Some(group) = of_address.filter(|group| group.open >= limits.per_address) {
            group
        } else if self.all.open >= limits.total || self.all.unauthenticated.len() >= limits.unauthenticated {
            &self.all
        } else {
            return Capacity::Available(());
        };
        if !full.closing.is_empty() {
            return Capacity::AfterClose;
        }
        let Some(&oldest) = full.unauthenticated.first() else { return Capacity::Full };
        self.start_closing(oldest);
        Capacity::AfterClose
    }

    fn open(&mut self, address: IpAddr) -> (u64, CancellationToken) {
        let (id, close) = (self.next_id, CancellationToken::new());
        self.next_id += 1;
        self.connections.insert(id, (address, close.clone()));
        self.addresses.entry(address).or_default();
        self.in_groups(id, |group| {
            group.open += 1;
            group.unauthenticated.insert(id);
        });
        (id, close)
    }

    fn start_closing(&mut self, id: u64) {
        if let Some((_, close)) = self.connections.get(&id) {
            close.cancel();
        }
        self.in_groups(id, |group| {
            group.unauthenticated.remove(&id);
            group.closing.insert(id);
        });
    }

    fn closed(&mut self, id: u64) {
        self.in_groups(id, |group| {
            group.open -= 1;
            group.unauthenticated.remove(&id);
            group.closing.remove(&id);
        });
        if let Some((address, _)) = self.connections.remove(&id)
            && self.addresses.get(&address).is_some_and(|group| group.open == 0)
        {
            self.addresses.remove(&address);
        }
    }

    /// Calls `change` for both groups of a connection: all connections, and those from its address.
    fn in_groups(&mut self, id: u64, change: impl Fn(&mut Group)) {
        let Some((address, _)) = self.connections.get(&id) else { return };
        change(&mut self.all);
        if let Some(group) = self.addresses.get_mut(address) {
            change(group);
        }
    }
}

/// Returns the address by which a client's connections are counted.
fn client_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// File descriptors reserved for the store, files, listeners and calls of webhooks.
const RESERVED_DESCRIPTORS: usize = 256;
/// Maximum number of connections for any limit on file descriptors, because connections take memory too.
const MAX_CONNECTIONS: usize = 65_536;
/// Maximum number of connections without an authenticated request. Each may hold buffers of a TLS handshake and a
/// request head.
const MAX_UNAUTHENTICATED: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 6, unauthenticated: 4, per_address: 3 };

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    /// Admits a connection when no limit is reached.
    fn open(connections: &Arc<Connections>, last: u8) -> Slot {
        connections.admit(address(last)).now_or_never().unwrap().unwrap()
    }

    /// Checks that a connection from the address is admitted once `victim` is closed.
    async fn replaces(connections: &Arc<Connections>, last: u8, victim: Slot) -> Slot {
        let mut admitted = pin!(connections.admit(address(last)));
        assert!(admitted.as_mut().now_or_never().is_none(), "no limit was reached");
        assert!(victim.close.is_cancelled(), "another connection must close");
        drop(victim);
        admitted.await.unwrap()
    }

    #[tokio::test]
    async fn closes_the_oldest_unauthenticated_connection_of_a_full_address() {
        let connections = Connections::new(LIMITS);
        let other = open(&connections, 2);
        let [first, second, third] = [1; 3].map(|last| open(&connections, last));
        connections.authenticated(first.id);
        let _fourth = replaces(&connections, 1, second).await;
        let _fifth = replaces(&connections, 1, third).await;
        assert!(!first.close.is_cancelled() && !other.close.is_cancelled());
    }

    #[tokio::test]
    async fn closes_the_oldest_connection_of_too_many_unauthenticated_ones() {
        let connections = Connections::new(LIMITS);
        let [first, _second, _third, _fourth] = [1, 2, 3, 4].map(|last| open(&connections, last));
        replaces(&connections, 5, first).await;
    }

    #[tokio::test]
    async fn refuses_a_connection_if_all_others_are_authenticated() {
        let connections = Connections::new(LIMITS);
        let mut all = Vec::new();
        for last in [1, 1, 1, 2, 2, 2] {
            let slot = open(&connections, last);
            connections.authenticated(slot.id);
            all.push(slot);
        }
        for last in [1, 3] {
            assert!(connections.admit(address(last)).now_or_never().unwrap().is_none());
        }
        all.pop();
        open(&connections, 3);
        assert!(all.iter().all(|slot| !slot.close.is_cancelled()));
    }

    #[tokio::test]
    async fn closed_connections_are_not_counted() {
        let connections = Connections::new(LIMITS);
        for last in 1..=9 {
            drop(open(&connections, last));
        }
        let table = connections.table.lock();
        assert_eq!((table.all.open, table.connections.len(), table.addresses.len()), (0, 0, 0));
        assert!(table.all.unauthenticated.is_empty() && table.all.closing.is_empty());
    }

    #[test]
    fn reserves_descriptors_under_every_limit() {
        for descriptors in [0, 1, 2, 64, 256, 1024, 4096, 1 << 20, u64::MAX] {
            let limits = ConnectionLimits::for_descriptors(descriptors);
            assert!(limits.total >= 1 && limits.per_address >= 1 && limits.unauthenticated >= 1);
            let all = (limits.total + limits.backends()) as u64;
            assert!(all <= descriptors.div_ceil(2).max(2).max(descriptors.saturating_sub(256)), "{all}");
            assert!(limits.unauthenticated <= limits.total && limits.per_address <= limits.total);
        }
        let limits = ConnectionLimits::for_descriptors(1024);
        assert_eq!(limits, ConnectionLimits { total: 512, unauthenticated: 512, per_address: 256 });
        assert_eq!(limits.backends(), 256);
    }

    #[test]
    fn counts_an_ipv6_network_as_one_address() {
        let same = |one: &str, other: &str| {
            client_address(one.parse().unwrap()) == client_address(other.parse().unwrap())
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
