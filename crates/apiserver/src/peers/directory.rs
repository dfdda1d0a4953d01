//! The known peers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nave_machinery::{GroupVersionResource, Status, meta};
use tokio::sync::Semaphore;

use super::REQUESTS;
use super::documents::PeerDocuments;
use crate::aggregator::circuit::Circuit;
use crate::bootstrap::{IDENTITY_LABEL, IDENTITY_NAMESPACE};
use crate::endpoints::Resources;

/// Time after which the documents of a peer are read again. Its resources change when it restarts, and then its lease
/// has another holder.
const REREAD: Duration = Duration::from_mins(5);

/// A peer whose resources are known.
pub(super) struct Peer {
    /// The name of its identity lease.
    pub(super) id: String,
    /// The holder of the lease: a process.
    holder: String,
    /// The address; `None` if it does not run.
    pub(super) address: Option<SocketAddr>,
    /// The resources.
    pub(super) documents: Arc<PeerDocuments>,
    /// Fails requests at once after failures.
    pub(super) circuit: Arc<Circuit>,
    /// Places for requests that are not long-running.
    pub(super) places: Arc<Semaphore>,
    read_at: Instant,
}

/// An identity lease.
pub(super) struct Lease {
    pub(super) id: String,
    holder: String,
}

impl Peer {
    /// Creates a peer whose documents were read. `previous` is its state before.
    pub(super) fn new(
        lease: &Lease,
        address: SocketAddr,
        documents: Arc<PeerDocuments>,
        previous: Option<&Self>,
    ) -> Self {
        Self {
            id: lease.id.clone(),
            holder: lease.holder.clone(),
            address: Some(address),
            documents,
            circuit: previous.map(|peer| Arc::clone(&peer.circuit)).unwrap_or_default(),
            // Requests that are running still count.
            places: previous
                .map_or_else(|| Arc::new(Semaphore::new(REQUESTS)), |peer| Arc::clone(&peer.places)),
            read_at: Instant::now(),
        }
    }

    /// Returns the peer at another address, with the documents that were read before.
    pub(super) fn at(&self, address: Option<SocketAddr>) -> Self {
        Self {
            id: self.id.clone(),
            holder: self.holder.clone(),
            address,
            documents: Arc::clone(&self.documents),
            circuit: Arc::clone(&self.circuit),
            places: Arc::clone(&self.places),
            read_at: self.read_at,
        }
    }

    /// Returns whether the documents need not be read.
    pub(super) fn is_current(&self, lease: &Lease, address: Option<SocketAddr>) -> bool {
        self.holder == lease.holder
            && address.is_some()
            && self.address == address
            && !self.circuit.is_open()
            && self.read_at.elapsed() < REREAD
    }
}

impl PeerDocuments {
    /// Returns whether the peer serves a resource.
    pub(super) fn serve(&self, resource: &GroupVersionResource) -> bool {
        self.resources.contains(resource)
    }
}

/// Returns the identity leases of other servers in the watch cache.
///
/// # Errors
/// A lease cannot be read.
pub(super) fn leases(resources: &Resources, own: &str) -> Result<Vec<Lease>, Status> {
    let catalog = resources.catalog();
    let gvr = GroupVersionResource::new("coordination.k8s.io", "v1", "leases");
    let Some(endpoint) = catalog.endpoint(&gvr) else { return Ok(Vec::new()) };
    let storage = endpoint.storage()?;
    let prefix = nave_resources::list_prefix(&endpoint.def, Some(IDENTITY_NAMESPACE));
    let mut leases = Vec::new();
    for object in storage.cacher().snapshot().range(&prefix.map_err(Status::internal)?, None) {
        let is_identity = object.attributes().label(IDENTITY_LABEL.0) == Some(IDENTITY_LABEL.1);
        if !is_identity || object.name() == own {
            continue;
        }
        let lease = storage.codec().parse_cached(object)?;
        if let Some(holder) = meta::str_at(&lease, &["spec", "holderIdentity"]) {
            leases.push(Lease { id: object.name().to_owned(), holder: holder.to_owned() });
        }
    }
    Ok(leases)
}
