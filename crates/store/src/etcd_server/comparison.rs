//! The same requests to this server and to etcd: both give the same answers and the same events. Transactions are not
//! nested yet (`DEPTH`).

use std::fmt::Debug;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use prost::Message;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::tests::{next, serve};
use crate::contract::{EtcdProcess, installed_etcd};
use crate::etcdserverpb as m;
use crate::grpc::{CallError, Connection, MessageSender, MessageStream, Status};

const KEYS: [&str; 6] = ["a", "a1", "a2", "b", "b1", "c"];
const LEASES: [i64; 2] = [7, 8];
const STEPS: usize = 250;
/// Levels of nested transactions: a branch has one at most, since what several may put and delete differs.
const DEPTH: u32 = 0;

/// Connections to this server and to etcd.
struct Both {
    connections: [Connection; 2],
    /// Each with the sender that keeps it open.
    watches: [(MessageSender, MessageStream); 2],
    /// The first revision of the watches. The first event has revision 2.
    from: i64,
    random: Random,
    revision: i64,
    compacted: i64,
    _folder: TempDir,
    _process: EtcdProcess,
}

impl Both {
    async fn start(seed: u64) -> Self {
        let process = EtcdProcess::start(&installed_etcd("3.5"));
        let folder = tempfile::tempdir().unwrap();
        let own = format!("http://{}", serve(folder.path(), None).await);
        let mut connections = Vec::new();
        for url in [own, process.url()] {
            let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
            connections.push(Connection::open(TokioIo::new(stream), url).await.unwrap());
        }
        let connections: [Connection; 2] = connections.try_into().ok().unwrap();
        let watches = [watch(&connections[0], 2).await, watch(&connections[1], 2).await];
        let random = Random(seed);
        Self {
            connections,
            watches,
            from: 2,
            random,
            revision: 1,
            compacted: 0,
            _folder: folder,
            _process: process,
        }
    }

    /// Sends a request to both; returns the answer.
    async fn call<Out: Message + Default + PartialEq + Debug>(
        &mut self,
        method: &str,
        request: &(impl Message + Debug),
        header: impl Fn(&mut Out) -> &mut Option<m::ResponseHeader>,
    ) -> Option<Out> {
        let path = format!("/etcdserverpb.{method}");
        let mut answers = Vec::new();
        for connection in &self.connections {
            let answer: Result<Out, CallError> = connection.call(&path, request).await;
            answers.push(match answer {
                Ok(mut response) => {
                    without_ids(header(&mut response));
                    Ok(response)
                }
                Err(CallError::Status(Status { message, .. })) => Err(message),
                Err(other) => panic!("{other}"),
            });
        }
        let etcd = answers.pop().unwrap();
        assert_eq!(answers.pop().unwrap(), etcd, "{method} {request:?}");
        let mut response = etcd.ok()?;
        let revision = header(&mut response).as_ref().unwrap().revision;
        self.revision = self.revision.max(revision);
        Some(response)
    }

    async fn step(&mut self) {
        match self.random.below(20) {
            0..10 => {
                let request = self.txn(DEPTH);
                self.call("KV/Txn", &request, |response: &mut m::TxnResponse| normalized(response)).await;
            }
            10..12 => {
                let request = self.put();
                self.call("KV/Put", &request, |response: &mut m::PutResponse| &mut response.header).await;
            }
            12 => {
                let request = self.delete();
                self.call("KV/DeleteRange", &request, |response: &mut m::DeleteRangeResponse| {
                    &mut response.header
                })
                .await;
            }
            13..17 => {
                let request = self.range();
                self.call("KV/Range", &request, |response: &mut m::RangeResponse| &mut response.header).await;
            }
            17 => {
                let request = m::LeaseGrantRequest { ttl: 10_000, id: self.lease() };
                self.call("Lease/LeaseGrant", &request, |response: &mut m::LeaseGrantResponse| {
                    &mut response.header
                })
                .await;
            }
            18 => {
                let request = m::LeaseRevokeRequest { id: self.lease() };
                self.call("Lease/LeaseRevoke", &request, |response: &mut m::LeaseRevokeResponse| {
                    &mut response.header
                })
                .await;
            }
            _ => {
                self.compare_watches().await;
                if self.random.below(4) == 0 && self.revision > self.compacted {
                    let revision = self.within(self.compacted + 1);
                    let request = m::CompactionRequest { revision };
                    let compacted = self
                        .call("KV/Compact", &request, |response: &mut m::CompactionResponse| {
                            &mut response.header
                        })
                        .await;
                    if compacted.is_some() {
                        self.compacted = revision;
                    }
                }
                // Resumes at a revision.
                let from = self.within(self.compacted.max(1) + 1);
                self.from = from;
                self.watches =
                    [watch(&self.connections[0], from).await, watch(&self.connections[1], from).await];
            }
        }
    }

    /// Reads the watches up to the current revision and compares their events.
    async fn compare_watches(&mut self) {
        let mut all = Vec::new();
        let revision = self.revision;
        if self.from > revision {
            return;
        }
        for (_, messages) in &mut self.watches {
            let mut events: Vec<m::StoredEvent> = Vec::new();
            while events.last().is_none_or(|last| mod_revision(last) < revision) {
                let mut response = next(messages).await;
                assert!(!response.canceled, "{response:?}");
                if let (Some(last), Some(first)) = (events.last(), response.events.first()) {
                    assert!(mod_revision(last) < mod_revision(first), "a revision is split");
                }
                events.append(&mut response.events);
            }
            all.push(events);
        }
        let etcd = all.pop().unwrap();
        assert_eq!(all.pop().unwrap(), etcd);
    }

