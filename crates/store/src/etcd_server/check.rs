//! The checks of requests before they run.

use std::collections::{BTreeMap, BTreeSet};

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
    deletes: Ranges,
}

impl Writes {
    fn put(&mut self, key: Bytes) -> Result<(), EtcdError> {
        let is_new = !self.deletes.contains(&key) && self.puts.insert(key);
        if is_new { Ok(()) } else { Err(EtcdError::DuplicateKey) }
    }
}

/// Ranges of keys, joined where they touch: the end by the start. The end `None` is the end of all keys.
#[derive(Default)]
struct Ranges(BTreeMap<Bytes, Option<Bytes>>);

impl Ranges {
    /// Adds a range of a request.
    fn add_wire(&mut self, start: &Bytes, end: &Bytes) {
        match &**end {
            [] => self.add(start.clone(), Some([start.as_ref(), b"\0"].concat().into())),
            [0] => self.add(start.clone(), None),
            _ => self.add(start.clone(), Some(end.clone())),
        }
    }

    fn add(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        if end.as_ref().is_some_and(|end| *end <= start) {
            return;
        }
        let is_past = |end: &Option<Bytes>, key: &Bytes| end.as_ref().is_none_or(|end| end >= key);
        if let Some((before, _)) =
            self.0.range::<Bytes, _>(..=&start).next_back().filter(|(_, end)| is_past(end, &start))
        {
            start = before.clone();
        }
        let within = |next: &Bytes| end.as_ref().is_none_or(|end| next <= end);
        let joined: Vec<Bytes> =
            self.0.range::<Bytes, _>(&start..).map(|(next, _)| next.clone()).take_while(within).collect();
        for other in joined {
            let Some(other) = self.0.remove(&other) else { continue };
            end = end.zip(other).map(|(one, other)| one.max(other));
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &Bytes) -> bool {
        let before = self.0.range::<Bytes, _>(..=key).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    fn extend(&mut self, others: Self) {
        for (start, end) in others.0 {
            self.add(start, end);
        }
    }

    /// Returns whether a range contains one of these keys.
    fn contains_any(&self, keys: &BTreeSet<Bytes>) -> bool {
        self.0.iter().any(|(start, end)| {
            keys.range::<Bytes, _>(start..).next().is_some_and(|key| end.as_ref().is_none_or(|end| key < end))
        })
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

/// Collects the writes of a branch (etcd: `checkIntervals`). One branch of a nested transaction may put what the other
/// one puts or deletes.
fn writes(branch: &[m::RequestOp]) -> Result<Writes, EtcdError> {
    let mut all = Writes::default();
    let requests = || branch.iter().filter_map(|operation| operation.request.as_ref());
    for request in requests() {
        if let m::Request::DeleteRange(delete) = request {
            all.deletes.add_wire(&delete.key, &delete.range_end);
        }
    }
    for request in requests() {
        let m::Request::Txn(nested) = request else { continue };
        let (success, failure) = (writes(&nested.success)?, writes(&nested.failure)?);
        // etcd lets a transaction put a key and a later one delete it, with two events at one revision.
        if success.deletes.contains_any(&all.puts) || failure.deletes.contains_any(&all.puts) {
            return Err(EtcdError::DuplicateKey);
        }
        success.puts.union(&failure.puts).try_for_each(|key| all.put(key.clone()))?;
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for request in requests() {
        if let m::Request::Put(put) = request {
            all.put(put.key.clone())?;
        }
    }
    Ok(all)
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
            (vec![nested(vec![put_of("a")], vec![delete("a", "")])], Ok(())),
            (vec![nested(vec![put_of("a")], vec![delete("a", "")]), put_of("a")], duplicate),
            (vec![nested(vec![put_of("a")], vec![delete("a", "")]), delete("a", "")], duplicate),
            (vec![nested(vec![delete("a", "")], vec![]), nested(vec![put_of("a")], vec![])], duplicate),
            (vec![nested(vec![put_of("a")], vec![]), nested(vec![delete("a", "")], vec![])], duplicate),
            (vec![nested(vec![put_of("a")], vec![]), nested(vec![], vec![put_of("a")])], duplicate),
            (vec![nested(vec![nested(vec![put_of("a")], vec![])], vec![delete("a", "c")])], Ok(())),
            (vec![delete("a", "b"), delete("b", "c"), delete("d", "e"), put_of("c")], Ok(())),
            (vec![delete("a", "c"), delete("b", "d"), put_of("c")], duplicate),
            (vec![delete("c", "d"), delete("a", "\0"), put_of("e")], duplicate),
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
