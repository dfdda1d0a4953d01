//! The service `Lease`.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;

use super::Inner;
use super::error::EtcdError;
use crate::etcdserverpb as m;
use crate::grpc::server::{Messages, RequestStream};
use crate::grpc::{Status, frame};

/// Maximum time to live, in seconds (etcd: `lease.MaxLeaseTTL`).
const MAX_TTL: i64 = 9_000_000_000;
const MIN_TTL: i64 = 1;
/// Maximum number of leases.
const LEASES: usize = 100_000;

impl Inner {
    pub(super) async fn grant_lease(
        &self,
        request: m::LeaseGrantRequest,
    ) -> Result<m::LeaseGrantResponse, Status> {
        if request.ttl > MAX_TTL {
            return Err(EtcdError::LeaseTtlTooLarge.into());
        }
        if self.store.lease_count() >= LEASES {
            return Err(EtcdError::TooManyRequests.into());
        }
        let ttl = request.ttl.max(MIN_TTL);
        let id = if request.id == 0 { random_id() } else { request.id };
        if !self.store.grant_lease(id, Duration::from_secs(ttl.unsigned_abs())).await? {
            return Err(EtcdError::LeaseExists.into());
        }
        Ok(m::LeaseGrantResponse {
            header: Some(self.current_header().await?),
            id,
            ttl,
            error: String::new(),
        })
    }

    pub(super) async fn revoke_lease(
        &self,
        request: m::LeaseRevokeRequest,
    ) -> Result<m::LeaseRevokeResponse, Status> {
        if self.store.lease(request.id).is_none() {
            return Err(EtcdError::LeaseNotFound.into());
        }
        self.store.revoke_lease(request.id).await?;
        Ok(m::LeaseRevokeResponse { header: Some(self.current_header().await?) })
    }

    /// Answers each request of the stream until the client ends it.
    pub(super) async fn keep_leases_alive(&self, mut requests: RequestStream, messages: Messages) {
        loop {
            let renewed = match requests.next::<m::LeaseKeepAliveRequest>().await {
                Ok(None) => return,
                Ok(Some(m::LeaseKeepAliveRequest { id })) => self.renew(id).await,
                Err(status) => Err(status),
            };
            let is_last = renewed.is_err();
            let sent = messages.send(renewed.map(|response| frame(&response))).await;
            if is_last || sent.is_err() {
                return;
            }
        }
    }

    async fn renew(&self, id: i64) -> Result<m::LeaseKeepAliveResponse, Status> {
        let ttl = self.store.renew_lease(id).map_or(0, seconds);
        Ok(m::LeaseKeepAliveResponse { header: Some(self.current_header().await?), id, ttl })
    }

    pub(super) async fn lease_time_to_live(
        &self,
        request: m::LeaseTimeToLiveRequest,
    ) -> Result<m::LeaseTimeToLiveResponse, Status> {
        let header = Some(self.current_header().await?);
        let id = request.id;
        let Some(lease) = self.store.lease(id) else {
            return Ok(m::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() });
        };
        let keys = lease.keys.iter().filter(|_| request.keys);
        Ok(m::LeaseTimeToLiveResponse {
            header,
            id,
            ttl: seconds(lease.remaining),
            granted_ttl: seconds(lease.ttl),
            keys: keys.map(|key| Bytes::copy_from_slice(key.as_bytes())).collect(),
        })
    }

    pub(super) async fn list_leases(
        &self,
        _: m::LeaseLeasesRequest,
    ) -> Result<m::LeaseLeasesResponse, Status> {
        let leases = self.store.leases().into_iter().map(|id| m::LeaseStatus { id }).collect();
        Ok(m::LeaseLeasesResponse { header: Some(self.current_header().await?), leases })
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Returns a positive number that is unlikely to be in use.
fn random_id() -> i64 {
    (RandomState::new().hash_one(0_u8) >> 1).max(1).cast_signed()
}