    /// Returns a transaction with at most `depth` levels of nested ones.
    fn txn(&mut self, depth: u32) -> m::TxnRequest {
        let compare = (0..self.random.below(2)).map(|_| self.compare()).collect();
        let (success, failure) = (self.branch(depth), self.branch(depth));
        m::TxnRequest { compare, success, failure }
    }

    fn branch(&mut self, depth: u32) -> Vec<m::RequestOp> {
        let mut branch: Vec<_> = (0..self.random.below(5)).map(|_| self.operation()).collect();
        if depth > 0 && self.random.below(3) == 0 {
            let nested = m::RequestOp { request: Some(m::Request::Txn(self.txn(depth - 1))) };
            let place = self.random.below(branch.len() as u64 + 1) as usize;
            branch.insert(place, nested);
        }
        branch
    }

    fn operation(&mut self) -> m::RequestOp {
        let request = match self.random.below(8) {
            0..4 => m::Request::Put(self.put()),
            4..6 => m::Request::DeleteRange(self.delete()),
            _ => m::Request::Range(self.range()),
        };
        m::RequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> m::Compare {
        let number = self.random.below(4).cast_signed();
        let (target, union) = match self.random.below(4) {
            0 => (m::CompareTarget::Version, m::TargetUnion::Version(number)),
            1 => (m::CompareTarget::Mod, m::TargetUnion::ModRevision(self.revision - number)),
            2 => (m::CompareTarget::Create, m::TargetUnion::CreateRevision(self.revision - number)),
            _ => (m::CompareTarget::Value, m::TargetUnion::Value(self.value())),
        };
        let result = [m::CompareResult::Equal, m::CompareResult::Less, m::CompareResult::Greater];
        let (key, range_end) =
            if self.random.below(4) == 0 { ("a", Bytes::from("b")) } else { (self.key(), Bytes::new()) };
        m::Compare {
            key: key.into(),
            target: target.into(),
            result: result[self.random.below(3) as usize].into(),
            target_union: Some(union),
            range_end,
        }
    }

    fn put(&mut self) -> m::PutRequest {
        let ignore_value = self.random.below(12) == 0;
        m::PutRequest {
            key: self.key().into(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            lease: if self.random.below(4) == 0 { self.lease() } else { 0 },
            prev_kv: self.random.below(2) == 0,
            ignore_value,
            ignore_lease: self.random.below(12) == 0,
        }
    }

    fn delete(&mut self) -> m::DeleteRangeRequest {
        let (key, range_end) =
            if self.random.below(3) == 0 { ("a", Bytes::from("b1")) } else { (self.key(), Bytes::new()) };
        m::DeleteRangeRequest { key: key.into(), range_end, prev_kv: self.random.below(2) == 0 }
    }

    fn range(&mut self) -> m::RangeRequest {
        let revision = if self.random.below(2) == 0 {
            0
        } else {
            self.within(1) + 1 - self.random.below(2).cast_signed()
        };
        m::RangeRequest {
            key: self.key().into(),
            range_end: if self.random.below(3) == 0 { Bytes::new() } else { "d".into() },
            limit: self.random.below(3).cast_signed(),
            revision,
            count_only: self.random.below(8) == 0,
            keys_only: self.random.below(4) == 0,
            sort_order: self.random.below(3) as i32,
            sort_target: [m::SortTarget::Key, m::SortTarget::Mod][self.random.below(2) as usize].into(),
            ..Default::default()
        }
    }

    /// Returns a revision from `first` to the current one.
    fn within(&mut self, first: i64) -> i64 {
        first + self.random.below((self.revision + 1 - first).max(1).cast_unsigned()).cast_signed()
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.random.below(KEYS.len() as u64) as usize]
    }

    fn value(&mut self) -> Bytes {
        self.random.below(3).to_string().into()
    }

    fn lease(&mut self) -> i64 {
        LEASES[self.random.below(2) as usize]
    }
}

/// Watches all keys from a revision on.
async fn watch(connection: &Connection, from: i64) -> (MessageSender, MessageStream) {
    let create = m::WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: from,
        prev_kv: true,
        ..Default::default()
    };
    let request = m::WatchRequest { request: Some(m::WatchRequestUnion::Create(create)) };
    connection.open_stream("/etcdserverpb.Watch/Watch", &[], &request).await.unwrap()
}

fn mod_revision(event: &m::StoredEvent) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

fn without_ids(header: &mut Option<m::ResponseHeader>) {
    let revision = header.as_ref().map_or(0, |header| header.revision);
    *header = Some(m::ResponseHeader { revision, ..Default::default() });
}

/// Removes the identifiers in a transaction's answers.
fn normalized(response: &mut m::TxnResponse) -> &mut Option<m::ResponseHeader> {
    for operation in &mut response.responses {
        match operation.response.as_mut().unwrap() {
            m::Response::Range(response) => without_ids(&mut response.header),
            m::Response::Put(response) => without_ids(&mut response.header),
            m::Response::DeleteRange(response) => without_ids(&mut response.header),
            m::Response::Txn(response) => {
                normalized(response);
            }
        }
    }
    &mut response.header
}

/// A generator of numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[tokio::test]
async fn answers_and_events_are_those_of_etcd() {
    for seed in [0x5eed_2026, 0x5eed_2027] {
        println!("seed {seed:#x}");
        let mut both = Both::start(seed).await;
        for _ in 0..STEPS {
            both.step().await;
        }
        both.compare_watches().await;
    }
}
