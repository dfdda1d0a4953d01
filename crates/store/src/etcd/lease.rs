//! Leases for times to live. Keys with about the same time to live share a lease, because a lease is much more expensive
//! for etcd than a key (kube-apiserver: `storage/etcd3/lease_manager.go`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Client;
use super::endpoints::Effect;
use crate::StoreError;
use crate::etcdserverpb as m;

/// Grants leases.
pub(super) struct Leases {
    client: Arc<Client>,
    reuse: Duration,
    /// The latest lease of each time to live in seconds.
    latest: Mutex<BTreeMap<u64, Lease>>,
}

struct Lease {
    id: i64,
    /// The end of the time in which the lease outlives a key that is written now.
    usable_until: Instant,
    keys: u32,
}

impl Leases {
    pub(super) fn new(client: Arc<Client>, reuse: Duration) -> Self {
        Self { client, reuse, latest: Mutex::default() }
    }

    /// Returns a lease that ends after `ttl` or a little later.
    pub(super) async fn lease_for(&self, ttl: Duration) -> Result<i64, StoreError> {
        let seconds = (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1);
        let mut latest = self.latest.lock().await;
        let now = Instant::now();
        if let Some(lease) = latest.get_mut(&seconds)
            && now < lease.usable_until
            && lease.keys < MAX_KEYS
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        latest.retain(|_, lease| now < lease.usable_until);
        let reuse = self.reuse_of(seconds);
        let ttl = i64::try_from(seconds + reuse).unwrap_or(i64::MAX);
        let request = m::LeaseGrantRequest { ttl, id: 0 };
        // A lease without keys expires, so it does no harm to ask again.
        let granted: m::LeaseGrantResponse =
            self.client.endpoints.call(LEASE_GRANT, &request, Effect::Read).await?;
        if !granted.error.is_empty() {
            return Err(StoreError::Rejected(granted.error.into()));
        }
        let lease = Lease { id: granted.id, usable_until: now + Duration::from_secs(reuse), keys: 1 };
        latest.insert(seconds, lease);
        Ok(granted.id)
    }

    /// Stops using a lease.
    pub(super) fn forget(&self, lease: i64) {
        if let Ok(mut latest) = self.latest.try_lock() {
            latest.retain(|_, known| known.id != lease);
        }
    }

    /// Returns the time for which a lease is reused, in seconds: at most a twentieth of the time to live.
    fn reuse_of(&self, seconds: u64) -> u64 {
        (seconds / 20).min(self.reuse.as_secs())
    }
}

const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
/// The end of a lease deletes all its keys in one transaction.
const MAX_KEYS: u32 = 1000;
