//! Transactions, on the writer's thread.

use bytes::Bytes;

use super::error::EtcdError;
use super::kv::{query, range_response, stored_key};
use super::{from_wire, header, to_wire};
use crate::StoreError;
use crate::embedded::{Content, Entry, KeyRange, MAX_WRITES, Query, Transaction};
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

/// A transaction with what it may still read.
pub(super) struct Program<'a, 'b> {
    transaction: &'a mut Transaction<'b>,
    /// Number of keys that it has read.
    read: u64,
}

impl<'a, 'b> Program<'a, 'b> {
    pub(super) fn new(transaction: &'a mut Transaction<'b>) -> Self {
        Self { transaction, read: 0 }
    }

    /// Compares, checks the operations of the chosen branches, and runs them. As in etcd, nested comparisons and all
    /// checks see the state before the transaction.
    pub(super) fn run(&mut self, request: &m::TxnRequest) -> Done<m::TxnResponse> {
        let mut chosen = Chosen::default();
        accepted!(self.choose(request, &mut chosen));
        for put in &chosen.puts {
            accepted!(check_put(self.transaction, put));
        }
        for range in &chosen.ranges {
            if from_wire(range.revision).is_some_and(|revision| revision > self.transaction.revision()) {
                return Ok(Err(EtcdError::FutureRevision));
            }
        }
        self.run_branch(request, &mut chosen.branches.into_iter())
    }

    /// Evaluates the comparisons of a transaction and of those nested in the chosen branch.
    fn choose<'r>(&mut self, request: &'r m::TxnRequest, chosen: &mut Chosen<'r>) -> Done<()> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = succeeded && accepted!(self.holds(compare));
        }
        chosen.branches.push(succeeded);
        for operation in branch(request, succeeded) {
            match &operation.request {
                Some(m::Request::Put(put)) => chosen.puts.push(put),
                Some(m::Request::Range(range)) => chosen.ranges.push(range),
                // The checks have limited the depth.
                Some(m::Request::Txn(nested)) => accepted!(self.choose(nested, chosen)),
                Some(m::Request::DeleteRange(_)) | None => {}
            }
        }
        Ok(Ok(()))
    }

    fn run_branch(
        &mut self,
        request: &m::TxnRequest,
        branches: &mut impl Iterator<Item = bool>,
    ) -> Done<m::TxnResponse> {
        let succeeded = branches.next().unwrap_or_default();
        let mut responses = Vec::new();
        for operation in branch(request, succeeded) {
            let response = match &operation.request {
                Some(m::Request::Range(request)) => m::Response::Range(accepted!(self.range(request))),
                Some(m::Request::Put(request)) => m::Response::Put(accepted!(put(self.transaction, request))),
                Some(m::Request::DeleteRange(request)) => {
                    m::Response::DeleteRange(accepted!(self.delete_range(request)))
                }
                Some(m::Request::Txn(request)) => {
                    // As in etcd, the headers of nested transactions are empty.
                    let header = Some(m::ResponseHeader::default());
                    let nested = accepted!(self.run_branch(request, branches));
                    m::Response::Txn(m::TxnResponse { header, ..nested })
                }
                None => return Ok(Err(EtcdError::KeyNotFound)),
            };
            responses.push(m::ResponseOp { response: Some(response) });
        }
        Ok(Ok(m::TxnResponse { header: Some(self.header()), succeeded, responses }))
    }

    /// Deletes the keys of a range, if they are not too many: other writes wait meanwhile.
    pub(super) fn delete_range(&mut self, request: &m::DeleteRangeRequest) -> Done<m::DeleteRangeResponse> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let left = MAX_WRITES.saturating_sub(self.transaction.written());
        let keys = self.transaction.keys(&range, left.saturating_add(1));
        if keys.len() > left {
            return Ok(Err(EtcdError::RequestTooLarge));
        }
        let mut prev_kvs = Vec::new();
        if request.prev_kv {
            let query = Query { range, revision: None, limit: 0, content: Content::Full };
            accepted!(self.spend(&query));
            prev_kvs.extend(self.transaction.query(&query)?.entries.into_iter().map(stored_key));
        }
        for key in &keys {
            self.transaction.delete(key);
        }
        let deleted = i64::try_from(keys.len()).unwrap_or(i64::MAX);
        Ok(Ok(m::DeleteRangeResponse { header: Some(self.header()), deleted, prev_kvs }))
    }

    fn range(&mut self, request: &m::RangeRequest) -> Done<m::RangeResponse> {
        accepted!(self.spend(&query(request)));
        match self.transaction.query(&query(request)) {
            // A revision that cannot be read refuses the whole transaction.
            Err(StoreError::Compacted { .. }) => Ok(Err(EtcdError::Compacted)),
            Err(StoreError::FutureRevision { .. }) => Ok(Err(EtcdError::FutureRevision)),
            found => Ok(Ok(range_response(request, found?))),
        }
    }

    /// Returns whether a comparison holds for all keys of its range. An absent key has revisions and a version of 0, and
    /// no value.
    fn holds(&mut self, compare: &m::Compare) -> Done<bool> {
        let is_value = compare.target() == m::CompareTarget::Value;
        let content = if is_value { Content::Full } else { Content::KeysOnly };
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let query = Query { range, revision: None, limit: 0, content };
        accepted!(self.spend(&query));
        let found = self.transaction.query(&query)?;
        if found.entries.is_empty() {
            return Ok(Ok(!is_value && holds_for(compare, None)));
        }
        Ok(Ok(found.entries.iter().all(|entry| holds_for(compare, Some(entry)))))
    }

    /// Refuses a read of very many keys: all writes wait for a transaction. Reads outside of transactions have no limit.
    fn spend(&mut self, query: &Query) -> Done<()> {
        if query.content == Content::CountOnly {
            return Ok(Ok(()));
        }
        let count = match self.transaction.query(&Query { content: Content::CountOnly, ..query.clone() }) {
            // The read itself reports the revision.
            Err(StoreError::Compacted { .. } | StoreError::FutureRevision { .. }) => return Ok(Ok(())),
            found => found?.count,
        };
        self.read += if query.limit == 0 { count } else { count.min(query.limit as u64) };
        Ok(if self.read > MAX_READ { Err(EtcdError::RequestTooLarge) } else { Ok(()) })
    }

    fn header(&self) -> m::ResponseHeader {
        header(self.transaction.revision())
    }
}

