//! Peers: the other API servers of a cluster. A request for a resource that this server does not serve, and a peer of
//! another version does, is passed on to the peer (upstream: `UnknownVersionInteroperabilityProxy`, KEP-4020).
//!
//! ```text
//! identity leases, addresses in the store ─every 5 s─► directory ─┬─► proxy      requests for resources of peers
//!                                 documents of the peers ─────────┴─► discovery  the merged document at /apis
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `addresses` | the keys in which servers announce their addresses |
//! | `directory` | the known peers and their resources |
//! | `documents` | the discovery documents of a peer |
//! | `exclusions` | versions that are never passed on: those of custom resources and aggregated servers |
//! | `merge`, `discovery` | the merged discovery document |
//! | `proxy` | requests that are passed on |
//!
//! Invariants: a request is passed on at most once, because it then has a header with which every server serves it
//! itself. It was authenticated and authorized here, names its user in headers that only this server writes, and is
//! authorized again by the peer. A peer is believed only if its certificate is signed by `--peer-ca-file`. Its documents,
//! the number of peers, and the requests in flight to each have limits. A server without `--peer-ca-file` passes nothing
//! on.

pub(crate) mod addresses;
mod directory;
mod discovery;
mod documents;
mod exclusions;
mod merge;
mod metrics;
mod proxy;

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::Body;
use nave_machinery::{GroupVersionResource, Status};
use nave_webhook::{AddressPolicy, BackendDialer, BackendTls, Egress};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use self::directory::Peer;
use self::discovery::MergedDiscovery;
use self::exclusions::Exclusions;
use self::metrics::PeerMetrics;
use crate::aggregated_discovery::Document;
use crate::aggregator::Aggregator;
use crate::body::{BodyError, ResponseBody};
use crate::catalog::Catalog;
use crate::connect::backends::Backends;
use crate::connect::pool::Pool;
use crate::context::RequestContext;
use crate::endpoints::Resources;

/// The header of a request that a peer has passed on.
const PEER_PROXIED: HeaderName = HeaderName::from_static("x-kubernetes-peer-proxied");
/// The name in the certificates of peers.
pub const SERVER_NAME: &str = "kubernetes.default.svc";
/// Upstream's checks of the start of this feature.
pub(crate) const START_CHECKS: [&str; 3] = [
    "poststarthook/local-discovery-cache-sync",
    "poststarthook/mixed-version-proxy-handler",
    "poststarthook/peer-discovery-workers",
];
/// Interval in which peers are looked up.
const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of peers.
const MAX_PEERS: usize = 32;
/// Maximum number of requests in flight to a peer, besides watches.
const REQUESTS: usize = 200;

/// The settings of a server among its peers.
#[derive(Clone, Debug, Default)]
pub struct PeerConfig {
    /// The address for peers, which the server announces in the store; `None` to announce none.
    pub announced: Option<SocketAddr>,
    /// The address in the identity lease, if it is not the advertised one (`--peer-advertise-ip`).
    pub advertise: Option<SocketAddr>,
    /// TLS to peers, which may change at run time; `None` to pass on no requests.
    pub tls: Option<watch::Receiver<Arc<BackendTls>>>,
    /// The way to peers.
    pub egress: Egress,
}

/// The peers of a server.
pub struct Peers {
    /// The name of this server's identity lease.
    id: String,
    backends: Arc<Backends>,
    dialer: BackendDialer,
    tls: watch::Receiver<Arc<BackendTls>>,
    /// Connections with the latest configuration of TLS.
    transport: ArcSwapOption<Transport>,
    known: ArcSwap<Vec<Arc<Peer>>>,
    exclusions: Exclusions,
    merged: MergedDiscovery,
    /// The peers whose documents could not be read the last time.
    failing: Mutex<HashSet<String>>,
    /// Distributes requests among the peers that serve a resource.
    turns: AtomicUsize,
    metrics: PeerMetrics,
}

/// Connections with one configuration of TLS.
struct Transport {
    tls: Arc<BackendTls>,
    pool: Pool,
}

/// A request for a resource that peers serve.
pub(crate) struct PeerRoute {
    resource: GroupVersionResource,
    /// The peers, never empty.
    peers: Vec<Arc<Peer>>,
}

impl Peers {
    /// Creates the peers of the server with this identity. None is known yet.
    ///
    /// # Errors
    /// A metric is already registered.
    pub(crate) fn new(
        id: String,
        tls: watch::Receiver<Arc<BackendTls>>,
        egress: Egress,
        backends: Arc<Backends>,
        metrics: &prometheus::Registry,
    ) -> Result<Self, prometheus::Error> {
        // Only API servers write the addresses of peers, which may be on this machine.
        let (policy, timeout) = (AddressPolicy::Unicast, backends.dialer.timeout);
        let dialer = BackendDialer { policy, timeout, egress };
        Ok(Self {
            id,
            backends,
            dialer,
            tls,
            transport: ArcSwapOption::empty(),
            known: ArcSwap::default(),
            exclusions: Exclusions::default(),
            merged: MergedDiscovery::default(),
            failing: Mutex::default(),
            turns: AtomicUsize::default(),
            metrics: PeerMetrics::new(metrics)?,
        })
    }

