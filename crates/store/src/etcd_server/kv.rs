//! The service `KV`: reads and writes of keys.

use std::cmp::Ordering;

use bytes::Bytes;

use super::error::EtcdError;
use super::txn::{self, Program};
use super::{Inner, check, from_wire, header, to_wire};
use crate::embedded::{Content, Entry, Found, KeyRange, Query};
use crate::etcdserverpb as m;
use crate::grpc::Status;
use crate::{Store, StoreError};

impl Inner {
    pub(super) async fn range(&self, request: m::RangeRequest) -> Result<m::RangeResponse, Status> {
        check::range(&request)?;
        let found = self.store.query(query(&request)).await?;
        Ok(range_response(&request, found))
    }

    pub(super) async fn put(&self, request: m::PutRequest) -> Result<m::PutResponse, Status> {
        check::put(&request)?;
        self.write(move |transaction| txn::put(transaction, &request)).await
    }

    pub(super) async fn delete_range(
        &self,
        request: m::DeleteRangeRequest,
    ) -> Result<m::DeleteRangeResponse, Status> {
        check::delete_range(&request)?;
        self.write(move |transaction| Program::new(transaction).delete_range(&request)).await
    }

    pub(super) async fn txn(&self, request: m::TxnRequest) -> Result<m::TxnResponse, Status> {
        check::txn(&request)?;
        self.write(move |transaction| Program::new(transaction).run(&request)).await
    }

    pub(super) async fn compact(
        &self,
        request: m::CompactionRequest,
    ) -> Result<m::CompactionResponse, Status> {
        self.store.compact(from_wire(request.revision).unwrap_or_default()).await?;
        Ok(m::CompactionResponse { header: Some(self.current_header().await?) })
    }

    pub(super) async fn current_header(&self) -> Result<m::ResponseHeader, StoreError> {
        Ok(header(self.store.current_revision().await?))
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut crate::embedded::Transaction<'_>) -> Result<Result<T, EtcdError>, StoreError>
        + Send
        + 'static,
    ) -> Result<T, Status> {
        Ok(self.store.transact(work).await??)
    }
}

/// Returns the query of a request. Sorting and filtering need all keys.
pub(super) fn query(request: &m::RangeRequest) -> Query {
    let limit = match usize::try_from(request.limit).unwrap_or_default() {
        _ if needs_all(request) => 0,
        // As in etcd: a target without an order sorts the first keys, and one more than the limit.
        limit if limit > 0 && has_target(request) => limit.saturating_add(1),
        limit => limit,
    };
    let content = match (request.count_only, request.keys_only) {
        (true, _) => Content::CountOnly,
        // Sorting by value needs the values.
        (_, true) if request.sort_target() != m::SortTarget::Value => Content::KeysOnly,
        _ => Content::Full,
    };
    let range = KeyRange::new(&request.key, &request.range_end);
    Query { range, revision: from_wire(request.revision), limit, content }
}

pub(super) fn range_response(request: &m::RangeRequest, found: Found) -> m::RangeResponse {
    let Found { mut entries, count, revision } = found;
    let mut more = !request.count_only && (entries.len() as u64) < count;
    if needs_all(request) || has_target(request) {
        entries.retain(|entry| is_selected(request, entry));
        sort(request, &mut entries);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        more = entries.len() > limit;
        entries.truncate(limit);
    }
    let kvs = entries.into_iter().map(|mut entry| {
        if request.keys_only {
            entry.kv.value = Bytes::new();
        }
        stored_key(entry)
    });
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    m::RangeResponse { header: Some(header(revision)), kvs: kvs.collect(), more, count }
}

pub(super) fn stored_key(entry: Entry) -> m::StoredKey {
    m::StoredKey {
        key: Bytes::copy_from_slice(entry.kv.key.as_bytes()),
        value: entry.kv.value,
        create_revision: to_wire(entry.lineage.create_revision),
        mod_revision: to_wire(entry.kv.mod_revision),
        version: to_wire(entry.lineage.version),
        lease: entry.lease,
    }
}

fn needs_all(request: &m::RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    request.sort_order() != m::SortOrder::None || bounds.iter().any(|bound| *bound != 0)
}

/// Returns whether the response is sorted by something else than the key.
fn has_target(request: &m::RangeRequest) -> bool {
    request.sort_target() != m::SortTarget::Key
}

fn is_selected(request: &m::RangeRequest, entry: &Entry) -> bool {
    let is_between = |revision: u64, min: i64, max: i64| {
        let revision = to_wire(revision);
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    is_between(entry.kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && is_between(entry.lineage.create_revision, request.min_create_revision, request.max_create_revision)
}

/// Sorts entries, which are in key order. A target other than the key is sorted in ascending order by default.
fn sort(request: &m::RangeRequest, entries: &mut [Entry]) {
    let compare: fn(&Entry, &Entry) -> Ordering = match request.sort_target() {
        m::SortTarget::Key => |one, other| one.kv.key.cmp(&other.kv.key),
        m::SortTarget::Version => |one, other| one.lineage.version.cmp(&other.lineage.version),
        m::SortTarget::Create => |one, other| one.lineage.create_revision.cmp(&other.lineage.create_revision),
        m::SortTarget::Mod => |one, other| one.kv.mod_revision.cmp(&other.kv.mod_revision),
        m::SortTarget::Value => |one, other| one.kv.value.cmp(&other.kv.value),
    };
    match request.sort_order() {
        m::SortOrder::Descend => entries.sort_by(|one, other| compare(other, one)),
        _ => entries.sort_by(compare),
    }
}
