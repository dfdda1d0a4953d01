//! The checks of requests before they run.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::error::EtcdError;
use crate::etcdserverpb as m;

/// Maximum length of a key, in bytes: the engine's limit.
const MAX_KEY: usize = 4096;
/// Maximum number of comparisons or operations of a transaction (etcd's default of `--max-txn-ops`).
const MAX_OPERATIONS: usize = 128;

/// The keys that a branch of a transaction writes.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    /// Starts and ends of the deleted ranges.
    deletes: Vec<(Bytes, Bytes)>,
}

impl Writes {
    fn put(&mut self, key: Bytes) -> Result<(), EtcdError> {
        if self.puts.insert(key) { Ok(()) } else { Err(EtcdError::DuplicateKey) }
    }
}

pub(super) fn range(request: &m::RangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    let is_known = m::SortOrder::try_from(request.sort_order).is_ok()
        && m::SortTarget::try_from(request.sort_target).is_ok();
    if is_known { Ok(()) } else { Err(EtcdError::InvalidSortOption) }
}

pub(super) fn put(request: &m::PutRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() {
        return Err(EtcdError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(EtcdError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(EtcdError::LeaseProvided);
    }
    if request.key.len() > MAX_KEY {
        return Err(EtcdError::RequestTooLarge);
    }
    if std::str::from_utf8(&request.key).is_err() {
        return Err(EtcdError::InvalidKey);
    }
    Ok(())
}

pub(super) fn delete_range(request: &m::DeleteRangeRequest) -> Result<(), EtcdError> {
    if request.key.is_empty() { Err(EtcdError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction. No key is put twice, or put and deleted, in one branch.
pub(super) fn txn(request: &m::TxnRequest) -> Result<(), EtcdError> {
    operations(request, MAX_OPERATIONS)?;
    writes(&request.success)?;
    writes(&request.failure).map(drop)
}

/// Checks the operations. Each level of nesting has the rest of the limit.
fn operations(request: &m::TxnRequest, limit: usize) -> Result<(), EtcdError> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    let rest = limit.checked_sub(count).ok_or(EtcdError::TooManyOperations)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(EtcdError::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(m::Request::Range(request)) => range(request)?,
            Some(m::Request::Put(request)) => put(request)?,
            Some(m::Request::DeleteRange(request)) => delete_range(request)?,
            Some(m::Request::Txn(request)) => operations(request, rest)?,
            // An unknown operation has no key.
            None => return Err(EtcdError::KeyNotFound),
        }
    }
    Ok(())
}

/// Collects the writes of a branch. The two branches of a nested transaction may write the same keys.
fn writes(branch: &[m::RequestOp]) -> Result<Writes, EtcdError> {
    let mut all = Writes::default();
    for operation in branch {
        match &operation.request {
            Some(m::Request::Put(request)) => all.put(request.key.clone())?,
            Some(m::Request::DeleteRange(request)) => {
                all.deletes.push((request.key.clone(), request.range_end.clone()));
            }
            Some(m::Request::Txn(request)) => {
                let (mut nested, failure) = (writes(&request.success)?, writes(&request.failure)?);
                nested.puts.extend(failure.puts);
                for key in nested.puts {
                    all.put(key)?;
                }
                all.deletes.extend(nested.deletes.into_iter().chain(failure.deletes));
            }
            _ => {}
        }
    }
    let is_put = |(start, end): &(Bytes, Bytes)| match &**end {
        [] => all.puts.contains(start),
        [0] => all.puts.range(start.clone()..).next().is_some(),
        end => all.puts.range(start.clone()..).next().is_some_and(|key| &**key < end),
    };
    if all.deletes.iter().any(is_put) { Err(EtcdError::DuplicateKey) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_of(key: &'static str) -> m::RequestOp {
        let put = m::PutRequest { key: key.into(), ..Default::default() };
        m::RequestOp { request: Some(m::Request::Put(put)) }
    }

    fn delete(key: &'static str, range_end: &'static str) -> m::RequestOp {
        let delete = m::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
        m::RequestOp { request: Some(m::Request::DeleteRange(delete)) }
    }

    fn nested(success: Vec<m::RequestOp>, failure: Vec<m::RequestOp>) -> m::RequestOp {
        let txn = m::TxnRequest { success, failure, ..Default::default() };
        m::RequestOp { request: Some(m::Request::Txn(txn)) }
    }

    #[test]
    fn rejects_duplicate_writes() {
        let duplicate = Err(EtcdError::DuplicateKey);
        for (branch, expected) in [
            (vec![put_of("a"), put_of("b")], Ok(())),
            (vec![put_of("a"), put_of("a")], duplicate),
            (vec![put_of("a"), delete("a", "")], duplicate),
            (vec![put_of("b"), delete("a", "b")], Ok(())),
            (vec![put_of("b"), delete("a", "c")], duplicate),
            (vec![put_of("b"), delete("a", "\0")], duplicate),
            (vec![delete("a", "c"), delete("a", "c")], Ok(())),
            (vec![nested(vec![put_of("a")], vec![put_of("a")])], Ok(())),
            (vec![put_of("a"), nested(vec![], vec![put_of("a")])], duplicate),
            (vec![nested(vec![put_of("a"), put_of("a")], vec![])], duplicate),
            (vec![put_of("a"), nested(vec![], vec![delete("a", "")])], duplicate),
        ] {
            let request = m::TxnRequest { success: branch, ..Default::default() };
            assert_eq!(txn(&request), expected, "{request:?}");
        }
    }

    #[test]
    fn limits_operations_over_all_levels() {
        let many = |count| vec![delete("a", ""); count];
        for (success, expected) in [
            (many(128), Ok(())),
            (many(129), Err(EtcdError::TooManyOperations)),
            (vec![nested(many(127), vec![])], Ok(())),
            (vec![nested(many(128), vec![])], Err(EtcdError::TooManyOperations)),
        ] {
            assert_eq!(txn(&m::TxnRequest { success, ..Default::default() }), expected);
        }
    }

    #[test]
    fn rejects_incomplete_and_contradicting_requests() {
        let default = m::PutRequest { key: "a".into(), ..Default::default() };
        for (request, expected) in [
            (m::PutRequest { key: "".into(), ..default.clone() }, EtcdError::EmptyKey),
            (
                m::PutRequest { value: "v".into(), ignore_value: true, ..default.clone() },
                EtcdError::ValueProvided,
            ),
            (m::PutRequest { lease: 1, ignore_lease: true, ..default.clone() }, EtcdError::LeaseProvided),
            (m::PutRequest { key: b"\xff"[..].into(), ..default.clone() }, EtcdError::InvalidKey),
            (m::PutRequest { key: vec![b'a'; 4097].into(), ..default.clone() }, EtcdError::RequestTooLarge),
        ] {
            assert_eq!(put(&request), Err(expected));
        }
        let unsorted = m::RangeRequest { key: "a".into(), sort_order: 3, ..Default::default() };
        assert_eq!(range(&unsorted), Err(EtcdError::InvalidSortOption));
    }
}