    /// Looks up the peers periodically. Never returns.
    pub(crate) async fn run(&self, resources: &Resources, aggregator: &Aggregator) -> Infallible {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.exclusions.observe(resources.catalog().registry(), &aggregator.services());
            self.refresh(resources).await;
        }
    }

    /// Returns the peers for a request; `None` if this server serves it, or no peer does.
    pub(crate) fn route(
        &self,
        context: &RequestContext,
        headers: &HeaderMap,
        catalog: &Catalog,
    ) -> Option<PeerRoute> {
        let resource = &context.info.resource.as_ref()?.gvr;
        let known = self.known.load();
        if known.is_empty() || catalog.endpoint(resource).is_some() || is_proxied(headers) {
            return None;
        }
        if self.exclusions.contains(&resource.group, &resource.version) {
            return None;
        }
        let peers: Vec<_> = known.iter().filter(|peer| peer.documents.serve(resource)).cloned().collect();
        (!peers.is_empty()).then(|| PeerRoute { resource: resource.clone(), peers })
    }

    /// Passes on a request to one of the peers.
    ///
    /// # Errors
    /// The failures that this server causes: a method that is not passed on, too many requests, a failed upgrade.
    pub(crate) async fn serve<B>(
        &self,
        route: PeerRoute,
        request: &mut Request<B>,
        context: &RequestContext,
    ) -> Result<Response<ResponseBody>, Status>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let response = proxy::serve(self, &route, request, context).await;
        let code = response.as_ref().map_or_else(|status| status.code, |response| response.status().as_u16());
        self.metrics.rerouted(code, Some(&route.resource));
        response
    }

    /// Returns the discovery document at `/apis` with the resources of peers. `own` is that of this server.
    pub(crate) fn discovery(&self, own: Document) -> Document {
        self.merged.get(self, own)
    }

    /// Returns whether the merged document must be made.
    pub(crate) fn must_merge(&self, own: &Document) -> bool {
        !self.known.load().is_empty() && !self.merged.is_made(self, own)
    }

    /// Counts a request for the discovery document of this server alone.
    pub(crate) fn count_own_discovery(&self) {
        self.metrics.own_discovery.inc();
    }

    /// Returns the connections with the current configuration of TLS.
    fn transport(&self) -> Arc<Transport> {
        let tls = Arc::clone(&self.tls.borrow());
        if let Some(transport) = self.transport.load_full()
            && Arc::ptr_eq(&transport.tls, &tls)
        {
            return transport;
        }
        let backends = Arc::clone(&self.backends);
        let pool = Pool::with_dialer(backends, self.dialer.clone(), &tls, REQUESTS);
        let transport = Arc::new(Transport { tls, pool });
        self.transport.store(Some(Arc::clone(&transport)));
        transport
    }

    /// Looks up the peers, and reads the documents of those that are new, have restarted or are due.
    async fn refresh(&self, resources: &Resources) {
        let addresses = match addresses::list(resources).await {
            Ok(addresses) => addresses,
            Err(status) => {
                tracing::warn!(error = status.message, "the addresses of peers cannot be read");
                return;
            }
        };
        let leases = match directory::leases(resources, &self.id) {
            Ok(leases) => leases,
            Err(status) => {
                self.metrics.sync_error("lease_list");
                tracing::warn!(error = status.message, "the identity leases of peers cannot be read");
                return;
            }
        };
        // Leases without an address come last: anyone who may write leases could create them.
        let (mut leases, others): (Vec<_>, Vec<_>) =
            leases.into_iter().partition(|lease| addresses.contains_key(&lease.id));
        leases.extend(others);
        leases.truncate(MAX_PEERS);
        let known = self.known.load_full();
        let updates = leases.iter().map(|lease| {
            let previous = known.iter().find(|peer| peer.id == lease.id);
            self.update(lease, addresses.get(&lease.id).copied(), previous)
        });
        let mut peers: Vec<Arc<Peer>> = join_all(updates).await.into_iter().flatten().collect();
        // In the order of their identities, as upstream merges their documents.
        peers.sort_by(|one, other| one.id.cmp(&other.id));
        self.failing.lock().retain(|id| leases.iter().any(|lease| lease.id == *id));
        let is_same = peers.len() == known.len()
            && peers.iter().zip(known.iter()).all(|(one, other)| Arc::ptr_eq(one, other));
        if !is_same {
            self.known.store(Arc::new(peers));
        }
    }

    /// Returns the current state of a peer; `None` while its documents are unknown.
    async fn update(
        &self,
        lease: &directory::Lease,
        address: Option<SocketAddr>,
        previous: Option<&Arc<Peer>>,
    ) -> Option<Arc<Peer>> {
        if let Some(previous) = previous.filter(|previous| previous.is_current(lease, address)) {
            return Some(Arc::clone(previous));
        }
        let Some(address) = address else {
            let previous = previous?;
            if previous.address.is_none() {
                return Some(Arc::clone(previous));
            }
            self.metrics.sync_error("hostport_resolution");
            tracing::warn!(peer = lease.id, "the peer has left without deleting its identity lease");
            return Some(Arc::new(previous.at(None)));
        };
        match documents::read(self, address).await {
            Ok(documents) => {
                self.failing.lock().remove(&lease.id);
                // The same documents are not merged again.
                let same = previous.map(|previous| &previous.documents).filter(|same| ***same == documents);
                let documents = same.cloned().unwrap_or_else(|| Arc::new(documents));
                let peer = Peer::new(lease, address, documents, previous.map(AsRef::as_ref));
                peer.circuit.close();
                Some(Arc::new(peer))
            }
            Err(error) => {
                self.metrics.sync_error("fetch_discovery");
                if self.failing.lock().insert(lease.id.clone()) {
                    tracing::warn!(peer = lease.id, %address, %error, "the discovery of the peer cannot be read");
                }
                match previous {
                    Some(previous) if previous.address != Some(address) => {
                        Some(Arc::new(previous.at(Some(address))))
                    }
                    previous => previous.cloned(),
                }
            }
        }
    }

    /// Returns a number that differs from that of the previous request.
    fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

/// Returns whether a peer has passed on the request. A client that says so only deprives itself of the peers.
fn is_proxied(headers: &HeaderMap) -> bool {
    headers.get_all(PEER_PROXIED).iter().any(|value| value == "true")
}
