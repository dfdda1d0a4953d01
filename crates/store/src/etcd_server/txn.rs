//! Transactions, on the writer's thread.

use bytes::Bytes;

use super::error::EtcdError;
use super::kv::{query, range_response, stored_key};
use super::{header, to_wire};
use crate::StoreError;
use crate::embedded::{Content, Entry, KeyRange, Query, Transaction};
use crate::etcdserverpb as m;

/// A response, a refusal that writes nothing, or an error of the engine.
pub(super) type Done<T> = Result<Result<T, EtcdError>, StoreError>;

/// Returns early if a nested operation is refused.
macro_rules! accepted {
    ($done:expr) => {
        match $done? {
            Ok(response) => response,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}

/// Compares, and runs the operations of the branch.
pub(super) fn run(transaction: &mut Transaction<'_>, request: m::TxnRequest) -> Done<m::TxnResponse> {
    let mut succeeded = true;
    for compare in &request.compare {
        succeeded = succeeded && accepted!(holds(transaction, compare));
    }
    let branch = if succeeded { request.success } else { request.failure };
    let mut responses = Vec::with_capacity(branch.len());
    for operation in branch {
        let response = match operation.request {
            Some(m::Request::Range(request)) => {
                accepted!(check_extent(transaction, &query(&request)));
                let found = match transaction.query(&query(&request)) {
                    // A revision that cannot be read refuses the whole transaction.
                    Err(StoreError::Compacted { .. }) => return Ok(Err(EtcdError::Compacted)),
                    Err(StoreError::FutureRevision { .. }) => return Ok(Err(EtcdError::FutureRevision)),
                    found => found?,
                };
                m::Response::Range(range_response(&request, found))
            }
            Some(m::Request::Put(request)) => m::Response::Put(accepted!(put(transaction, request))),
            Some(m::Request::DeleteRange(request)) => {
                m::Response::DeleteRange(accepted!(delete_range(transaction, &request)))
            }
            // The checks have limited the depth.
            Some(m::Request::Txn(request)) => m::Response::Txn(accepted!(run(transaction, request))),
            None => return Ok(Err(EtcdError::KeyNotFound)),
        };
        responses.push(m::ResponseOp { response: Some(response) });
    }
    Ok(Ok(m::TxnResponse { header: Some(header(transaction.revision())), succeeded, responses }))
}

pub(super) fn put(transaction: &mut Transaction<'_>, request: m::PutRequest) -> Done<m::PutResponse> {
    let Ok(key) = std::str::from_utf8(&request.key) else { return Ok(Err(EtcdError::InvalidKey)) };
    let keeps = request.ignore_value || request.ignore_lease;
    let previous = if keeps || request.prev_kv { transaction.get(key)? } else { None };
    if keeps && previous.is_none() {
        return Ok(Err(EtcdError::KeyNotFound));
    }
    let (mut value, mut lease) = (request.value, request.lease);
    if let Some(previous) = &previous {
        if request.ignore_value {
            value = previous.kv.value.clone();
        }
        if request.ignore_lease {
            lease = previous.lease;
        }
    }
    if lease != 0 && !transaction.has_lease(lease) {
        return Ok(Err(EtcdError::LeaseNotFound));
    }
    transaction.put(key, value, lease);
    let prev_kv = previous.filter(|_| request.prev_kv).map(stored_key);
    Ok(Ok(m::PutResponse { header: Some(header(transaction.revision())), prev_kv }))
}

pub(super) fn delete_range(
    transaction: &mut Transaction<'_>,
    request: &m::DeleteRangeRequest,
) -> Done<m::DeleteRangeResponse> {
    let content = if request.prev_kv { Content::Full } else { Content::KeysOnly };
    let range = KeyRange::new(&request.key, &request.range_end);
    let found = transaction.query(&Query { range, revision: None, limit: 0, content })?;
    for entry in &found.entries {
        transaction.delete(&entry.kv.key);
    }
    let deleted = i64::try_from(found.entries.len()).unwrap_or(i64::MAX);
    let prev_kvs =
        if request.prev_kv { found.entries.into_iter().map(stored_key).collect() } else { Vec::new() };
    Ok(Ok(m::DeleteRangeResponse { header: Some(header(transaction.revision())), deleted, prev_kvs }))
}

/// Refuses a read of very many keys: all writes wait for a transaction. Reads outside of transactions have no limit.
fn check_extent(transaction: &Transaction<'_>, query: &Query) -> Done<()> {
    if query.content == Content::CountOnly {
        return Ok(Ok(()));
    }
    let count = match transaction.query(&Query { content: Content::CountOnly, ..query.clone() }) {
        // The read itself reports the revision.
        Err(StoreError::Compacted { .. } | StoreError::FutureRevision { .. }) => return Ok(Ok(())),
        found => found?.count,
    };
    let read = if query.limit == 0 { count } else { count.min(query.limit as u64) };
    Ok(if read > MAX_READ { Err(EtcdError::RequestTooLarge) } else { Ok(()) })
}

/// Maximum number of keys that one range or comparison of a transaction reads.
const MAX_READ: u64 = 10_000;

/// Returns whether a comparison holds for all keys of its range. An absent key has revisions and a version of 0, and no
/// value.
fn holds(transaction: &Transaction<'_>, compare: &m::Compare) -> Done<bool> {
    let is_value = compare.target() == m::CompareTarget::Value;
    let content = if is_value { Content::Full } else { Content::KeysOnly };
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let query = Query { range, revision: None, limit: 0, content };
    accepted!(check_extent(transaction, &query));
    let found = transaction.query(&query)?;
    if found.entries.is_empty() {
        return Ok(Ok(!is_value && holds_for(compare, None)));
    }
    Ok(Ok(found.entries.iter().all(|entry| holds_for(compare, Some(entry)))))
}

fn holds_for(compare: &m::Compare, entry: Option<&Entry>) -> bool {
    let number = |read: fn(&Entry) -> i64| entry.map_or(0, read);
    let target = compare.target_union.as_ref();
    let ordering = match compare.target() {
        m::CompareTarget::Value => {
            let wanted =
                if let Some(m::TargetUnion::Value(value)) = target { value.clone() } else { Bytes::new() };
            entry.map(|entry| entry.kv.value.clone()).unwrap_or_default().cmp(&wanted)
        }
        m::CompareTarget::Version => {
            let wanted = if let Some(m::TargetUnion::Version(version)) = target { *version } else { 0 };
            number(|entry| to_wire(entry.lineage.version)).cmp(&wanted)
        }
        m::CompareTarget::Create => {
            let wanted =
                if let Some(m::TargetUnion::CreateRevision(revision)) = target { *revision } else { 0 };
            number(|entry| to_wire(entry.lineage.create_revision)).cmp(&wanted)
        }
        m::CompareTarget::Mod => {
            let wanted = if let Some(m::TargetUnion::ModRevision(revision)) = target { *revision } else { 0 };
            number(|entry| to_wire(entry.kv.mod_revision)).cmp(&wanted)
        }
        m::CompareTarget::Lease => {
            let wanted = if let Some(m::TargetUnion::Lease(lease)) = target { *lease } else { 0 };
            number(|entry| entry.lease).cmp(&wanted)
        }
    };
    match compare.result() {
        m::CompareResult::Equal => ordering.is_eq(),
        m::CompareResult::Greater => ordering.is_gt(),
        m::CompareResult::Less => ordering.is_lt(),
        m::CompareResult::NotEqual => ordering.is_ne(),
    }
}
