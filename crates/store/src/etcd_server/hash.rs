//! Hashes of the stored keys, by which operators compare stores (`etcdctl endpoint hashkv`).
//!
//! They cover the keys, values, revisions and leases of one revision, so a store and its restored snapshot have the same
//! hash. Those of etcd cover its rows, and are other numbers.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Inner, from_wire, header, to_wire};
use crate::Store;
use crate::embedded::{Content, KeyRange, Query};
use crate::etcdserverpb as m;
use crate::grpc::Status;

impl Inner {
    pub(super) async fn hash(&self, _: m::HashRequest) -> Result<m::HashResponse, Status> {
        let (hash, revision) = self.hash_at(None).await?;
        Ok(m::HashResponse { header: Some(header(revision)), hash })
    }

    pub(super) async fn hash_kv(&self, request: m::HashKvRequest) -> Result<m::HashKvResponse, Status> {
        let (hash, revision) = self.hash_at(from_wire(request.revision)).await?;
        Ok(m::HashKvResponse {
            header: Some(self.current_header().await?),
            hash,
            compact_revision: to_wire(self.store.compacted_revision().await?),
            hash_revision: to_wire(revision),
        })
    }

    /// Returns the hash of all keys at a revision, and the revision. Reads page by page, one caller at a time.
    async fn hash_at(&self, revision: Option<u64>) -> Result<(u32, u64), Status> {
        let _permit = self.hashes.acquire().await.map_err(|_| super::error::EtcdError::Stopped)?;
        let revision = match revision {
            Some(revision) => revision,
            None => self.store.current_revision().await?,
        };
        let (mut digest, mut start) = (Sha256::new(), Bytes::from_static(b"\0"));
        loop {
            let range = KeyRange::new(&start, b"\0");
            let query = Query { range, revision: Some(revision), limit: PAGE, content: Content::Full };
            let page = self.store.query(query).await?.entries;
            for entry in &page {
                for part in [entry.kv.key.as_bytes(), &entry.kv.value] {
                    digest.update((part.len() as u64).to_be_bytes());
                    digest.update(part);
                }
                for number in [entry.kv.mod_revision, entry.lineage.create_revision, entry.lineage.version] {
                    digest.update(number.to_be_bytes());
                }
                digest.update(entry.lease.to_be_bytes());
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
            // The smallest key after the last one.
            start = [last.kv.key.as_bytes(), b"\0"].concat().into();
        }
        let hash = digest.finalize();
        Ok((u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]), revision))
    }
}

/// Number of keys that are read at a time.
const PAGE: usize = 1000;