/// The branches that the comparisons of a transaction choose, outer before inner, and their operations.
#[derive(Default)]
struct Chosen<'r> {
    branches: Vec<bool>,
    puts: Vec<&'r m::PutRequest>,
    ranges: Vec<&'r m::RangeRequest>,
}

fn branch(request: &m::TxnRequest, succeeded: bool) -> &[m::RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}

pub(super) fn put(transaction: &mut Transaction<'_>, request: &m::PutRequest) -> Done<m::PutResponse> {
    // In a transaction, the lease is checked after the key.
    if request.lease != 0 && !transaction.has_lease(request.lease) {
        return Ok(Err(EtcdError::LeaseNotFound));
    }
    let previous = accepted!(check_put(transaction, request));
    let Ok(key) = std::str::from_utf8(&request.key) else { return Ok(Err(EtcdError::InvalidKey)) };
    let (mut value, mut lease) = (request.value.clone(), request.lease);
    if let Some(previous) = &previous {
        if request.ignore_value {
            value = previous.kv.value.clone();
        }
        if request.ignore_lease {
            lease = previous.lease;
        }
    }
    if transaction.written() == MAX_WRITES {
        return Ok(Err(EtcdError::RequestTooLarge));
    }
    transaction.put(key, value, lease);
    let prev_kv = previous.filter(|_| request.prev_kv).map(stored_key);
    Ok(Ok(m::PutResponse { header: Some(header(transaction.revision())), prev_kv }))
}

/// Checks a put against the stored state; returns the previous version if the put needs it.
fn check_put(transaction: &Transaction<'_>, request: &m::PutRequest) -> Done<Option<Entry>> {
    let Ok(key) = std::str::from_utf8(&request.key) else { return Ok(Err(EtcdError::InvalidKey)) };
    let keeps = request.ignore_value || request.ignore_lease;
    let previous = if keeps || request.prev_kv { transaction.get(key)? } else { None };
    if keeps && previous.is_none() {
        return Ok(Err(EtcdError::KeyNotFound));
    }
    if request.lease != 0 && !transaction.has_lease(request.lease) {
        return Ok(Err(EtcdError::LeaseNotFound));
    }
    Ok(Ok(previous))
}

/// Maximum number of keys that the ranges and comparisons of a transaction read.
const MAX_READ: u64 = 10_000;

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
