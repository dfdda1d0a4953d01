//! The services `Maintenance` and `Cluster`.

use std::path::PathBuf;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::error::EtcdError;
use super::{Inner, MEMBER, RAFT_TERM, VERSION, header};
use crate::embedded::maintenance::store_file;
use crate::etcdserverpb as m;
use crate::grpc::server::Messages;
use crate::grpc::{Status, frame};
use crate::{Store, StoreError};

/// Size of the parts of a snapshot, in bytes.
const PART: usize = 64 << 10;

/// A copy of the store, which is removed when dropped.
struct Copy {
    folder: PathBuf,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "copy of the store cannot be removed");
        }
    }
}

impl Inner {
    pub(super) async fn status(&self, _: m::StatusRequest) -> Result<m::StatusResponse, Status> {
        let status = self.store.status().await?;
        let size = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let errors =
            if status.no_space { vec![format!("memberID:{MEMBER} alarm:NOSPACE ")] } else { Vec::new() };
        Ok(m::StatusResponse {
            header: Some(header(status.revision)),
            version: VERSION.to_owned(),
            db_size: size(status.size_on_disk),
            db_size_in_use: size(status.size_in_use),
            leader: MEMBER,
            raft_index: status.revision,
            raft_applied_index: status.revision,
            raft_term: RAFT_TERM,
            errors,
            storage_version: VERSION.to_owned(),
        })
    }

    /// Lists the alarm that the disk is full. Alarms end on their own.
    pub(super) async fn alarm(&self, request: m::AlarmRequest) -> Result<m::AlarmResponse, Status> {
        let status = self.store.status().await?;
        let is_listed = request.action == 0 && status.no_space;
        let alarm = m::AlarmMember { member_id: MEMBER, alarm: m::AlarmType::Nospace.into() };
        let alarms = if is_listed { vec![alarm] } else { Vec::new() };
        Ok(m::AlarmResponse { header: Some(header(status.revision)), alarms })
    }

    /// Does nothing, because the engine reuses free space.
    pub(super) async fn defragment(&self, _: m::DefragmentRequest) -> Result<m::DefragmentResponse, Status> {
        Ok(m::DefragmentResponse { header: Some(self.current_header().await?) })
    }

    pub(super) async fn list_members(
        &self,
        _: m::MemberListRequest,
    ) -> Result<m::MemberListResponse, Status> {
        let member = m::Member {
            id: MEMBER,
            name: self.options.name.clone(),
            peer_urls: Vec::new(),
            client_urls: self.options.client_urls.clone(),
        };
        Ok(m::MemberListResponse { header: Some(self.current_header().await?), members: vec![member] })
    }

    /// Sends a copy of the store's file, followed by its SHA-256.
    pub(super) async fn snapshot(&self, messages: Messages) {
        if let Err(status) = self.send_snapshot(&messages).await {
            // The client has stopped waiting.
            let _ = messages.send(Err(status)).await;
        }
    }

    async fn send_snapshot(&self, messages: &Messages) -> Result<(), Status> {
        let _permit = self.snapshots.acquire().await.map_err(|_| EtcdError::Stopped)?;
        let copy = Copy { folder: self.options.snapshot_folder.join("snapshot-in-progress") };
        // An interrupted process may have left it.
        if copy.folder.exists() {
            std::fs::remove_dir_all(&copy.folder).map_err(StoreError::from)?;
        }
        self.store.snapshot(&copy.folder).await?;
        let mut file = File::open(store_file(&copy.folder)).await.map_err(StoreError::from)?;
        let size = file.metadata().await.map_err(StoreError::from)?.len();
        let header = Some(self.current_header().await?);
        let mut digest = Sha256::new();
        let mut remaining = size + <Sha256 as Digest>::output_size() as u64;
        let mut part = |blob: Bytes| {
            remaining = remaining.saturating_sub(blob.len() as u64);
            let version = VERSION.to_owned();
            frame(&m::SnapshotResponse { header, remaining_bytes: remaining, blob, version })
        };
        loop {
            let mut blob = Vec::with_capacity(PART);
            let read = (&mut file).take(PART as u64).read_to_end(&mut blob).await;
            if read.map_err(StoreError::from)? == 0 {
                break;
            }
            digest.update(&blob);
            if messages.send(Ok(part(blob.into()))).await.is_err() {
                return Ok(());
            }
        }
        let checksum = Bytes::copy_from_slice(&digest.finalize());
        // The client has stopped waiting.
        let _ = messages.send(Ok(part(checksum))).await;
        Ok(())
    }
}
